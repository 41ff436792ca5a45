/**
 * The folds and timed steps that a log's markers describe.
 *
 * logflume/markers.py states the rule for steps and implements it for the server;
 * tests/corpus/travis_time.json tests both.
 */

/** @typedef {[byte: number, line: number, text: string]} Marker line from 0 */
/**
 * @typedef {object} Fold
 * @property {string} name
 * @property {number} start the line of its start marker
 * @property {number | null} end the line of its end marker; null while it is open
 * @property {number} [header] the line that shows its name or first text
 * @property {boolean} [closed] its lines are hidden
 * @property {number} [seconds] covered by the steps in it
 */
/**
 * @typedef {object} Step
 * @property {string} id
 * @property {string} event the runner's name for it
 * @property {string} fold the fold it started in
 * @property {number} line
 * @property {bigint} startNs nanoseconds since the epoch
 * @property {bigint} finishNs
 */

const FOLD = /^travis_fold:(start|end):([\w.-]{1,100})$/;
const TIME = /^travis_time:(start|end):([\w.-]{1,64})(?::([\w=,.-]*))?$/;
// Nanoseconds since the epoch, from 2001 to 2096.
const TIMESTAMP = /^[1-3]\d{18}$/;
const MAX_STEP_NS = 30n * 24n * 3600n * 10n ** 9n;
const MAX_STEPS = 1000;
const MAX_OPEN = 100;

class Reader {
  constructor() {
    /** @type {Fold[]} */
    this.folds = [];
    /** @type {Step[]} */
    this.steps = [];
    /** @type {number[]} the line of the end marker of each step */
    this.ends = [];
    /** @type {Fold[]} */
    this.openFolds = [];
    /** @type {Map<string, {fold: string, line: number}>} */
    this.openTimers = new Map();
  }

  /** @param {string} edge @param {string} name @param {number} line */
  fold(edge, name, line) {
    if (edge === "start") {
      const fold = { name, start: line, end: null };
      this.folds.push(fold);
      this.openFolds.push(fold);
      if (this.openFolds.length > MAX_OPEN) this.openFolds.shift();
      return;
    }
    const at = this.openFolds.findLastIndex((fold) => fold.name === name);
    if (at < 0) return;
    for (const inner of this.openFolds.splice(at)) inner.end = line;
  }

  /** @param {string} edge @param {string} id @param {string} text @param {number} line */
  time(edge, id, text, line) {
    const opened = this.openTimers.get(id);
    if (edge === "start") {
      this.openTimers.delete(id);
      this.openTimers.set(id, { fold: this.openFolds.at(-1)?.name ?? "", line });
      if (this.openTimers.size > MAX_OPEN) {
        for (const oldest of this.openTimers.keys()) {
          this.openTimers.delete(oldest);
          break;
        }
      }
    } else if (opened) {
      for (const open of [...this.openTimers.keys()].reverse()) {
        this.openTimers.delete(open);
        if (open === id) break;
      }
      this.#close(id, text, opened, line);
    }
  }

  /**
   * @param {string} id
   * @param {string} text
   * @param {{fold: string, line: number}} opened
   * @param {number} end line
   */
  #close(id, text, opened, end) {
    const fields = new Map(
      text.split(",").map((field) => {
        const [name] = field.split("=", 1);
        return [name, field.slice(name.length + 1)];
      }),
    );
    const [start, finish] = [fields.get("start") ?? "", fields.get("finish") ?? ""];
    if (!TIMESTAMP.test(start) || !TIMESTAMP.test(finish)) return;
    const [startNs, finishNs] = [BigInt(start), BigInt(finish)];
    const length = finishNs - startNs;
    if (length < 0n || length > MAX_STEP_NS || this.steps.length >= MAX_STEPS) return;
    this.steps.push({ id, event: fields.get("event") ?? "", ...opened, startNs, finishNs });
    this.ends.push(end);
  }
}

/**
 * Read the markers of a log.
 * @param {Marker[]} markers
 * @returns {{folds: Fold[], steps: Step[], ends: number[]}} folds in the order of start markers,
 *   steps and the lines of their end markers in the order of end markers
 */
export function readMarkers(markers) {
  const reader = new Reader();
  for (const [, line, text] of markers) {
    const fold = FOLD.exec(text);
    if (fold) reader.fold(fold[1], fold[2], line);
    const time = TIME.exec(text);
    if (time) reader.time(time[1], time[2], time[3] ?? "", line);
  }
  return { folds: reader.folds, steps: reader.steps, ends: reader.ends };
}

/**
 * The seconds that steps cover; time in which several run counts once.
 * @param {Step[]} steps
 */
export function secondsCovered(steps) {
  let covered = 0n;
  let until = 0n;
  const sorted = [...steps].sort((a, b) => Number(a.startNs - b.startNs));
  for (const { startNs, finishNs } of sorted) {
    const from = startNs > until ? startNs : until;
    if (finishNs > from) {
      covered += finishNs - from;
      until = finishNs;
    }
  }
  return Number(covered) / 1e9;
}
