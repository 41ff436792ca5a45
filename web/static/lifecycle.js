/** The phase of the log and its lifecycle details, polled. */

import { callJson } from "./api.js";
import { within } from "./dom.js";

/**
 * @typedef {object} AttemptBody
 * @property {string} uuid
 * @property {string | null} began_at
 * @property {string | null} closed_at
 * @property {boolean} is_log
 */
/**
 * @typedef {object} LifecycleBody the response of `/logs/{id}/lifecycle`
 * @property {string} phase
 * @property {number | null} parts
 * @property {number | null} bytes
 * @property {number | null} missing_parts
 * @property {boolean | null} complete
 * @property {number} stale_parts
 * @property {string} attempt
 * @property {AttemptBody[]} attempts
 * @property {number} archive_attempts
 * @property {string} last_error
 * @property {string} created_at
 * @property {string} updated_at
 * @property {string | null} aggregated_at
 * @property {string | null} archived_at
 * @property {string | null} purged_at
 * @property {string | null} removed_at
 * @property {string} workflow_id
 * @property {string | null} temporal_ui_url
 */

const POLL_SECONDS = 5;
const DONE_POLL_SECONDS = 60; // a job that is done may be restarted
const number = new Intl.NumberFormat("en");

/**
 * A size for display.
 * @param {number} bytes
 */
export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 ** 2) return `${(bytes / 1024).toFixed(1)} KiB`;
  return `${(bytes / 1024 ** 2).toFixed(1)} MiB`;
}

/**
 * A time of the API in the reader's format and time zone.
 * @param {string} text
 */
export function when(text) {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return text;
  return time.toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
}

/**
 * A link that opens only HTTP(S) URLs.
 * @param {string} url
 * @param {string} text
 */
function safeLink(url, text) {
  const link = document.createElement("a");
  link.textContent = text;
  if (/^https?:\/\//i.test(url)) link.href = url;
  link.target = "_blank";
  link.rel = "noopener noreferrer";
  return link;
}

export class LifecyclePill {
  #started = false;
  #timer = 0;
  #request = new AbortController();

  /**
   * @param {HTMLButtonElement} pill
   * @param {HTMLElement} panel
   * @param {string} jobId
   * @param {(body: LifecycleBody) => void} changed called with each response
   */
  constructor(pill, panel, jobId, changed) {
    this.pill = pill;
    this.panel = panel;
    this.jobId = jobId;
    this.changed = changed;
    this.done = false;
    pill.addEventListener("click", () => this.toggle());
    const poll = () => {
      if (!document.hidden && this.#started) this.#poll();
    };
    document.addEventListener("visibilitychange", poll);
    addEventListener("online", poll);
  }

  start() {
    if (this.#started) return;
    this.#started = true;
    this.#poll();
  }

  toggle(open = this.panel.hidden) {
    this.panel.hidden = !open;
    this.pill.setAttribute("aria-expanded", String(open));
  }

  async #poll() {
    clearTimeout(this.#timer);
    this.#request.abort();
    this.#request = new AbortController();
    const { signal } = this.#request;
    if (document.hidden) return; // visibilitychange resumes
    try {
      /** @type {LifecycleBody} */
      const body = await callJson(`/logs/${this.jobId}/lifecycle`, { signal });
      this.#show(body);
      this.changed(body);
      this.done = body.phase === "done";
    } catch {
      // The log itself reports errors; the pill stays as it was.
    }
    if (signal.aborted) return;
    const seconds = this.done ? DONE_POLL_SECONDS : POLL_SECONDS;
    this.#timer = setTimeout(() => this.#poll(), seconds * 1000);
  }

  /** @param {LifecycleBody} body */
  #show(body) {
    this.pill.textContent = body.phase;
    this.pill.dataset.phase = body.phase;
    this.pill.hidden = false;
    const list = within(this.panel, "dl", HTMLElement);
    list.replaceChildren();
    for (const [name, value] of rowsOf(body)) {
      const term = document.createElement("dt");
      term.textContent = name;
      const text = document.createElement("dd");
      text.append(value);
      list.append(term, text);
    }
    const links = within(this.panel, ".links", HTMLElement);
    links.replaceChildren();
    if (body.temporal_ui_url) links.append(safeLink(body.temporal_ui_url, "Open in Temporal UI"));
  }
}

/**
 * The details of a lifecycle; empty ones are left out.
 * @param {LifecycleBody} body
 * @returns {[name: string, value: string][]}
 */
function rowsOf(body) {
  /** @type {[name: string, value: string | number | null][]} */
  const rows = [
    ["Phase", body.phase],
    ["Parts", body.parts && number.format(body.parts)],
    ["Size", body.bytes && size(body.bytes)],
    ["Complete", body.complete === null ? null : body.complete ? "yes" : "no"],
    ["Missing parts", body.missing_parts],
    ["Stale parts", body.stale_parts],
    ["Attempt", body.attempt],
    ["Other attempts", Math.max(body.attempts.length - 1, 0)],
    ["Archive attempts", body.archive_attempts],
    ["Last error", body.last_error],
    ["First part", when(body.created_at)],
    ["Updated", when(body.updated_at)],
    ["Aggregated", body.aggregated_at && when(body.aggregated_at)],
    ["Archived", body.archived_at && when(body.archived_at)],
    ["Purged", body.purged_at && when(body.purged_at)],
    ["Removed", body.removed_at && when(body.removed_at)],
    ["Workflow", body.workflow_id],
  ];
  return rows.flatMap(([name, value]) => (value ? [[name, String(value)]] : []));
}
