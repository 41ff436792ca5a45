/**
 * The rows of a log: only those near the window exist.
 *
 * Browsers lay out at most some ten million pixels, so the scroll bar of a long log is shorter than
 * its rows: small steps move by pixels and long ones in proportion. Once scrolling rests, the bar
 * moves to the proportional position.
 */

import { within } from "./dom.js";
import { duration } from "./folds.js";
import { cutRuns, paintRuns } from "./paint.js";

/** @typedef {import("./folds.js").Folds} Folds */
/** @typedef {import("./lines.js").Lines} Lines */
/** @typedef {import("./lines.js").ReadLine} ReadLine */
/** @typedef {import("./markers.js").Fold} Fold */
/**
 * @typedef {object} Row the element of a line, and what it was drawn from
 * @property {HTMLElement} element
 * @property {boolean} isComplete its text was available
 * @property {boolean} isLast
 * @property {Fold | undefined} fold
 * @property {boolean | undefined} isClosed
 * @property {number | undefined} seconds
 */
/**
 * @typedef {object} Model what rows show and report to
 * @property {Folds} folds
 * @property {Lines} lines
 * @property {(blocks: number[]) => void} want fetches blocks
 * @property {() => void} painted called after each change
 * @property {(atEnd: boolean, byUser: boolean) => void} moved called after scrolling
 * @property {(row: HTMLElement, line: number) => void} decorate
 */
/** @typedef {{line: number, rest: number}} Anchor a line, and how many pixels of it are above */

const ROW_HEIGHT = 20; // as --row in the style sheet
const PADDING = ROW_HEIGHT; // below the last row, to separate it from the edge
const MAX_HEIGHT = 8_000_000;
const OVERSCAN = 16;
const SHOWN_CHARACTERS = 2000;
const REST_MS = 150;
const FETCH_MS = 60;

export class Rows {
  /** @type {Map<number, Row>} by line */
  #shown = new Map();
  #firstRow = 0;
  #lastScroll = 0;
  #spacerHeight = 0;
  #digits = 0;
  #redraw = false;
  #hasDrawn = false;
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
    this.top = 0; // of the window, in pixels of the whole log
    this.pinned = false;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    // Cached, because reading it forces a layout.
    this.windowHeight = scroller.clientHeight;
    new ResizeObserver(() => {
      this.windowHeight = scroller.clientHeight;
      this.refresh();
    }).observe(scroller);
  }

  /** The number of rows. */
  get rows() {
    return this.model.folds.rows;
  }

  get #height() {
    return this.rows * ROW_HEIGHT + PADDING;
  }

  get #barHeight() {
    return Math.min(this.#height, MAX_HEIGHT);
  }

  get #maxTop() {
    return Math.max(this.#height - this.windowHeight, 0);
  }

  get atEnd() {
    return this.top >= this.#maxTop - ROW_HEIGHT;
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
    this.pinned = this.pinned && this.atEnd;
    this.model.moved(this.atEnd, true);
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
    this.layer.style.top = `${Math.round(this.#firstRow * ROW_HEIGHT + offset)}px`;
  }

  /**
   * Scroll to a position.
   * @param {number} top pixels of the log above the window
   */
  scrollTo(top) {
    this.#setHeight();
    this.top = Math.min(Math.max(Math.round(top), 0), this.#maxTop);
    this.#settleBar();
    this.model.moved(this.atEnd, false);
    this.refresh();
  }

  /** @param {number} rows */
  scrollBy(rows) {
    this.pinned = false;
    this.scrollTo(this.top + rows * ROW_HEIGHT);
    this.model.moved(this.atEnd, true);
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
    const at = this.model.folds.rowOf(line) * ROW_HEIGHT;
    const inView =
      at >= this.top + ROW_HEIGHT && at <= this.top + this.windowHeight - 3 * ROW_HEIGHT;
    if (always || !inView) this.scrollTo(at - this.windowHeight / 3);
    else this.refresh();
  }

  /**
   * The line at the top of the window, for `restore`.
   * @returns {Anchor}
   */
  anchor() {
    const row = Math.min(Math.floor(this.top / ROW_HEIGHT), Math.max(this.rows - 1, 0));
    return { line: this.model.folds.lineOf(row), rest: this.top - row * ROW_HEIGHT };
  }

  /**
   * Scroll the same line to the top after rows above were added or removed.
   * @param {Anchor} anchor
   */
  restore({ line, rest }) {
    this.scrollTo(this.model.folds.rowOf(line) * ROW_HEIGHT + rest);
  }

  #setHeight() {
    if (this.#spacerHeight !== this.#barHeight) this.spacer.style.height = `${this.#barHeight}px`;
    this.#spacerHeight = this.#barHeight;
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
    const first = Math.max(Math.floor(this.top / ROW_HEIGHT) - OVERSCAN, 0);
    const end = Math.ceil((this.top + this.windowHeight) / ROW_HEIGHT) + OVERSCAN;
    const last = Math.min(end, this.rows);
    this.#firstRow = first;
    let complete = true;
    /** @type {Map<number, Row>} */
    const shown = new Map();
    for (let at = first; at < last; at++) {
      const line = folds.lineOf(at);
      const row = this.#rowFor(line, lines);
      complete &&= row.isComplete;
      shown.set(line, row);
    }
    for (const [line, row] of this.#shown) if (!shown.has(line)) row.element.remove();
    this.#arrange([...shown.values()]);
    this.#shown = shown;
    this.#redraw = false;
    if (this.pinned) this.#settleBar();
    else this.#placeLayer();
    if (!complete) this.#fetchSoon();
    this.model.painted();
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
    const old = this.#shown.get(line);
    const fold = folds.headers.get(line);
    const isClosed = fold?.closed;
    const seconds = fold?.seconds ?? folds.times.get(line);
    const isLast = line === folds.lines - 1;
    // The last line may grow; other lines change only by their fold and time.
    if (old?.isComplete && !this.#redraw && !old.isLast && !isLast) {
      const { fold: oldFold, isClosed: wasClosed, seconds: oldSeconds } = old;
      if (oldFold === fold && wasClosed === isClosed && oldSeconds === seconds) return old;
    }
    const read = lines.read(line);
    const element = old?.element ?? makeRow(line);
    if (read) fillRow(element, read, fold, seconds);
    this.model.decorate(element, line);
    return { element, isComplete: read !== null, isLast, fold, isClosed, seconds };
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
 * @param {number | undefined} seconds
 */
function fillRow(element, read, fold, seconds) {
  const [, arrow, text, ...extras] = element.children;
  const { runs, cut } = cutRuns(read.runs, SHOWN_CHARACTERS);
  text.replaceChildren();
  paintRuns(text, runs);
  for (const extra of extras) extra.remove();
  if (cut || read.partial) element.append(moreButton(read.length));
  const shownFold = fold && !text.textContent?.trim() ? fold.name : "";
  if (shownFold) text.append(make("span", "foldname", shownFold));
  setArrow(element, arrow, fold);
  const tags = make("span", "tags");
  if (fold && !shownFold) tags.append(make("span", "tag name", fold.name));
  if (seconds !== undefined) tags.append(make("span", "tag time", duration(seconds)));
  if (tags.childElementCount) element.append(tags);
  element.classList.remove("waiting");
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
  if (!button.parentElement) arrow.append(button);
}

/** @param {number} bytes */
function moreButton(bytes) {
  const kib = bytes / 1024;
  const size = kib < 1024 ? `${Math.ceil(kib)} KiB` : `${(kib / 1024).toFixed(1)} MiB`;
  return make("button", "more", `show the whole line (${size})`);
}
