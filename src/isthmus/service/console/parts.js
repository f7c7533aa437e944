// What pages have in common: waiting, failing, nothing there, asking again, and who a list is for.

import { Problem, can, call, rights } from "./api.js";
import { choice, data, el, field, put } from "./dom.js";
import { t } from "./words.js";

/** Return what is shown where there is nothing. */
export function nothing(title, hint = "") {
  return el("div", { class: "state" }, el("p", { class: "title" }, title), hint && el("p", { class: "soft" }, hint));
}

/** Return what is shown while an answer is awaited. */
export function waiting() {
  const lines = [1, 2, 3].map((n) => el("div", { class: `bone bone-${n}` }));
  return el("div", { class: "waiting", role: "status" }, el("span", { class: "unseen" }, t("waiting")), lines);
}

/** Return what is shown of a problem; ``again`` tries once more. */
export function failure(error, again = null) {
  const known = error instanceof Problem;
  if (!known) console.warn(String(error));
  const status = known ? error.status : -1;
  const title = status === 0 ? t("problem.reach") : status === 403 ? t("problem.scope") : t("problem.title", { status: status > 0 ? status : "" });
  const more = known ? [error.message, error.where, error.fix].filter(Boolean) : [];
  return el("div", { class: "state bad", role: "alert" },
    el("p", { class: "title" }, title),
    more.map((text) => el("p", {}, data(text))),
    known && error.request && el("p", { class: "soft small" }, t("problem.request"), " ", el("code", {}, error.request)),
    again && el("button", { type: "button", on: { click: again } }, t("again")));
}

/** Show what ``ask`` answers in ``node``: waiting, then ``draw`` of it, or the problem. */
export async function show(node, ask, draw, quiet = false) {
  const turn = (node.turn = (node.turn ?? 0) + 1);
  node.setAttribute("aria-busy", "true");
  if (!quiet) put(node, waiting());
  try {
    const said = await ask();
    if (node.turn === turn) put(node, draw(said));
  } catch (error) {
    if (node.turn === turn) put(node, failure(error, () => show(node, ask, draw)));
  } finally {
    if (node.turn === turn) node.removeAttribute("aria-busy");
  }
}

/** Person asked for last: kept in memory only, so that no address and no history of the browser names a person. */
export const person = { platform: "", user: "" };

/** Return fields for a person, and a function that reads them; null is nobody. */
export function who(required = true) {
  const platforms = rights().platforms.map((name) => [name, name]);
  const platform = choice(platforms, person.platform || platforms[0]?.[0], {});
  const user = el("input", { type: "text", value: person.user, required, autocomplete: "off", spellcheck: "false", maxlength: 512 });
  const read = () => {
    const text = user.value.trim();
    if (!text) return null;
    Object.assign(person, { platform: platform.value, user: text });
    return { platform: platform.value, user: text };
  };
  return { fields: [field(t("platform"), platform), field(t("user"), user, required ? "" : t("user.none"))], read, user };
}

/** Return a dialog's answer: true if it was confirmed; ``word`` has to be typed if given. */
export function confirmed({ title, said, action, word = "", danger = false }) {
  const typed = word && el("input", { type: "text", autocomplete: "off", spellcheck: "false" });
  const yes = el("button", { type: "submit", class: danger ? "danger" : "main", disabled: Boolean(word) }, action);
  typed && typed.addEventListener("input", () => { yes.disabled = typed.value !== word; });
  const box = el("dialog", { "aria-label": title });
  return new Promise((done) => {
    const end = (answer) => { box.close(); box.remove(); done(answer); };
    const no = el("button", { type: "button", on: { click: () => end(false) } }, t("cancel"));
    const act = (event) => { event.preventDefault(); if (!yes.disabled) end(true); };
    box.append(el("form", { on: { submit: act } }, el("h2", {}, title), said.map((text) => el("p", {}, text)),
      typed && field(t("type", { word }), typed), el("div", { class: "row end" }, no, yes)));
    box.addEventListener("cancel", (event) => { event.preventDefault(); end(false); });
    document.body.append(box);
    box.showModal();
    (typed || no).focus();
  });
}

/** Return an item's title, or its id where it has none; a link where items can be looked at. */
export function titled(item) {
  const name = data(item.title || item.item, { class: item.title ? "" : "id" });
  if (!can("GET", "/v1/items/{item}")) return name;
  return el("a", { href: address("item", item) }, name);
}

/** Return the address of a page about an item. */
export const address = (page, item) => `#/${page}?${new URLSearchParams({ platform: item.platform, item: item.item })}`;

/** Return the models that can be looked at; only the one that answers is known without the right to list them. */
export async function modelNames() {
  return can("GET", "/v1/models") ? call("GET", "/v1/models") : { active: "", previous: [], models: [] };
}

/** Return a short word for an event. */
export const deed = (event) => t(`event.${event}`);
