// Why: what in a history speaks for an item, what would be without it, and how far that is the whole story.

import { call, can } from "./api.js";
import { bar } from "./charts.js";
import { data, el, field, put, table } from "./dom.js";
import { failure, nothing, show, titled, who } from "./parts.js";
import { count, digits, share, t } from "./words.js";

export const needs = [["POST", "/v1/explain"]];
const DEEP = 100;
const TRIED = 3;

/** Return the place of an item in a person's list, 0 if it is further down than :data:`DEEP`. */
async function rank(account, item, domain, without) {
  const asked = { account, target: domain, k: DEEP, exclude_seen: false, without };
  const said = await call("POST", "/v1/compare", asked);
  const list = said.sides[0]?.lists[0]?.items ?? [];
  return 1 + list.findIndex((one) => one.platform === item.platform && one.item === item.item);
}

const place = (number) => (number ? t("why.rank", { n: count(number) }) : t("why.deeper", { n: DEEP }));

/** Fill in where the item stands, and where it would stand without each of the first pieces of evidence. */
async function fill(account, said, now, cells, signal) {
  try {
    const { platform, item } = said.item;
    const here = await rank(account, { platform, item }, said.domain, []);
    if (signal.aborted) return;
    put(now, place(here));
    for (const [at, cell] of cells.entries()) {
      const gone = { platform: said.evidence[at].platform, item: said.evidence[at].item };
      const then = await rank(account, { platform, item }, said.domain, [gone]);
      if (signal.aborted) return;
      put(cell, place(then));
    }
  } catch (error) {
    put(now, failure(error));
    for (const cell of cells) put(cell, "–");
  }
}

/** Return how far the strongest evidence alone accounts for the score. */
function faithful(said) {
  const found = said.faithfulness;
  if (!found) return null;
  const one = (name, value) => el("div", {}, el("dt", {}, t(name)), el("dd", {}, share(value, 0)));
  return [
    el("h2", {}, t("why.faithful")),
    el("section", { class: "card" },
      el("dl", { class: "facts" }, one("why.comprehensive", found.comprehensiveness), one("why.sufficient", found.sufficiency)),
      el("p", { class: "soft small" }, t("why.faithful.said", { n: count(found.of) })))];
}

function drawn(said, account, signal) {
  const now = el("span", {}, "…"), ranks = can("POST", "/v1/compare");
  const cells = said.evidence.slice(0, TRIED).map(() => el("span", {}, "…"));
  const most = Math.max(...said.evidence.map((one) => Math.abs(one.contribution)), 0);
  const heads = [{ label: t("why.met") }, { label: t("domain") }, { label: t("why.gives") }, { label: "", num: true }, ...(ranks ? [{ label: t("why.without") }] : [])];
  const rows = said.evidence.map((one, at) => [
    el("span", { class: "what" }, titled(one), el("span", { class: "soft small" }, data(`${one.platform}:${one.item}`)),
      one.phrases?.length ? el("span", { class: "small" }, t("why.phrases"), ...one.phrases.flatMap((said) => [" ", el("q", { dir: "auto" }, said)])) : null),
    data(one.domain), bar(one.contribution, most, digits(one.contribution, 4)), digits(one.contribution, 4), ...(ranks ? [cells[at] ?? "–"] : [])]);
  if (ranks) fill(account, said, now, cells, signal);
  return [
    el("section", { class: "card answer" }, el("h2", {}, titled(said.item)),
      el("p", { class: "soft small" }, data(`${said.item.platform}:${said.item.item}`), " · ", data(said.domain), " · ", data(said.model)),
      el("dl", { class: "facts" },
        ranks && el("div", {}, el("dt", {}, t("why.now")), el("dd", {}, now)),
        el("div", {}, el("dt", {}, t("why.score")), el("dd", {}, digits(said.score, 4))),
        el("div", {}, el("dt", {}, t("why.nobody")), el("dd", {}, digits(said.score_without_history, 4))))),
    el("h2", {}, t("why.evidence")),
    rows.length ? table(t("why.evidence"), heads, rows) : nothing(t("why.none"), t("why.none.said")),
    el("p", { class: "soft small" }, t("why.note")),
    faithful(said),
  ];
}

export function draw(body, params, signal) {
  const asker = who(true);
  const item = el("input", { type: "text", required: true, spellcheck: "false", autocomplete: "off", pattern: "[^:]+:.+", placeholder: "shop:b3",
    value: params.get("item") ? `${params.get("platform")}:${params.get("item")}` : "" });
  const result = el("div", { class: "result", "aria-live": "polite" }, nothing(t("why.begin"), t("why.begin.said")));
  const ask = () => {
    const account = asker.read(), cut = item.value.indexOf(":");
    const wanted = { platform: item.value.slice(0, cut).trim(), item: item.value.slice(cut + 1).trim() };
    show(result, () => call("POST", "/v1/explain", { ...account, item: wanted, most: 20 }), (said) => drawn(said, account, signal));
  };
  put(body, el("form", { class: "card ask", on: { submit: (event) => { event.preventDefault(); ask(); } } },
    el("div", { class: "fields" }, asker.fields, field(t("why.item"), item)),
    el("div", { class: "row" }, el("button", { type: "submit", class: "main" }, t("why.ask")))), result);
  if (asker.user.value && item.value) ask();
}
