// Cohorts: what a model reached for which people and items, with intervals, and the weights of its blend.

import { call } from "./api.js";
import { axis, intervals, ruler } from "./charts.js";
import { choice, data, el, field, put, table } from "./dom.js";
import { modelNames, nothing, show } from "./parts.js";
import { count, digits, knows, share, t } from "./words.js";

export const needs = [["GET", "/v1/models/{name}/report"]];

const named_ = (name) => (knows(`cohort.${name}`) ? t(`cohort.${name}`) : name || t("cohort.all"));
const said = (one) => (one && one.mean !== null ? `${digits(one.mean)} (${digits(one.low)}–${digits(one.high)})` : "–");

function judged(one) {
  const systems = Object.keys(one.cohorts[0].systems);
  const others = systems.filter((name) => name !== one.main);
  const mean = (name) => one.cohorts[0].systems[name]?.mean ?? -1;
  const rival = choice(others.map((name) => [name, name]), others.sort((a, b) => mean(b) - mean(a))[0]);
  const plot = el("div", {});
  const drawn = () => {
    const shown = [one.main, ...(rival.value ? [rival.value] : [])];
    const scale = axis(one.cohorts.flatMap((part) => shown.flatMap((name) => [part.systems[name]?.low, part.systems[name]?.high])));
    const heads = [{ label: t("cohort") }, { label: "n", num: true }, { label: one.metric }, ...shown.map((name, place) => ({ label: el("span", { class: `key-${place}` }, data(name)), num: true }))];
    const rows = one.cohorts.map((part) => ({ kind: part.name ? "" : "whole", cells: [
      [named_(part.name), el("span", { class: "soft small" }, ` ${t(`of.${part.of}`)}`)], count(part.n),
      intervals(scale, shown.map((name) => part.systems[name]), shown.map((name) => `${name}: ${said(part.systems[name])}`).join("; ")),
      ...shown.map((name) => said(part.systems[name]))] }));
    rows.push({ kind: "foot", cells: ["", "", ruler(scale), ...shown.map(() => "")] });
    put(plot, table(`${one.domain}: ${one.metric}`, heads, rows));
  };
  rival.addEventListener("change", drawn);
  drawn();
  return [el("h2", {}, data(one.domain)), one.verdict && el("p", { class: "finding" }, data(one.verdict)),
    el("p", { class: "soft" }, t("cohort.size", { persons: count(one.persons), items: count(one.items), metric: one.metric })),
    others.length > 0 && el("div", { class: "row beside" }, field(t("cohort.against"), rival)), plot];
}

function weights(said) {
  const domains = Object.entries(said.weights);
  if (!domains.length) return null;
  return [el("h2", {}, t("cohort.weights")), el("p", { class: "soft" }, t("cohort.weights.said")), domains.map(([domain, rows]) => {
    const methods = Object.keys(Object.values(rows)[0] ?? {});
    const heads = [{ label: data(domain) }, ...methods.map((name) => ({ label: data(name), num: true }))];
    return el("div", { class: "gap" }, table(`${t("cohort.weights")}: ${domain}`, heads, Object.entries(rows).map(([name, row]) => [named_(name), ...methods.map((one) => share(row[one], 0))])));
  })];
}

function drawn(said) {
  const none = nothing(t("cohort.none"), t("cohort.none.said", { model: said.model }));
  return [
    said.report ? el("p", { class: "soft small" }, data(said.title), " · ", data(said.created), " · ", t("cohort.from"), " ", el("code", {}, said.report)) : none,
    said.domains.map(judged), weights(said)];
}

export function draw(body) {
  show(body, modelNames, (known) => {
    const result = el("div", { class: "result", "aria-live": "polite" });
    const names = known.models.map((one) => [one.name, one.name === known.active ? `${one.name} · ${t("active")}` : one.name]);
    const model = choice(names, known.active);
    const ask = () => show(result, () => call("GET", `${named_path(model.value)}/report`), drawn);
    model.addEventListener("change", ask);
    if (!names.length) return nothing(t("models.none"));
    ask();
    return [el("div", { class: "row" }, field(t("model"), model)), result];
  });
}

const named_path = (name) => `/v1/models/${encodeURIComponent(name)}`;
