// The log-in page: sends the form as JSON, says what is wrong in the reader's language.
import { applyWords, language, loadWords, setLanguage, say } from "./words.js";

const form = document.getElementById("login");
const problem = document.getElementById("problem");
const switcher = document.getElementById("language");

function show() {
  applyWords(document);
  switcher.textContent = say("other_language");
  document.title = `${say("log_in")} · Fettle`;
}

// Where to go afterwards, if it is an address of this site. The browser reads it as it will when it goes there: it drops
// tabs and line breaks, and takes backslashes for slashes.
function ownAddress(wanted) {
  try {
    const url = new URL(wanted || "/board", location.origin);
    return url.origin === location.origin ? url.href : "/board";
  } catch {
    return "/board";
  }
}

await loadWords();
show();
switcher.addEventListener("click", () => {
  setLanguage(language() === "zh" ? "en" : "zh");
  problem.textContent = "";
  show();
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.textContent = "";
  const fields = Object.fromEntries(new FormData(form));
  let answer;
  try {
    answer = await fetch("/api/v1/login", {
      method: "POST",
      headers: { "Content-Type": "application/json", "Accept-Language": language() },
      body: JSON.stringify(fields),
    });
  } catch {
    problem.textContent = say("no_connection");
    return;
  }
  if (answer.ok) {
    location.replace(ownAddress(new URLSearchParams(location.search).get("next")));
    return;
  }
  const body = await answer.json().catch(() => ({}));
  problem.textContent = body.detail || say("no_connection");
  form.password.select();
});
