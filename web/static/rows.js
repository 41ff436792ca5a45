/**
 * The rows of a log: only those near the window exist.
 *
 * Browsers lay out at most some ten million pixels, so the scroll bar of a long log is shorter than
 * its rows: small steps move by pixels and long ones in proportion. Once scrolling rests, the bar
 * moves to the proportional position.
 */

import { within } from "./dom.js";
import { duration } from "./folds.js";
import { Heights, ROW_HEIGHT } from "./heights.js";
import { WHOLE_BYTES } from "./lines.js";
import { cutRuns, paintRuns } from "./paint.js";

/** @typedef {import("./folds.js").Folds} Folds */
/** @typedef {import("./lines.js").Lines} Lines */
/** @typedef {import("./lines.js").ReadLine} ReadLine */
/** @typedef {import("./markers.js").Fold} Fold */
/**
 * @typedef {object} Row the element of a line, and what it was drawn from
 * @property {HTMLElement} element
 * @property {boolean} isComplete its text was available
 * @property {number} length of the line in bytes; -1 if it must be drawn again
 * @property {boolean} isLast
 * @property {Fold | undefined} fold
 * @property {boolean | undefined} isClosed
 * @property {number | undefined} seconds
 * @property {number} hidden the lines that its fold hides
 */
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
const MAX_HEIGHT = 8_000_000;
const OVERSCAN = 16;
const SHOWN_CHARACTERS = 2000;
const MIN_SECONDS = 0.1; // shorter steps are not worth a tag
const REST_MS = 150;
const FETCH_MS = 60;
// Rows that take longer to draw wait for the next frame.
const DRAW_MS = 10;

export class Rows {
  /** @type {Map<number, Row>} by line */
  #shown = new Map();
  /** @type {Map<number, Row>} rows outside the window with an end of the selected text */
  #outside = new Map();
  #firstRow = 0;
  #lastScroll = 0;
  #spacerHeight = 0;
  #digits = 0;
  #redraw = false;
  #hasDrawn = false;
  #deadline = 0;
  /** @type {number | null} the line to show, until the reader scrolls */
  #target = null;
  #frame = 0;
  /** @type {number | undefined} */
  #resting;
  /** @type {number | undefined} */
  #fetching;

  /**
   * @param {HTMLElement} scroller
   * @param {Model} model
   */
  constructor(scroller, model) {
    this.scroller = scroller;
    this.model = model;
    this.spacer = within(scroller, ".spacer", HTMLElement);
    this.layer = within(scroller, ".layer", HTMLElement);
    this.heights = new Heights(model.folds);
    this.top = 0; // of the window, in pixels of the whole log
    this.pinned = false;
    /** @type {number | null} the line that is shown beyond the usual limit */
    this.longLine = null;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    // Cached, because reading it forces a layout.
    this.windowHeight = scroller.clientHeight;
    let width = scroller.clientWidth;
    new ResizeObserver(() => {
      this.windowHeight = scroller.clientHeight;
      this.#lastScroll = scroller.scrollTop; // a browser may have moved it
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

  get #height() {
    return this.heights.offsetOf(this.rows) + PADDING;
  }

  get #barHeight() {
    return Math.min(this.#height, MAX_HEIGHT);
  }

  get #maxTop() {
    return Math.max(this.#height - this.windowHeight, 0);
  }

  get atEnd() {
    return this.top >= this.#maxTop - 1;
  }

  /** The rows that a page key moves by. */
  get pageRows() {
    return Math.max(Math.floor(this.windowHeight / ROW_HEIGHT) - 2, 1);
  }

  #scrolled() {
    const now = this.scroller.scrollTop;
    if (Math.abs(now - this.#lastScroll) < 1) return; // set by #settleBar
    const step = now - this.#lastScroll;
    const barMax = this.#barHeight - this.windowHeight;
    const scaled = this.#height > MAX_HEIGHT;
    if (scaled && Math.abs(step) > this.windowHeight * 2) this.top = (now / barMax) * this.#maxTop;
    else this.top += step;
    // At its ends the bar cannot move further, so it must be exact there.
    if (now <= 0 && Math.abs(step) > this.windowHeight * 2) this.top = 0;
    if (now >= barMax - 1 && (!scaled || this.top > this.#maxTop - this.windowHeight)) {
      this.top = this.#maxTop;
    }
    this.top = Math.min(Math.max(this.top, 0), this.#maxTop);
    this.#lastScroll = now;
    if (scaled && (now <= 0 || now >= barMax - 1)) this.#settleBar();
    clearTimeout(this.#resting);
    this.#resting = setTimeout(() => this.#settleBar(), REST_MS);
    this.#target = null;
    this.model.moved(step);
    this.refresh();
  }

  /** Move the bar to the position of the rows. */
  #settleBar() {
    const bar = this.#barHeight - this.windowHeight;
    const fraction = this.#maxTop ? this.top / this.#maxTop : 0;
    const at = this.#height > MAX_HEIGHT ? Math.round(fraction * bar) : this.top;
    if (Math.abs(this.#lastScroll - at) >= 1) {
      this.scroller.scrollTop = at;
      this.#lastScroll = this.scroller.scrollTop;
    }
    this.#placeLayer();
  }

  #placeLayer() {
    const offset = this.#lastScroll - this.top;
    this.layer.style.top = `${Math.round(this.heights.offsetOf(this.#firstRow) + offset)}px`;
  }

  /**
   * Scroll to a position.
   * @param {number} top pixels of the log above the window
   */
  scrollTo(top) {
    this.#setHeight();
    this.top = Math.min(Math.max(Math.round(top), 0), this.#maxTop);
    this.#settleBar();
    this.refresh();
  }

  /** @param {number} rows */
  scrollBy(rows) {
    this.#target = null;
    this.scrollTo(this.top + rows * ROW_HEIGHT);
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
      at >= this.top + ROW_HEIGHT && at <= this.top + this.windowHeight - 3 * ROW_HEIGHT;
    if (always || !inView) this.scrollTo(at - this.windowHeight / 3);
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
    const row = Math.min(this.heights.rowAt(this.top), Math.max(this.rows - 1, 0));
    return { line: this.model.folds.lineOf(row), rest: this.top - this.heights.offsetOf(row) };
  }

  /**
   * Scroll the same line to the top after rows above were added or removed.
   * @param {Anchor} anchor
   */
  restore({ line, rest }) {
    this.scrollTo(this.#offsetOfLine(line) + rest);
  }

  #setHeight() {
    const height = this.#barHeight;
    if (this.#spacerHeight !== height) this.spacer.style.height = `${height}px`;
    // A browser moves the bar of a log that has shrunk, which is not the reader's movement.
    if (height < this.#spacerHeight) this.#lastScroll = this.scroller.scrollTop;
    this.#spacerHeight = height;
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
    if (this.pinned) this.top = this.#maxTop;
    this.top = Math.min(this.top, this.#maxTop);
    const first = Math.max(this.heights.rowAt(this.top) - OVERSCAN, 0);
    const end = this.heights.rowAt(this.top + this.windowHeight) + 1 + OVERSCAN;
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
    if (this.pinned) this.#settleBar();
    else this.#placeLayer();
    if (!complete) this.#fetchSoon();
    if (this.#deadline === 0) this.refresh();
    this.model.painted();
  }

  /** Measure the rows, and keep the line at the top, or the one to show, where it is. */
  #measure() {
    const { line, rest } = this.anchor();
    const fixed = this.#target ?? line;
    const above = this.#target === null ? rest : this.top - this.#offsetOfLine(fixed);
    let isChanged = false;
    for (const [line, { element, isComplete }] of this.#shown) {
      if (isComplete) isChanged = this.heights.set(line, element.offsetHeight) || isChanged;
    }
    if (!isChanged) return;
    this.top = this.pinned ? this.#maxTop : this.#offsetOfLine(fixed) + above;
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
    const rows = [...outside, ...shown].sort(([one], [other]) => one - other);
    this.#arrange(rows.map(([, row]) => row));
  }

  /**
   * Put rows in order with as few moves as possible: moving an element would take its focus.
   * @param {Row[]} rows
   */
  #arrange(rows) {
    let next = this.layer.firstChild;
    for (const { element } of rows) {
      if (element === next) next = next.nextSibling;
      else this.layer.insertBefore(element, next);
    }
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

  /**
   * Focus the fold of a row, or the log if the row has none.
   * @param {number} line
   */
  focusLine(line) {
    const button = this.#shown.get(line)?.element.querySelector("button.fold");
    const target = button instanceof HTMLElement ? button : this.scroller;
    target.focus({ preventScroll: true });
  }
}

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} className
 * @param {string} [text]
 */
function make(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** @param {number} line */
function makeRow(line) {
  const element = make("div", "row waiting");
  element.setAttribute("role", "listitem");
  element.dataset.line = String(line);
  const number = make("a", "number", String(line + 1));
  number.href = `#L${line + 1}`;
  number.tabIndex = -1; // not a tab stop per line: the keys of the log do the same
  element.append(number, make("span", "arrow"), make("span", "text"));
  return element;
}

/**
 * @param {HTMLElement} element
 * @param {ReadLine} read
 * @param {Fold | undefined} fold
 * @param {string[]} tags
 * @param {number} limit of characters
 */
function fillRow(element, read, fold, tags, limit) {
  const [, arrow, text, ...extras] = element.children;
  const { runs, cut } = cutRuns(read.runs, limit);
  text.replaceChildren();
  paintRuns(text, runs);
  for (const extra of extras) extra.remove();
  if (cut || read.partial) element.append(moreButton(read.length));
  const shownFold = fold && !text.textContent?.trim() ? fold.name : "";
  if (shownFold) text.append(make("span", "foldname", shownFold));
  setArrow(element, arrow, fold);
  for (const tag of tags) element.append(make("span", "tag", tag));
  element.classList.remove("waiting");
}

/**
 * What is shown after the text of a line.
 * @param {number | undefined} seconds
 * @param {number} hidden lines
 */
function tagsOf(seconds, hidden) {
  const tags = [];
  if (seconds !== undefined && seconds >= MIN_SECONDS) tags.push(duration(seconds));
  if (hidden) tags.push(hidden === 1 ? "1 line" : `${hidden.toLocaleString("en")} lines`);
  return tags;
}

/** @param {HTMLElement} element @param {Element} arrow @param {Fold | undefined} fold */
function setArrow(element, arrow, fold) {
  element.classList.toggle("header", Boolean(fold));
  if (!fold) {
    arrow.replaceChildren();
    return;
  }
  const button = arrow.firstElementChild ?? make("button", "fold");
  button.setAttribute("aria-expanded", String(!fold.closed));
  button.setAttribute("aria-label", `fold ${fold.name}`);
  button.setAttribute("title", fold.name);
  if (!button.parentElement) arrow.append(button);
}

/** @param {number} bytes */
function moreButton(bytes) {
  const kib = bytes / 1024;
  const size = kib < 1024 ? `${Math.ceil(kib)} KiB` : `${(kib / 1024).toFixed(1)} MiB`;
  return make("button", "more", `show the whole line (${size})`);
}
