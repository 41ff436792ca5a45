/** Reads lines from the blocks of a log; a line may span many blocks. */

import { parseLine, RESET } from "./ansi.js";

/** @typedef {import("./ansi.js").Run} Run */
/** @typedef {import("./blocks.js").Blocks} Blocks */
/** @typedef {{begin: number, end: number}} ByteRange in the log; `end` is exclusive */
/**
 * @typedef {object} ReadLine
 * @property {Run[]} runs
 * @property {number} length in bytes
 * @property {boolean} partial only a part of the line was read
 * @property {boolean} unfinished it ends inside a sequence, which is not shown
 */

// Longer lines are read in part: their head, or their tail if they overwrite themselves.
export const WHOLE_BYTES = 16 * 1024;
const HEAD_BYTES = 8 * 1024;
const TAIL_BYTES = 4 * 1024;
const RETURN = 13;

const utf8 = new TextDecoder("utf-8");

export class Lines {
  /** @param {Blocks} blocks */
  constructor(blocks) {
    this.blocks = blocks;
  }

  get outline() {
    return this.blocks.outline;
  }

  /**
   * The blocks that a row of this line needs.
   * @param {number} line
   */
  needs(line) {
    const [first, last] = this.outline.span(line);
    const needed = [first, last];
    if (first > 0) needed.push(first - 1);
    if (last > first) needed.push(first + 1);
    return needed;
  }

  /**
   * The bytes of a line; null if its blocks are not held.
   * @param {number} line
   * @returns {ByteRange | null}
   */
  place(line) {
    const { outline, blocks } = this;
    const [first, last] = outline.span(line);
    const begin = line === 0 ? 0 : this.#afterNewline(first, line);
    const isComplete = line < outline.newlines[outline.blocks];
    const next = isComplete ? this.#afterNewline(last, line + 1) : outline.bytes + 1;
    return begin === null || next === null || !blocks.get(last) ? null : { begin, end: next - 1 };
  }

  /**
   * The byte after the `count`-th newline, which is in block `index`; null if that is not held.
   * @param {number} index
   * @param {number} count
   */
  #afterNewline(index, count) {
    const { outline, blocks } = this;
    const end = blocks.get(index)?.ends[count - outline.newlines[index] - 1];
    return end === undefined ? null : index * outline.blockBytes + end + 1;
  }

  /**
   * The style at the start of a line.
   * @param {number} line
   */
  #style(line) {
    if (line === 0) return RESET;
    const index = this.outline.blockOfNewline(line);
    return this.blocks.styles(index)[line - this.outline.newlines[index] - 1] ?? RESET;
  }

  /**
   * Bytes of the log; null if one of their blocks is not held.
   * @param {number} begin
   * @param {number} end
   */
  slice(begin, end) {
    const size = this.outline.blockBytes;
    const bytes = new Uint8Array(Math.max(end - begin, 0));
    for (let at = begin; at < end; ) {
      const block = this.blocks.get(Math.floor(at / size));
      const from = at % size;
      if (!block || from >= block.bytes.length) return null;
      const piece = block.bytes.subarray(from, Math.min(block.bytes.length, from + end - at));
      bytes.set(piece, at - begin);
      at += piece.length;
    }
    return bytes;
  }

  /**
   * A line as its row shows it; null if its blocks are not held.
   * @param {number} line
   * @returns {ReadLine | null}
   */
  read(line) {
    if (!this.needs(line).every((index) => this.blocks.get(index))) return null;
    const place = this.place(line);
    if (!place) return null;
    const { begin, end } = place;
    if (end - begin <= WHOLE_BYTES) {
      const bytes = this.slice(begin, end);
      return bytes && this.#parsed(line, bytes, end - begin, false);
    }
    const bytes = this.#lastState(end) ?? this.slice(begin, begin + HEAD_BYTES);
    return bytes && this.#parsed(line, bytes, end - begin, true);
  }

  /**
   * A complete line of any length.
   * @param {number} line
   * @throws {Error} if its blocks are not held
   */
  readWhole(line) {
    const place = this.place(line);
    const bytes = place && this.slice(place.begin, place.end);
    if (!bytes) throw new Error(`line ${line + 1} is not loaded`);
    return this.#parsed(line, bytes, bytes.length, false);
  }

  /**
   * The last state of a progress bar; null if the line does not end with one.
   * @param {number} end of the line
   */
  #lastState(end) {
    const size = this.outline.blockBytes;
    const tail = this.slice(Math.max(end - TAIL_BYTES, Math.floor((end - 1) / size) * size), end);
    if (!tail) return null;
    const at = tail.indexOf(RETURN);
    return at < 0 || at >= tail.length - 2 ? null : tail.subarray(at);
  }

  /**
   * @param {number} line
   * @param {Uint8Array} bytes
   * @param {number} length
   * @param {boolean} partial
   * @returns {ReadLine}
   */
  #parsed(line, bytes, length, partial) {
    const all = utf8.decode(bytes);
    // The last line of a live log may end inside a sequence that will be completed.
    const isLast = line === this.outline.lines - 1;
    const text = isLast ? all.replace(/\x1b(?:\[[0-?]*)?$/, "") : all;
    const { runs } = parseLine(text, this.#style(line));
    return { runs, length, partial, unfinished: text !== all };
  }
}
