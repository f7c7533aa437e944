// Small plots as SVG; each says in words what it shows.

import { svg } from "./dom.js";

/** Return a line of the values, oldest first; places without a value are gaps. */
export function spark(values, label, kind = "") {
  const width = 240, height = 36, top = Math.max(...values.map((value) => value ?? 0), 1e-9);
  const step = width / Math.max(values.length - 1, 1);
  const at = (value) => height - 2 - ((height - 4) * value) / top;
  let line = "", pen = "M";
  values.forEach((value, place) => {
    if (value === null) { pen = "M"; return; }
    line += `${pen}${(place * step).toFixed(1)} ${at(value).toFixed(1)}`;
    pen = "L";
  });
  const dots = values.flatMap((value, place) => {
    const alone = value !== null && (values[place - 1] ?? null) === null && (values[place + 1] ?? null) === null;
    return alone ? [svg("circle", { cx: (place * step).toFixed(1), cy: at(value).toFixed(1), r: 2 })] : [];
  });
  return svg("svg", { class: `spark ${kind}`, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("path", { class: "ground", d: `M0 ${height - 1}H${width}` }), line && svg("path", { class: "line", d: line }), dots);
}

/** Return round ends and steps of an axis over ``values``. */
export function axis(values) {
  const known = values.filter((value) => Number.isFinite(value));
  const low = Math.min(0, ...known), high = Math.max(1e-9, ...known);
  const raw = (high - low) / 4, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= raw) ?? raw;
  const ticks = [];
  for (let at = Math.floor(low / step) * step; at <= high + step * 0.999; at += step) ticks.push(Number(at.toPrecision(12)));
  return { low: ticks[0], high: ticks.at(-1), ticks };
}

const x = (scale, value) => `${(3 + (94 * (value - scale.low)) / (scale.high - scale.low)).toFixed(2)}%`;

/** Return an interval with its mean for each of some estimates, one below the other. */
export function intervals(scale, estimates, label) {
  const lines = scale.ticks.map((tick) => svg("line", { class: "grid", x1: x(scale, tick), x2: x(scale, tick), y1: "0", y2: "100%" }));
  const marks = estimates.flatMap((one, place) => {
    if (!one || one.mean === null) return [];
    const y = `${(100 * (place + 1)) / (estimates.length + 1)}%`;
    const span = one.low !== null && svg("line", { class: "span", x1: x(scale, one.low), x2: x(scale, one.high), y1: y, y2: y });
    return [svg("g", { class: `side-${place}` }, span || null, svg("circle", { cx: x(scale, one.mean), cy: y, r: 4 }))];
  });
  return svg("svg", { class: "interval", role: "img", "aria-label": label }, lines, marks);
}

/** Return the numbers below the lines of :func:`intervals`. */
export function ruler(scale) {
  const places = scale.ticks.map((tick) => svg("text", { x: x(scale, tick), y: "12", "text-anchor": "middle" }, String(tick)));
  return svg("svg", { class: "ruler", "aria-hidden": "true" }, places);
}

/** Return a bar from the middle: to the right above 0, to the left below. */
export function bar(value, most, label) {
  const length = most ? (50 * Math.abs(value)) / most : 0;
  const from = value < 0 ? 50 - length : 50;
  return svg("svg", { class: "bar", role: "img", "aria-label": label },
    svg("line", { class: "grid", x1: "50%", x2: "50%", y1: "0", y2: "100%" }),
    svg("rect", { class: value < 0 ? "loss" : "win", x: `${from}%`, width: `${length}%`, y: "25%", height: "50%", rx: 2 }));
}

/** Return two bars, what was expected above what is seen. */
export function shares(was, is, label) {
  const one = (value, y, kind) => svg("rect", { class: kind, x: "0", width: `${Math.min(100, Math.max(100 * value, 0.5))}%`, y, height: "36%", rx: 2 });
  return svg("svg", { class: "bar", role: "img", "aria-label": label }, one(was, "10%", "was"), is !== null && one(is, "54%", "is"));
}
