/**
 * The bytes of a log in blocks of equal size, fetched when a row needs them and dropped when too
 * many are held.
 */

import { RESET, scanStyle } from "./ansi.js";

const NEWLINE = 10;
const MAX_HELD_BYTES = 32 * 1024 * 1024;
const REQUESTS = 4;
const MAX_BLOCKS_A_REQUEST = 16;
// What came in live while a request was on its way is kept this long, to be put after its answer.
const RECENT_BYTES = 256 * 1024;

/** A block: its bytes, where its newlines are, and the style after each of them. */
class Block {
  constructor(bytes) {
    this.bytes = bytes;
    this.ends = [];
    for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) {
      this.ends.push(at);
    }
    this.styles = null;
    this.first = null;
  }

  /** The styles after each newline. `before`: the block before this, or null at the start. */
  stylesAfter(before) {
    if (this.styles) return this.styles;
    this.first = before ? scanStyle(before.bytes, 0, before.bytes.length, RESET) : RESET;
    let style = this.first;
    let from = 0;
    this.styles = this.ends.map((end) => {
      style = scanStyle(this.bytes, from, end, style);
      from = end;
      return style;
    });
    return this.styles;
  }
}

function joined(first, second) {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

export class Blocks {
  /**
   * @param {(from: number, to: number, signal: AbortSignal) => Promise<Uint8Array>} fetchRange
   * @param {() => void} arrived called when blocks came
   * @param {(error: Error) => void} failed called when a request failed for good
   */
  constructor(fetchRange, arrived, failed) {
    this.fetchRange = fetchRange;
    this.arrived = arrived;
    this.failed = failed;
    this.reset(null);
  }

  /** Forget everything: the log is another one now. */
  reset(outline) {
    for (const request of this.requests ?? []) request.abort.abort();
    this.outline = outline;
    this.held = new Map(); // in order of use, the oldest first
    this.requests = [];
    this.recent = new Uint8Array(0);
  }

  /** Block `index`, if it is here. */
  get(index) {
    const block = this.held.get(index);
    if (block) {
      this.held.delete(index);
      this.held.set(index, block);
    }
    return block;
  }

  /** The styles after the newlines of a block that is here, as is the one before it. */
  styles(index) {
    return this.get(index).stylesAfter(index > 0 ? this.get(index - 1) : null);
  }

  /** Fetch these blocks, as far as they are not here or on their way; let go of other requests. */
  want(indexes) {
    const wanted = [...new Set(indexes)].filter((index) => !this.held.has(index));
    for (const request of this.requests) {
      const useful = wanted.some((index) => index >= request.first && index <= request.last);
      if (!useful && !request.kept) request.abort.abort();
    }
    const coming = (index) =>
      this.requests.some((r) => !r.abort.signal.aborted && index >= r.first && index <= r.last);
    this.#requestRuns(wanted.filter((index) => !coming(index)).sort((a, b) => a - b));
  }

  #requestRuns(indexes) {
    let run = [];
    for (const index of [...indexes, Infinity]) {
      if (run.length && (index !== run.at(-1) + 1 || run.length >= MAX_BLOCKS_A_REQUEST)) {
        const busy = this.requests.filter((request) => !request.abort.signal.aborted).length;
        if (busy < REQUESTS) this.#request(run[0], run.at(-1));
        run = [];
      }
      run.push(index);
    }
  }

  /** Fetch blocks and wait for them, whatever else is wanted. */
  async load(first, last) {
    for (let at = first; at <= last; at += MAX_BLOCKS_A_REQUEST) {
      const until = Math.min(last, at + MAX_BLOCKS_A_REQUEST - 1);
      const missing = [];
      for (let i = at; i <= until; i++) if (!this.held.has(i)) missing.push(i);
      if (missing.length) await this.#request(missing[0], missing.at(-1), true);
    }
  }

  async #request(first, last, kept = false) {
    const outline = this.outline;
    const from = first * outline.blockBytes;
    const request = { first, last, kept, abort: new AbortController() };
    this.requests.push(request);
    try {
      const to = last * outline.blockBytes + outline.blockLength(last);
      const bytes = await this.fetchRange(from, to, request.abort.signal);
      if (this.outline === outline) this.#store(first, last, from, bytes);
    } catch (error) {
      if (kept) throw error;
      if (request.abort.signal.aborted) return;
      this.failed(error);
      return;
    } finally {
      this.requests = this.requests.filter((other) => other !== request);
    }
    this.arrived();
  }

  #store(first, last, from, bytes) {
    const { outline } = this;
    const size = outline.blockBytes;
    for (let index = first; index <= last; index++) {
      const begin = index * size - from;
      let piece = bytes.slice(begin, begin + size);
      const missing = outline.blockLength(index) - piece.length;
      if (missing > 0) {
        // The block grew while it was fetched: what came in live is its rest.
        const at = this.recent.length - (outline.bytes - (index * size + piece.length));
        if (at < 0) continue;
        piece = joined(piece, this.recent.subarray(at, at + missing));
      }
      this.#hold(index, new Block(piece));
    }
  }

  #hold(index, block) {
    this.held.delete(index);
    this.held.set(index, block);
    const limit = MAX_HELD_BYTES / this.outline.blockBytes;
    for (const old of this.held.keys()) {
      if (this.held.size <= limit) break;
      this.held.delete(old);
    }
  }

  /** Add bytes that came in at the end; the outline has them already. */
  append(bytes) {
    const { outline } = this;
    const size = outline.blockBytes;
    this.recent = joined(this.recent, bytes).slice(-Math.max(RECENT_BYTES, bytes.length));
    let at = outline.bytes - bytes.length;
    for (let taken = 0; taken < bytes.length; ) {
      const index = Math.floor(at / size);
      const piece = bytes.subarray(taken, taken + size - (at % size));
      const block = this.held.get(index);
      if (at % size === 0) this.#hold(index, new Block(piece.slice()));
      else if (block) this.#hold(index, new Block(joined(block.bytes, piece)));
      at += piece.length;
      taken += piece.length;
    }
  }
}
