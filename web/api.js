// Api: requests to the server this page came from, and the login.
//
// The login is Open-Falcon's: POST /api/v1/user/login gives a `sig`, later requests carry it with the name in the
// header `Apitoken`. It is kept in sessionStorage: it ends with the tab, and other tabs and sites do not see it.

const TOKEN_KEY = "hawkeye.token";
// A server that has not answered by then is as good as away; the next refresh tries again.
const TIMEOUT_MS = 10_000;

// `kind` is "offline" (no answer), "login" (not allowed without one), or "refused" (any other error answer).
export class ApiError extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

export function hasToken() {
  return sessionStorage.getItem(TOKEN_KEY) !== null;
}

export function forgetToken() {
  sessionStorage.removeItem(TOKEN_KEY);
}

export async function login(name, password) {
  const body = JSON.stringify({ name, password });
  const answer = await request("api/v1/user/login", {
    method: "POST",
    body,
    headers: { "Content-Type": "application/json" },
  });
  sessionStorage.setItem(TOKEN_KEY, JSON.stringify({ name: answer.name, sig: answer.sig }));
}

// Logs in by the secret of a link that the server printed at its start; a secret works once.
export async function enter(secret) {
  const answer = await request("ui/enter", { method: "POST", body: secret });
  sessionStorage.setItem(TOKEN_KEY, JSON.stringify({ name: answer.name, sig: answer.sig }));
}

// The session is forgotten here even when the server cannot be told.
export async function logout() {
  try {
    await request("api/v1/user/logout");
  } finally {
    forgetToken();
  }
}

export function overview(q) {
  return request("ui/overview" + query({ q: q || undefined }));
}

export function history(endpoint, counters, start, end) {
  return request("ui/history" + query({ endpoint, counter: counters, start, end }));
}

export function counters(endpoint, q) {
  return request("ui/counters" + query({ endpoint, q: q || undefined }));
}

export function template(id) {
  return request(`api/v1/template/${encodeURIComponent(id)}`);
}

export function expression(id) {
  return request(`api/v1/expression/${encodeURIComponent(id)}`);
}

function query(parameters) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined) search.append(name, one);
    }
  }
  const text = search.toString();
  return text && "?" + text;
}

async function request(path, options = {}) {
  const headers = { ...options.headers };
  const token = sessionStorage.getItem(TOKEN_KEY);
  if (token !== null) headers.Apitoken = token;
  let response, text;
  try {
    response = await fetch(path, { ...options, headers, credentials: "omit", signal: AbortSignal.timeout(TIMEOUT_MS) });
    text = await response.text();
  } catch (error) {
    throw new ApiError("offline", String(error));
  }
  const answer = parse(text);
  if (response.ok && answer !== undefined) return answer;
  throw new ApiError(response.status === 401 ? "login" : "refused", answer?.error ?? `HTTP ${response.status}`);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
