// The shell: which page is shown, who may see it, in which language and light.

import { can, enter, leave, rights } from "./api.js";
import { el, field, put } from "./dom.js";
import { failure, person, waiting } from "./parts.js";
import { LANGUAGES, speak, spoken, t } from "./words.js";
import * as cohorts from "./page-cohorts.js";
import * as health from "./page-health.js";
import * as item from "./page-item.js";
import * as models from "./page-models.js";
import * as overview from "./page-overview.js";
import * as privacy from "./page-privacy.js";
import * as tries from "./page-try.js";
import * as why from "./page-why.js";

const PAGES = { overview, try: tries, why, item, cohorts, health, models, privacy };
const LIGHT = "isthmus-light";
const LIGHTS = ["auto", "light", "dark"];
const root = document.getElementById("app");
let ended = null;

/** Return whether the key opens a page: any of the operations it is made of. */
const opens = (page) => page.needs.some(([method, path]) => can(method, path));

function light(wanted) {
  if (wanted === "auto") delete document.documentElement.dataset.light;
  else document.documentElement.dataset.light = wanted;
}

function switches(redraw) {
  const now = localStorage.getItem(LIGHT) ?? "auto";
  const lights = el("select", { "aria-label": t("light"), on: { change: (event) => {
    localStorage.setItem(LIGHT, event.target.value);
    light(event.target.value);
  } } }, LIGHTS.map((one) => el("option", { value: one, selected: one === now }, t(`light.${one}`))));
  const tongues = el("select", { "aria-label": t("language"), on: { change: async (event) => {
    await speak(event.target.value);
    redraw();
  } } }, LANGUAGES.map(([code, name]) => el("option", { value: code, lang: code, selected: code === spoken() }, name)));
  return el("div", { class: "switches" }, tongues, lights);
}

function login(refused = false) {
  const input = el("input", { type: "password", autocomplete: "off", required: true, spellcheck: "false", placeholder: "isk_…" });
  const told = el("div", { role: "alert" }, refused && el("p", { class: "flag" }, t("login.refused")));
  const act = async (event) => {
    event.preventDefault();
    try {
      const said = await enter(input.value);
      if (said.locked && !said.key) { put(told, el("p", { class: "flag" }, t("login.refused"))); input.select(); return; }
      shell();
    } catch (error) {
      put(told, failure(error));
    }
  };
  document.title = `${t("login.title")} · Isthmus`;
  put(root, el("main", { class: "login" }, brand(), el("form", { class: "card", on: { submit: act } },
    el("h1", {}, t("login.title")), el("p", { class: "soft" }, t("login.said")), field(t("login.key"), input), told,
    el("button", { type: "submit", class: "main" }, t("login.enter"))), switches(() => login())));
  root.removeAttribute("aria-busy");
  input.focus();
}

const brand = () => el("span", { class: "brand" }, el("img", { src: "console/mark.svg", alt: "", width: 24, height: 24 }), "Isthmus");

function shell() {
  const said = rights();
  if (said.locked && !said.key) { login(); return; }
  const links = Object.entries(PAGES).filter(([, page]) => opens(page))
    .map(([name]) => el("li", {}, el("a", { href: `#/${name}`, "data-page": name }, t(`page.${name}`))));
  const menu = el("button", { type: "button", class: "menu", "aria-expanded": "false", "aria-controls": "nav", on: { click: () => open(nav.dataset.open !== "yes") } }, t("menu"));
  const nav = el("nav", { id: "nav", "aria-label": t("pages") }, el("ul", {}, links));
  const open = (yes) => { nav.dataset.open = yes ? "yes" : "no"; menu.setAttribute("aria-expanded", String(yes)); };
  nav.addEventListener("click", () => open(false));
  nav.addEventListener("keydown", (event) => { if (event.key === "Escape") { open(false); menu.focus(); } });
  const main = el("main", { id: "main", tabindex: "-1" });
  const key = said.locked && el("p", { class: "soft small key" }, `${t("key")} `, el("code", {}, said.key),
    el("button", { type: "button", class: "plain", on: { click: leave } }, t("leave")));
  put(root,
    el("button", { type: "button", class: "skip", on: { click: () => main.focus() } }, t("skip")),
    el("header", { class: "side" }, el("div", { class: "top" }, brand(), menu), nav,
      el("div", { class: "foot" }, key, switches(shell))),
    main);
  root.removeAttribute("aria-busy");
  route(true);
}

/** Show the page the address names. */
function route(first = false) {
  const main = document.getElementById("main");
  if (!main) return;
  const [name, query] = location.hash.replace(/^#\/?/, "").split("?");
  const allowed = Object.keys(PAGES).filter((one) => opens(PAGES[one]));
  const shown = allowed.includes(name) ? name : allowed[0];
  ended?.abort();
  ended = new AbortController();
  for (const link of document.querySelectorAll("#nav a")) {
    if (link.dataset.page === shown) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!shown) { put(main, el("div", { class: "state" }, el("p", { class: "title" }, t("none.title")), el("p", { class: "soft" }, t("none.said")))); return; }
  const title = el("h1", { tabindex: "-1" }, t(`page.${shown}`));
  const body = el("div", { class: `page page-${shown}` }, waiting());
  document.title = `${t(`page.${shown}`)} · Isthmus`;
  put(main, el("div", { class: "head" }, title, el("p", { class: "soft" }, t(`lead.${shown}`))), body);
  window.scrollTo(0, 0);
  if (!first) title.focus({ preventScroll: true });
  try {
    PAGES[shown].draw(body, new URLSearchParams(query), ended.signal);
  } catch (error) {
    put(body, failure(error, () => route()));
  }
}

async function begin() {
  light(localStorage.getItem(LIGHT) ?? "auto");
  try {
    await speak();
    await enter();
    shell();
  } catch (error) {
    put(root, el("main", { class: "login" }, brand(), failure(error, begin)));
    root.removeAttribute("aria-busy");
  }
}

window.addEventListener("hashchange", () => route());
document.addEventListener("isthmus-left", () => { Object.assign(person, { platform: "", user: "" }); ended?.abort(); login(); });
begin();
