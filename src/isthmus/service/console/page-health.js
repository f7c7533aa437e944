// Drift and health: whether requests should be sent here, and whether the world still is what the model learned from.

import { call, can } from "./api.js";
import { data, el, put, table } from "./dom.js";
import { nothing, show } from "./parts.js";
import { count, digits, knows, t } from "./words.js";

export const needs = [["GET", "/readyz"]];

function ready(said) {
  const good = said.status === "ok" || said.ready === true;
  const reasons = said.reasons ?? [];
  return el("section", { class: "card" }, el("p", { class: "big" }, el("span", { class: `tag ${good ? "good" : "bad"}` }, t(good ? "health.ready" : "health.unready"))),
    reasons.length ? el("ul", {}, reasons.map((one) => el("li", {}, data(typeof one === "string" ? one : JSON.stringify(one))))) : el("p", { class: "soft" }, t(good ? "health.ready.said" : "health.unready.said")));
}

const worded = (value) => (typeof value === "number" ? (Number.isInteger(value) ? count(value) : digits(value, 4)) : typeof value === "boolean" ? t(value ? "yes" : "no") : String(value ?? "–"));
const label = (name) => (knows(`drift.${name}`) ? t(`drift.${name}`) : name.replaceAll("_", " "));

/** Return what was said of drift: facts, and a table for each list of rows. */
export function told(said) {
  const plain = Object.entries(said).filter(([, value]) => value === null || typeof value !== "object");
  const deep = Object.entries(said).filter(([, value]) => value !== null && typeof value === "object");
  return [
    plain.length > 0 && el("dl", { class: "facts" }, plain.map(([name, value]) => el("div", {}, el("dt", {}, label(name)), el("dd", {}, data(worded(value)))))),
    deep.map(([name, value]) => {
      const rows = Array.isArray(value) ? value : Object.entries(value).map(([key, one]) => (one !== null && typeof one === "object" ? { name: key, ...one } : { name: key, value: one }));
      if (!rows.length) return null;
      if (rows.some((row) => row === null || typeof row !== "object")) return el("p", {}, label(name), ": ", data(rows.map(worded).join(", ")));
      const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))].filter((one) => rows.some((row) => typeof row[one] !== "object" || row[one] === null));
      const heads = columns.map((one) => ({ label: label(one), num: rows.some((row) => typeof row[one] === "number") }));
      const drawn = rows.map((row) => ({ kind: row.drifted || row.alarm ? "alarm" : "", cells: columns.map((one) => data(worded(row[one]))) }));
      return [el("h3", {}, label(name)), table(label(name), heads, drawn)];
    })];
}

export function draw(body) {
  const state = el("div", {}), drift = el("div", {});
  put(body, state, el("h2", {}, t("health.drift")), drift);
  show(state, () => call("GET", "/readyz", undefined, [503]), ready);
  if (!can("GET", "/v1/drift")) { put(drift, nothing(t("health.nodrift"), t("health.nodrift.said"))); return; }
  show(drift, () => call("GET", "/v1/drift"), told);
}
