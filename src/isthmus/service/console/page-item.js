// Item: what is known of it, who is not shown it, how often it was listed, what goes with it in every domain.

import { call, can, named } from "./api.js";
import { spark } from "./charts.js";
import { data, el, field, put } from "./dom.js";
import { address, nothing, show, titled } from "./parts.js";
import { ago, count, digits, share, t, when } from "./words.js";

export const needs = [["GET", "/v1/items/{item}"]];

const row = (name, value) => value !== null && value !== undefined && value !== "" && el("div", {}, el("dt", {}, name), el("dd", {}, value));

function exposure(said) {
  const seen = said.exposure;
  if (!seen.lists) return nothing(t("item.nolists"), t("item.nolists.said"));
  return [el("dl", { class: "facts" },
    row(t("item.listed"), `${count(seen.shown)} · ${share(seen.shown / seen.lists, 2)}`),
    row(t("item.rank"), seen.mean_rank === null ? "–" : digits(seen.mean_rank, 1)),
    row(t("item.of"), `${count(seen.lists)} · ${t("item.since", { time: ago(seen.since, Date.now() / 1000) })}`)),
    overTime(seen.spans)];
}

/** Return how the share of lists with the item went from the first list remembered to now. */
function overTime(spans) {
  const shares = spans.map((one) => (one.lists ? one.shown / one.lists : null)), known = shares.filter((one) => one !== null);
  const low = share(Math.min(...known), 2), high = share(Math.max(...known), 2), last = share(known.at(-1), 2);
  const said = t("item.moved", { low, high, last });
  return el("figure", {}, spark(shares, said), el("figcaption", { class: "soft small" }, said));
}

/** Return who is not shown the item, and why. */
function unseen(said) {
  const why = said.hidden.map((one) => el("li", {}, t(`item.hidden.${one}`)));
  return el("ul", { class: "plainlist" }, why, el("li", {}, said.met === null ? t("item.met.few") : t("item.met", { n: count(said.met) })));
}

function flags(said) {
  return [
    said.removed && el("span", { class: "tag bad" }, t("item.removed")),
    said.added && el("span", { class: "tag" }, t("item.added")),
    el("span", { class: `tag ${said.listable ? "good" : "bad"}` }, t(said.listable ? "item.listable" : "item.unlistable"))];
}

function attributes(text) {
  try {
    const rows = Object.entries(JSON.parse(text));
    return el("dl", { class: "pairs" }, rows.map(([name, value]) => row(data(name), data(typeof value === "object" ? JSON.stringify(value) : value))));
  } catch {
    return data(text);
  }
}

function known(said) {
  return [
    el("section", { class: "card answer" }, el("h2", {}, data(said.title || said.item)),
      el("p", { class: "soft small" }, data(`${said.platform}:${said.item}`), " · ", data(said.domain), " ", flags(said)),
      said.text ? el("p", { class: "prose" }, data(said.text)) : el("p", { class: "soft" }, t("item.notext")),
      el("dl", { class: "pairs" },
        row(t("item.categories"), said.categories?.length ? said.categories.map((one) => [el("span", { class: "tag" }, data(one)), " "]) : null),
        row(t("item.lang"), said.lang), row(t("item.from"), said.available_from && when(said.available_from)),
        row(t("item.until"), said.available_until && when(said.available_until)),
        row(t("item.attributes"), said.attributes && attributes(said.attributes)))),
    el("h2", {}, t("item.unseen")), el("section", { class: "card" }, unseen(said)),
    el("h2", {}, t("item.exposure")), el("section", { class: "card" }, exposure(said)),
  ];
}

function near(said) {
  return el("div", { class: "sides" }, said.lists.map((list) => el("section", { class: "card" }, el("h4", {}, data(list.domain)),
    list.items.length ? el("ol", { class: "list" }, list.items.map((one, rank) => el("li", {}, el("span", { class: "rank" }, rank + 1),
      el("span", { class: "what" }, titled(one), el("span", { class: "soft small" }, data(`${one.platform}:${one.item}`)))))) : nothing(t("item.alone")))));
}

export function draw(body, params) {
  const words = el("input", { type: "search", required: true, maxlength: 200, autocomplete: "off", spellcheck: "false", value: params.get("q") ?? "" });
  const found = el("div", { "aria-live": "polite" }), about = el("div", { class: "result" }), beside = el("div", { class: "result" });
  const seek = () => show(found, () => call("GET", `/v1/items?q=${encodeURIComponent(words.value)}`), (said) => said.items.length
    ? el("ul", { class: "plainlist card" }, said.items.map((one) => el("li", {}, el("a", { href: address("item", one) }, data(one.title || one.item)), el("span", { class: "soft small" }, data(`${one.platform}:${one.item}`), " · ", data(one.domain)))))
    : nothing(t("item.nothing"), t("item.nothing.said")));
  put(body, can("GET", "/v1/items") && el("form", { class: "card ask", role: "search", on: { submit: (event) => { event.preventDefault(); seek(); } } },
    el("div", { class: "fields" }, field(t("item.find"), words), el("div", { class: "field" }, el("button", { type: "submit", class: "main low" }, t("item.seek"))))), found, about, beside);
  const platform = params.get("platform"), item = params.get("item");
  if (!item) { put(about, nothing(t("item.begin"), t("item.begin.said"))); return; }
  show(about, () => call("GET", named("/v1/items", platform, item)), known);
  if (can("POST", "/v1/similar")) show(beside, () => call("POST", "/v1/similar", { platform, item, k: 10 }), (said) => [el("h2", {}, t("item.near")), near(said)]);
}
