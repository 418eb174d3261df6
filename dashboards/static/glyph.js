// Small DOM builders, and one shape for each state so that nothing is told by colour alone.
const SVG = "http://www.w3.org/2000/svg";
const SHAPES = {
  well: ["M8 1.5a6.5 6.5 0 1 1 0 13a6.5 6.5 0 1 1 0-13z", "M5 8.2l2.2 2.2L11.2 6"],
  low: ["M8 1l7 7l-7 7l-7-7z", "M8 8v0.01"],
  medium: ["M8 1.2L15.3 14.3H.7z", "M8 6v4M8 12.2v0.01"],
  high: ["M5 1h6l4 4v6l-4 4H5l-4-4V5z", "M8 4.2v4.6M8 11.7v0.01"],
  silent: ["M8 1.5a6.5 6.5 0 1 1 0 13a6.5 6.5 0 1 1 0-13z", "M5 8h6"],
};

export function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "vars") for (const [key, given] of Object.entries(value)) node.style.setProperty(key, given);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return node;
}

export function glyph(state, title = "") {
  const node = document.createElementNS(SVG, "svg");
  node.setAttribute("viewBox", "0 0 16 16");
  node.setAttribute("class", `glyph is-${state}`);
  if (title) {
    node.setAttribute("role", "img");
    node.setAttribute("aria-label", title);
  } else node.setAttribute("aria-hidden", "true");
  const [outline, mark] = SHAPES[state] ?? SHAPES.silent;
  for (const [path, part] of [[outline, "body"], [mark, "mark"]]) {
    const drawn = document.createElementNS(SVG, "path");
    drawn.setAttribute("d", path);
    drawn.setAttribute("class", part);
    node.append(drawn);
  }
  return node;
}

// Replace the children of a place only if what is shown has changed; keep the focus on the same item.
export function fill(place, key, build) {
  if (place.dataset.shown === key) return;
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const top = place.scrollTop;
  place.replaceChildren(...[build()].flat().filter(Boolean));
  place.dataset.shown = key;
  place.scrollTop = top;
  if (focused) place.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}
