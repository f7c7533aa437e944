// Overview: the last hour of the service.

import { call } from "./api.js";
import { spark } from "./charts.js";
import { data, el, figure, put, table } from "./dom.js";
import { nothing, show } from "./parts.js";
import { ago, count, knows, share, t, took, when } from "./words.js";

export const needs = [["GET", "/v1/overview"]];
const EVERY = 10_000;

const total = (said, name) => said.minutes.reduce((sum, one) => sum + one[name], 0);
const line = (said, read, label, kind) => spark(said.minutes.map(read), label, kind);

function traffic(said) {
  const requests = total(said, "requests");
  const lately = said.minutes.slice(-6, -1).reduce((sum, one) => sum + one.requests, 0) / 5;
  return figure(t("over.requests"), count(requests), t("over.lately", { n: count(Math.round(lately)) }),
    line(said, (one) => one.requests, t("over.plot.requests")));
}

function times(said) {
  const lists = said.operations.find((one) => one.operation === "recommend");
  const more = lists ? `p50 ${took(lists.p50)} · p95 ${took(lists.p95)}` : t("over.nolists");
  return figure(t("over.p99"), took(lists?.p99), more, line(said, (one) => one.p99, t("over.plot.p99")));
}

function errors(said) {
  const failed = total(said, "failed"), requests = total(said, "requests");
  return figure(t("over.errors"), requests ? share(failed / requests, 2) : "–",
    t("over.refused", { failed: count(failed), refused: count(total(said, "refused")) }),
    line(said, (one) => one.failed, t("over.plot.errors"), "loss"), failed ? "bad" : "");
}

function degraded(said) {
  const lists = total(said, "lists"), cheap = total(said, "degraded");
  return figure(t("over.degraded"), lists ? share(cheap / lists, 2) : "–",
    t("over.layers", { cached: count(said.lists.cached ?? 0), popular: count(said.lists.popular ?? 0), lists: count(lists) }),
    line(said, (one) => (one.lists ? one.degraded / one.lists : null), t("over.plot.degraded"), "flag"));
}

function events(said) {
  return figure(t("over.events"), count(said.events.stored ?? 0),
    t("over.lag", { p99: took(said.commit.p99), waiting: count(said.sizes.events_waiting) }),
    line(said, (one) => one.events, t("over.plot.events")));
}

function model(said) {
  return figure(t("over.model"), data(said.model),
    [t("over.version"), " ", el("code", {}, said.model_version), el("br"),
      t("over.since", { loaded: ago(said.model_loaded, said.now), written: ago(said.model_written, said.now) })]);
}

function operations(said) {
  if (!said.operations.length) return nothing(t("over.quiet"), t("over.quiet.said"));
  const heads = [{ label: t("over.operation") }, ...["calls", "4xx", "5xx", "p50", "p95", "p99"].map((one) => ({ label: one === "calls" ? t("over.calls") : one, num: true }))];
  const rows = said.operations.map((one) => [el("code", {}, one.operation), count(one.calls), count(one.refused), count(one.failed), took(one.p50), took(one.p95), took(one.p99)]);
  return table(t("over.operations"), heads, rows);
}

function facts(said) {
  const rows = Object.entries(said.sizes).map(([name, value]) => el("div", {}, el("dt", {}, t(`size.${name}`)), el("dd", {}, count(value))));
  return el("dl", { class: "facts" }, rows);
}

/** Return what needs attention, each with the page that says more. */
function alerts(said) {
  if (!said.alerts.length) return null;
  const rows = said.alerts.map((one) => {
    const drift = one.of === "drift", page = drift ? "health" : one.of, name = `drift.${one.said}`;
    return el("li", {}, el("a", { href: `#/${page}` }, t(`page.${page}`)), " ",
      knows(name) ? t(name) : data(one.said), drift && [" ", el("span", { class: "tag bad" }, t("health.alarm"))]);
  });
  return el("section", { class: "card alarm" }, el("h2", {}, t("over.alerts")), el("ul", {}, rows));
}

function drawn(said) {
  return [
    alerts(said),
    el("div", { class: "figures" }, traffic(said), times(said), errors(said), degraded(said), events(said), model(said)),
    el("h2", {}, t("over.operations")), operations(said),
    el("h2", {}, t("over.sizes")), facts(said),
    el("p", { class: "soft small" }, t("over.asof", { time: when(said.now), began: when(said.began) })),
  ];
}

export function draw(body, params, signal) {
  const place = el("div");
  put(body, place);
  const look = (quiet) => show(place, () => call("GET", "/v1/overview"), drawn, quiet);
  const timer = setInterval(() => document.visibilityState === "visible" && look(true), EVERY);
  signal.addEventListener("abort", () => clearInterval(timer));
  look(false);
}
