/** The folds and step times of a log, and the mapping between its lines and the visible rows. */

import { readMarkers, secondsCovered } from "./markers.js";

/** @typedef {import("./markers.js").Fold} Fold */
/** @typedef {import("./markers.js").Marker} Marker */
/** @typedef {import("./markers.js").Step} Step */
/**
 * @typedef {object} Span a range of hidden lines
 * @property {number} first
 * @property {number} last
 * @property {number} before lines hidden before `first`
 * @property {boolean} growing it extends to the end of a log that may grow
 */

/**
 * @typedef {object} ShownStep a fold with lines, or a timed step with text
 * @property {number} line that shows its text
 * @property {number | null} end the line after it; null while it is open
 * @property {string} name of a fold; empty if the text of the line says more
 * @property {number} [seconds]
 * @property {boolean} [isTimer] it has no end marker: it runs, or the marker is missing
 */

/** @param {Span} span */
const length = (span) => span.last - span.first + 1;

/**
 * Seconds for display.
 * @param {number} seconds
 */
export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(2)}s`;
  if (seconds < 60) return `${seconds.toFixed(1)}s`;
  const whole = Math.round(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}h ${minutes}m` : `${minutes}m ${whole % 60}s`;
}

/**
 * The first index at which `isAfter` holds; it must hold for every later one.
 * @template T
 * @param {T[]} items
 * @param {(item: T) => boolean} isAfter
 */
export function bisect(items, isAfter) {
  let low = 0;
  let high = items.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isAfter(items[middle])) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The folds of a log: which are closed, and which row shows which line. */
export class Folds {
  constructor() {
    /** @type {Map<string, boolean>} the reader's choices: whether a fold is closed */
    this.choices = new Map();
    /** @type {Map<number, Fold>} by the line that is its header */
    this.headers = new Map();
    /** @type {number[]} lines that contain only markers, in order: they are not rows */
    this.bare = [];
    /** @type {Map<number, number>} seconds of the steps that a line starts */
    this.times = new Map();
    /** @type {ShownStep[]} by line */
    this.steps = [];
    this.lines = 0;
    /** @type {Span[]} in order and disjoint */
    this.hidden = [];
    this.version = 0; // of `hidden`
  }

  /**
   * Replace the markers.
   * @param {Marker[]} markers
   * @param {number} lines of the log
   * @param {boolean} quiet open folds in front of the reader stay open when they end
   * @param {number[]} [bare] lines that contain only markers
   */
  update(markers, lines, quiet, bare = []) {
    const { folds, steps, ends, open } = readMarkers(markers);
    const before = new Map([...this.headers.values()].map((fold) => [choice(fold), fold]));
    this.lines = lines;
    this.bare = bare;
    this.headers = new Map();
    /** @type {Set<number>} lines that show the name of a fold */
    const named = new Set();
    for (const fold of folds) {
      const end = fold.end ?? lines;
      fold.header = this.#textLine(fold.start);
      if (fold.header >= end) fold.header = fold.start; // it has no text
      const outer = this.headers.get(fold.header);
      if (outer) {
        if (outer.start === fold.header) continue; // one header per line: the outermost
        // Of several folds with the same first text, the outer ones show their names.
        this.headers.delete(fold.header);
        outer.header = outer.start;
        named.add(outer.start);
        this.headers.set(outer.start, outer);
      }
      if (fold.end !== null && this.#count(fold.header + 1, fold.end) < 1) continue;
      const previous = before.get(choice(fold));
      const chosen = this.choices.get(choice(fold));
      const stays = quiet && previous?.end === null;
      fold.closed = chosen ?? (!fold.isShown && fold.end !== null && !stays);
      if (stays && chosen === undefined) this.choices.set(choice(fold), false);
      this.headers.set(fold.header, fold);
    }
    this.bare = bare.filter((line) => !named.has(line));
    this.#setTimes(steps, ends);
    this.#setSteps(open);
    this.#hide();
  }

  /**
   * Add lines that contain no markers.
   * @param {number} lines of the log
   */
  grow(lines) {
    this.lines = lines;
    if (this.hidden.at(-1)?.growing) this.#hide();
  }

  /**
   * The first line from `line` on with text.
   * @param {number} line
   */
  #textLine(line) {
    let at = bisect(this.bare, (other) => other >= line);
    while (this.bare[at] === line) {
      at++;
      line++;
    }
    return line;
  }

  /**
   * The lines with text in a range.
   * @param {number} first
   * @param {number} end
   */
  #count(first, end) {
    /** @param {number} line */
    const before = (line) => bisect(this.bare, (other) => other >= line);
    return end - first - (before(end) - before(first));
  }

  /**
   * The lines that a fold hides while it is closed.
   * @param {Fold} fold
   */
  hiddenBy(fold) {
    return Math.max(this.#count((fold.header ?? fold.start) + 1, fold.end ?? this.lines), 0);
  }

  /** @param {Step[]} steps @param {number[]} ends the lines of their end markers */
  #setTimes(steps, ends) {
    const timed = steps.map((step, at) => ({ ...step, end: ends[at] }));
    timed.sort((a, b) => a.line - b.line);
    /** @param {number} first @param {number} end */
    const secondsBetween = (first, end) => {
      const from = bisect(timed, (step) => step.line >= first);
      const to = bisect(timed, (step) => step.line >= end);
      return to > from ? secondsCovered(timed.slice(from, to)) : undefined;
    };
    this.times = new Map();
    this.steps = [];
    for (const { line, end } of timed) {
      const shown = this.#textLine(line);
      if (shown > end || this.times.has(shown)) continue; // it has no text
      const seconds = secondsBetween(line, line + 1) ?? 0;
      this.times.set(shown, seconds);
      this.steps.push({ line: shown, end, name: "", seconds });
    }
    for (const fold of this.headers.values()) {
      if (fold.end !== null) fold.seconds = secondsBetween(fold.start, fold.end);
    }
  }

  /** @param {number[]} open the lines of timers that did not end */
  #setSteps(open) {
    const lines = new Set(this.headers.keys());
    const timed = this.steps.filter(({ line }) => !lines.has(line));
    for (const line of open.map((start) => this.#textLine(start))) {
      if (!lines.has(line)) timed.push({ line, end: null, name: "", isTimer: true });
      lines.add(line);
    }
    const folds = [...this.headers.values()].map(({ header, start, end, name, key, seconds }) => ({
      line: header ?? start,
      end,
      name: key.startsWith("gitlab") ? "" : name,
      seconds,
    }));
    this.steps = [...folds, ...timed].sort((a, b) => a.line - b.line);
  }

  #hide() {
    this.version++;
    /** @type {Span[]} */
    const spans = [];
    for (const fold of this.headers.values()) {
      if (!fold.closed) continue;
      const last = Math.min(fold.end ?? this.lines, this.lines) - 1;
      const growing = fold.end === null;
      const first = (fold.header ?? fold.start) + 1;
      if (last >= first) spans.push({ first, last, before: 0, growing });
    }
    for (const line of this.bare) {
      spans.push({ first: line, last: line, before: 0, growing: false });
    }
    spans.sort((a, b) => a.first - b.first);
    this.hidden = [];
    for (const span of spans) {
      const last = this.hidden.at(-1);
      if (!last || span.first > last.last + 1) this.hidden.push(span);
      else if (span.last > last.last) {
        last.last = span.last;
        last.growing = span.growing;
      }
    }
    let count = 0;
    for (const span of this.hidden) {
      span.before = count;
      count += length(span);
    }
  }

  /**
   * The last hidden span that starts at or before `line`.
   * @param {number} line
   * @returns {Span | undefined}
   */
  #spanBefore(line) {
    return this.hidden[bisect(this.hidden, (span) => span.first > line) - 1];
  }

  /** The number of visible rows. */
  get rows() {
    const last = this.hidden.at(-1);
    return this.lines - (last ? last.before + length(last) : 0);
  }

  /**
   * The line that a row shows.
   * @param {number} row
   */
  lineOf(row) {
    const span = this.hidden[bisect(this.hidden, (span) => span.first - span.before > row) - 1];
    return span ? row + span.before + length(span) : row;
  }

  /**
   * The row of a line; of a hidden line, that of the fold that hides it.
   * @param {number} line
   */
  rowOf(line) {
    const span = this.#spanBefore(line);
    if (!span) return line;
    if (line <= span.last) return Math.max(span.first - span.before - 1, 0);
    return line - span.before - length(span);
  }

  /** @param {number} line */
  isHidden(line) {
    const span = this.#spanBefore(line);
    return span !== undefined && line <= span.last;
  }

  /**
   * Whether a line has only markers, and no row.
   * @param {number} line
   */
  isBare(line) {
    return this.bare[bisect(this.bare, (other) => other >= line)] === line;
  }

  /**
   * Open or close the fold that starts at a line.
   * @param {number} line
   * @param {boolean} closed
   */
  set(line, closed) {
    const fold = this.headers.get(line);
    if (!fold) return;
    fold.closed = closed;
    this.choices.set(choice(fold), closed);
    this.#hide();
  }

  /**
   * Open or close all folds.
   * @param {boolean} closed
   */
  setAll(closed) {
    for (const fold of this.headers.values()) {
      fold.closed = closed && fold.end !== null;
      this.choices.set(choice(fold), fold.closed);
    }
    this.#hide();
  }

  /**
   * Open all folds that hide a line.
   * @param {number} line
   * @returns {boolean} whether the line was hidden
   */
  reveal(line) {
    if (!this.isHidden(line)) return false;
    for (const fold of this.headers.values()) {
      const end = fold.end ?? this.lines;
      const header = fold.header ?? fold.start;
      if (fold.closed && header < line && line < end) this.set(header, false);
    }
    return true;
  }
}

/** @param {Fold} fold */
const choice = (fold) => `${fold.start}${fold.name}`;
