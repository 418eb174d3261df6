// One time chart on canvas: mean line over the range of each step, gaps where nothing came, tickets as regions, limits as
// labelled dashed lines. Crisp at any pixel ratio; crosshair by mouse, finger and arrow keys; drag to look closer.
import { h } from "./glyph.js";
import { locale, number, say } from "./words.js";

export const GUTTER = { left: 44, right: 14, top: 10, bottom: 22 };
const MINUTE = 60000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const STEPS = [
  1000, 2000, 5000, 10000, 15000, 30000, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE,
  HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 28 * DAY, 91 * DAY,
];

// Instants for labels, on round local times.
export function timeTicks(from, to, room) {
  const step = STEPS.find((size) => (to - from) / size <= room) ?? STEPS.at(-1);
  const shift = new Date(from).getTimezoneOffset() * MINUTE;
  const ticks = [];
  for (let at = Math.ceil((from - shift) / step) * step + shift; at <= to; at += step) {
    const summer = (new Date(at).getTimezoneOffset() * MINUTE) - shift; // the clock was changed on the way
    ticks.push(step >= HOUR ? at + summer : at);
  }
  return { step, ticks };
}

export function timeLabel(at, step) {
  const date = new Date(at);
  if (step >= DAY || (date.getHours() === 0 && date.getMinutes() === 0 && step >= MINUTE)) {
    return date.toLocaleDateString(locale(), { month: "short", day: "numeric" });
  }
  const parts = { hour: "2-digit", minute: "2-digit", hour12: false };
  if (step < MINUTE) parts.second = "2-digit";
  return date.toLocaleTimeString(locale(), parts);
}

// Round values for an axis of about `room` labels, with the digits they need.
export function valueTicks(low, high, room) {
  const raw = (high - low) / Math.max(1, room);
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * size >= raw) * size;
  const digits = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9) + (Math.abs(step / size - 2.5) < 1e-9 ? 1 : 0));
  const ticks = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) ticks.push(value);
  return { ticks, digits };
}

function nearest(times, at) {
  let low = 0;
  let high = times.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (times[middle] < at) low = middle;
    else high = middle;
  }
  return Math.abs(times[low] - at) <= Math.abs(times[high] - at) ? low : high;
}

function medianStep(times) {
  const steps = [];
  for (let i = Math.max(1, times.length - 200); i < times.length; i++) steps.push(times[i] - times[i - 1]);
  return steps.sort((a, b) => a - b)[steps.length >> 1] ?? 0;
}

// The value below which a share of all lies.
function share(values, part) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.round(part * (sorted.length - 1))];
}

export class TraceChart {
  // `handlers`: hover(ms or null), zoom(from, to), unzoom()
  constructor(handlers) {
    this.handlers = handlers;
    this.data = null;
    this.at = null;
    this.base = h("canvas");
    this.over = h("canvas");
    this.tip = h("div", { class: "tip", hidden: true });
    this.plot = h("div", { class: "plot", tabindex: "0", role: "img" }, this.base, this.over, this.tip);
    this.title = h("h3");
    this.legend = h("div", { class: "legend" });
    this.element = h("article", { class: "chart" }, h("header", {}, this.title, this.legend), this.plot);
    new ResizeObserver(() => this.draw()).observe(this.plot);
    this.listen();
  }

  set(data) {
    this.data = data;
    this.element.dataset.kind = data.kind;
    const bounds = this.bounds();
    this.plot.setAttribute("aria-label", bounds
      ? say("chart_label", { title: data.title, unit: data.unit, low: number(bounds.seenLow), high: number(bounds.seenHigh) })
      : `${data.title}: ${say("no_data_range")}`);
    this.title.replaceChildren(data.title, h("small", {}, data.unit));
    this.draw();
  }

  bounds() {
    let low = Infinity;
    let high = -Infinity;
    for (const one of this.data.series) {
      if (!one.at.length) continue;
      // means all fit; of the extremes a few may not, or one inrush a day would flatten the rest
      low = Math.min(low, ...one.mean, share(one.low, 0.01));
      high = Math.max(high, ...one.mean, share(one.high, 0.99));
    }
    if (low > high) return null;
    const seen = { seenLow: low, seenHigh: high };
    const room = Math.max(high - low, Math.abs(high) * 0.06, 1e-6);
    const named = [...this.data.limits, ...this.data.bands.flatMap((band) => [{ value: band.low }, { value: band.high }])];
    for (const limit of named) {
      if (limit.value <= high + room * 1.2 && limit.value >= low - room) {
        high = Math.max(high, limit.value);
        low = Math.min(low, limit.value);
      }
    }
    const pad = Math.max((high - low) * 0.1, room * 0.08);
    return { ...seen, low: low >= 0 ? Math.max(0, low - pad) : low - pad, high: high + pad };
  }

  x(ms) {
    const { from, to } = this.data;
    return GUTTER.left + ((ms - from) / (to - from)) * (this.width - GUTTER.left - GUTTER.right);
  }

  ms(x) {
    const { from, to } = this.data;
    const share = (x - GUTTER.left) / (this.width - GUTTER.left - GUTTER.right);
    return from + Math.min(1, Math.max(0, share)) * (to - from);
  }

  y(value) {
    const { low, high } = this.scale;
    return this.height - GUTTER.bottom - ((value - low) / (high - low)) * (this.height - GUTTER.top - GUTTER.bottom);
  }

  fit(canvas) {
    const ratio = window.devicePixelRatio || 1;
    const [wide, tall] = [Math.round(this.width * ratio), Math.round(this.height * ratio)];
    if (canvas.width !== wide || canvas.height !== tall) [canvas.width, canvas.height] = [wide, tall];
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, this.width, this.height);
    return pen;
  }

  draw() {
    this.width = this.plot.clientWidth;
    this.height = this.plot.clientHeight;
    if (!this.data || this.width < 60 || this.height < 40) return;
    const style = getComputedStyle(this.element);
    const ink = (name) => style.getPropertyValue(name).trim();
    this.colours = this.data.series.map((one, i) => ink(i ? `--series-alternate-${((i - 1) % 3) + 1}` : `--series-${this.data.kind}`) || ink("--series-other"));
    this.ink = ink;
    const pen = this.fit(this.base);
    pen.font = `11px ${style.fontFamily}`;
    const found = this.bounds();
    this.scale = found ?? { low: 0, high: 1 };
    this.drawRegions(pen);
    this.drawAxes(pen, Boolean(found));
    if (found) {
      this.drawLimits(pen);
      pen.save();
      pen.beginPath();
      pen.rect(GUTTER.left, GUTTER.top - 2, this.width - GUTTER.left - GUTTER.right, this.height - GUTTER.top - GUTTER.bottom + 4);
      pen.clip();
      this.data.series.forEach((one, i) => this.drawSeries(pen, one, this.colours[i]));
      pen.restore();
      const room = pen.measureText(say("expected_range")).width + 24;
      const band = this.data.bands.find((one) => this.x(Math.min(one.to_ms ?? this.data.to, this.data.to)) - this.x(Math.max(one.from_ms, this.data.from)) > room
        && one.to_ms === null && this.y(one.low) - this.y(one.high) > 14 && this.y(one.low) <= this.height - GUTTER.bottom + 2);
      if (band) this.note(pen, say("expected_range"), this.y(band.low) - 5, this.ink("--state-well"));
    } else {
      pen.fillStyle = ink("--quiet");
      pen.textAlign = "center";
      pen.fillText(this.data.reason, (this.width + GUTTER.left) / 2, this.height / 2);
    }
    this.base.dataset.drawn = String(this.data.series.reduce((sum, one) => sum + one.at.length, 0));
    this.point(this.at);
  }

  drawRegions(pen) {
    const top = GUTTER.top;
    const bottom = this.height - GUTTER.bottom;
    for (const ticket of this.data.tickets) {
      const left = this.x(Math.max(ticket.from_ms, this.data.from));
      const right = this.x(Math.min(ticket.to_ms ?? this.data.to, this.data.to));
      const colour = this.ink(`--state-${ticket.severity}`);
      pen.globalAlpha = ticket.to_ms ? 0.05 : 0.09;
      pen.fillStyle = colour;
      pen.fillRect(left, top, Math.max(1, right - left), bottom - top);
      pen.globalAlpha = 0.9;
      pen.strokeStyle = colour;
      pen.lineWidth = 1;
      const edge = (ms, dash) => {
        if (ms === null || ms < this.data.from || ms > this.data.to) return;
        const x = Math.round(this.x(ms)) + 0.5;
        pen.setLineDash(dash);
        pen.beginPath();
        pen.moveTo(x, top);
        pen.lineTo(x, bottom);
        pen.stroke();
      };
      edge(ticket.from_ms, [4, 3]);
      edge(ticket.filed_ms, []);
      edge(ticket.to_ms, [1, 3]);
      pen.setLineDash([]);
      pen.globalAlpha = 1;
    }
  }

  drawAxes(pen, hasValues) {
    const bottom = this.height - GUTTER.bottom;
    pen.lineWidth = 1;
    pen.strokeStyle = this.ink("--grid");
    pen.fillStyle = this.ink("--quiet");
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    if (hasValues) {
      const { ticks, digits } = valueTicks(this.scale.low, this.scale.high, Math.max(3, (bottom - GUTTER.top) / 34));
      for (const value of ticks) {
        const y = Math.round(this.y(value)) + 0.5;
        pen.beginPath();
        pen.moveTo(GUTTER.left, y);
        pen.lineTo(this.width - GUTTER.right, y);
        pen.stroke();
        pen.fillText(value.toFixed(digits), GUTTER.left - 7, y);
      }
    }
    pen.textAlign = "center";
    pen.textBaseline = "alphabetic";
    const { step, ticks } = timeTicks(this.data.from, this.data.to, Math.max(2, (this.width - GUTTER.left) / 88));
    for (const at of ticks) {
      const x = this.x(at);
      pen.beginPath();
      pen.moveTo(Math.round(x) + 0.5, bottom);
      pen.lineTo(Math.round(x) + 0.5, bottom + 4);
      pen.stroke();
      const text = timeLabel(at, step);
      const half = pen.measureText(text).width / 2;
      if (x - half > 0 && x + half < this.width) pen.fillText(text, x, this.height - 5);
    }
    pen.strokeStyle = this.ink("--axis");
    pen.beginPath();
    pen.moveTo(GUTTER.left, bottom + 0.5);
    pen.lineTo(this.width - GUTTER.right, bottom + 0.5);
    pen.stroke();
  }

  drawLimits(pen) {
    for (const limit of this.data.limits) {
      const y = Math.round(this.y(limit.value)) + 0.5;
      if (limit.value > this.scale.high || limit.value < this.scale.low) continue;
      pen.strokeStyle = this.ink("--limit");
      pen.setLineDash([6, 4]);
      pen.beginPath();
      pen.moveTo(GUTTER.left, y);
      pen.lineTo(this.width - GUTTER.right, y);
      pen.stroke();
      pen.setLineDash([]);
      this.note(pen, limit.label, y - 4, this.ink("--limit"), this.isCrowded(y - 4, pen.measureText(limit.label).width) ? "left" : "right");
    }
    for (const band of this.data.bands) {
      const left = this.x(Math.max(band.from_ms, this.data.from));
      const right = this.x(Math.min(band.to_ms ?? this.data.to, this.data.to));
      const top = Math.max(GUTTER.top, this.y(band.high));
      const bottom = Math.min(this.height - GUTTER.bottom, this.y(band.low));
      if (bottom <= top || right <= left) continue;
      pen.fillStyle = this.ink("--state-well");
      pen.globalAlpha = 0.17;
      pen.fillRect(left, top, right - left, bottom - top);
      pen.globalAlpha = 1;
    }
  }

  // A short text at one end of the plot, where no trace runs through it, with a halo so that it reads over anything.
  note(pen, text, y, colour, side = "right") {
    pen.textAlign = side;
    const x = side === "right" ? this.width - GUTTER.right - 6 : GUTTER.left + 6;
    pen.textBaseline = "alphabetic";
    pen.strokeStyle = this.ink("--surface");
    pen.lineWidth = 3;
    pen.lineJoin = "round";
    pen.strokeText(text, x, y);
    pen.fillStyle = colour;
    pen.fillText(text, x, y);
    pen.lineWidth = 1;
  }

  // Whether a trace passes through a text of this width at the right end.
  isCrowded(y, wide) {
    const from = this.ms(this.width - GUTTER.right - wide - 10);
    return this.data.series.some((one) => one.at.some((at, k) => at >= from && this.y(one.mean[k]) > y - 16 && this.y(one.mean[k]) < y + 4));
  }

  drawSeries(pen, one, colour) {
    const { at, mean, low, high } = one;
    const widest = Math.max(3 * this.data.step, 2.5 * medianStep(at));
    let start = 0;
    for (let i = 1; i <= at.length; i++) {
      if (i < at.length && at[i] - at[i - 1] <= widest) continue;
      pen.fillStyle = colour;
      pen.globalAlpha = 0.16;
      pen.beginPath();
      for (let k = start; k < i; k++) pen.lineTo(this.x(at[k]), this.y(high[k]));
      for (let k = i - 1; k >= start; k--) pen.lineTo(this.x(at[k]), this.y(low[k]));
      pen.fill();
      pen.globalAlpha = 1;
      pen.strokeStyle = colour;
      pen.lineWidth = 1.6;
      pen.lineJoin = "round";
      pen.beginPath();
      for (let k = start; k < i; k++) pen.lineTo(this.x(at[k]), this.y(mean[k]));
      if (i - start === 1) pen.arc(this.x(at[start]), this.y(mean[start]), 1.2, 0, 7);
      pen.stroke();
      start = i;
    }
  }

  // Draw the crosshair at an instant, and the values there in the legend; null shows the newest values.
  point(ms, withTip = false) {
    this.at = ms;
    if (!this.data || !this.ink) return;
    const pen = this.fit(this.over);
    const shown = this.data.series.map((one, i) => {
      if (!one.at.length) return { one, i, k: -1 };
      const k = ms === null ? one.at.length - 1 : nearest(one.at, ms);
      const near = ms === null || Math.abs(one.at[k] - ms) <= Math.max(4 * this.data.step, 2.5 * medianStep(one.at));
      return { one, i, k: near ? k : -1 };
    });
    this.legend.replaceChildren(...shown.map(({ one, i, k }) => h("span", { vars: { "--swatch": this.colours[i] } },
      h("i"), one.name === this.data.title ? null : one.name, h("b", {}, k < 0 ? "–" : number(one.mean[k])))));
    this.tip.hidden = true;
    if (ms === null || ms < this.data.from || ms > this.data.to) return;
    const x = Math.round(this.x(ms)) + 0.5;
    pen.strokeStyle = this.ink("--axis");
    pen.beginPath();
    pen.moveTo(x, GUTTER.top);
    pen.lineTo(x, this.height - GUTTER.bottom);
    pen.stroke();
    for (const { one, i, k } of shown) {
      if (k < 0) continue;
      pen.fillStyle = this.colours[i];
      pen.strokeStyle = this.ink("--surface");
      pen.lineWidth = 1.5;
      pen.beginPath();
      pen.arc(this.x(one.at[k]), this.y(one.mean[k]), 4, 0, 7);
      pen.fill();
      pen.stroke();
    }
    if (withTip) this.showTip(ms, x, shown);
  }

  showTip(ms, x, shown) {
    const time = new Date(ms).toLocaleString(locale(), {
      month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false,
    });
    this.tip.replaceChildren(h("time", {}, time), ...shown.filter(({ k }) => k >= 0).map(({ one, i, k }) =>
      h("div", { vars: { "--swatch": this.colours[i] } }, h("i"), h("span", {}, one.name),
        h("b", {}, `${number(one.mean[k])} ${this.data.unit}`),
        one.low[k] < one.high[k] ? h("small", {}, `${number(one.low[k])}–${number(one.high[k])}`) : null)));
    this.tip.hidden = false;
    const wide = this.tip.offsetWidth;
    const left = x + 14 + wide > this.width ? x - 14 - wide : x + 14;
    this.tip.style.setProperty("transform", `translate(${Math.max(2, left)}px, 8px)`);
  }

  listen() {
    let pressed = null;
    const place = (event) => event.clientX - this.plot.getBoundingClientRect().left;
    this.plot.addEventListener("pointermove", (event) => {
      if (!this.data) return;
      const x = place(event);
      this.handlers.hover(this.ms(x), this);
      if (pressed !== null && Math.abs(x - pressed) > 6) {
        const pen = this.over.getContext("2d");
        pen.fillStyle = this.ink("--accent");
        pen.globalAlpha = 0.18;
        pen.fillRect(Math.min(pressed, x), GUTTER.top, Math.abs(x - pressed), this.height - GUTTER.top - GUTTER.bottom);
        pen.globalAlpha = 1;
      }
    });
    this.plot.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse" && event.button === 0) {
        pressed = place(event);
        this.plot.setPointerCapture(event.pointerId);
      } else this.handlers.hover(this.ms(place(event)), this);
    });
    this.plot.addEventListener("pointerup", (event) => {
      const from = pressed;
      pressed = null;
      if (from === null || Math.abs(place(event) - from) <= 6) return;
      const [a, b] = [this.ms(from), this.ms(place(event))].sort((p, q) => p - q);
      if (b - a >= 10000) this.handlers.zoom(Math.round(a), Math.round(b));
    });
    this.plot.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") this.handlers.hover(null, this);
    });
    this.plot.addEventListener("dblclick", () => this.handlers.unzoom());
    this.plot.addEventListener("blur", () => this.handlers.hover(null, this));
    this.plot.addEventListener("keydown", (event) => {
      if (!this.data) return;
      const { from, to } = this.data;
      const move = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10 }[event.key];
      if (move) {
        const next = (this.at ?? to) + (move * (to - from)) / 100;
        this.handlers.hover(Math.min(to, Math.max(from, next)), this);
        event.preventDefault();
      } else if (event.key === "+" && this.at !== null) {
        this.handlers.zoom(Math.round(this.at - (to - from) / 8), Math.round(this.at + (to - from) / 8));
      } else if (event.key === "-") this.handlers.unzoom();
    });
  }
}
