/**
 * The folds and timed steps that a log's markers describe.
 *
 * logflume/markers.py states the rules and implements them for the server; tests/corpus/
 * travis_time.json and steps.json test both.
 */

/** @typedef {[byte: number, line: number, text: string]} Marker line from 0 */
/**
 * @typedef {object} Fold
 * @property {string} name
 * @property {number} start the line of its start marker
 * @property {number | null} end the line of its end marker; null while it is open
 * @property {string} key its system, and its name where folds nest
 * @property {boolean} [isShown] it is open from the start
 * @property {string} [startedAt] seconds since the epoch
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
const SECTION = /^section_(start|end):(\d{10}):([\w.-]{1,100})(?:\[(.*)\])?$/;
const GROUP = /^(?:::group::|##\[group\]|(?:---|\+\+\+|~~~) )(.*)$/s;
// The forms of markers, as logflume/markers.py has them.
const GAP =
  "(?:\\x1b\\[[\\d;]{0,12}[mK]|\\r|\\x1b_bk;t=\\d{1,20}\\x07" +
  "|\\d{4}-\\d\\d-\\d\\dT[\\d:.]{8,20}Z (?:\\d\\d[OE][ +])?)";
const ENDS =
  "(?:::endgroup::|##\\[endgroup\\]|\\^\\^\\^ \\+\\+\\+" +
  "|section_(?:start|end):\\d{10}:[\\w.-]{1,100}(?:\\[[\\w=,]{0,99}\\])?)";
const TRAVIS = /travis_(?:fold|time):(?:start|end):[^\r\n\x1b]{1,200}/g;
const OTHER = new RegExp(
  `\\n${GAP}{0,3}((?:::group::|##\\[group\\])[^\\r\\n\\x1b]{0,200}|${ENDS}` +
    "|(?:---|\\+\\+\\+|~~~) (?!(?:[ab]/|/dev/null|FAIL|PASS|SKIP)|[^\\n\\t]*\\t)[^\\r\\n\\x1b]{1,200})",
  "g",
);
// Lines that contain only markers which are not shown. The lookahead does not backtrack.
const BARE = new RegExp(
  `(?<=^|\\n)(?=(${GAP}*(?:(?:travis_(?:fold|time):(?:start|end):[\\w.,=:/+@-]{1,200}|${ENDS})${GAP}*)+))\\1(?=\\n)`,
  "g",
);
const BARE_WORDS = /travis_|endgroup|section_|\^\^\^ \+\+\+/; // a text without these has no such line
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

  /** @param {string} key @param {string} name @param {number} line */
  openFold(key, name, line) {
    /** @type {Fold} */
    const fold = { name, start: line, end: null, key };
    this.folds.push(fold);
    this.openFolds.push(fold);
    if (this.openFolds.length > MAX_OPEN) this.openFolds.shift();
    return fold;
  }

  /**
   * Close the innermost open fold with a key and all folds in it.
   * @param {string} key
   * @param {number} line
   * @returns {Fold | undefined} the closed one
   */
  closeFold(key, line) {
    const at = this.openFolds.findLastIndex((fold) => fold.key === key);
    if (at < 0) return undefined;
    const closed = this.openFolds.splice(at);
    for (const fold of closed) fold.end = line;
    return closed[0];
  }

  /** @param {string} edge @param {string} seconds @param {string} name @param {number} line */
  section(edge, seconds, name, line) {
    if (edge === "start") {
      const fold = this.openFold(`gitlab ${name}`, name, line);
      fold.startedAt = seconds;
      fold.isShown = true;
      return fold;
    }
    const closed = this.closeFold(`gitlab ${name}`, line);
    const outer = this.openFolds.at(-1)?.name ?? "";
    const nanoseconds = "0".repeat(9);
    if (closed) {
      const times = [`${closed.startedAt}${nanoseconds}`, `${seconds}${nanoseconds}`];
      this.#add({ id: name, event: "", fold: outer, line: closed.start }, times, line);
    }
    return undefined;
  }

  /** @param {string} text @param {number} line */
  other(text, line) {
    const section = SECTION.exec(text);
    const group = GROUP.exec(text);
    if (section) {
      const fold = this.section(section[1], section[2], section[3], line);
      if (fold && /\bcollapsed=true\b/.test(section[4] ?? "")) fold.isShown = false;
    } else if (group) {
      const key = /^[:#]/.test(text) ? "github" : "buildkite";
      this.closeFold(key, line);
      this.openFold(key, group[1].trim(), line).isShown = text.startsWith("+++");
    } else if (text === "^^^ +++") {
      const fold = this.openFolds.findLast(({ key }) => key === "buildkite");
      if (fold) fold.isShown = true;
    } else this.closeFold("github", line);
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
    const times = [fields.get("start") ?? "", fields.get("finish") ?? ""];
    this.#add({ id, event: fields.get("event") ?? "", ...opened }, times, end);
  }

  /** @param {Omit<Step, "startNs" | "finishNs">} step @param {string[]} times @param {number} end line */
  #add(step, times, end) {
    if (!times.every((time) => TIMESTAMP.test(time))) return;
    const [startNs, finishNs] = times.map(BigInt);
    const length = finishNs - startNs;
    if (length < 0n || length > MAX_STEP_NS || this.steps.length >= MAX_STEPS) return;
    this.steps.push({ ...step, startNs, finishNs });
    this.ends.push(end);
  }
}

/**
 * The markers in a text whose characters are bytes.
 * @param {string} text the log, or a piece of it, after a byte of its own or a line feed
 * @param {number} from where markers of Travis CI may start
 * @returns {{start: number, end: number}[]}
 */
export function findMarkers(text, from) {
  TRAVIS.lastIndex = from;
  const found = [...text.matchAll(TRAVIS)].map(({ 0: { length }, index }) => ({
    start: index,
    end: index + length,
  }));
  const others = new Set();
  for (const { 0: all, 1: marker, index } of text.matchAll(OTHER)) {
    const end = index + all.length;
    found.push({ start: end - marker.length, end });
    others.add(end);
  }
  let last = 0;
  return found
    .sort((a, b) => a.start - b.start)
    .filter(({ start, end }) => {
      if (start < last) return false; // in the name of another marker
      last = end;
      return end < text.length || !others.has(end); // an incomplete line may become something else
    });
}

/**
 * The lines of a text that contain only markers.
 * @param {string} text
 * @returns {{index: number, length: number}[]}
 */
export function findBareLines(text) {
  if (!BARE_WORDS.test(text)) return [];
  return [...text.matchAll(BARE)].map(({ 0: { length }, index }) => ({ index, length }));
}

/**
 * Read the markers of a log.
 * @param {Marker[]} markers
 * @returns {{folds: Fold[], steps: Step[], ends: number[], open: number[]}} folds in the order of
 *   start markers, steps and the lines of their end markers in the order of end markers, and the
 *   lines of timers that did not end
 */
export function readMarkers(markers) {
  const reader = new Reader();
  for (const [, line, text] of markers) {
    const fold = FOLD.exec(text);
    const time = TIME.exec(text);
    if (fold?.[1] === "start") reader.openFold(`travis ${fold[2]}`, fold[2], line);
    else if (fold) reader.closeFold(`travis ${fold[2]}`, line);
    else if (time) reader.time(time[1], time[2], time[3] ?? "", line);
    else if (!text.startsWith("travis_")) reader.other(text, line);
  }
  const open = [...reader.openTimers.values()].map(({ line }) => line);
  return { folds: reader.folds, steps: reader.steps, ends: reader.ends, open };
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
