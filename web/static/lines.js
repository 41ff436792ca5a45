/** Lines of a log, read out of its blocks: a line may begin in one and end many blocks later. */

import { parseLine, RESET } from "./ansi.js";

// Up to here a line is read whole; of a longer one only its head, or its end if it rewrites itself.
const WHOLE_BYTES = 16 * 1024;
const HEAD_BYTES = 8 * 1024;
const TAIL_BYTES = 4 * 1024;
const RETURN = 13;

const utf8 = new TextDecoder("utf-8");

export class Lines {
  constructor(blocks) {
    this.blocks = blocks;
  }

  get outline() {
    return this.blocks.outline;
  }

  /** The blocks that a row of this line needs. */
  needs(line) {
    const [first, last] = this.outline.span(line);
    const needed = [first, last];
    if (first > 0) needed.push(first - 1);
    if (last > first) needed.push(first + 1);
    return needed;
  }

  /** Where a line begins and ends, in bytes of the log; null while its blocks are not here. */
  place(line) {
    const { outline, blocks } = this;
    const [first, last] = outline.span(line);
    const begin = line === 0 ? 0 : this.#newline(first, line);
    const end =
      line < outline.newlines[outline.blocks] ? this.#newline(last, line + 1) - 1 : outline.bytes;
    return begin === null || end === -1 || !blocks.get(last) ? null : { begin, end };
  }

  /** The byte after the `count`-th newline, which is in block `index`; null if that is not here. */
  #newline(index, count) {
    const { outline, blocks } = this;
    const end = blocks.get(index)?.ends[count - outline.newlines[index] - 1];
    return end === undefined ? null : index * outline.blockBytes + end + 1;
  }

  /** The style in which a line begins. */
  #style(line) {
    if (line === 0) return RESET;
    const index = this.outline.blockOfNewline(line);
    return this.blocks.styles(index)[line - this.outline.newlines[index] - 1] ?? RESET;
  }

  /** Bytes of the log that are here; null where a block of them is missing. */
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
   * A line as it is shown: its runs, its length in bytes, and whether it was read in part only.
   * Null while its blocks are not here.
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
    const tail = this.#rewritten(end);
    const bytes = tail ?? this.slice(begin, begin + HEAD_BYTES);
    return bytes && this.#parsed(line, bytes, end - begin, true);
  }

  /** A line read whole, however long; its blocks must be here. */
  readWhole(line) {
    const { begin, end } = this.place(line);
    return this.#parsed(line, this.slice(begin, end), end - begin, false);
  }

  /** Of a progress bar only what was written last is seen. */
  #rewritten(end) {
    const size = this.outline.blockBytes;
    const tail = this.slice(Math.max(end - TAIL_BYTES, Math.floor((end - 1) / size) * size), end);
    if (!tail) return null;
    const at = tail.indexOf(RETURN);
    return at < 0 || at >= tail.length - 2 ? null : tail.subarray(at);
  }

  #parsed(line, bytes, length, partial) {
    let text = utf8.decode(bytes);
    // The last line of a live log may be cut in a sequence, whose rest is on its way.
    if (line === this.outline.lines - 1) text = text.replace(/\x1b(?:\[[0-?]*)?$/, "");
    return { ...parseLine(text, this.#style(line)), length, partial };
  }
}
