/**
 * What is known of a whole log without its text: where its lines are, and its fold and time marks.
 * The server makes it once; bytes that come in live extend it here.
 */

const NEWLINE = 10;
const MARK = /travis_(?:fold|time):(?:start|end):[^\r\n\x1b]{1,200}/g;
const MAX_MARKS = 20_000;
// The longest mark, so that one cut between two parts is still found.
const CARRY_BYTES = 256;

const latin1 = new TextDecoder("latin1"); // one character a byte, so places stay bytes

/** How many newlines there are in a piece of bytes. */
export function countNewlines(bytes) {
  let count = 0;
  for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) count++;
  return count;
}

export class Outline {
  /** @param {object} body the answer of `/logs/{id}/outline` */
  constructor(body) {
    this.blockBytes = body.block_bytes;
    this.bytes = body.bytes;
    this.newlines = body.newlines.length ? body.newlines : [0];
    this.lines = body.lines;
    this.markers = body.marks;
    this.markersTruncated = body.marks_truncated;
    this.cursor = body.cursor;
    this.ended = body.ended;
    this.attempt = body.attempt;
    this.carry = new Uint8Array(0);
  }

  get blocks() {
    return this.newlines.length - 1;
  }

  /** How many bytes block `index` has. */
  blockLength(index) {
    return Math.min(this.blockBytes, this.bytes - index * this.blockBytes);
  }

  /** The block with the `count`-th newline (from 1), or the last one. */
  blockOfNewline(count) {
    let low = 0;
    let high = this.blocks - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.newlines[middle + 1] >= count) high = middle;
      else low = middle + 1;
    }
    return Math.max(low, 0);
  }

  /** The blocks in which a line (from 0) begins and ends; it may begin right after the first. */
  span(line) {
    return [line === 0 ? 0 : this.blockOfNewline(line), this.blockOfNewline(line + 1)];
  }

  /** Tell what the log's last bytes are, so that a mark cut there is found when the rest comes. */
  seed(bytes) {
    this.carry = bytes.slice(-CARRY_BYTES);
  }

  /** Extend by bytes that came in. Returns whether there were marks in them. */
  append(bytes) {
    if (!bytes.length) return false;
    const before = this.newlines[this.blocks];
    const begin = this.bytes;
    for (let at = 0; at < bytes.length; ) {
      if (this.bytes % this.blockBytes === 0) this.newlines.push(this.newlines[this.blocks]);
      const room = this.blockBytes - (this.bytes % this.blockBytes);
      const piece = bytes.subarray(at, at + room);
      this.newlines[this.blocks] += countNewlines(piece);
      this.bytes += piece.length;
      at += piece.length;
    }
    this.lines = this.newlines[this.blocks] + (bytes[bytes.length - 1] === NEWLINE ? 0 : 1);
    return this.#findMarks(bytes, begin, before);
  }

  #findMarks(bytes, begin, newlinesBefore) {
    const all = new Uint8Array(this.carry.length + bytes.length);
    all.set(this.carry);
    all.set(bytes, this.carry.length);
    const base = begin - this.carry.length;
    this.carry = all.slice(-CARRY_BYTES);
    const text = latin1.decode(all);
    let line = newlinesBefore - countNewlines(all.subarray(0, begin - base));
    let counted = 0;
    let found = false;
    for (const match of text.matchAll(MARK)) {
      const end = match.index + match[0].length;
      line += countNewlines(all.subarray(counted, match.index));
      counted = match.index;
      if (end <= begin - base) continue; // whole before: known already
      found = this.#addMark([base + match.index, line, match[0]]) || found;
    }
    return found;
  }

  #addMark(mark) {
    const last = this.markers[this.markers.length - 1];
    if (last && last[0] === mark[0])
      this.markers.pop(); // its text was cut, and went on
    else if (last && last[0] > mark[0]) return false;
    if (this.markers.length >= MAX_MARKS) {
      this.markersTruncated = true;
      return false;
    }
    this.markers.push(mark);
    return true;
  }
}
