// The board: keeps what is chosen in the address, asks for data, draws the four parts. No state lives on the server.
import { TraceChart, GUTTER } from "./chart.js";
import { showTicket } from "./detail.js";
import { showFiling } from "./filing.js";
import { fill, glyph, h } from "./glyph.js";
import { applyWords, language, loadWords, moment, number, own, say, setLanguage, span, ticketTitle } from "./words.js";

const MINUTE = 60000;
const RANGES = { "15m": 15 * MINUTE, "1h": 60 * MINUTE, "6h": 360 * MINUTE, "24h": 1440 * MINUTE, "7d": 10080 * MINUTE, "30d": 43200 * MINUTE };
const HEALTH = ["high", "medium", "low", "silent", "well"];
const KINDS = ["vibration_velocity", "temperature", "current"];
const OVERVIEW_EVERY = 4000;

const at = (id) => document.getElementById(id);
const state = {
  machine: null, ticket: null, range: "6h", zoom: null, only: false, health: null, filter: "",
  overview: null, trace: null, charts: new Map(), skew: 0, anchored: null, offline: false,
};

function readAddress() {
  const asked = new URLSearchParams(location.search);
  state.machine = Number(asked.get("machine")) || null;
  state.ticket = asked.get("ticket");
  if (asked.get("range") in RANGES) [state.range, state.isRangeChosen] = [asked.get("range"), true];
  const [from, to] = (asked.get("zoom") ?? "").split("-").map(Number);
  state.zoom = from && to ? [from, to] : null;
}

function writeAddress() {
  const wanted = new URLSearchParams();
  if (state.machine) wanted.set("machine", state.machine);
  if (state.isRangeChosen) wanted.set("range", state.range);
  if (state.zoom) wanted.set("zoom", state.zoom.join("-"));
  if (state.ticket) wanted.set("ticket", state.ticket);
  history.replaceState(null, "", `/board?${wanted}`);
}

async function ask(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json", "Accept-Language": language() } });
  if (answer.status === 401) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
    return new Promise(() => {});
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(body.detail ?? answer.statusText), { status: answer.status });
  return body;
}

const now = () => Date.now() + state.skew;

// ------------------------------------------------------------------ the whole fleet

async function refreshOverview() {
  const body = await ask(`/board/data/overview?lang=${language()}`);
  state.skew = body.now_ms - Date.now();
  state.overview = body;
  if (!body.machines.some((one) => one.id === state.machine)) state.machine = mostUrgent(body);
  if (!state.isRangeChosen) state.range = rangeWithOnset(body);
  showOverview();
}

// Until someone chooses a range: the shortest that shows how the open faults of the machine began.
function rangeWithOnset(body) {
  const onsets = body.tickets.filter((one) => one.machine_id === state.machine && one.family).map((one) => one.occurred_ms);
  const age = onsets.length ? body.now_ms - Math.min(...onsets) : 0;
  return ["6h", "24h", "7d"].find((range) => age <= RANGES[range] * 0.7) ?? "30d";
}

function mostUrgent(body) {
  const named = state.ticket && body.tickets.find((one) => one.number === state.ticket);
  if (named?.machine_id) return named.machine_id;
  const ranked = [...body.machines].sort((a, b) => HEALTH.indexOf(a.health) - HEALTH.indexOf(b.health));
  return (ranked.find((one) => one.health !== "silent") ?? ranked[0])?.id ?? null;
}

function showOverview() {
  const { machines, tickets, tenant } = state.overview;
  at("tenant").textContent = own(tenant);
  at("who").textContent = own(state.overview.me.name);
  at("file").hidden = !state.overview.me.may_file;
  showSummary(machines);
  showFleet(machines);
  showTickets(tickets);
  showHead();
}

function showSummary(machines) {
  const counts = Object.fromEntries(HEALTH.map((health) => [health, machines.filter((one) => one.health === health).length]));
  fill(at("summary"), JSON.stringify([counts, state.health, language()]), () => HEALTH.filter((health) => counts[health] || health === "well" || health === "high").map((health) =>
    h("button", {
      type: "button", class: "chip", "data-key": health, "aria-pressed": String(state.health === health),
      onclick: () => { state.health = state.health === health ? null : health; showOverview(); openTab("fleet"); },
    }, glyph(health), h("b", {}, String(counts[health])), h("span", {}, say(`health.${health}`)))));
}

function showFleet(machines) {
  const needle = state.filter.trim().toLowerCase();
  const shown = machines.filter((one) => (!state.health || one.health === state.health)
    && (!needle || [one.number, one.name, one.site, one.site_name, one.line, one.customer].some((text) => text.toLowerCase().includes(needle))));
  at("fleet-count").textContent = shown.length === machines.length ? String(machines.length) : `${shown.length} / ${machines.length}`;
  const groups = new Map();
  const urgent = shown.filter((one) => one.open).sort((a, b) => HEALTH.indexOf(a.health) - HEALTH.indexOf(b.health));
  if (urgent.length) groups.set("", urgent);
  for (const one of shown) {
    if (one.open) continue;
    const key = `${one.site} ${one.line}`;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(one);
  }
  fill(at("machines"), JSON.stringify([shown, state.machine, language()]), () => {
    if (!machines.length) return h("p", { class: "empty" }, say("no_machines"));
    if (!shown.length) return h("p", { class: "empty" }, say("nothing_found"));
    return [...groups].map(([key, group]) => h("section", { class: "group" },
      key ? h("h3", {}, own(group[0].site_name) || group[0].site, group[0].line ? h("span", {}, own(group[0].line_name) || group[0].line) : null) : h("h3", {}, say("attention")),
      h("ul", {}, group.map(machineItem))));
  });
}

function machineItem(one) {
  const main = one.values.find((value) => value.kind === "vibration_velocity") ?? one.values[0];
  const word = say(`health.${one.health}`);
  return h("li", {}, h("button", {
    type: "button", class: `machine is-${one.health}`, "data-key": `m${one.id}`, "data-machine": String(one.id),
    "aria-current": one.id === state.machine ? "true" : null,
    title: [own(one.name), word, own(one.customer)].filter(Boolean).join(" · "),
    onclick: () => chooseMachine(one.id),
  }, glyph(one.health, word), h("span", { class: "name" }, h("b", {}, one.number), h("span", {}, own(one.name))),
  h("span", { class: "value" }, main && !one.is_silent ? [number(main.value), h("small", {}, main.unit)] : h("small", {}, one.newest_ms ? say("ago", { time: span(now() - one.newest_ms) }) : say("no_data"))),
  one.open ? h("span", { class: "badge", title: say("n_open", { n: one.open }) }, String(one.open)) : h("span")));
}

function chooseMachine(id) {
  if (state.machine !== id) state.zoom = null;
  state.machine = id;
  state.anchored = null;
  if (!state.isRangeChosen) state.range = rangeWithOnset(state.overview);
  if (state.ticket) closeTicket();
  writeAddress();
  openTab("traces");
  showOverview();
  refreshTrace().catch(failed);
}

function showTickets(tickets) {
  const shown = tickets.filter((one) => !state.only || one.machine_id === state.machine);
  at("ticket-count").textContent = String(shown.length);
  const minute = Math.floor(now() / MINUTE);
  fill(at("ticket-list"), JSON.stringify([shown, state.ticket, state.machine, minute, language()]), () => {
    if (!shown.length) return h("p", { class: "empty" }, glyph("well"), say("no_open_tickets"));
    return h("ul", {}, shown.map((one) => h("li", {}, h("button", {
      type: "button", class: `ticket is-${one.severity}`, "data-key": one.number, "data-ticket": one.number,
      "aria-current": one.number === state.ticket ? "true" : null,
      onclick: () => openTicket(one.number, one.machine_id),
    },
    h("span", { class: "line" }, glyph(one.severity), h("b", {}, ticketTitle(one)), h("span", { class: "pill" }, say(`state.${one.state}`))),
    h("span", { class: "where" }, one.machine ? `${one.equipment} · ${own(one.machine)}` : say("unknown_machine", { number: one.equipment })),
    h("span", { class: "headline" }, one.headline || one.description),
    h("span", { class: "foot" },
      h("span", { class: one.engineer ? "engineer" : "engineer is-none" }, own(one.engineer) || (one.hold ? say(`hold.${one.hold}`) : say("no_engineer"))),
      h("span", {}, `${say(`severity.${one.severity}`)} · ${say("ago", { time: span(now() - one.occurred_ms) })}`))))));
  });
}

// ------------------------------------------------------------------ one machine

function showHead() {
  const one = state.overview?.machines.find((machine) => machine.id === state.machine);
  fill(at("machine-head"), JSON.stringify([one, language()]), () => {
    if (!one) return h("p", { class: "empty" }, say("no_machines"));
    return [
      h("div", { class: "who" }, h("h2", {}, own(one.name)), h("p", {}, [one.number, one.class && say(`class.${one.class}`), own(one.site_name) || one.site, own(one.line_name) || one.line, own(one.customer)].filter(Boolean).join(" · "))),
      h("span", { class: `state is-${one.health}` }, glyph(one.health), say(`health.${one.health}`)),
    ];
  });
}

function showRanges() {
  fill(at("ranges"), JSON.stringify([state.range, state.zoom, language()]), () => Object.keys(RANGES).map((range) => h("button", {
    type: "button", "data-key": range, "aria-pressed": String(range === state.range && !state.zoom),
    onclick: () => { state.range = range; state.isRangeChosen = true; state.zoom = null; state.anchored = null; writeAddress(); showRanges(); refreshTrace().catch(failed); },
  }, say(`range.${range}`))));
  at("unzoom").hidden = !state.zoom;
  at("unzoom").textContent = `${say("back_to", { range: say(`range.${state.range}`) })}`;
}

function wantedRange() {
  if (state.zoom) return state.zoom;
  const to = state.anchored ?? now();
  return [Math.round(to - RANGES[state.range]), Math.round(to)];
}

let asked = 0;
async function refreshTrace() {
  if (!state.machine) return;
  const turn = ++asked;
  const [from, to] = wantedRange();
  const points = Math.max(200, Math.min(1200, at("charts").clientWidth || 800));
  const body = await ask(`/board/data/trace?machine=${state.machine}&from=${from}&to=${to}&points=${points}&lang=${language()}`);
  if (turn !== asked) return;
  state.trace = body;
  const isEmpty = body.sensors.every((one) => !one.at.length);
  if (isEmpty && body.newest_ms && !state.zoom && !state.anchored) {
    state.anchored = body.newest_ms + RANGES[state.range] * 0.02; // nothing lately: show the end of what there is
    await refreshTrace();
    return;
  }
  showTrace();
}

function showTrace() {
  const { sensors, tickets, from_ms: from, to_ms: to, step_ms: step, newest_ms: newest } = state.trace;
  showRanges();
  at("step").textContent = say("step", { time: span(step) });
  const notice = state.anchored && newest ? say("last_data", { time: moment(newest) }) : "";
  at("notice").textContent = notice;
  showLane(tickets, from, to);
  const kinds = [...new Set([...KINDS.filter((kind) => sensors.some((one) => one.kind === kind)), ...sensors.map((one) => one.kind)])];
  const groups = kinds.flatMap((kind) => [...new Set(sensors.filter((one) => one.kind === kind).map((one) => one.unit))].map((unit) => [kind, unit]));
  const wanted = groups.map(([kind, unit]) => `${kind} ${unit}`);
  if (wanted.join() !== [...state.charts.keys()].join()) {
    state.charts = new Map(wanted.map((key) => [key, state.charts.get(key) ?? new TraceChart({ hover, zoom, unzoom })]));
    at("charts").replaceChildren(...[...state.charts.values()].map((chart) => chart.element));
    if (!wanted.length) at("charts").replaceChildren(h("p", { class: "empty" }, say("no_sensors")));
  }
  for (const [kind, unit] of groups) {
    const series = sensors.filter((one) => one.kind === kind && one.unit === unit)
      .map((one) => ({ id: one.sensor_id, name: one.label || say(`kind.${kind}`), at: one.at, mean: one.mean, low: one.low, high: one.high }));
    const ids = new Set(series.map((one) => one.id));
    const known = tickets.flatMap((ticket) => ticket.limits.filter((limit) => ids.has(limit.sensor_id)).map((limit) => ({ ...limit, ticket })));
    const limits = new Map(known.filter((limit) => limit.limit !== undefined).map((limit) => [limit.limit, {
      value: limit.limit, label: `${say("limit")} ${number(limit.limit)} ${unit}`,
    }]));
    const bands = known.filter((limit) => limit.low !== undefined && limit.high !== undefined)
      .map((limit) => ({ low: limit.low, high: limit.high, from_ms: limit.ticket.from_ms, to_ms: limit.ticket.to_ms }));
    state.charts.get(`${kind} ${unit}`).set({
      title: say(`kind.${kind}`), unit, kind, series, from, to, step, tickets, limits: [...limits.values()], bands,
      reason: newest ? say("last_data", { time: moment(newest) }) : say("never_data"),
    });
  }
}

// Bars of the tickets over the time axis; a label that does not fit into its bar stands beside it, or is cut where neither side has room.
function showLane(tickets, from, to) {
  const lane = at("lane");
  const room = Math.max(200, lane.clientWidth - GUTTER.left - GUTTER.right);
  const share = (ms) => Math.min(1, Math.max(0, (ms - from) / (to - from)));
  const rows = [];
  const placed = tickets.map((one) => {
    const [left, right] = [share(one.from_ms) * room, share(one.to_ms ?? to) * room];
    const label = 46 + [...`${ticketTitle(one)}${one.number}${say(`state.${one.state}`)}`].reduce((sum, letter) => sum + (letter > "\u2e80" ? 13 : 7), 0);
    const side = right - left >= label ? "in" : left >= label ? "left" : room - right >= label ? "right" : "cut";
    const extent = [side === "left" ? left - label : left, side === "right" ? right + label : Math.max(right, left + 12)];
    let row = rows.findIndex((end) => end < extent[0]);
    if (row < 0) row = rows.length < 3 ? rows.push(0) - 1 : 2;
    rows[row] = extent[1];
    return { one, side, row };
  });
  fill(lane, JSON.stringify([tickets, from, to, room, state.ticket, language()]), () => placed.map(({ one, side, row }) => h("button", {
    type: "button", class: `mark is-${one.severity} is-${side}${one.to_ms ? " is-closed" : ""}`, "data-key": one.number, "data-mark": one.number,
    "aria-current": one.number === state.ticket ? "true" : null,
    title: `${one.number} · ${ticketTitle(one)} · ${moment(one.from_ms)}`,
    vars: { "--from": share(one.from_ms).toFixed(5), "--to": share(one.to_ms ?? to).toFixed(5), "--row": String(row) },
    onclick: () => openTicket(one.number, state.machine),
  }, h("span", {}, glyph(one.severity), h("b", {}, ticketTitle(one)), h("small", {}, `${one.number} · ${say(`state.${one.state}`)}`)))));
  lane.style.setProperty("--rows", String(rows.length));
  lane.style.setProperty("--left", `${GUTTER.left}px`);
  lane.style.setProperty("--right", `${GUTTER.right}px`);
}

function hover(ms, over) {
  for (const chart of state.charts.values()) chart.point(ms, chart === over);
}

function zoom(from, to) {
  state.zoom = [from, to];
  writeAddress();
  refreshTrace().catch(failed);
}

function unzoom() {
  state.zoom = null;
  writeAddress();
  refreshTrace().catch(failed);
}

// ------------------------------------------------------------------ one ticket

async function openTicket(number_, machine) {
  if (state.ticket !== number_) at("detail").dataset.shown = "";
  state.ticket = number_;
  if (machine && machine !== state.machine) {
    state.machine = machine;
    state.zoom = null;
    state.anchored = null;
    if (!state.isRangeChosen) state.range = rangeWithOnset(state.overview);
    refreshTrace().catch(failed);
  }
  writeAddress();
  openTab("tickets");
  if (state.overview) showOverview();
  await refreshTicket(true);
}

async function refreshTicket(isNew = false) {
  if (!state.ticket) return;
  const asked = state.ticket;
  try {
    const body = await ask(`/board/data/ticket/${encodeURIComponent(asked)}?lang=${language()}`);
    if (state.ticket !== asked) return;
    const isTyping = !isNew && at("detail").querySelector("form");
    if (!isTyping) showTicket(at("detail"), body, { close: closeTicket, look: lookAt, done: () => tick(true), now: now() });
  } catch (error) {
    if (error.status !== 404) throw error;
    fill(at("detail"), asked, () => h("p", { class: "empty" }, error.message));
  }
  at("detail").hidden = false;
  if (isNew) at("detail").focus({ preventScroll: true });
}

// The form takes the place of the ticket; it ends by opening the ticket it filed.
function fileTicket() {
  state.ticket = null;
  writeAddress();
  openTab("tickets");
  showFiling(at("detail"), {
    machines: state.overview?.machines ?? [],
    machine: state.overview?.machines.find((one) => one.id === state.machine),
    close: closeTicket,
    filed: async (ticket) => {
      await openTicket(ticket.number, ticket.machine_id);
      tick(true);
    },
  });
}

function closeTicket() {
  const last = state.ticket;
  state.ticket = null;
  at("detail").hidden = true;
  at("detail").dataset.shown = "";
  writeAddress();
  if (state.overview) showOverview();
  document.querySelector(`[data-ticket="${CSS.escape(last ?? "")}"]`)?.focus({ preventScroll: true });
}

function lookAt(from, to, machine) {
  if (machine) state.machine = machine;
  state.zoom = [Math.round(from), Math.round(Math.min(to, now()))];
  writeAddress();
  if (matchMedia("(max-width: 1099px)").matches) closeTicket();
  openTab("traces");
  refreshTrace().catch(failed);
}

// ------------------------------------------------------------------ the frame around it

function openTab(tab) {
  document.body.dataset.tab = tab;
  for (const button of document.querySelectorAll(".tabs button")) button.setAttribute("aria-current", String(button.dataset.tab === tab));
}

function showLive() {
  const live = at("live");
  live.className = state.offline ? "is-off" : "";
  const text = state.offline ? say("reconnecting") : say("live");
  if (live.lastElementChild.textContent !== text) live.lastElementChild.textContent = text;
}

function failed(error) {
  state.offline = error instanceof TypeError || error.status >= 500;
  showLive();
  if (!state.offline) at("notice").textContent = error.message;
}

function showFrame() {
  applyWords(document);
  at("language").textContent = say("other_language");
  const theme = document.documentElement.dataset.theme ?? "auto";
  at("theme").textContent = say(`theme.${theme}`);
  at("theme").setAttribute("aria-label", `${say("theme")}: ${say(`theme.${theme}`)}`);
  showLive();
  showRanges();
}

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  localStorage.setItem("fettle.theme", theme);
  showFrame();
  for (const chart of state.charts.values()) chart.draw();
}

function listen() {
  at("filter").addEventListener("input", (event) => { state.filter = event.target.value; showOverview(); });
  at("only").addEventListener("change", (event) => { state.only = event.target.checked; showOverview(); });
  at("file").addEventListener("click", fileTicket);
  at("unzoom").addEventListener("click", unzoom);
  at("language").addEventListener("click", () => {
    setLanguage(language() === "zh" ? "en" : "zh");
    showFrame();
    at("detail").dataset.shown = "";
    tick(true);
  });
  at("theme").addEventListener("click", () => {
    const order = ["auto", "light", "dark"];
    setTheme(order[(order.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % 3]);
  });
  at("logout").addEventListener("click", async () => {
    await fetch("/api/v1/logout", { method: "POST" });
    location.assign("/login");
  });
  for (const button of document.querySelectorAll(".tabs button")) button.addEventListener("click", () => openTab(button.dataset.tab));
  for (const place of [at("machines"), at("ticket-list")]) {
    place.addEventListener("keydown", (event) => {
      const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!move) return;
      const buttons = [...place.querySelectorAll("button")];
      buttons[buttons.indexOf(document.activeElement) + move]?.focus();
      event.preventDefault();
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !at("detail").hidden) closeTicket();
    if (event.key === "/" && !["INPUT", "TEXTAREA", "SELECT"].includes(document.activeElement?.tagName)) {
      openTab("fleet");
      at("filter").focus();
      event.preventDefault();
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => state.charts.forEach((chart) => chart.draw()));
  document.addEventListener("visibilitychange", () => { if (!document.hidden) tick(true); });
}

let lastTrace = 0;
let timer = 0;
async function tick(isForced = false) {
  clearTimeout(timer);
  if (!document.hidden || isForced) {
    try {
      await refreshOverview();
      const every = state.zoom ? 60000 : Math.max(OVERVIEW_EVERY, RANGES[state.range] / 1500);
      if (isForced || Date.now() - lastTrace >= every) {
        lastTrace = Date.now();
        await refreshTrace();
      }
      await refreshTicket(false);
      state.offline = false;
      showLive();
      document.body.dataset.ready = "true";
    } catch (error) {
      failed(error);
    }
  }
  clearTimeout(timer);
  timer = setTimeout(tick, OVERVIEW_EVERY);
}

const theme = localStorage.getItem("fettle.theme");
if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
readAddress();
await loadWords();
showFrame();
openTab(state.ticket ? "tickets" : "traces");
listen();
tick(true);
