/** The structure of a log without its text: where its lines and its fold and time markers are. */

import { findBareLines, findMarkers } from "./markers.js";

/** @typedef {import("./markers.js").Marker} Marker */
/**
 * @typedef {object} OutlineBody the response of `/logs/{id}/outline`
 * @property {number} bytes
 * @property {number} lines
 * @property {number} block_bytes
 * @property {number[]} newlines before the start of each block, and in total
 * @property {Marker[]} marks
 * @property {boolean} marks_truncated
 * @property {number[]} bare_lines lines that contain only markers
 * @property {number[]} error_lines lines that report errors
 * @property {string} cursor where the stream continues
 * @property {boolean} ended
 */

const NEWLINE = 10;
const MAX_BARE_BYTES = 4096;
const MAX_MARKERS = 20_000;
// Enough for the longest marker, so that one cut between two parts is found.
const CARRY_BYTES = 640;

const utf8 = new TextDecoder("utf-8");
const encoder = new TextEncoder();
const latin1 = new TextDecoder("latin1"); // one character per byte: indexes are byte offsets

/**
 * Count the newlines in bytes.
 * @param {Uint8Array} bytes
 */
export function countNewlines(bytes) {
  let count = 0;
  for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) count++;
  return count;
}

/** @param {Uint8Array} one @param {Uint8Array} other */
function joined(one, other) {
  const all = new Uint8Array(one.length + other.length);
  all.set(one);
  all.set(other, one.length);
  return all;
}

export class Outline {
  /** @param {OutlineBody} body */
  constructor(body) {
    this.blockBytes = body.block_bytes;
    this.bytes = body.bytes;
    this.newlines = body.newlines.length ? body.newlines : [0];
    this.lines = body.lines;
    this.markers = body.marks;
    this.markersTruncated = body.marks_truncated;
    this.cursor = body.cursor;
    this.ended = body.ended;
    this.bare = body.bare_lines;
    this.errors = body.error_lines;
    this.carry = new Uint8Array([NEWLINE]); // a log starts as a line does
    this.line = ""; // the last line, if it is incomplete and short
  }

  /** The number of blocks. */
  get blocks() {
    return this.newlines.length - 1;
  }

  /**
   * The size of a block in bytes.
   * @param {number} index
   */
  blockLength(index) {
    return Math.min(this.blockBytes, this.bytes - index * this.blockBytes);
  }

  /**
   * The block with the `count`-th newline, or the last block.
   * @param {number} count from 1
   */
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

  /**
   * The block of the newline before a line, and the block in which the line ends.
   * @param {number} line from 0
   * @returns {[first: number, last: number]}
   */
  span(line) {
    return [line === 0 ? 0 : this.blockOfNewline(line), this.blockOfNewline(line + 1)];
  }

  /**
   * Set the last bytes of the fetched log, so that a marker cut there is found when its rest arrives.
   * @param {Uint8Array} bytes
   */
  seed(bytes) {
    this.carry = bytes.slice(-CARRY_BYTES);
    if (bytes.length === this.bytes)
      this.carry = joined(new Uint8Array([NEWLINE]), bytes).slice(-CARRY_BYTES);
    this.line = "";
    const begin = bytes.lastIndexOf(NEWLINE) + 1;
    if (begin > 0 || bytes.length === this.bytes)
      this.#endLine(latin1.decode(bytes.subarray(begin)));
  }

  /** @param {string} text of the incomplete last line */
  #endLine(text) {
    this.line = text.length > MAX_BARE_BYTES ? "too long" : text;
  }

  /** @param {Uint8Array} bytes @param {number} newlinesBefore */
  #findBareLines(bytes, newlinesBefore) {
    const text = this.line + latin1.decode(bytes);
    let line = newlinesBefore;
    let counted = 0;
    for (const { index, length } of findBareLines(text)) {
      if (length > MAX_BARE_BYTES) continue;
      line += text.slice(counted, index).split("\n").length - 1;
      counted = index;
      if (line !== this.bare.at(-1)) this.bare.push(line);
    }
    const begin = text.lastIndexOf("\n") + 1;
    this.#endLine(text.slice(begin));
  }

  /**
   * Append live bytes.
   * @param {Uint8Array} bytes
   * @returns {boolean} whether they contain markers
   */
  append(bytes) {
    if (!bytes.length) return false;
    const newlinesBefore = this.newlines[this.blocks];
    const begin = this.bytes;
    for (let at = 0; at < bytes.length; ) {
      if (this.bytes % this.blockBytes === 0) this.newlines.push(this.newlines[this.blocks]);
      const free = this.blockBytes - (this.bytes % this.blockBytes);
      const piece = bytes.subarray(at, at + free);
      this.newlines[this.blocks] += countNewlines(piece);
      this.bytes += piece.length;
      at += piece.length;
    }
    this.lines = this.newlines[this.blocks] + (bytes[bytes.length - 1] === NEWLINE ? 0 : 1);
    this.#findBareLines(bytes, newlinesBefore);
    return this.#findMarkers(bytes, begin, newlinesBefore);
  }

  /** @param {Uint8Array} bytes @param {number} begin @param {number} newlinesBefore */
  #findMarkers(bytes, begin, newlinesBefore) {
    const all = joined(this.carry, bytes);
    const base = begin - this.carry.length;
    this.carry = all.slice(-CARRY_BYTES);
    let line = newlinesBefore - countNewlines(all.subarray(0, begin - base));
    let counted = 0;
    let added = false;
    // The text of a marker may contain another one, which is not a marker.
    const last = this.markers[this.markers.length - 1] ?? [0, 0, ""];
    const from = last[0] < base ? last[0] + encoder.encode(last[2]).length : last[0];
    for (const { start, end } of findMarkers(latin1.decode(all), Math.max(from - base, 0))) {
      line += countNewlines(all.subarray(counted, start));
      counted = start;
      if (end < begin - base) continue; // in the carry, and not at its end: already added
      const text = utf8.decode(all.subarray(start, end));
      added = this.#addMarker([base + start, line, text]) || added;
    }
    return added;
  }

  /** @param {Marker} marker */
  #addMarker(marker) {
    const last = this.markers[this.markers.length - 1];
    if (last && last[0] === marker[0])
      this.markers.pop(); // it was cut and continues
    else if (last && last[0] > marker[0]) return false;
    if (this.markers.length >= MAX_MARKERS) {
      this.markersTruncated = true;
      return false;
    }
    this.markers.push(marker);
    return true;
  }
}
