import assert from "node:assert/strict";
import { test } from "node:test";

import { Folds } from "../../web/static/folds.js";
import { Heights } from "../../web/static/heights.js";

test("positions follow the measured heights of rows", () => {
  const folds = new Folds();
  folds.update([], 10, false, [1]);
  const heights = new Heights(folds);
  assert.equal(heights.offsetOf(9), 180);
  assert.equal(heights.set(3, 60), true);
  assert.equal(heights.set(3, 60), false);
  assert.equal(heights.set(5, 20), false);
  heights.set(8, 40);
  // Line 1 has none: line 3 is row 2, line 8 is row 7.
  assert.deepEqual(
    [0, 2, 3, 7, 8, 9].map((row) => heights.offsetOf(row)),
    [0, 40, 100, 180, 220, 240],
  );
  assert.deepEqual(
    [0, 39, 40, 99, 100, 219, 220].map((top) => heights.rowAt(top)),
    [0, 1, 2, 2, 3, 7, 8],
  );
  for (let row = 0; row < 9; row++) assert.equal(heights.rowAt(heights.offsetOf(row)), row);
  folds.update([], 10, false, [1, 3]);
  assert.equal(heights.offsetOf(7), 160);
});
