// Models: which one answers, trying others beside it, and letting another one answer.

import { call, can } from "./api.js";
import { data, el, put, table } from "./dom.js";
import { confirmed, failure, modelNames, nothing, show } from "./parts.js";
import { count, share, t, took, when } from "./words.js";

export const needs = [["GET", "/v1/models"]];
const SHARE = 0.1;
const TRIALS = ["shadow", "canary"];
const DANGER = ["rollback", "promote"];

const path = (name, step) => `/v1/models/${encodeURIComponent(name)}/${step}`;

/** Return the calls that concern one model now: [what, method, body]. */
function steps(one, said) {
  if (one.active) return [];
  const trials = TRIALS.map((role) => (said[role]?.model === one.name ? [`end.${role}`, "DELETE"] : [role, "POST", { share: role === "canary" ? SHARE : 1 }]));
  return [["check", "POST"], ...trials, ["promote", "POST"], ["activate", "POST"]]
    .filter(([step, method]) => can(method, `/v1/models/{name}/${step.replace("end.", "")}`));
}

function acts(one, said, run) {
  const buttons = steps(one, said).map(([step, method, body]) => el("button", {
    type: "button", "aria-label": t("models.of", { act: t(`models.${step}`), name: one.name }),
    on: { click: () => run(step, method, one.name, body) } }, t(`models.${step}`)));
  return el("div", { class: "row tight" }, buttons.length ? buttons : el("span", { class: "soft" }, "–"));
}

function state(one, said) {
  if (one.active) return el("span", { class: "tag good" }, t("active"));
  const roles = TRIALS.filter((role) => said[role]?.model === one.name);
  return roles.length ? roles.map((role) => [el("span", { class: "tag warn" }, t(`models.is.${role}`)), " "]) : el("span", { class: "soft" }, t("models.idle"));
}

const fact = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));

/** Return how the models that are tried do. */
function trials(said) {
  const { canary, shadow, ended } = said;
  return [
    canary && el("section", { class: "card gap" }, el("h3", {}, t("models.is.canary"), ": ", data(canary.model)), el("dl", { class: "facts" },
      fact(t("models.share"), share(canary.share)), fact(t("models.lists"), count(canary.lists)),
      fact(t("models.failed"), `${count(canary.failed)} · ${t("models.most", { n: share(canary.errors) })}`),
      fact(t("models.late", { n: took(canary.seconds) }), count(canary.late)),
      fact(t("models.others"), `${count(canary.lists_of_others)} · ${count(canary.late_of_others)}`))),
    shadow && el("section", { class: "card gap" }, el("h3", {}, t("models.is.shadow"), ": ", data(shadow.model)), el("dl", { class: "facts" },
      fact(t("models.share"), share(shadow.share)), fact(t("models.lists"), count(shadow.lists)), fact(t("models.failed"), count(shadow.failed)), fact(t("models.overlap"), share(shadow.overlap)))),
    ended && el("p", { class: "finding" }, t("models.ended", { role: t(`models.is.${ended.role}`), time: when(ended.at / 1e6) }), " ", data(ended.model), ": ", data(ended.reason)),
  ];
}

function drawn(said, run) {
  const heads = [{ label: t("model") }, { label: t("models.version") }, { label: t("models.state") }, { label: t("models.acts") }];
  const rows = said.models.map((one) => ({ kind: one.active ? "main" : "", cells: [data(one.name), el("code", {}, one.version), state(one, said), acts(one, said, run)] }));
  const back = said.previous.at(-1);
  return [
    rows.length ? table(t("page.models"), heads, rows) : nothing(t("models.none"), t("models.none.said")),
    trials(said),
    el("section", { class: "card gap" }, el("h3", {}, t("models.back")),
      back ? el("p", {}, t("models.back.said", { name: back })) : el("p", { class: "soft" }, t("models.back.none")),
      back && can("POST", "/v1/models/rollback") && el("button", { type: "button", class: "danger", on: { click: () => run("rollback", "POST", back) } }, t("models.rollback"))),
  ];
}

/** Return what a model showed beside the one that answers. */
function judged(said) {
  const heads = [{ label: t("models.point") }, { label: t("domain") }, { label: t("models.passed") }, { label: t("models.why") }];
  const rows = said.checks.map((one) => ({ kind: one.passed ? "" : "alarm", cells: [t(`check.${one.name}`), data(one.domain), t(one.passed ? "yes" : "no"), data(one.said)] }));
  return [el("p", { class: `finding ${said.passed ? "win" : "loss"}` }, t(said.passed ? "models.good" : "models.bad", { name: said.model }), " ", data(said.reasons.join("; "))),
    rows.length > 0 && table(t("models.check"), heads, rows), el("div", { class: "gap" })];
}

export function draw(body) {
  const news = el("div", { role: "status" }), list = el("div", {});
  put(body, news, list);
  const look = () => show(list, modelNames, (said) => drawn(said, run));
  const run = async (step, method, name, given) => {
    const act = t(`models.${step}`);
    const asks = step !== "check" && { title: t("models.sure", { act, name }), said: [t(`models.${step}.said`, { name })], action: act, danger: DANGER.includes(step) };
    if (asks && !await confirmed(asks)) return;
    put(news, el("p", { class: "finding" }, t("models.working", { name })));
    try {
      const done = await call(method, step === "rollback" ? "/v1/models/rollback" : path(name, step.replace("end.", "")), given);
      put(news, done?.checks ? judged(done) : el("p", { class: "finding win" }, t("models.done", { act, model: done?.model ?? name })));
    } catch (error) {
      put(news, failure(error));
    }
    look();
  };
  look();
}
