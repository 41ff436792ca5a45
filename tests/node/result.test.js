import assert from "node:assert/strict";
import { test } from "node:test";

import { exitCode } from "../../web/static/result.js";

/** @type {[lines: string[], code: number | null][]} */
const CASES = [
  [['The command "make" exited with 0.', "Done. Your build exited with 0."], 0],
  [["Done. Your build exited with 2."], 2],
  [['The command "make" exited with 3.', 'The command "clean" exited with 0.'], 3],
  [["Done. Your build exited with 0.", 'The command "upload" exited with 1.'], 0],
  [["##[error]Process completed with exit code 4."], 4],
  [["ERROR: Job failed: exit code 5"], 5],
  [["Job succeeded"], 0],
  [["a test says: Done. Your build exited with 1."], null],
  [["no exit line"], null],
];

for (const [lines, code] of CASES) {
  test(`${lines.at(-1)} is ${code}`, () => assert.equal(exitCode(lines), code));
}
