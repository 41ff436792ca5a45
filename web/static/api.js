/** Calls to the API, authorized by the token in this tab or by the share link of the page. */

const TOKEN_KEY = "logflume-token";
const query = new URLSearchParams(location.search);
const share = query.get("share");
/** The uuid of the attempt that this page shows; null: the one that is the log. */
export const chosenAttempt = query.get("attempt");

/**
 * @typedef {object} CallOptions
 * @property {Record<string, string>} [params] the query
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 * @property {number} [seconds] until the whole response must be there
 */

/** A response with an error status; status 0: there was no response. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} text
   * @param {number} [retryAfter] seconds to wait before a retry, as the server asked
   */
  constructor(status, text, retryAfter = 0) {
    super(text);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/**
 * Anything that was thrown as an ApiError.
 * @param {unknown} error
 */
export function apiError(error) {
  return error instanceof ApiError ? error : new ApiError(0, String(error));
}

/**
 * Store the token for this tab.
 * @param {string} token
 */
export function setToken(token) {
  sessionStorage.setItem(TOKEN_KEY, token);
}

/** Whether requests carry a token, which links cannot. */
export function hasToken() {
  return sessionStorage.getItem(TOKEN_KEY) !== null;
}

/**
 * The URL of an API path, with the signature of the share link and the attempt of the page.
 * @param {string} path
 * @param {Record<string, string>} [params]
 */
export function address(path, params = {}) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(params)) url.searchParams.set(name, value);
  if (share) url.searchParams.set("share", share);
  const isText = /^\/logs\/\d+\/(?:raw|outline|search)$/.test(url.pathname);
  if (isText && chosenAttempt !== null) url.searchParams.set("attempt", chosenAttempt);
  return url.pathname + url.search;
}

/**
 * Call the API.
 * @param {string} path
 * @param {CallOptions} [options]
 * @returns {Promise<Response>}
 * @throws {ApiError} for every failure but an abort, which stays a DOMException
 */
export async function call(path, { params, headers = {}, signal, seconds = 30 } = {}) {
  const sent = { ...headers };
  const limits = signal ? [signal] : [];
  if (seconds !== Infinity) limits.push(AbortSignal.timeout(seconds * 1000));
  const limit = AbortSignal.any(limits);
  if (hasToken()) sent.Authorization = `token ${sessionStorage.getItem(TOKEN_KEY)}`;
  let response;
  try {
    response = await fetch(address(path, params), {
      headers: sent,
      signal: limit,
      cache: "no-store",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, `the server ${limit.aborted ? "does not answer" : "cannot be reached"}`);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const retryAfter = Number(response.headers.get("Retry-After")) || 0;
  throw new ApiError(response.status, String(body.error || response.statusText), retryAfter);
}

/**
 * Call the API for JSON.
 * @param {string} path
 * @param {CallOptions} [options]
 */
export async function callJson(path, options) {
  return (await call(path, options)).json();
}

/**
 * Wait with jitter (±25 %), so that readers do not all return at once; rejects when the signal
 * aborts.
 * @param {number} seconds
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * (750 + 500 * Math.random()));
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
