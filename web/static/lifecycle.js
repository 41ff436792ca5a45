/** The log's phase, and what is known of its life, asked for now and then. */

import { callJson } from "./api.js";

const POLL_SECONDS = 5;
const number = new Intl.NumberFormat("en");

/** Bytes as people say them. */
export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 ** 2) return `${(bytes / 1024).toFixed(1)} KiB`;
  return `${(bytes / 1024 ** 2).toFixed(1)} MiB`;
}

/** A time of the API as people say it, here. */
export function when(text) {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return text;
  return time.toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
}

/** A link that is followed only over HTTP(S), whatever the server was told. */
function safeLink(url, text) {
  const link = document.createElement("a");
  link.textContent = text;
  if (/^https?:\/\//i.test(url)) link.href = url;
  link.target = "_blank";
  link.rel = "noopener noreferrer";
  return link;
}

export class LifecyclePill {
  /**
   * @param {HTMLButtonElement} pill
   * @param {HTMLElement} panel
   * @param {string} jobId
   * @param {(body: object) => void} changed called with each answer
   */
  constructor(pill, panel, jobId, changed) {
    Object.assign(this, { pill, panel, jobId, changed, done: false });
    pill.addEventListener("click", () => this.toggle());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.started) this.#poll();
    });
  }

  start() {
    if (this.started) return;
    this.started = true;
    this.#poll();
  }

  toggle(open = this.panel.hidden) {
    this.panel.hidden = !open;
    this.pill.setAttribute("aria-expanded", String(open));
  }

  async #poll() {
    clearTimeout(this.timer);
    if (document.hidden) return; // goes on when it is looked at again
    try {
      const body = await callJson(`/logs/${this.jobId}/lifecycle`);
      this.#show(body);
      this.changed(body);
      this.done = body.phase === "done";
    } catch {
      // The log itself tells what is wrong; the pill only stays as it was.
    }
    // A log that is done may still be run again, so it is asked about, rarely.
    this.timer = setTimeout(() => this.#poll(), POLL_SECONDS * 1000 * (this.done ? 12 : 1));
  }

  #show(body) {
    this.pill.textContent = body.phase;
    this.pill.dataset.phase = body.phase;
    this.pill.hidden = false;
    const list = this.panel.querySelector("dl");
    list.replaceChildren();
    for (const [name, value] of rowsOf(body)) {
      const term = document.createElement("dt");
      term.textContent = name;
      const text = document.createElement("dd");
      text.append(value);
      list.append(term, text);
    }
    const links = this.panel.querySelector(".links");
    links.replaceChildren();
    if (body.temporal_ui_url) links.append(safeLink(body.temporal_ui_url, "Open in Temporal UI"));
  }
}

function rowsOf(body) {
  const rows = [["Phase", body.phase]];
  const add = (name, value, text) => value && rows.push([name, text ?? String(value)]);
  add("Parts", body.parts, number.format(body.parts ?? 0));
  add("Size", body.bytes, size(body.bytes ?? 0));
  add("Missing parts", body.missing_parts);
  add("Stale parts", body.stale_parts);
  add("Attempt", body.attempt);
  const older = (body.attempts ?? []).length - 1;
  add("Other attempts", older > 0 ? older : 0);
  add("Archive attempts", body.archive_attempts);
  add("Last error", body.last_error);
  for (const [name, field] of [
    ["First part", "created_at"],
    ["Updated", "updated_at"],
    ["Aggregated", "aggregated_at"],
    ["Archived", "archived_at"],
    ["Purged", "purged_at"],
    ["Removed", "removed_at"],
  ]) {
    if (body[field]) rows.push([name, when(body[field])]);
  }
  rows.push(["Workflow", body.workflow_id]);
  return rows;
}
