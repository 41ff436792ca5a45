/** Helpers of the module tests; the modules under test run here without a page. */

import { Outline } from "../../web/static/outline.js";

const encoder = new TextEncoder();

/** @param {string} text */
export const encode = (text) => encoder.encode(text);

/** The text in pieces of `size` characters. */
export function pieces(text, size) {
  const found = [];
  for (let at = 0; at < text.length; at += size) found.push(text.slice(at, at + size));
  return found;
}

/** An empty outline, to be extended by appending bytes. */
export function emptyOutline(blockBytes) {
  return new Outline({
    bytes: 0,
    lines: 0,
    block_bytes: blockBytes,
    newlines: [0],
    marks: [],
    marks_truncated: false,
    bare_lines: [],
    error_lines: [],
    cursor: "",
    ended: false,
  });
}
