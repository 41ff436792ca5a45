/** The selected lines, which are the part of the address behind `#`: `#L120` or `#L120-L140`. */

const HASH = /^#L(\d{1,12})(?:-L(\d{1,12}))?$/;

/** Lines (from 0) out of the address's hash, or null. */
export function readHash(hash) {
  const found = HASH.exec(hash);
  if (!found) return null;
  const ends = [Number(found[1]), Number(found[2] ?? found[1])].map((n) => Math.max(n, 1) - 1);
  return { first: Math.min(...ends), last: Math.max(...ends) };
}

/** The hash of a range of lines. */
export function hashOf({ first, last }) {
  return first === last ? `#L${first + 1}` : `#L${first + 1}-L${last + 1}`;
}

export class Selection {
  /** @param {() => void} changed */
  constructor(changed) {
    this.changed = changed;
    this.range = readHash(location.hash);
    this.start = this.range?.first ?? null;
  }

  has(line) {
    return this.range !== null && line >= this.range.first && line <= this.range.last;
  }

  get count() {
    return this.range ? this.range.last - this.range.first + 1 : 0;
  }

  /** Select a line; with `extend`, all from the one selected first to it. */
  pick(line, extend) {
    if (!extend || this.start === null) this.start = line;
    this.#set({ first: Math.min(this.start, line), last: Math.max(this.start, line) });
  }

  clear() {
    this.start = null;
    this.#set(null);
  }

  /** Take over what the address says now. */
  follow() {
    this.range = readHash(location.hash);
    this.start = this.range?.first ?? null;
    this.changed();
  }

  #set(range) {
    this.range = range;
    const hash = range ? hashOf(range) : "";
    history.replaceState(null, "", location.pathname + location.search + hash);
    this.changed();
  }
}
