// Models: which one answers, and letting another one answer.

import { call, can } from "./api.js";
import { data, el, put, table } from "./dom.js";
import { confirmed, failure, modelNames, nothing, show } from "./parts.js";
import { t } from "./words.js";

export const needs = [["GET", "/v1/models"]];
const STEPS = ["shadow", "canary", "promote"];

const path = (name, step) => `/v1/models/${encodeURIComponent(name)}/${step}`;

function acts(one, run) {
  const buttons = [];
  const add = (step, body, danger = false) => can("POST", `/v1/models/{name}/${step}`) && buttons.push(
    el("button", { type: "button", "aria-label": t("models.of", { act: t(`models.${step}`), name: one.name }), on: { click: () => run(step, one.name, body, danger) } }, t(`models.${step}`)));
  if (!one.active) {
    add("activate");
    for (const step of STEPS) add(step, step === "canary" ? { share: 0.1 } : undefined);
  }
  return el("div", { class: "row" }, buttons.length ? buttons : el("span", { class: "soft" }, "–"));
}

function drawn(said, run) {
  const heads = [{ label: t("model") }, { label: t("models.version") }, { label: t("models.state") }, { label: t("models.acts") }];
  const more = Object.entries(said).filter(([name, value]) => !["active", "previous", "models"].includes(name) && value !== null && value !== undefined);
  const rows = said.models.map((one) => ({ kind: one.active ? "main" : "", cells: [data(one.name), el("code", {}, one.version),
    one.active ? el("span", { class: "tag good" }, t("active")) : data(one.role ?? one.state ?? t("models.idle")), acts(one, run)] }));
  const back = said.previous.at(-1);
  return [
    rows.length ? table(t("page.models"), heads, rows) : nothing(t("models.none"), t("models.none.said")),
    el("section", { class: "card gap" }, el("h3", {}, t("models.back")),
      back ? el("p", {}, t("models.back.said", { name: back })) : el("p", { class: "soft" }, t("models.back.none")),
      back && can("POST", "/v1/models/rollback") && el("button", { type: "button", class: "danger", on: { click: () => run("rollback", back, undefined, true) } }, t("models.rollback"))),
    more.length > 0 && el("section", { class: "card gap" }, el("h3", {}, t("models.rollout")), el("pre", { tabindex: "0" }, data(JSON.stringify(Object.fromEntries(more), null, 1)))),
  ];
}

export function draw(body) {
  const news = el("div", { role: "status" }), list = el("div", {});
  put(body, news, list);
  const look = () => show(list, modelNames, (said) => drawn(said, run));
  const run = async (step, name, given, danger) => {
    const sure = await confirmed({ title: t("models.sure", { act: t(`models.${step}`), name }), said: [t(`models.${step}.said`, { name })], action: t(`models.${step}`), danger });
    if (!sure) return;
    put(news, el("p", { class: "finding" }, t("models.working", { name })));
    try {
      const done = await call("POST", step === "rollback" ? "/v1/models/rollback" : path(name, step), given);
      put(news, el("p", { class: "finding win" }, t("models.done", { act: t(`models.${step}`), model: done?.model ?? name })));
    } catch (error) {
      put(news, failure(error));
    }
    look();
  };
  look();
}
