import assert from "node:assert/strict";
import { test } from "node:test";

import { duration, Folds } from "../../web/static/folds.js";

const LINES = 10;

/** @param {[line: number, text: string][]} texts */
const markers = (...texts) => texts.map(([line, text], at) => [at, line, `travis_fold:${text}`]);

/** The lines of the visible rows. */
const visible = (folds) => Array.from({ length: folds.rows }, (_, row) => folds.lineOf(row));

const CASES = [
  { name: "no folds", given: [], rows: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], headers: [] },
  {
    name: "a fold",
    given: markers([1, "start:a"], [4, "end:a"]),
    rows: [0, 1, 4, 5, 6, 7, 8, 9],
    headers: [["a", 1, 4]],
  },
  {
    name: "an outer fold hides the inner one",
    given: markers([1, "start:a"], [2, "start:b"], [5, "end:b"], [8, "end:a"]),
    rows: [0, 1, 8, 9],
    headers: [
      ["a", 1, 8],
      ["b", 2, 5],
    ],
  },
  {
    name: "crossing, unmatched and empty folds",
    given: markers(
      [0, "end:x"],
      [1, "start:a"],
      [3, "start:b"],
      [6, "end:a"],
      [7, "end:b"],
      [8, "start:c"],
      [8, "end:c"],
    ),
    rows: [0, 1, 6, 7, 8, 9],
    headers: [
      ["a", 1, 6],
      ["b", 3, 6],
    ],
  },
  {
    name: "an open fold",
    given: markers([6, "start:tail"]),
    rows: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    headers: [["tail", 6, null]],
  },
  {
    name: "malformed names",
    given: markers([1, "start:a b"], [4, "end:a b"], [5, "start:"]),
    rows: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    headers: [],
  },
];

for (const { name, given, rows, headers } of CASES) {
  test(name, () => {
    const folds = new Folds();
    folds.update(given, LINES, false);
    assert.deepEqual(visible(folds), rows);
    for (const [row, line] of rows.entries()) {
      assert.equal(folds.rowOf(line), row);
      assert.equal(folds.isHidden(line), false);
    }
    folds.setAll(false);
    assert.equal(folds.rows, LINES);
    assert.deepEqual(
      [...folds.headers.values()].map(({ name, start, end }) => [name, start, end]),
      headers,
    );
  });
}

test("a hidden line has the row of its fold, and can be revealed", () => {
  const folds = new Folds();
  folds.update(markers([1, "start:a"], [2, "start:b"], [5, "end:b"], [8, "end:a"]), LINES, false);
  assert.equal(folds.rowOf(4), 1);
  assert.equal(folds.reveal(4), true);
  assert.equal(folds.reveal(4), false);
  assert.equal(folds.rows, LINES);
});

test("a choice outlives new markers, and an open fold that ends stays open if quiet", () => {
  const folds = new Folds();
  folds.update(markers([1, "start:a"], [4, "end:a"], [5, "start:b"]), 8, false);
  folds.set(1, false);
  folds.update(markers([1, "start:a"], [4, "end:a"], [5, "start:b"], [8, "end:b"]), LINES, true);
  assert.equal(folds.rows, LINES);
});

test("a closed fold at the end grows with the log", () => {
  const folds = new Folds();
  folds.update(markers([2, "start:a"]), 5, false);
  folds.set(2, true);
  assert.deepEqual(visible(folds), [0, 1, 2]);
  folds.grow(9);
  assert.deepEqual(visible(folds), [0, 1, 2]);
});

test("lines that contain only markers have no row", () => {
  const folds = new Folds();
  // 0 start a, 1 start b, 2 text, 3 text, 4 end b, 5 end a, 6 a timed step without text, 7 text
  const given = markers([0, "start:a"], [1, "start:b"], [4, "end:b"], [5, "end:a"]);
  const step = [
    [10, 6, "travis_time:start:x"],
    [11, 6, "travis_time:end:x:start=1580000000000000000,finish=1580000001000000000"],
  ];
  folds.update([...given, ...step], 8, false, [0, 1, 4, 5, 6]);
  assert.deepEqual(
    [...folds.headers].map(([line, { name }]) => [line, name]),
    [
      [0, "a"],
      [2, "b"],
    ],
  );
  assert.deepEqual(visible(folds), [0, 7]);
  assert.deepEqual([...folds.times], []);
  folds.setAll(false);
  assert.deepEqual(visible(folds), [0, 2, 3, 7]);
  assert.equal(folds.hiddenBy(folds.headers.get(2)), 1);
  assert.equal(folds.isHidden(1), true);
  assert.equal(folds.rowOf(1), 0);
});

test("durations are readable", () => {
  assert.deepEqual([0, 1.234, 59.94, 61, 3725].map(duration), [
    "0.00s",
    "1.23s",
    "59.9s",
    "1m 1s",
    "1h 2m",
  ]);
});
