// Words in the reader's language. The table comes from the server, which uses the same one for evidence.
let table = { en: {}, zh: {} };
let current = document.documentElement.lang === "zh" ? "zh" : "en";

const asked = new URLSearchParams(location.search).get("lang");
const kept = localStorage.getItem("fettle.language");
if (asked === "en" || asked === "zh") current = asked;
else if (kept === "en" || kept === "zh") current = kept;
document.documentElement.lang = current;

export async function loadWords() {
  table = await (await fetch("/board/words.json")).json();
}

export function language() {
  return current;
}

export function locale() {
  return current === "zh" ? "zh-CN" : "en-GB";
}

export function setLanguage(value) {
  current = value;
  localStorage.setItem("fettle.language", value);
  document.documentElement.lang = value;
}

// say("ago", {time: "3 min"}) fills {time}; an unknown key reads as itself with blanks.
export function say(key, values = {}) {
  const text = table[current][key];
  if (text === undefined) return String(key.slice(key.indexOf(".") + 1)).replaceAll("_", " ");
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

export function applyWords(root) {
  for (const node of root.querySelectorAll("[data-words]")) node.textContent = say(node.dataset.words);
  for (const node of root.querySelectorAll("[data-label]")) node.setAttribute("aria-label", say(node.dataset.label));
  for (const node of root.querySelectorAll("[data-placeholder]")) {
    node.placeholder = say(node.dataset.placeholder);
    node.setAttribute("aria-label", say(node.dataset.placeholder));
  }
}

export function span(ms) {
  const minutes = Math.max(0, ms) / 60000;
  if (minutes < 1) return say("seconds", { n: Math.round(Math.max(0, ms) / 1000) });
  if (minutes < 60) return say("minutes", { n: Math.round(minutes) });
  if (minutes < 60 * 36) return say("hours", { n: Math.round(minutes / 60) });
  return say("days", { n: Math.round(minutes / 1440) });
}

export function moment(ms, withSeconds = false) {
  return new Date(ms).toLocaleString(locale(), {
    month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hour12: false,
    ...(withSeconds ? { second: "2-digit" } : {}),
  });
}

export function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : 2;
  return value.toFixed(digits);
}

export function ticketTitle(one) {
  return one.family ? say(`family.${one.family}`) : say(`type.${one.type}`);
}

// Names may be given in both tongues, "Cooling pump 3 3号冷却泵": show the reader's half, or all where there is one only.
export function own(text) {
  const words = (text ?? "").split(" ");
  const first = words.findIndex((word) => /[\u2e80-\u9fff]/.test(word));
  if (first <= 0) return text ?? "";
  return (current === "zh" ? words.slice(first) : words.slice(0, first)).join(" ");
}
