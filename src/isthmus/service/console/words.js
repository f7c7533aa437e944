// Words of the console in the language chosen, and numbers and times as that language writes them.

export const LANGUAGES = [["en", "English"], ["zh", "中文"]];
const PLACE = "isthmus-language";
const SPANS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

let words = {};
let language = "en";

/** Read the words of a language; of the one chosen before, or the browser's, if none is given. */
export async function speak(wanted = "") {
  const known = LANGUAGES.map(([code]) => code);
  const before = localStorage.getItem(PLACE);
  const told = wanted || before || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
  language = known.includes(told) ? told : "en";
  if (wanted) localStorage.setItem(PLACE, language);
  const answer = await fetch(new URL(`${language}.json`, import.meta.url), { credentials: "omit" });
  words = await answer.json();
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
}

/** Return the language's code. */
export const spoken = () => language;

/** Return the words for ``name``, with {places} filled in. */
export function t(name, given = {}) {
  const said = words[name] ?? name;
  return said.replace(/\{(\w+)\}/g, (whole, place) => (place in given ? String(given[place]) : whole));
}

/** Return whether there are words for ``name``. */
export const knows = (name) => name in words;

/** Return a number. */
export const count = (value) => (value === null || value === undefined ? "–" : value.toLocaleString(language));

/** Return a number with some digits. */
export function digits(value, places = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return value.toLocaleString(language, { minimumFractionDigits: places, maximumFractionDigits: places });
}

/** Return a share. */
export function share(value, places = 1) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return value.toLocaleString(language, { style: "percent", maximumFractionDigits: places });
}

/** Return how long something took. */
export function took(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds >= 1) return `${digits(seconds, 2)} s`;
  const ms = seconds * 1000;
  return `${digits(ms, ms < 10 ? 1 : 0)} ms`;
}

/** Return how long ago something was. */
export function ago(seconds, now) {
  if (seconds === null || seconds === undefined) return "–";
  const past = Math.max(0, now - seconds);
  const [unit, size] = SPANS.find(([, least]) => past >= least) ?? SPANS[3];
  return new Intl.RelativeTimeFormat(language, { numeric: "auto" }).format(-Math.round(past / size), unit);
}

/** Return a point in time. */
export function when(value) {
  const date = typeof value === "number" ? new Date(value * 1000) : new Date(value);
  return Number.isNaN(date.getTime()) ? "–" : date.toLocaleString(language, { dateStyle: "medium", timeStyle: "short" });
}
