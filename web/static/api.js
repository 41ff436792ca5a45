/** Calls to the server, with the token that the person typed or the share link they came by. */

const TOKEN_KEY = "logflume-token";
const share = new URLSearchParams(location.search).get("share");

/** An answer that is no success. `status` 0: there was no answer at all. */
export class ApiError extends Error {
  constructor(status, text, retryAfter = 0) {
    super(text);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** Keep the token for this tab. */
export function setToken(token) {
  sessionStorage.setItem(TOKEN_KEY, token);
}

/** Whether requests carry a token, which links cannot. */
export function hasToken() {
  return sessionStorage.getItem(TOKEN_KEY) !== null;
}

/** The address of a path of the API, with the share link's signature. */
export function address(path, params = {}) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(params)) url.searchParams.set(name, value);
  if (share) url.searchParams.set("share", share);
  return url.pathname + url.search;
}

/**
 * Call the API.
 * @param {string} path
 * @param {{params?: object, headers?: object, signal?: AbortSignal}} options
 * @returns {Promise<Response>}
 * @throws {ApiError} whatever is no success; aborts stay DOMExceptions
 */
export async function call(path, { params, headers = {}, signal } = {}) {
  const sent = { ...headers };
  if (hasToken()) sent.Authorization = `token ${sessionStorage.getItem(TOKEN_KEY)}`;
  let answer;
  try {
    answer = await fetch(address(path, params), { headers: sent, signal, cache: "no-store" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "the server cannot be reached");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  const retryAfter = Number(answer.headers.get("Retry-After")) || 0;
  throw new ApiError(answer.status, String(said.error || answer.statusText), retryAfter);
}

/** Call the API for JSON. */
export async function callJson(path, options) {
  return (await call(path, options)).json();
}

/** Wait some seconds; ends early, with an error, when the signal aborts. */
export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
