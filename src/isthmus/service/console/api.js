// Calls to the service. The key is sent with each call and lives as long as the tab; no cookie, so no page of elsewhere can use it.

const ROOT = new URL("../", import.meta.url);
const PLACE = "isthmus-key";
const PATIENCE = 30_000;

let key = sessionStorage.getItem(PLACE) ?? "";
let access = null;

/** An answer that is no success. */
export class Problem extends Error {
  constructor(status, said = {}) {
    super(said.detail ?? "");
    Object.assign(this, { status, where: said.where ?? "", fix: said.fix ?? "", request: said.request_id ?? "" });
  }
}

async function send(method, path, body) {
  const headers = { accept: "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const sent = { method, headers, cache: "no-store", credentials: "omit", redirect: "error" };
  sent.signal = AbortSignal.timeout(PATIENCE);
  if (body !== undefined) sent.body = JSON.stringify(body);
  try {
    return await fetch(new URL(path.slice(1), ROOT), sent);
  } catch {
    throw new Problem(0);
  }
}

/** Return what the service answers, as JSON. */
export async function call(method, path, body, allowed = []) {
  const answer = await send(method, path, body);
  let said = null;
  try {
    said = await answer.json();
  } catch {
    if (answer.ok) throw new Problem(answer.status);
  }
  if (answer.ok || allowed.includes(answer.status)) return said;
  if (answer.status === 401) leave();
  throw new Problem(answer.status, said ?? {});
}

/** Return what the key opens; asked for again after each change of the key. */
export async function enter(text = key) {
  key = text.trim();
  access = await call("GET", "/v1/access");
  if (!access.locked || access.key) {
    if (key && access.locked) sessionStorage.setItem(PLACE, key);
  } else {
    key = "";
    sessionStorage.removeItem(PLACE);
  }
  return access;
}

/** Forget the key. */
export function leave() {
  key = "";
  access = null;
  sessionStorage.removeItem(PLACE);
  document.dispatchEvent(new Event("isthmus-left"));
}

/** Return what the key opens, as it was said last. */
export const rights = () => access ?? { platforms: [], domains: [], operations: [], scopes: [] };

/** Return whether the service has an operation and the key opens it. */
export const can = (method, path) => rights().operations.some((one) => one.method === method && one.path === path);

/** Return the path of an item or person. */
export const named = (start, platform, id) => `${start}/${encodeURIComponent(`${platform}:${id}`)}`;
