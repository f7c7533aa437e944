// Drift and health: whether requests should be sent here, and whether the world still is what the model learned from.

import { call, can } from "./api.js";
import { shares } from "./charts.js";
import { data, el, put } from "./dom.js";
import { nothing, show } from "./parts.js";
import { count, digits, knows, share, spoken, t, when } from "./words.js";

export const needs = [["GET", "/readyz"]];
const SHOWN = 8;

function ready(said) {
  const good = said.status === "ok" || said.ready === true;
  const reasons = said.reasons ?? [];
  return el("section", { class: "card" }, el("p", { class: "big" }, el("span", { class: `tag ${good ? "good" : "bad"}` }, t(good ? "health.ready" : "health.unready"))),
    reasons.length ? el("ul", {}, reasons.map((one) => el("li", {}, data(typeof one === "string" ? one : JSON.stringify(one))))) : el("p", { class: "soft" }, t(good ? "health.ready.said" : "health.unready.said")));
}

/** Return the names of the largest shares, in the order of what was expected. */
function largest(one) {
  const names = [...new Set([...Object.keys(one.reference), ...Object.keys(one.seen)])];
  const size = (name) => Math.max(one.reference[name] ?? 0, one.seen[name] ?? 0);
  return names.sort((a, b) => size(b) - size(a)).slice(0, SHOWN);
}

function feature(one) {
  const names = largest(one), known = Object.keys(one.seen).length > 0;
  const rows = names.map((name) => {
    const was = one.reference[name] ?? 0, is = known ? one.seen[name] ?? 0 : null;
    return el("tr", {}, el("th", { scope: "row" }, data(name)), el("td", { class: "plot" }, shares(was, is, `${name}: ${share(was)}, ${share(is)}`)),
      el("td", { class: "num" }, share(was)), el("td", { class: "num" }, share(is)));
  });
  const head = [t("health.part"), "", t("health.expected"), t("health.seen")].map((label, place) => el("th", { scope: "col", class: place > 1 ? "num" : null }, label));
  const state = one.alarm ? el("span", { class: "tag bad" }, t("health.alarm")) : known ? el("span", { class: "tag good" }, t("health.steady")) : el("span", { class: "tag" }, t("health.soon"));
  return el("section", { class: `card ${one.alarm ? "alarm" : ""}` },
    el("h3", {}, knows(`drift.${one.of}`) ? t(`drift.${one.of}`) : data(one.of.replaceAll("_", " ")), " ", state),
    spoken() === "en" && el("p", { class: "soft small" }, data(one.about)),
    rows.length ? el("table", { class: "narrow" }, el("caption", { class: "unseen" }, one.of), el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)) : nothing(t("health.nothing")),
    el("p", { class: "soft small" }, known ? t("health.psi", { psi: digits(one.psi, 3), time: when(one.at) }) : "", " ", t("health.window", { n: count(one.waiting), size: count(one.window) })));
}

/** Return what has changed since the model was made. */
function told(said) {
  const features = said.features ?? [];
  if (!features.length) return nothing(t("health.nodrift"), t("health.nodrift.said"));
  const alarms = features.filter((one) => one.alarm).length;
  const sorted = [...features].sort((a, b) => Number(b.alarm) - Number(a.alarm));
  const early = features.every((one) => !Object.keys(one.seen).length);
  return [el("p", { class: `finding ${alarms ? "loss" : early ? "" : "win"}` }, alarms ? t("health.alarms", { n: count(alarms) }) : t(early ? "health.early" : "health.none")),
    el("div", { class: "sides broad" }, sorted.map(feature))];
}

export function draw(body) {
  const state = el("div", {}), drift = el("div", {});
  put(body, state, el("h2", {}, t("health.drift")), drift);
  show(state, () => call("GET", "/readyz", undefined, [503]), ready);
  if (!can("GET", "/v1/drift")) { put(drift, nothing(t("health.nodrift"), t("health.nodrift.said"))); return; }
  show(drift, () => call("GET", "/v1/drift"), told);
}
