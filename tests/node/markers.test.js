/** Tests the steps read from markers; tests/unit/test_markers.py runs the same corpora. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Folds } from "../../web/static/folds.js";
import { readMarkers } from "../../web/static/markers.js";
import { emptyOutline, encode } from "./support.js";

const [TRAVIS, SYSTEMS] = ["travis_time", "steps"].map((name) =>
  JSON.parse(readFileSync(new URL(`../corpus/${name}.json`, import.meta.url), "utf8")),
);

function bytePieces(bytes, size) {
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, at) =>
    bytes.subarray(at * size, (at + 1) * size),
  );
}

/** Replace `@N` in the corpus with the timestamp N seconds after 1580000000. */
function expand(text) {
  return text.replace(/@(\d+)/g, (_, seconds) => `${1_580_000_000 + Number(seconds)}000000000`);
}

/** Build a log of the corpus; `{n}` counts the repetitions of a line. */
function corpusLog(lines) {
  const found = lines.flatMap((line) =>
    typeof line === "string"
      ? [line]
      : Array.from({ length: line.repeat }, (_, n) => line.line.replace("{n}", String(n))),
  );
  return expand(found.join("\n"));
}

for (const { name, log, steps, line_seconds, fold_seconds } of [...TRAVIS, ...SYSTEMS]) {
  test(name, () => {
    const outline = emptyOutline(64);
    outline.append(encode(corpusLog(log)));
    assert.deepEqual(
      readMarkers(outline.markers).steps,
      steps.map(({ id, event = "", fold = "", line, start, finish }) => ({
        id,
        event,
        fold,
        line,
        startNs: BigInt(expand(start)),
        finishNs: BigInt(expand(finish)),
      })),
    );
    const folds = new Folds();
    folds.update(outline.markers, outline.lines, false);
    if (line_seconds) {
      assert.deepEqual(Object.fromEntries([...folds.times].sort()), line_seconds);
    }
    for (const { name, seconds } of fold_seconds ? folds.headers.values() : []) {
      assert.equal(seconds, fold_seconds[name]);
    }
  });
}

for (const { name, log, markers, bare, folds } of SYSTEMS) {
  test(`markers: ${name}`, () => {
    const text = `${corpusLog(log)}\n`;
    for (const size of [1, 7, text.length]) {
      const outline = emptyOutline(64);
      for (const piece of bytePieces(encode(text), size)) outline.append(piece);
      assert.deepEqual(
        outline.markers.map(([, line, text]) => [line, text]),
        markers.map(([line, text]) => [line, expand(text)]),
      );
      assert.deepEqual(outline.bare, bare);
      assert.deepEqual(
        readMarkers(outline.markers).folds.map(({ name, start, end, isShown }) =>
          isShown ? [name, start, end, "shown"] : [name, start, end],
        ),
        folds,
      );
    }
  });
}

test("the first 1000 steps are read", () => {
  const outline = emptyOutline(64 * 1024);
  const step = expand("travis_time:start:a\rtravis_time:end:a:start=@0,finish=@1\n");
  outline.append(encode(step.repeat(1010)));
  assert.equal(readMarkers(outline.markers).steps.length, 1000);
});
