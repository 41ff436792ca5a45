import assert from "node:assert/strict";
import { test } from "node:test";

import { emptyOutline, encode, pieces } from "./support.js";

const TEXT = "ab\n\ntravis_fold:start:x\r\x1b[0Kcd\nlonger than a block\ntravis_fold:end:x\r\nend";
const BLOCK_BYTES = 8;

/** The outline of pieces of text, of which the first one was fetched. */
function grown([first, ...rest]) {
  const outline = emptyOutline(BLOCK_BYTES);
  outline.append(encode(first));
  outline.seed(encode(first));
  for (const piece of rest) outline.append(encode(piece));
  const { bytes, lines, newlines, markers, bare } = outline;
  return { bytes, lines, newlines, markers, bare };
}

test("an outline counts newlines by block and finds markers", () => {
  const whole = grown([TEXT]);
  const ends = [...Array(Math.ceil(TEXT.length / BLOCK_BYTES)).keys()].map((n) => n * BLOCK_BYTES);
  assert.deepEqual(
    whole.newlines,
    [...ends, TEXT.length].map((end) => TEXT.slice(0, end).split("\n").length - 1),
  );
  assert.equal(whole.bytes, TEXT.length);
  assert.equal(whole.lines, 6);
  assert.deepEqual(whole.bare, [4]);
  assert.deepEqual(whole.markers, [
    [TEXT.indexOf("travis_fold:start"), 2, "travis_fold:start:x"],
    [TEXT.indexOf("travis_fold:end"), 4, "travis_fold:end:x"],
  ]);
});

test("piece size does not matter", () => {
  for (const size of [1, 3, 7, 8, 30]) {
    assert.deepEqual(grown(pieces(TEXT, size)), grown([TEXT]));
  }
});

test("lines that contain only markers are found", () => {
  const start = "travis_fold:start:a";
  const bare = [start, `${start}\r`, `\x1b[0K${start}`, `${start}\r\x1b[0K${start}\r\x1b[0K\r`];
  const others = [
    "",
    "\r",
    "\x1b[0K",
    `${start} x`,
    `x${start}`,
    `${start}\r\x1b[0Kx`,
    start.repeat(900),
  ];
  const text = `${[...bare, ...others].join("\n")}\n`;
  for (const size of [1, 7, 5000, text.length]) {
    assert.deepEqual(grown(pieces(text, size)).bare, [0, 1, 2, 3]);
  }
});

test("a marker in the text of another one is ignored, also in later pieces", () => {
  const text = `travis_fold:start:name ${"travis_fold:end:a ".repeat(30)}\rtravis_fold:start:b\r\n`;
  const offsets = grown([text]).markers.map(([at]) => at);
  for (const size of [1, 20, 100]) {
    assert.deepEqual(
      grown(pieces(text, size)).markers.map(([at]) => at),
      offsets,
    );
  }
});

test("a line is found in its blocks", () => {
  const outline = emptyOutline(BLOCK_BYTES);
  outline.append(encode("one\ntwo\nthree four five\nsix"));
  assert.deepEqual(
    [0, 1, 2, 3].map((line) => outline.span(line)),
    [
      [0, 0],
      [0, 0],
      [0, 2],
      [2, 3],
    ],
  );
});
