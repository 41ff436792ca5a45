/** The errors of a log: their number in the bar, and marks of errors and matches by the scroll bar. */

import { byId } from "./dom.js";
import { bisect } from "./folds.js";

/** @typedef {import("./log.js").Log} Log */
/** @typedef {import("./rows.js").Rows} Rows */
/** @typedef {import("./search.js").Search} Search */

const MAX_ERRORS = 1000; // as the server lists
const PLACES = 200; // of marks
const MARKS_MS = 300;
/** @type {number[]} */
const NONE = [];
const number = new Intl.NumberFormat("en");

export class Errors {
  /** @type {number | null} the line that was visited last */
  line = null;
  #timer = 0;
  /** @type {unknown[]} what is shown was made from */
  #shown = [];

  /**
   * @param {Log} log
   * @param {Rows} rows
   * @param {Search} search
   * @param {(line: number) => void} goTo
   */
  constructor(log, rows, search, goTo) {
    this.log = log;
    this.rows = rows;
    this.search = search;
    this.goTo = goTo;
    this.button = byId("errors", HTMLElement);
    this.marks = byId("marks", HTMLElement);
    this.button.addEventListener("click", () => this.step(1));
    new ResizeObserver(([{ contentRect }]) => {
      this.marks.style.height = `${contentRect.height}px`;
    }).observe(rows.scroller);
  }

  get lines() {
    return this.log.isOpen ? this.log.outline.errors : NONE;
  }

  /** @param {number} line */
  has(line) {
    return this.lines[bisect(this.lines, (other) => other >= line)] === line;
  }

  /** Open the fold of the last error in a fold: there a job that failed has ended. */
  openFold() {
    const failing = this.lines.findLast((line) => this.log.folds.isHidden(line));
    if (failing !== undefined) this.log.folds.reveal(failing);
  }

  /** Show the errors and the marks again, if they have changed. */
  update() {
    this.#timer ||= setTimeout(() => {
      this.#timer = 0;
      const { folds } = this.log;
      const found = this.search.lines;
      const shown = [this.lines, found, found.length, folds.version, folds.rows];
      if (shown.every((each, at) => each === this.#shown[at])) return;
      const isNew = this.#shown[0] !== this.lines;
      this.#shown = shown;
      this.#show();
      if (isNew) this.rows.decorate();
    }, MARKS_MS);
  }

  /**
   * Go to the next error (1) or the previous one (-1), wrapping around.
   * @param {1 | -1} by
   */
  step(by) {
    const { lines } = this;
    if (!lines.length) return;
    const from = this.line ?? this.rows.anchor().line;
    const next = bisect(lines, (line) => (by > 0 ? line > from : line >= from)) - (by > 0 ? 0 : 1);
    this.line = lines[(next + lines.length) % lines.length];
    this.goTo(this.line);
    this.rows.decorate();
  }

  #show() {
    const { lines, search } = this;
    const count = lines.length;
    const first = `line ${number.format((lines[0] ?? 0) + 1)}`;
    const many = `${number.format(count)}${count === MAX_ERRORS ? "+" : ""} errors, first at ${first}`;
    this.button.hidden = !count;
    this.button.textContent = count === 1 ? `1 error at ${first}` : many;
    this.marks.replaceChildren(
      ...this.#marks("match", search.lines),
      ...this.#marks("error", lines),
    );
  }

  /** @param {string} kind @param {number[]} lines */
  #marks(kind, lines) {
    const { folds } = this.log;
    const rows = Math.max(folds.rows, 1);
    const places = new Set(lines.map((line) => Math.floor((PLACES * folds.rowOf(line)) / rows)));
    return [...places].map((place) => {
      const mark = document.createElement("i");
      mark.className = kind;
      mark.style.top = `${(100 * place) / PLACES}%`;
      return mark;
    });
  }
}
