// The panel of one ticket: what is wrong, the evidence, its life so far, who goes and why.
import { fill, glyph, h } from "./glyph.js";
import { language, moment, own, say, span, ticketTitle } from "./words.js";

const ORDER = ["submitted", "pending_confirmation", "dispatched", "in_progress", "pending_acceptance", "closed"];

export function showTicket(place, ticket, { close, look, done, now }) {
  const minute = Math.floor(now / 60000);
  fill(place, JSON.stringify([ticket, minute, language()]), () => [
    h("header", { class: `is-${ticket.severity}` },
      h("div", {},
        h("p", { class: "number" }, ticket.number, h("span", { class: "pill" }, say(`state.${ticket.state}`))),
        h("h2", {}, glyph(ticket.severity), ticketTitle({ family: ticket.fault_family, type: ticket.type })),
        h("p", { class: "where" }, [ticket.equipment_number, own(ticket.machine), own(ticket.site), own(ticket.customer)].filter(Boolean).join(" · "))),
      h("button", { type: "button", class: "tool close", "data-key": "close", "aria-label": say("close_panel"), onclick: close }, "✕")),
    actions(ticket, done),
    facts(ticket, now),
    ticket.evidence ? evidence(ticket, look, now) : h("section", {}, h("h3", {}, say("description")), h("p", {}, ticket.fault_description)),
    assignments(ticket),
    life(ticket),
  ]);
}

// Buttons for what the reader may do; one with fields opens a small form in their place.
function actions(ticket, done) {
  if (!ticket.actions.length) return null;
  const place = h("section", { class: "actions", "aria-label": say("actions") });
  const problem = h("p", { class: "problem", role: "alert" });
  const send = async (action, given) => {
    problem.textContent = "";
    const headers = { "Content-Type": "application/json", "Accept-Language": language(), "Idempotency-Key": `board-${Date.now()}-${Math.random()}` };
    if (action.needs_version) headers["If-Match"] = `"${ticket.version}"`;
    const bare = !action.fields.length && !Object.keys(action.body).length && !action.path.endsWith("/offers");
    try {
      const answer = await fetch(action.path, { method: "POST", headers, ...(bare ? {} : { body: JSON.stringify({ ...action.body, ...given }) }) });
      if (answer.ok) {
        place.replaceChildren(h("p", { role: "status" }, say("done")));
        done();
        return;
      }
      const body = await answer.json().catch(() => ({}));
      problem.textContent = [body.detail, ...(body.errors ?? []).map((one) => one.remedy)].filter(Boolean).join(" ") || say("no_connection");
    } catch {
      problem.textContent = say("no_connection");
    }
  };
  const buttons = () => place.replaceChildren(...ticket.actions.map((action) => h("button", {
    type: "button", class: action.is_main ? "tool main" : "tool", "data-key": action.key, "data-action": action.key,
    onclick: () => (action.fields.length ? ask(action) : send(action, {})),
  }, say(`action.${action.key}`))), problem);
  const ask = (action) => {
    const form = h("form", {
      onsubmit: (event) => {
        event.preventDefault();
        const given = {};
        for (const one of action.fields) {
          const value = form.elements[one.name].value.trim();
          if (value || one.is_required) given[one.name] = one.kind === "number" || one.name === "satisfaction" ? Number(value) : value;
        }
        send(action, given);
      },
    }, action.fields.map(field), h("div", { class: "line" },
      h("button", { type: "submit", class: "tool main" }, say(`action.${action.key}`)),
      h("button", { type: "button", class: "tool", onclick: () => { problem.textContent = ""; buttons(); } }, say("back"))));
    place.replaceChildren(form, problem);
    form.elements[0].focus();
  };
  buttons();
  return place;
}

function field(one) {
  const shared = { name: one.name, required: one.is_required };
  const control = one.kind === "choice"
    ? h("select", shared, one.options.map((option) => h("option", { value: option }, one.name === "resolution" ? say(`resolution.${option}`) : option || "–")))
    : one.kind === "number"
      ? h("input", { ...shared, type: "number", min: "0", max: "999", step: "0.25", inputmode: "decimal" })
      : h("input", { ...shared, type: "text", maxlength: "2000", autocomplete: "off" });
  return h("label", {}, h("span", {}, say(one.label)), control);
}

function facts(ticket, now) {
  const entries = [
    [say("severity"), say(`severity.${ticket.severity}`)],
    [say("priority"), say(`priority.${ticket.priority}`)],
    [say("since"), `${moment(ticket.occurred_ms)} · ${span((ticket.closed_ms ?? now) - ticket.occurred_ms)}`],
    [say("filed"), `${moment(ticket.created_ms)} · ${say(`channel.${ticket.channel}`)}`],
    ticket.closed_ms ? [say("closed"), moment(ticket.closed_ms)] : null,
    ticket.resolution_code ? [say("resolution"), say(`resolution.${ticket.resolution_code}`)] : null,
  ].filter(Boolean);
  return h("dl", { class: "facts" }, entries.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function evidence(ticket, look, now) {
  const found = ticket.evidence;
  const window = found.window_ms ?? [ticket.occurred_ms - 86400000, ticket.closed_ms ?? now];
  return h("section", { class: "evidence" },
    h("h3", {}, say("evidence"), h("small", {}, say("seen_at", { time: moment(found.at_ms) }))),
    h("p", { class: "lead" }, found.headline || ticket.fault_description),
    found.confidence ? h("p", { class: "quiet" }, found.confidence) : null,
    found.rows.length ? h("ul", { class: "rows" }, found.rows.map((row) => h("li", {},
      h("div", { class: "line" }, h("b", {}, row.what), h("span", {}, row.measured ? `${row.measured} ${row.unit}` : row.why)),
      h("div", { class: "share", role: "img", "aria-label": say("share_of_score", { n: Math.round(row.share * 100) }), vars: { "--part": String(row.share) } }, h("i"), h("small", {}, `${Math.round(row.share * 100)} %`)),
      h("p", { class: "quiet" }, [
        row.expected ? say("expected", { value: `${row.expected}${row.band ? ` (${row.band})` : ""} ${row.unit}` }) : "",
        row.limit ? `${say("limit")} ${row.limit} ${row.unit}` : "",
        row.measured ? row.why : "", row.source,
      ].filter(Boolean).join(" · "))))) : null,
    found.zone ? h("p", { class: `zone is-zone-${found.zone.letter}`, title: found.zone.source }, zoneScale(found.zone.letter), h("span", {}, h("b", {}, found.zone.words), h("small", {}, found.zone.table))) : null,
    found.beside.length ? h("dl", { class: "facts" }, found.beside.map((fact) => h("div", {}, h("dt", {}, fact.name), h("dd", {}, fact.text)))) : null,
    found.checks.length ? h("div", {}, h("h4", {}, say("check_first")), h("ol", { class: "checks" }, found.checks.map((check) => h("li", {}, check)))) : null,
    h("p", { class: "quiet" }, [found.detector && say("found_by", { detector: say(`detector.${found.detector}`), version: found.model_version }), found.revisions > 1 ? say("revisions", { n: found.revisions }) : ""].filter(Boolean).join(" · ")),
    ticket.machine_id ? h("button", { type: "button", class: "tool", "data-key": "look", onclick: () => look(window[0], window[1], ticket.machine_id) }, say("show_window", { from: moment(window[0]), to: moment(window[1]) })) : null);
}

function zoneScale(letter) {
  return h("span", { class: "zones", "aria-hidden": "true" }, ["A", "B", "C", "D"].map((zone) => h("i", { class: zone === letter ? "here" : null }, zone)));
}

function assignments(ticket) {
  return h("section", {}, h("h3", {}, say("engineer")),
    ticket.assignments.length ? h("ul", { class: "assigned" }, ticket.assignments.map((one, i) => h("li", { class: i ? "is-past" : null },
      h("div", { class: "line" }, h("b", {}, own(one.engineer)), h("span", { class: "pill" }, say(`assignment.${one.status}`))),
      h("p", { class: "quiet" }, [moment(one.offered_ms), one.phone, one.expires_ms && one.status === "offered" ? say("answer_until", { time: moment(one.expires_ms) }) : ""].filter(Boolean).join(" · ")),
      one.reason.length ? h("ul", { class: "reasons" }, one.reason.map((sentence) => h("li", {}, sentence))) : null)))
      : h("p", { class: "quiet" }, ticket.dispatch_hold ? say(`hold.${ticket.dispatch_hold}`) : say("no_engineer_yet")));
}

function life(ticket) {
  const reached = ORDER.indexOf(ticket.state);
  const visited = new Set(["submitted", ...ticket.events.map((event) => event.to_state)]);
  return h("section", {}, h("h3", {}, say("life")),
    h("ol", { class: "steps", "aria-hidden": "true" }, ORDER.map((state, i) => h("li", { class: i === reached ? "here" : i > reached ? null : visited.has(state) ? "done" : "skipped" }, h("span", {}, say(`state.${state}`))))),
    h("ol", { class: "life" }, ticket.events.map((event) => h("li", { class: `is-${event.kind}` },
      h("time", {}, moment(event.at_ms)),
      h("div", {}, h("b", {}, event.to_state ? say(`state.${event.to_state}`) : say(`event.${event.kind}`)),
        h("span", { class: "quiet" }, [say(`actor.${event.actor}`), event.reason].filter(Boolean).join(" · ")))))));
}
