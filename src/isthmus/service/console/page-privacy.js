// Privacy and audit: what is known of a person, erasing it, what the person allows; and who changed what.

import { call, can, named } from "./api.js";
import { data, el, put, table, tick } from "./dom.js";
import { confirmed, deed, failure, nothing, show, titled, who } from "./parts.js";
import { count, knows, t, when } from "./words.js";

export const needs = [["GET", "/v1/persons/{person}"], ["GET", "/v1/consents/{person}"], ["GET", "/v1/audit"]];

function save(said) {
  const link = el("a", { href: URL.createObjectURL(new Blob([JSON.stringify(said, null, 1)], { type: "application/json" })), download: "person.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function person(said, account, erase) {
  const events = [...said.events, ...said.model_history].sort((a, b) => (a.ts < b.ts ? 1 : -1));
  const heads = [{ label: t("item") }, { label: t("event") }, { label: t("time") }, { label: t("platform") }];
  const rows = events.slice(0, 100).map((one) => [titled({ ...one, title: null }), deed(one.event), when(one.ts), data(one.platform)]);
  return [
    el("section", { class: "card" }, el("dl", { class: "facts" },
      el("div", {}, el("dt", {}, t("privacy.accounts")), el("dd", { class: "accounts" }, said.accounts.map((one) => el("span", { class: "tag" }, data(`${one.platform}:${one.user}`))))),
      el("div", {}, el("dt", {}, t("privacy.events")), el("dd", {}, count(said.events.length))),
      el("div", {}, el("dt", {}, t("privacy.model")), el("dd", {}, count(said.model_history.length)))),
    el("div", { class: "row" }, el("button", { type: "button", on: { click: () => save(said) } }, t("privacy.save")),
      can("DELETE", "/v1/persons/{person}") && el("button", { type: "button", class: "danger", on: { click: erase } }, t("privacy.erase")))),
    rows.length ? table(t("privacy.events"), heads, rows) : nothing(t("privacy.noevents")),
    events.length > rows.length && el("p", { class: "soft small" }, t("privacy.first", { n: rows.length, all: count(events.length) })),
  ];
}

function receipt(said) {
  return el("section", { class: "card finding win" }, el("h3", {}, t("privacy.erased")),
    el("p", {}, t("privacy.erased.said", { accounts: count(said.accounts), events: count(said.events) })),
    el("p", {}, t("privacy.receipt"), " ", el("code", { class: "long" }, said.receipt)),
    !said.wiped && el("p", { class: "flag" }, t("privacy.unwiped")),
    said.model_holds_history && el("p", { class: "flag" }, t("privacy.refit")));
}

function consents(said, account, redraw) {
  const uses = said.uses ?? [];
  const heads = [{ label: t("privacy.from") }, { label: t("privacy.to") }, { label: t("privacy.allowed") }];
  const news = el("div", { role: "status" });
  const change = async (one, event) => {
    const allowed = event.target.checked;
    event.target.disabled = true;
    try {
      const body = { consents: [{ from_platform: one.from_platform, to_platform: one.to_platform, allowed }] };
      await call("PUT", named("/v1/consents", account.platform, account.user), body);
      redraw();
    } catch (error) {
      event.target.checked = !allowed;
      event.target.disabled = false;
      put(news, failure(error));
    }
  };
  const rows = uses.map((one) => [data(one.from_platform), data(one.to_platform),
    tick(t(one.allowed ? "yes" : "no"), { checked: one.allowed, disabled: !can("PUT", "/v1/consents/{person}"), on: { change: (event) => change(one, event) }, "aria-label": t("privacy.use", { from: one.from_platform, to: one.to_platform }) })]);
  return [rows.length ? table(t("privacy.consents"), heads, rows) : nothing(t("privacy.noconsents")), news];
}

/** Return what an entry says, as words. */
function facts(said) {
  const word = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value));
  return Object.entries(said).map(([name, value]) => el("div", { class: "small" }, el("span", { class: "soft" }, data(name), " "), el("code", {}, data(word(value)))));
}

function audit(said) {
  const state = el("p", { class: `finding ${said.intact ? "win" : "loss"}` }, said.intact ? t("audit.intact", { n: count(said.entries) }) : [t("audit.broken"), " ", data(said.problem)]);
  if (!said.newest.length) return [state, said.intact && nothing(t("audit.none"))];
  const heads = [{ label: "#" }, { label: t("time") }, { label: t("audit.actor") }, { label: t("audit.action") }, { label: t("audit.said") }, { label: t("audit.hash") }];
  const did = (action) => {
    const [word, step] = action.split(": ");
    return knows(`did.${word}`) && (!step || knows(`audit.${step}`)) ? [t(`did.${word}`), step ? `: ${t(`audit.${step}`)}` : ""] : data(action);
  };
  const rows = said.newest.map((one) => [count(one.number), when(one.ts), data(one.actor), did(one.action), facts(one.said), el("code", {}, one.hash)]);
  return [state, table(t("audit.title"), heads, rows)];
}

export function draw(body) {
  const asker = who(true), about = el("div", { class: "result", "aria-live": "polite" }), uses = el("div", { class: "result" }), log = el("div", {});
  const looks = [can("GET", "/v1/persons/{person}"), can("GET", "/v1/consents/{person}")];
  const ask = () => {
    const account = asker.read();
    const erase = async () => {
      const name = `${account.platform}:${account.user}`;
      if (!await confirmed({ title: t("privacy.sure"), said: [t("privacy.sure.said")], action: t("privacy.erase"), word: name, danger: true })) return;
      put(uses);
      show(about, () => call("DELETE", named("/v1/persons", account.platform, account.user)), (said) => { trail(); return receipt(said); });
    };
    if (looks[0]) show(about, () => call("GET", named("/v1/persons", account.platform, account.user)), (said) => { trail(); return person(said, account, erase); });
    const agree = () => show(uses, () => call("GET", named("/v1/consents", account.platform, account.user)), (said) => [el("h2", {}, t("privacy.consents")), consents(said, account, agree)]);
    if (looks[1]) agree();
  };
  const trail = () => can("GET", "/v1/audit") && show(log, () => call("GET", "/v1/audit"), audit);
  put(body,
    looks.some(Boolean) && el("form", { class: "card ask", on: { submit: (event) => { event.preventDefault(); ask(); } } },
      el("div", { class: "fields" }, asker.fields, el("div", { class: "field" }, el("button", { type: "submit", class: "main low" }, t("privacy.look"))))),
    looks.some(Boolean) && put(about, nothing(t("privacy.begin"), t("privacy.begin.said"))), uses,
    can("GET", "/v1/audit") && el("h2", {}, t("audit.title")), log);
  trail();
}
