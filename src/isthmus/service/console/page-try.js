// Try: lists of several models side by side, for a person, for nobody, or for a history that is made up.

import { call, can, rights } from "./api.js";
import { choice, data, el, field, put, tick } from "./dom.js";
import { address, deed, modelNames, nothing, show, titled, who } from "./parts.js";
import { count, digits, share, t, took, when } from "./words.js";

export const needs = [["POST", "/v1/compare"]];
const SIDES = 4;

/** Return the items named in a text, one a line, as PLATFORM:ID. */
function pasted(text) {
  return text.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => {
    const cut = line.indexOf(":");
    return { platform: line.slice(0, cut), item: line.slice(cut + 1) };
  });
}

function move(place) {
  if (place.moved === null) return el("span", { class: "move new", title: t("try.new.said") }, t("try.new"));
  if (place.moved === 0) return el("span", { class: "move", title: t("try.same") }, "=");
  const up = place.moved > 0;
  const said = t(up ? "try.up" : "try.down", { n: Math.abs(place.moved) });
  return el("span", { class: `move ${up ? "up" : "down"}`, title: said },
    el("span", { "aria-hidden": "true" }, up ? "▲" : "▼", Math.abs(place.moved)), el("span", { class: "unseen" }, said));
}

function listed(one, place, rank, many, asked) {
  const why = one.active && asked.account && can("POST", "/v1/explain") && el("a", { class: "small", href: address("why", place), "aria-label": t("try.whyof", { title: place.title || place.item }) }, t("try.why"));
  return el("li", { class: place.seen && "seen" },
    el("span", { class: "rank" }, rank + 1),
    el("span", { class: "what" }, titled(place),
      el("span", { class: "soft small" }, data(`${place.platform}:${place.item}`),
        place.seen && [" · ", t("try.seen")], asked.scores && [" · ", digits(place.score, 4)])),
    el("span", { class: "marks" }, many && move(place), why));
}

function side(one, domain, first, asked, many) {
  const list = one.lists.find((found) => found.domain === domain);
  const head = [el("h4", {}, data(one.model), one.active && el("span", { class: "tag" }, t("active"))),
    el("p", { class: "soft small" }, took(one.seconds), many && one !== first && list && list.shared !== null && [" · ", t("try.shared", { share: share(list.shared, 0) })])];
  if (one.problem) return el("section", { class: "card" }, head, nothing(t("try.broken"), data(one.problem)));
  if (!list) return el("section", { class: "card" }, head, nothing(t("try.nodomain")));
  if (!list.items.length) return el("section", { class: "card" }, head, nothing(t("try.empty")));
  const rows = list.items.map((place, rank) => listed(one, place, rank, many && one !== first, asked));
  return el("section", { class: "card" }, head, el("ol", { class: "list" }, rows));
}

function history(said) {
  if (!said.history.length) return nothing(t(said.known ? "try.nohistory" : "try.unknown"), t("try.nohistory.said"));
  const platforms = [...new Set(said.history.map((one) => one.platform))];
  const cards = platforms.map((platform) => {
    const mine = said.history.filter((one) => one.platform === platform);
    const rows = mine.map((one) => el("li", {}, titled(one), el("span", { class: "soft small" }, deed(one.event), " · ", when(one.ts))));
    return el("section", { class: "card" }, el("h4", {}, data(platform), el("span", { class: "tag" }, count(mine.length))), el("ul", { class: "plainlist tall", tabindex: "0", "aria-label": t("try.on", { platform }) }, rows));
  });
  return el("div", { class: "sides" }, cards);
}

function drawn(said, asked) {
  const many = said.sides.length > 1;
  const domains = [...new Set(said.sides.flatMap((one) => one.lists.map((list) => list.domain)))];
  const first = said.sides.find((one) => !one.problem);
  return [
    domains.map((domain) => [el("h3", {}, data(domain)),
      el("div", { class: "sides" }, said.sides.map((one) => side(one, domain, first, asked, many)))]),
    !domains.length && el("div", { class: "sides" }, said.sides.map((one) => side(one, "", first, asked, many))),
    asked.account && [el("h3", {}, t("try.history"), " ", el("span", { class: "soft small" }, t("try.events", { n: count(said.events) }))), history(said)],
  ];
}

export function draw(body, params, signal) {
  show(body, modelNames, (known) => {
    const names = known.models.map((one) => one.name).sort((a, b) => (b === known.active) - (a === known.active));
    const boxes = names.map((name, place) => tick(data(name), { value: name, checked: place < 2 }));
    const inputs = boxes.map((box) => box.querySelector("input"));
    const limit = () => {
      const full = inputs.filter((one) => one.checked).length >= SIDES;
      for (const one of inputs) one.disabled = full && !one.checked;
    };
    inputs.forEach((one) => one.addEventListener("change", limit));
    limit();
    const asker = who(false);
    const domains = [["", t("try.all")], ...rights().domains.map((one) => [one, one])];
    const target = choice(domains, ""), k = choice([5, 10, 20, 50].map((n) => [String(n), String(n)]), "10");
    const unseen = tick(t("try.exclude"), { checked: true }), scores = tick(t("try.scores"));
    const text = el("textarea", { rows: 3, placeholder: "shop:b3\nvideo:v8", spellcheck: "false" });
    const result = el("div", { class: "result", "aria-live": "polite" }, nothing(t("try.begin"), t("try.begin.said")));
    const ask = () => {
      const asked = {
        account: asker.read(), history: pasted(text.value), models: inputs.filter((one) => one.checked).map((one) => one.value),
        target: target.value || null, k: Number(k.value),
        exclude_seen: unseen.querySelector("input").checked, scores: scores.querySelector("input").checked,
      };
      show(result, () => call("POST", "/v1/compare", asked), (said) => drawn(said, asked));
    };
    const form = el("form", { class: "card ask", on: { submit: (event) => { event.preventDefault(); ask(); } } },
      el("div", { class: "fields" }, asker.fields, field(t("domain"), target), field(t("try.k"), k)),
      names.length > 0 && el("fieldset", {}, el("legend", {}, t("try.models", { n: SIDES })), el("div", { class: "row" }, boxes)),
      el("details", {}, el("summary", {}, t("try.more")), field(t("try.paste"), text, t("try.paste.said")), el("div", { class: "row" }, unseen, scores)),
      el("div", { class: "row" }, el("button", { type: "submit", class: "main" }, t("try.ask"))));
    if (asker.user.value) setTimeout(ask);
    return [form, result];
  });
}
