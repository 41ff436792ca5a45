/** The rows of a log: only those near the window exist. */

import { within } from "./dom.js";
import { Heights, ROW_HEIGHT } from "./heights.js";
import { WHOLE_BYTES } from "./lines.js";
import { Position } from "./position.js";
import { arrange, fillRow, focusRow, makeRow, tagsOf } from "./row.js";

/** @typedef {import("./folds.js").Folds} Folds */
/** @typedef {import("./lines.js").Lines} Lines */
/** @typedef {import("./row.js").Row} Row */
/**
 * @typedef {object} Model what rows show and report to
 * @property {Folds} folds
 * @property {Lines} lines
 * @property {(blocks: number[]) => void} want fetches blocks
 * @property {() => void} painted called after each change
 * @property {(by: number) => void} moved called after the reader scrolled, down if positive
 * @property {(row: HTMLElement, line: number) => void} decorate
 */
/** @typedef {{line: number, rest: number}} Anchor a line, and how many pixels of it are above */

const PADDING = ROW_HEIGHT; // below the last row, to separate it from the edge
const OVERSCAN = 16;
const SHOWN_CHARACTERS = 2000;
const FETCH_MS = 60;
// Rows that take longer to draw wait for the next frame.
const DRAW_MS = 10;

export class Rows {
  /** @type {Map<number, Row>} by line */
  #shown = new Map();
  /** @type {Map<number, Row>} rows outside the window with an end of the selected text */
  #outside = new Map();
  #firstRow = 0;
  /** @type {Position} */
  #at;
  #digits = 0;
  #redraw = false;
  #hasDrawn = false;
  #deadline = 0;
  /** @type {number | null} the line to show, until the reader scrolls */
  #target = null;
  /** @type {number | null} the line whose fold, or else the log, gets the focus once it is drawn */
  focusing = null;
  #frame = 0;
  /** @type {number | undefined} */
  #fetching;

  /**
   * @param {HTMLElement} scroller
   * @param {Model} model
   */
  constructor(scroller, model) {
    this.scroller = scroller;
    this.model = model;
    this.layer = within(scroller, ".layer", HTMLElement);
    this.heights = new Heights(model.folds);
    this.#at = new Position(
      scroller,
      within(scroller, ".spacer", HTMLElement),
      () => this.heights.offsetOf(this.rows) + PADDING,
      () => this.#placeLayer(),
    );
    this.pinned = false;
    /** @type {number | null} the line that is shown beyond the usual limit */
    this.longLine = null;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    let width = scroller.clientWidth;
    new ResizeObserver(() => {
      this.#at.resized();
      if (this.wraps && width !== scroller.clientWidth) this.wrap(true);
      width = scroller.clientWidth;
      this.refresh();
    }).observe(scroller);
  }

  get wraps() {
    return this.scroller.classList.contains("wrap");
  }

  /** @param {boolean} on whether long lines are wrapped */
  wrap(on) {
    const anchor = this.anchor();
    this.scroller.classList.toggle("wrap", on);
    this.heights.clear();
    this.restore(anchor);
  }

  /** The number of rows. */
  get rows() {
    return this.model.folds.rows;
  }

  get atEnd() {
    return this.#at.isEnd;
  }

  /** The rows that a page key moves by. */
  get pageRows() {
    return Math.max(Math.floor(this.#at.windowHeight / ROW_HEIGHT) - 2, 1);
  }

  #scrolled() {
    const step = this.#at.scrolled();
    if (!step) return;
    this.#target = this.focusing = null;
    this.model.moved(step);
    this.refresh();
  }

  #placeLayer() {
    const top = this.#at.inScroller(this.heights.offsetOf(this.#firstRow));
    this.layer.style.top = `${Math.round(top)}px`;
  }

  /**
   * Scroll to a position.
   * @param {number} top pixels of the log above the window
   */
  scrollTo(top) {
    this.#setHeight();
    this.#at.moveTo(top);
    this.refresh();
  }

  /** @param {number} rows */
  scrollBy(rows) {
    this.#target = null;
    this.scrollTo(this.#at.top + rows * ROW_HEIGHT);
    this.model.moved(rows);
  }

  scrollToEnd() {
    this.scrollTo(Infinity);
  }

  /**
   * Scroll a line to a third from the top, unless it is in view.
   * @param {number} line
   * @param {{always?: boolean}} [options] `always`: even if it is in view
   */
  showLine(line, { always = false } = {}) {
    const at = this.#offsetOfLine(line);
    this.#target = line;
    const inView =
      at >= this.#at.top + ROW_HEIGHT &&
      at <= this.#at.top + this.#at.windowHeight - 3 * ROW_HEIGHT;
    if (always || !inView) this.scrollTo(at - this.#at.windowHeight / 3);
    else this.refresh();
  }

  /**
   * Show more of a line than usual.
   * @param {number} line
   * @returns {boolean} false if nothing more can be shown
   */
  showMore(line) {
    const row = this.#shown.get(line);
    if (this.longLine === line || !row || row.length > WHOLE_BYTES) return false;
    if (!row.element.querySelector(".more")) return false;
    this.longLine = line;
    this.refresh(true);
    return true;
  }

  /**
   * Scroll sideways to text in a row.
   * @param {Range} range
   */
  reveal(range) {
    const text = range.getBoundingClientRect();
    const { left, width } = this.scroller.getBoundingClientRect();
    const isVisible = text.left >= left + 120 && text.right <= left + width - 40;
    if (!isVisible) this.scroller.scrollLeft += text.left - left - width / 3;
  }

  /**
   * The line at the top of the window, for `restore`.
   * @returns {Anchor}
   */
  anchor() {
    const row = Math.min(this.heights.rowAt(this.#at.top), Math.max(this.rows - 1, 0));
    return { line: this.model.folds.lineOf(row), rest: this.#at.top - this.heights.offsetOf(row) };
  }

  /**
   * Scroll the same line to the top after rows above were added or removed.
   * @param {Anchor} anchor
   */
  restore({ line, rest }) {
    this.scrollTo(this.#offsetOfLine(line) + rest);
  }

  #setHeight() {
    this.#at.setHeight();
    const digits = String(Math.max(this.model.folds.lines, 100)).length;
    if (digits !== this.#digits) this.scroller.style.setProperty("--digits", String(digits));
    this.#digits = digits;
  }

  /**
   * Draw in the next frame.
   * @param {boolean} redraw also rows that did not change
   */
  refresh(redraw = false) {
    this.#redraw ||= redraw;
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  #draw() {
    const { folds, lines } = this.model;
    this.#setHeight();
    this.#at.clamp(this.pinned);
    const first = Math.max(this.heights.rowAt(this.#at.top) - OVERSCAN, 0);
    const end = this.heights.rowAt(this.#at.top + this.#at.windowHeight) + 1 + OVERSCAN;
    const last = Math.min(end, this.rows);
    this.#firstRow = first;
    this.#deadline = performance.now() + DRAW_MS;
    let complete = true;
    /** @type {Map<number, Row>} */
    const shown = new Map();
    for (let at = first; at < last; at++) {
      const line = folds.lineOf(at);
      const row = this.#rowFor(line, lines);
      complete &&= row.isComplete;
      shown.set(line, row);
    }
    this.#keepSelection(shown);
    this.#shown = shown;
    this.#redraw = false;
    if (this.wraps) this.#measure();
    if (this.pinned) this.#at.settle();
    else this.#placeLayer();
    if (!complete) this.#fetchSoon();
    if (this.#deadline === 0) this.refresh();
    const row = this.#shown.get(this.focusing ?? -1);
    if (row?.isComplete) {
      focusRow(row.element, this.scroller);
      this.focusing = null;
    }
    this.model.painted();
  }

  /** Measure the rows, and keep the line at the top, or the one to show, where it is. */
  #measure() {
    const { line, rest } = this.anchor();
    const fixed = this.#target ?? line;
    const above = this.#target === null ? rest : this.#at.top - this.#offsetOfLine(fixed);
    let isChanged = false;
    for (const [line, { element, isComplete }] of this.#shown) {
      if (isComplete) isChanged = this.heights.set(line, element.offsetHeight) || isChanged;
    }
    if (!isChanged) return;
    if (this.pinned) this.#at.clamp(true);
    else this.#at.top = this.#offsetOfLine(fixed) + above;
    this.#setHeight();
    this.refresh();
  }

  /** @param {number} line */
  #offsetOfLine(line) {
    return this.heights.offsetOf(this.model.folds.rowOf(line));
  }

  /**
   * Remove rows that are not shown, except those with an end of the selected text: the browser
   * would forget it.
   * @param {Map<number, Row>} shown
   */
  #keepSelection(shown) {
    const selection = getSelection();
    const ends = selection?.isCollapsed ? [] : [selection?.anchorNode, selection?.focusNode];
    const outside = new Map();
    for (const [line, row] of [...this.#outside, ...this.#shown]) {
      if (shown.has(line)) continue;
      if (ends.some((node) => node && row.element.contains(node))) outside.set(line, row);
      else row.element.remove();
    }
    for (const [line, { element }] of [...outside, ...shown]) {
      element.classList.toggle("outside", !shown.has(line));
    }
    this.#outside = outside;
    arrange(this.layer, [...outside, ...shown]);
  }

  #fetchSoon() {
    if (this.#fetching) return;
    this.#fetching = setTimeout(
      () => {
        this.#fetching = undefined;
        const wanted = [];
        for (const [line, row] of this.#shown) {
          if (!row.isComplete) wanted.push(...this.model.lines.needs(line));
        }
        this.model.want(wanted);
      },
      this.#hasDrawn ? FETCH_MS : 0,
    );
    this.#hasDrawn = true;
  }

  /**
   * The row of a line, drawn if necessary.
   * @param {number} line
   * @param {Lines} lines
   * @returns {Row}
   */
  #rowFor(line, lines) {
    const { folds } = this.model;
    const old = this.#shown.get(line) ?? this.#outside.get(line);
    const fold = folds.headers.get(line);
    const isClosed = fold?.closed;
    const seconds = fold?.seconds ?? folds.times.get(line);
    const hidden = fold?.closed ? folds.hiddenBy(fold) : 0;
    const isLast = line === folds.lines - 1;
    const isSame =
      old?.isComplete &&
      !this.#redraw &&
      old.fold === fold &&
      old.isClosed === isClosed &&
      old.hidden === hidden &&
      old.seconds === seconds;
    // Only the last line grows.
    if (isSame && !isLast && !old.isLast) return old;
    const element = old?.element ?? makeRow(line);
    const isLate = performance.now() > this.#deadline;
    if (isLate) this.#deadline = 0;
    const read = isLate && !old?.isComplete ? null : lines.read(line);
    if (isSame && old.length === read?.length) return { ...old, isLast };
    const limit = line === this.longLine ? WHOLE_BYTES : SHOWN_CHARACTERS;
    if (read) fillRow(element, read, fold, tagsOf(seconds, hidden), limit);
    this.model.decorate(element, line);
    const length = !read || read.unfinished ? -1 : read.length;
    return { element, isComplete: read !== null, length, isLast, fold, isClosed, seconds, hidden };
  }

  /** Show which rows are selected or match the search. */
  decorate() {
    for (const [line, { element }] of this.#shown) this.model.decorate(element, line);
    this.model.painted();
  }
}
