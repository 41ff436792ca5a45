/** The selected lines, which are the hash of the address: `#L120` or `#L120-L140`. */

/** @typedef {{first: number, last: number}} LineRange from 0, inclusive */

const HASH = /^#L(\d{1,12})(?:-L(\d{1,12}))?$/;

/**
 * Parse a hash.
 * @param {string} hash
 * @returns {LineRange | null}
 */
export function readHash(hash) {
  const match = HASH.exec(hash);
  if (!match) return null;
  const ends = [Number(match[1]), Number(match[2] ?? match[1])].map((n) => Math.max(n, 1) - 1);
  return { first: Math.min(...ends), last: Math.max(...ends) };
}

/**
 * The hash of a range of lines.
 * @param {LineRange} range
 */
export function hashOf({ first, last }) {
  return first === last ? `#L${first + 1}` : `#L${first + 1}-L${last + 1}`;
}

export class Selection {
  /** @param {() => void} changed */
  constructor(changed) {
    this.changed = changed;
    this.range = readHash(location.hash);
    /** @type {number | null} the line that a range extends from */
    this.start = this.range?.first ?? null;
  }

  /** @param {number} line */
  has(line) {
    return this.range !== null && line >= this.range.first && line <= this.range.last;
  }

  get count() {
    return this.range ? this.range.last - this.range.first + 1 : 0;
  }

  /**
   * Select a line.
   * @param {number} line
   * @param {boolean} extend select the range from the line selected before
   */
  pick(line, extend) {
    if (!extend || this.start === null) this.start = line;
    this.#set({ first: Math.min(this.start, line), last: Math.max(this.start, line) });
  }

  clear() {
    this.start = null;
    this.#set(null);
  }

  /** Read the selection from the address. */
  follow() {
    this.range = readHash(location.hash);
    this.start = this.range?.first ?? null;
    this.changed();
  }

  /** @param {LineRange | null} range */
  #set(range) {
    this.range = range;
    const hash = range ? hashOf(range) : "";
    history.replaceState(null, "", location.pathname + location.search + hash);
    this.changed();
  }
}
