// Elements made of data: text is always text, never markup.

const SVG = "http://www.w3.org/2000/svg";
const FLAGS = new Set(["checked", "disabled", "hidden", "open", "required", "selected"]);

function fill(node, given, children) {
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [kind, act] of Object.entries(value)) node.addEventListener(kind, act);
    else if (name === "value") node.value = value;
    else if (FLAGS.has(name)) node[name] = true;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(4).filter((one) => one !== null && one !== undefined && one !== false));
  return node;
}

/** Return an HTML element. */
export const el = (tag, given = {}, ...children) => fill(document.createElement(tag), given, children);

/** Return an SVG element. */
export const svg = (tag, given = {}, ...children) => fill(document.createElementNS(SVG, tag), given, children);

/** Return words of data: set apart, so that their direction does not turn the words around them. */
export const data = (text, given = {}) => el("bdi", given, String(text ?? "–"));

/** Return a labelled field; the label is above it. */
export function field(label, input, hint = "") {
  input.id ||= `f${Math.random().toString(36).slice(2)}`;
  const help = hint && el("small", { id: `${input.id}-h`, class: "soft" }, hint);
  if (help) input.setAttribute("aria-describedby", help.id);
  return el("div", { class: "field" }, el("label", { for: input.id }, label), input, help);
}

/** Return a box that can be ticked. */
export function tick(label, given = {}) {
  return el("label", { class: "tick" }, el("input", { type: "checkbox", ...given }), el("span", {}, label));
}

/** Return a choice of [value, label]. */
export function choice(rows, chosen, given = {}) {
  const options = rows.map(([value, label]) => el("option", { value, selected: value === chosen }, label));
  return el("select", given, options);
}

/** Return a table that scrolls sideways where it is too wide. */
export function table(caption, heads, rows, given = {}) {
  const head = heads.map((one) => el("th", { scope: "col", class: one.num && "num" }, one.label));
  const body = rows.map((row) =>
    el("tr", { class: row.kind }, (row.cells ?? row).map((cell, place) => {
      const given = { class: heads[place].num && "num" };
      return place ? el("td", given, cell) : el("th", { scope: "row", ...given }, cell);
    })));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption, ...given },
    el("table", {}, el("caption", { class: "unseen" }, caption),
      el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)));
}

/** Return a card of one figure. */
export function figure(label, value, more, plot = null, kind = "") {
  return el("section", { class: `card figure ${kind}` }, el("h3", {}, label), el("p", { class: "big" }, value),
    plot, el("p", { class: "soft small" }, more));
}

/** Put ``children`` in the place of what ``node`` holds. */
export const put = (node, ...children) => (node.replaceChildren(...children.flat(4).filter(Boolean)), node);
