/** The state of the job in the bar, the title and the icon; the footer's position and pace. */

import { byId } from "./dom.js";
import { exitCode, lastTexts } from "./result.js";

/** @typedef {import("./log.js").Log} Log */
/** @typedef {"running" | "passed" | "failed" | "unknown"} Outcome */

const RATE_SECONDS = 5;
/** @type {Record<Outcome, {mark: string, colour: string}>} */
const SIGNS = {
  running: { mark: "● ", colour: "#1f6feb" },
  passed: { mark: "✓ ", colour: "#1a7f37" },
  failed: { mark: "✗ ", colour: "#cf222e" },
  unknown: { mark: "", colour: "#59636e" },
};
const number = new Intl.NumberFormat("en");

/** @param {string} colour */
const icon = (colour) =>
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="4" fill="${colour}"/><path d="M3 5h7M3 8h10M3 11h6" stroke="#fff" stroke-width="1.6" stroke-linecap="round"/></svg>`;

/**
 * A duration in the largest whole unit.
 * @param {number} seconds
 */
function ago(seconds) {
  if (seconds < 60) return `${seconds} s`;
  return seconds < 3600 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`;
}

export class Status {
  #grewAt = 0;
  #hasGrown = false;
  /** @type {number[]} lines of the log at each of the last seconds */
  #counts = [];

  /** @param {Log} log */
  constructor(log) {
    this.log = log;
    this.result = byId("result", HTMLElement);
    this.position = byId("position", HTMLElement);
    this.pace = byId("pace", HTMLElement);
    this.icon = byId("icon", HTMLLinkElement);
    setInterval(() => this.#tick(), 1000);
    this.reset();
  }

  /** The log was opened or replaced. */
  reset() {
    this.#grewAt = Date.now();
    this.#hasGrown = false;
    this.#counts = [];
    this.update();
  }

  grew() {
    this.#grewAt = Date.now();
    this.#hasGrown = true;
  }

  /** Show the state of the job. */
  update() {
    const { log, result } = this;
    const isOver = log.isOpen && log.ended;
    const code = isOver ? exitCode(lastTexts(log.lines, log.outline.lines)) : null;
    /** @type {Outcome} */
    let outcome = log.isOpen && !log.ended ? "running" : "unknown";
    if (code !== null) outcome = code === 0 ? "passed" : "failed";
    result.dataset.outcome = outcome;
    result.textContent = code ? `failed (exit code ${code})` : code === 0 ? "passed" : "";
    const { mark, colour } = SIGNS[outcome];
    const word = outcome === "unknown" ? "logflume" : outcome;
    document.title = `${mark}Job ${log.jobId} · ${word}`;
    this.icon.href = `data:image/svg+xml,${encodeURIComponent(icon(colour))}`;
  }

  /** @param {number} line the one at the top of the window */
  moved(line) {
    const hasLines = this.log.isOpen && this.log.outline.lines > 0;
    this.position.textContent = hasLines ? `line ${number.format(line + 1)} at the top` : "";
  }

  #tick() {
    const { log } = this;
    if (!log.isOpen || log.ended) {
      this.pace.textContent = "";
      return;
    }
    this.#counts.push(log.outline.lines);
    if (this.#counts.length > RATE_SECONDS + 1) this.#counts.shift();
    const gained = log.outline.lines - this.#counts[0];
    const rate = gained / Math.max(this.#counts.length - 1, 1);
    const seconds = Math.round((Date.now() - this.#grewAt) / 1000);
    const last = this.#hasGrown
      ? `last output ${ago(seconds)} ago`
      : `no output for ${ago(seconds)}`;
    this.pace.textContent = rate > 0 ? `${number.format(Math.ceil(rate))} lines/s · ${last}` : last;
  }
}
