import assert from "node:assert/strict";
import { test } from "node:test";

import { cutRuns, shownText, symbol } from "../../web/static/paint.js";

test("invisible and harmful characters are shown as symbols", () => {
  const harmful = [..."\0\x07\x1b\x7f\x9b\u202e\u2066\u200b\u2028\ufeff\u{e0041}"];
  const symbols = "^@ ^G ^[ ^? U+009B U+202E U+2066 U+200B U+2028 U+FEFF U+E0041".split(" ");
  assert.deepEqual(harmful.map(symbol), symbols);
  assert.equal(shownText([{ text: `${harmful.join("")}é` }]), `${symbols.join("")}é`);
  const fillers = [..."\u034f\u3164\u115f\uffa0\u2800\ufe0f\ufe00\u{e0100}\u200c\u200d"];
  for (const char of fillers) assert.notEqual(shownText([{ text: `e${char}` }]), `e${char}`);
});

test("joiners and variation selectors stay where scripts and emoji need them", () => {
  for (const text of [
    "👨\u200d👩\u200d👧",
    "⚠\ufe0f",
    "1\ufe0f\u20e3",
    "می\u200cخواهم",
    "क्\u200dष",
  ]) {
    assert.equal(shownText([{ text }]), text);
  }
});

test("a run of one control character is one symbol", () => {
  assert.equal(shownText([{ text: `a${"\0".repeat(1980)}b\0` }]), "a^@×1980b^@");
  assert.equal(shownText([{ text: "\u{e0041}\u{e0041}" }]), "U+E0041×2");
});

test("runs are cut after a number of characters", () => {
  const runs = [{ text: "abc" }, { text: "de" }];
  assert.deepEqual(cutRuns(runs, 5), { runs, cut: false });
  assert.deepEqual(cutRuns(runs, 4), { runs: [{ text: "abc" }, { text: "d" }], cut: true });
  assert.deepEqual(cutRuns(runs, 3), { runs: [{ text: "abc" }], cut: true });
});
