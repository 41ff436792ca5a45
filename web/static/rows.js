/**
 * The rows of a log: only those near the window exist, however long the log is.
 *
 * Browsers lay nothing out beyond some ten million pixels, so a long log's scroll bar stands for
 * more than its own height: small steps move by real pixels, long ones in proportion, and once
 * scrolling rests the bar is put where the proportion says.
 */

import { duration } from "./folds.js";
import { cutRuns, paintRuns } from "./paint.js";

const ROW_HEIGHT = 20; // as --row in the style sheet
const MAX_HEIGHT = 8_000_000;
const OVERSCAN = 16;
const SHOWN_CHARACTERS = 2000;
const REST_MS = 150;
const FETCH_MS = 60;

export class Rows {
  /**
   * @param {HTMLElement} scroller
   * @param {{lines: object, folds: object, want: (blocks: number[]) => void,
   *   painted: () => void, moved: (atEnd: boolean, byUser: boolean) => void,
   *   decorate: (row: HTMLElement, line: number) => void}} model
   */
  constructor(scroller, model) {
    this.scroller = scroller;
    this.model = model;
    this.spacer = scroller.querySelector(".spacer");
    this.layer = scroller.querySelector(".layer");
    this.shown = new Map(); // line -> element
    this.top = 0; // of the window, in pixels of the whole log
    this.pinned = false;
    this.lastScroll = 0;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    // Kept, because to ask for it makes the browser lay the page out there and then.
    this.windowHeight = scroller.clientHeight;
    new ResizeObserver(() => {
      this.windowHeight = scroller.clientHeight;
      this.refresh();
    }).observe(scroller);
  }

  get rows() {
    return this.model.folds.rows;
  }

  get #padding() {
    return ROW_HEIGHT; // below the last row, so that it does not stick to the edge
  }

  get #height() {
    return this.rows * ROW_HEIGHT + this.#padding;
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

  /** Rows a page key moves by. */
  get pageRows() {
    return Math.max(Math.floor(this.windowHeight / ROW_HEIGHT) - 2, 1);
  }

  #scrolled() {
    const now = this.scroller.scrollTop;
    if (Math.abs(now - this.lastScroll) < 1) return; // our own doing
    const step = now - this.lastScroll;
    const barMax = this.#barHeight - this.windowHeight;
    const scaled = this.#height > MAX_HEIGHT;
    if (scaled && Math.abs(step) > this.windowHeight * 2) this.top = (now / barMax) * this.#maxTop;
    else this.top += step;
    // At its ends the bar cannot move on, so there it must say the truth at once.
    if (now <= 0 && Math.abs(step) > this.windowHeight * 2) this.top = 0;
    if (now >= barMax - 1 && (!scaled || this.top > this.#maxTop - this.windowHeight)) {
      this.top = this.#maxTop;
    }
    this.top = Math.min(Math.max(this.top, 0), this.#maxTop);
    this.lastScroll = now;
    if (scaled && (now <= 0 || now >= barMax - 1)) this.#settleBar();
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.#settleBar(), REST_MS);
    this.pinned = this.pinned && this.atEnd;
    this.model.moved(this.atEnd, true);
    this.refresh();
  }

  /** Put the bar where the rows are. */
  #settleBar() {
    const bar = this.#barHeight - this.windowHeight;
    const part = this.#maxTop ? this.top / this.#maxTop : 0;
    const at = this.#height > MAX_HEIGHT ? Math.round(part * bar) : this.top;
    if (Math.abs(this.lastScroll - at) >= 1) {
      this.scroller.scrollTop = at;
      this.lastScroll = this.scroller.scrollTop;
    }
    this.#placeLayer();
  }

  #placeLayer() {
    const offset = this.lastScroll - this.top;
    this.layer.style.top = `${Math.round((this.firstRow ?? 0) * ROW_HEIGHT + offset)}px`;
  }

  /** Scroll so that `top` pixels of the log are above the window. */
  scrollTo(top) {
    this.#setHeight();
    this.top = Math.min(Math.max(Math.round(top), 0), this.#maxTop);
    this.#settleBar();
    this.model.moved(this.atEnd, false);
    this.refresh();
  }

  scrollBy(rows) {
    this.pinned = false;
    this.scrollTo(this.top + rows * ROW_HEIGHT);
    this.model.moved(this.atEnd, true);
  }

  scrollToEnd() {
    this.scrollTo(Infinity);
  }

  /** Bring a line into sight, a third from the top, unless it is in sight already. */
  showLine(line, { always = false } = {}) {
    const at = this.model.folds.rowOf(line) * ROW_HEIGHT;
    const inSight =
      at >= this.top + ROW_HEIGHT && at <= this.top + this.windowHeight - 3 * ROW_HEIGHT;
    if (always || !inSight) this.scrollTo(at - this.windowHeight / 3);
    else this.refresh();
  }

  /** The line at the top of the window, to come back to. */
  anchor() {
    const row = Math.min(Math.floor(this.top / ROW_HEIGHT), Math.max(this.rows - 1, 0));
    return { line: this.model.folds.lineOf(row), rest: this.top - row * ROW_HEIGHT };
  }

  /** Rows above may have come or gone: put the same line at the top again. */
  restore({ line, rest }) {
    this.scrollTo(this.model.folds.rowOf(line) * ROW_HEIGHT + rest);
  }

  #setHeight() {
    if (this.spacerHeight !== this.#barHeight) this.spacer.style.height = `${this.#barHeight}px`;
    this.spacerHeight = this.#barHeight;
    const digits = String(Math.max(this.model.folds.lines, 100)).length;
    if (digits !== this.digits) this.scroller.style.setProperty("--digits", String(digits));
    this.digits = digits;
  }

  /** Draw in the next frame. `anew`: what is on the screen is drawn again too. */
  refresh(anew = false) {
    this.anew = this.anew || anew;
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.#draw();
    });
  }

  #draw() {
    const { folds, lines } = this.model;
    this.#setHeight();
    if (this.pinned) this.top = this.#maxTop;
    this.top = Math.min(this.top, this.#maxTop);
    const first = Math.max(Math.floor(this.top / ROW_HEIGHT) - OVERSCAN, 0);
    const last = Math.min(
      Math.ceil((this.top + this.windowHeight) / ROW_HEIGHT) + OVERSCAN,
      this.rows,
    );
    this.firstRow = first;
    const wanted = [];
    const kept = new Map();
    for (let row = first; row < last; row++) {
      const line = folds.lineOf(row);
      const [element, complete] = this.#rowFor(line, lines);
      if (!complete) wanted.push(...lines.needs(line));
      kept.set(line, element);
    }
    for (const [line, element] of this.shown) if (!kept.has(line)) element.remove();
    this.#arrange([...kept.values()]);
    this.shown = kept;
    this.anew = false;
    if (this.pinned) this.#settleBar();
    else this.#placeLayer();
    if (wanted.length) this.#fetchSoon();
    this.model.painted();
  }

  /** Elements in order, moving as few as can be: what has the focus must stay where it is. */
  #arrange(elements) {
    let place = this.layer.firstChild;
    for (const element of elements) {
      if (element === place) place = place.nextSibling;
      else this.layer.insertBefore(element, place);
    }
  }

  #fetchSoon() {
    if (this.fetching) return;
    this.fetching = setTimeout(
      () => {
        this.fetching = 0;
        const wanted = [];
        for (const [line, element] of this.shown) {
          if (!element.isComplete) wanted.push(...this.model.lines.needs(line));
        }
        this.model.want(wanted);
      },
      this.hasDrawn ? FETCH_MS : 0,
    );
    this.hasDrawn = true;
  }

  #rowFor(line, lines) {
    const { folds } = this.model;
    const old = this.shown.get(line);
    const fold = folds.headers.get(line);
    const isLast = line === folds.lines - 1;
    // The last line may still grow, and a header may change; all else stays as it was drawn.
    const fresh = old?.isComplete && !this.anew && !old.isLast && !isLast;
    if (fresh && old.fold === fold && old.isClosed === fold?.closed) return [old, true];
    const read = lines.read(line);
    const element = old ?? makeRow(line);
    if (read || !old) fillRow(element, line, read, fold, folds.times.get(line));
    element.isComplete = read !== null;
    element.isLast = isLast;
    element.fold = fold;
    element.isClosed = fold?.closed;
    this.model.decorate(element, line);
    return [element, element.isComplete];
  }

  /** Mark what is selected or found anew. */
  decorate() {
    for (const [line, element] of this.shown) this.model.decorate(element, line);
    this.model.painted();
  }

  /** Put the focus on a row's fold, or on the list where it has none. */
  focusLine(line) {
    const button = this.shown.get(line)?.querySelector(".fold");
    (button ?? this.scroller).focus({ preventScroll: true });
  }
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function makeRow(line) {
  const element = make("div", "row waiting");
  element.setAttribute("role", "listitem");
  element.dataset.line = line;
  const number = make("a", "number", String(line + 1));
  number.href = `#L${line + 1}`;
  number.tabIndex = -1; // a thousand tab stops help nobody; the keys on the list do the same
  element.append(number, make("span", "arrow"), make("span", "text"));
  return element;
}

function fillRow(element, line, read, fold, seconds) {
  if (!read) return;
  const [, arrow, text] = element.children;
  const { runs, cut } = cutRuns(read.runs, SHOWN_CHARACTERS);
  text.replaceChildren();
  paintRuns(text, runs);
  for (const extra of [...element.children].slice(3)) extra.remove();
  if (cut || read.partial) element.append(moreButton(read.length));
  const shownFold = fold && !text.textContent.trim() ? fold.name : "";
  if (shownFold) text.append(make("span", "foldname", shownFold));
  setArrow(element, arrow, fold);
  const tags = make("span", "tags");
  if (fold && !shownFold) tags.append(make("span", "tag name", fold.name));
  const time = fold?.seconds ?? seconds;
  if (time !== undefined) tags.append(make("span", "tag time", duration(time)));
  if (tags.childElementCount) element.append(tags);
  element.classList.remove("waiting");
}

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

function moreButton(bytes) {
  const size =
    bytes < 1024 * 1024
      ? `${Math.ceil(bytes / 1024)} KiB`
      : `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
  const button = make("button", "more", `show the whole line (${size})`);
  return button;
}
