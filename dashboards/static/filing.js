// The form with which people file a ticket. The API says what is missing or wrong, field by field; nothing is stored before.
import { h } from "./glyph.js";
import { language, own, say } from "./words.js";

const TYPES = ["repair", "emergency_stop", "maintenance", "inspection", "part_request"];

export function showFiling(place, { machines, machine, close, filed }) {
  const numbers = h("datalist", { id: "numbers" }, machines.map((one) => h("option", { value: one.number }, own(one.name))));
  const inputs = {
    equipment_number: h("input", { name: "equipment_number", list: "numbers", autocomplete: "off", autocapitalize: "characters", spellcheck: "false" }),
    fault_description: h("textarea", { name: "fault_description", rows: "4" }),
    type: h("select", { name: "type" }, TYPES.map((type) => h("option", { value: type }, say(`type.${type}`)))),
    priority: h("select", { name: "priority" }, ["normal", "high", "low"].map((one) => h("option", { value: one }, say(`priority.${one}`)))),
    contact_phone: h("input", { name: "contact_phone", type: "tel", autocomplete: "tel" }),
    region: h("input", { name: "region", autocomplete: "off" }),
  };
  const remedies = Object.fromEntries(Object.keys(inputs).map((name) => [name, h("span", { class: "problem", id: `remedy-${name}`, role: "alert" })]));
  const problem = h("p", { class: "problem", role: "alert" });
  const known = (number) => machines.find((one) => one.number === number.trim());
  const fillIn = () => {
    const one = known(inputs.equipment_number.value);
    if (one && !inputs.region.value) inputs.region.value = one.region;
  };
  inputs.equipment_number.value = machine?.number ?? "";
  inputs.contact_phone.value = localStorage.getItem("fettle.phone") ?? "";
  inputs.equipment_number.addEventListener("change", fillIn);
  fillIn();
  const form = h("form", {
    novalidate: true,
    onsubmit: async (event) => {
      event.preventDefault();
      problem.textContent = "";
      for (const [name, input] of Object.entries(inputs)) {
        remedies[name].textContent = "";
        input.removeAttribute("aria-invalid");
      }
      const given = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value]));
      if (given.type === "emergency_stop") delete given.priority;
      try {
        const answer = await fetch("/api/v1/tickets", {
          method: "POST",
          headers: { "Content-Type": "application/json", "Accept-Language": language(), "Idempotency-Key": form.dataset.key },
          body: JSON.stringify({ ...given, channel: "board" }),
        });
        const body = await answer.json().catch(() => ({}));
        if (answer.ok) {
          localStorage.setItem("fettle.phone", given.contact_phone);
          filed(body);
          return;
        }
        form.dataset.key = newKey();
        for (const one of body.errors ?? []) {
          if (!remedies[one.field]) continue;
          remedies[one.field].textContent = one.remedy;
          inputs[one.field].setAttribute("aria-invalid", "true");
        }
        form.querySelector("[aria-invalid]")?.focus();
        if (!body.errors?.length) problem.textContent = body.detail ?? say("no_connection");
      } catch {
        problem.textContent = say("no_connection");
      }
    },
  }, ...Object.entries(inputs).map(([name, input]) => {
    input.setAttribute("aria-describedby", `remedy-${name}`);
    return h("label", { class: ["type", "priority"].includes(name) ? "half" : null }, h("span", {}, say(`field.${name}`)), input, remedies[name]);
  }), numbers, problem, h("div", { class: "line" },
    h("button", { type: "submit", class: "tool main" }, say("file")),
    h("button", { type: "button", class: "tool", onclick: close }, say("back"))));
  form.dataset.key = newKey();
  place.dataset.shown = "filing";
  place.replaceChildren(
    h("header", {}, h("div", {}, h("h2", {}, say("file")), h("p", { class: "where" }, say("file_hint"))),
      h("button", { type: "button", class: "tool close", "aria-label": say("close_panel"), onclick: close }, "✕")),
    h("section", { class: "actions filing" }, form));
  place.hidden = false;
  (machine ? inputs.fault_description : inputs.equipment_number).focus();
}

function newKey() {
  return `board-${Date.now()}-${Math.random()}`;
}
