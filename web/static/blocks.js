/** The bytes of a log in blocks of equal size, fetched on demand, least recently used dropped. */

import { RESET, scanStyle } from "./ansi.js";

/** @typedef {import("./ansi.js").Style} Style */
/** @typedef {import("./outline.js").Outline} Outline */
/**
 * @typedef {object} Request for a range of blocks
 * @property {number} first
 * @property {number} last
 * @property {boolean} required `want` does not abort it
 * @property {AbortController} abort
 */

const NEWLINE = 10;
const MAX_HELD_BYTES = 32 * 1024 * 1024;
const MAX_REQUESTS = 4;
const MAX_BLOCKS_PER_REQUEST = 16;
// Live bytes are retained up to this size, to be appended to responses that were requested earlier.
const RECENT_BYTES = 256 * 1024;

/** A block: its bytes, the offsets of its newlines, and the style after each of them. */
class Block {
  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.bytes = bytes;
    /** @type {number[]} */
    this.ends = [];
    for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) {
      this.ends.push(at);
    }
    /** @type {Style[] | null} */
    this.styles = null;
  }

  /**
   * The styles after each newline.
   * @param {Block | null} before the block before this one; null at the start of the log
   */
  stylesAfter(before) {
    if (this.styles) return this.styles;
    let style = before ? scanStyle(before.bytes, 0, before.bytes.length, RESET) : RESET;
    let from = 0;
    this.styles = this.ends.map((end) => {
      style = scanStyle(this.bytes, from, end, style);
      from = end;
      return style;
    });
    return this.styles;
  }
}

/**
 * @param {Uint8Array} first
 * @param {Uint8Array} second
 */
function joined(first, second) {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

export class Blocks {
  /** @type {Outline | null} */
  #outline = null;
  /** @type {Map<number, Block>} in order of use, least recent first */
  #held = new Map();
  /** @type {Request[]} */
  #requests = [];
  #recent = new Uint8Array(0);

  /**
   * @param {(from: number, to: number, signal: AbortSignal) => Promise<Uint8Array>} fetchRange
   * @param {() => void} arrived called when blocks have arrived
   * @param {(error: unknown) => void} failed called when a request has failed
   */
  constructor(fetchRange, arrived, failed) {
    this.fetchRange = fetchRange;
    this.arrived = arrived;
    this.failed = failed;
  }

  /** Whether a log was opened. */
  get isOpen() {
    return this.#outline !== null;
  }

  /** The outline of the open log. */
  get outline() {
    if (!this.#outline) throw new Error("no log is open");
    return this.#outline;
  }

  /**
   * Drop all blocks and switch to another log.
   * @param {Outline} outline
   */
  reset(outline) {
    for (const request of this.#requests) request.abort.abort();
    this.#outline = outline;
    this.#held = new Map();
    this.#requests = [];
    this.#recent = new Uint8Array(0);
  }

  /**
   * A block, if it is held.
   * @param {number} index
   */
  get(index) {
    const block = this.#held.get(index);
    if (block) {
      this.#held.delete(index);
      this.#held.set(index, block);
    }
    return block;
  }

  /**
   * Whether all blocks of a range are held.
   * @param {number} first
   * @param {number} last
   */
  holds(first, last) {
    for (let index = first; index <= last; index++) if (!this.#held.has(index)) return false;
    return true;
  }

  /**
   * The styles after the newlines of a block; empty unless it and the one before are held.
   * @param {number} index
   */
  styles(index) {
    const before = index > 0 ? this.get(index - 1) : null;
    return (before !== undefined && this.get(index)?.stylesAfter(before)) || [];
  }

  /**
   * Fetch these blocks unless they are held or requested; abort requests for other blocks.
   * @param {number[]} indexes
   */
  want(indexes) {
    const wanted = [...new Set(indexes)].filter((index) => !this.#held.has(index));
    for (const request of this.#requests) {
      const useful = wanted.some((index) => index >= request.first && index <= request.last);
      if (!useful && !request.required) request.abort.abort();
    }
    const active = this.#requests.filter((request) => !request.abort.signal.aborted);
    const missing = wanted.filter(
      (index) => !active.some((request) => index >= request.first && index <= request.last),
    );
    this.#requestRuns(missing.sort((a, b) => a - b));
  }

  /** @param {number[]} indexes in order */
  #requestRuns(indexes) {
    /** @type {number[]} */
    let run = [];
    for (const index of [...indexes, Infinity]) {
      const last = run[run.length - 1];
      if (run.length && (index !== last + 1 || run.length >= MAX_BLOCKS_PER_REQUEST)) {
        const active = this.#requests.filter((request) => !request.abort.signal.aborted);
        if (active.length < MAX_REQUESTS) this.#request(run[0], last);
        run = [];
      }
      run.push(index);
    }
  }

  /**
   * Fetch a range of blocks and wait for them.
   * @param {number} first
   * @param {number} last
   */
  async load(first, last) {
    for (let at = first; at <= last; at += MAX_BLOCKS_PER_REQUEST) {
      const until = Math.min(last, at + MAX_BLOCKS_PER_REQUEST - 1);
      const missing = [];
      for (let i = at; i <= until; i++) if (!this.#held.has(i)) missing.push(i);
      if (missing.length) await this.#request(missing[0], missing[missing.length - 1], true);
    }
  }

  /** @param {number} first @param {number} last */
  async #request(first, last, required = false) {
    const outline = this.outline;
    const from = first * outline.blockBytes;
    const request = { first, last, required, abort: new AbortController() };
    this.#requests.push(request);
    try {
      const to = last * outline.blockBytes + outline.blockLength(last);
      const bytes = await this.fetchRange(from, to, request.abort.signal);
      if (this.outline === outline) this.#store(first, last, from, bytes);
    } catch (error) {
      if (required) throw error;
      if (request.abort.signal.aborted) return;
      this.failed(error);
      return;
    } finally {
      this.#requests = this.#requests.filter((other) => other !== request);
    }
    this.arrived();
  }

  /** @param {number} first @param {number} last @param {number} from @param {Uint8Array} bytes */
  #store(first, last, from, bytes) {
    const { outline } = this;
    const size = outline.blockBytes;
    for (let index = first; index <= last; index++) {
      const begin = index * size - from;
      let piece = bytes.slice(begin, begin + size);
      const missing = outline.blockLength(index) - piece.length;
      if (missing > 0) {
        // The block grew during the request: the rest was received live.
        const at = this.#recent.length - (outline.bytes - (index * size + piece.length));
        if (at < 0) continue;
        piece = joined(piece, this.#recent.subarray(at, at + missing));
      }
      this.#hold(index, new Block(piece));
    }
  }

  /** @param {number} index @param {Block} block */
  #hold(index, block) {
    this.#held.delete(index);
    this.#held.set(index, block);
    const limit = MAX_HELD_BYTES / this.outline.blockBytes;
    for (const old of this.#held.keys()) {
      if (this.#held.size <= limit) break;
      this.#held.delete(old);
    }
  }

  /**
   * Append live bytes, which the outline already includes.
   * @param {Uint8Array} bytes
   */
  append(bytes) {
    const { outline } = this;
    const size = outline.blockBytes;
    this.#recent = joined(this.#recent, bytes).slice(-Math.max(RECENT_BYTES, bytes.length));
    let at = outline.bytes - bytes.length;
    for (let taken = 0; taken < bytes.length; ) {
      const index = Math.floor(at / size);
      const piece = bytes.subarray(taken, taken + size - (at % size));
      const block = this.#held.get(index);
      if (at % size === 0) this.#hold(index, new Block(piece.slice()));
      else if (block) this.#hold(index, new Block(joined(block.bytes, piece)));
      at += piece.length;
      taken += piece.length;
    }
  }
}
