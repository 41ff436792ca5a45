import assert from "node:assert/strict";
import { test } from "node:test";

import { cutRuns, shownText, symbol } from "../../web/static/paint.js";

test("invisible and harmful characters are shown as symbols", () => {
  const harmful = [..."\0\x07\x1b\x7f\x9b\u202e\u2066\u200b\u2028\ufeff\u{e0041}"];
  const symbols = "^@ ^G ^[ ^? U+009B U+202E U+2066 U+200B U+2028 U+FEFF U+E0041".split(" ");
  assert.deepEqual(harmful.map(symbol), symbols);
  assert.equal(shownText([{ text: `${harmful.join("")}é` }]), `${symbols.join("")}é`);
});

test("runs are cut after a number of characters", () => {
  const runs = [{ text: "abc" }, { text: "de" }];
  assert.deepEqual(cutRuns(runs, 5), { runs, cut: false });
  assert.deepEqual(cutRuns(runs, 4), { runs: [{ text: "abc" }, { text: "d" }], cut: true });
  assert.deepEqual(cutRuns(runs, 3), { runs: [{ text: "abc" }], cut: true });
});
