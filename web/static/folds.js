/**
 * Folds and step times, made of the marks in the outline, and which lines are hidden.
 *
 * Marks are as hostile as the rest of a log: ends without starts, starts without ends and folds
 * that cross each other are taken as far as they make sense.
 */

const FOLD = /^travis_fold:(start|end):([\w.-]{1,100})$/;
const TIME = /^travis_time:(start|end):([\w.-]{1,64})((?::[\w=,.-]*)?)$/;
const MAX_DEPTH = 100;
const MAX_SECONDS = 10 * 365 * 86_400;

function secondsOf(fields) {
  const found = Object.fromEntries(
    fields.slice(1).split(",").map((field) => field.split("=", 2)),
  );
  const nanoseconds = found.duration ?? Number(found.finish) - Number(found.start);
  const seconds = Number(nanoseconds) / 1e9;
  return seconds >= 0 && seconds < MAX_SECONDS ? seconds : null;
}

/** Seconds as people say them. */
export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(2)}s`;
  if (seconds < 60) return `${seconds.toFixed(1)}s`;
  const whole = Math.round(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}h ${minutes}m` : `${minutes}m ${whole % 60}s`;
}

/**
 * Read the marks.
 * @param {[number, number, string][]} marks offset, line (from 0) and text
 * @returns {{folds: object[], times: Map<number, number>}} folds by their first line, outer ones
 *   first; seconds by the line where the step began
 */
export function readMarks(marks) {
  const folds = [];
  const times = new Map();
  const open = [];
  const started = new Map();
  for (const [, line, text] of marks) {
    const fold = FOLD.exec(text);
    if (fold?.[1] === "start" && open.length < MAX_DEPTH) {
      open.push({ name: fold[2], start: line, end: null });
      folds.push(open.at(-1));
    } else if (fold?.[1] === "end") endFold(open, fold[2], line);
    const time = TIME.exec(text);
    if (time?.[1] === "start") started.set(time[2], line);
    else if (time?.[1] === "end" && started.has(time[2])) {
      const seconds = secondsOf(time[3]);
      const begun = started.get(time[2]);
      if (seconds !== null) times.set(begun, (times.get(begun) ?? 0) + seconds);
      started.delete(time[2]);
    }
  }
  return { folds, times };
}

/** The innermost open fold of that name ends, and with it what was begun inside and never ended. */
function endFold(open, name, line) {
  const at = open.findLastIndex((fold) => fold.name === name);
  if (at < 0) return;
  for (const inner of open.splice(at)) inner.end = line;
}

/** The folds of a log: which are closed, and where every line is while some are hidden. */
export class Folds {
  constructor() {
    this.choices = new Map(); // what the person chose, by name and first line
    this.headers = new Map();
    this.times = new Map();
    this.lines = 0;
    this.hidden = []; // [first, last, hidden before first], in order, apart from each other
  }

  /**
   * Take new marks in.
   * @param {object[]} marks
   * @param {number} lines of the log
   * @param {boolean} quiet folds that were open in front of the reader stay as they are
   */
  update(marks, lines, quiet) {
    const { folds, times } = readMarks(marks);
    const before = this.headers;
    this.lines = lines;
    this.times = times;
    this.headers = new Map();
    for (const fold of folds) {
      if (this.headers.has(fold.start)) continue; // one header a line: the outermost
      if (fold.end !== null && fold.end - fold.start < 2) continue; // nothing to hide
      const was = before.get(fold.start);
      const chosen = this.choices.get(fold.start + fold.name);
      const stays = quiet && was && was.end === null;
      fold.closed = chosen ?? (fold.end !== null && !stays);
      if (stays && chosen === undefined) this.choices.set(fold.start + fold.name, false);
      this.headers.set(fold.start, fold);
    }
    this.#sumTimes();
    this.#hide();
  }

  /** The log grew, without new marks. */
  grow(lines) {
    this.lines = lines;
    const tail = this.hidden.at(-1);
    if (tail?.[3]) this.#hide();
  }

  #sumTimes() {
    const timed = [...this.times].sort((a, b) => a[0] - b[0]);
    for (const fold of this.headers.values()) {
      if (this.times.has(fold.start)) fold.seconds = this.times.get(fold.start);
      else if (fold.end !== null) fold.seconds = sumBetween(timed, fold.start, fold.end);
    }
  }

  #hide() {
    const spans = [];
    for (const fold of this.headers.values()) {
      if (!fold.closed) continue;
      const last = fold.end === null ? this.lines - 1 : Math.min(fold.end, this.lines) - 1;
      if (last > fold.start) spans.push([fold.start + 1, last, 0, fold.end === null]);
    }
    spans.sort((a, b) => a[0] - b[0]);
    this.hidden = [];
    for (const span of spans) {
      const last = this.hidden.at(-1);
      if (last && span[0] <= last[1] + 1) {
        if (span[1] > last[1]) [last[1], last[3]] = [span[1], span[3]];
      } else this.hidden.push(span);
    }
    let count = 0;
    for (const span of this.hidden) {
      span[2] = count;
      count += span[1] - span[0] + 1;
    }
  }

  /** How many of the hidden spans begin at or before `line`, by halving. */
  #spansBefore(line) {
    let low = 0;
    let high = this.hidden.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.hidden[middle][0] <= line) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** How many rows are to be seen. */
  get rows() {
    const last = this.hidden.at(-1);
    return this.lines - (last ? last[2] + last[1] - last[0] + 1 : 0);
  }

  /** The line that row `row` shows. */
  lineOf(row) {
    let low = 0;
    let high = this.hidden.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const [first, , before] = this.hidden[middle];
      if (first - before <= row) low = middle + 1;
      else high = middle;
    }
    const span = this.hidden[low - 1];
    return span ? row + span[2] + span[1] - span[0] + 1 : row;
  }

  /** The row of a line; of a hidden one, that of the fold it is in. */
  rowOf(line) {
    const span = this.hidden[this.#spansBefore(line) - 1];
    if (!span) return line;
    if (line <= span[1]) return span[0] - span[2] - 1;
    return line - (span[2] + span[1] - span[0] + 1);
  }

  isHidden(line) {
    const span = this.hidden[this.#spansBefore(line) - 1];
    return span !== undefined && line <= span[1];
  }

  /** Open or close the fold that begins at this line. */
  set(line, closed) {
    const fold = this.headers.get(line);
    if (!fold) return;
    fold.closed = closed;
    this.choices.set(line + fold.name, closed);
    this.#hide();
  }

  /** Open or close all. */
  setAll(closed) {
    for (const fold of this.headers.values()) {
      fold.closed = closed && fold.end !== null;
      this.choices.set(fold.start + fold.name, fold.closed);
    }
    this.#hide();
  }

  /** Open whatever hides this line; returns whether something did. */
  reveal(line) {
    if (!this.isHidden(line)) return false;
    for (const fold of this.headers.values()) {
      const end = fold.end ?? this.lines;
      if (fold.closed && fold.start < line && line < end) this.set(fold.start, false);
    }
    return true;
  }
}

function sumBetween(timed, first, last) {
  let low = 0;
  let high = timed.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (timed[middle][0] < first) low = middle + 1;
    else high = middle;
  }
  let sum = 0;
  for (let i = low; i < timed.length && timed[i][0] < last; i++) sum += timed[i][1];
  return sum || undefined;
}
