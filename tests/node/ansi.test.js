import assert from "node:assert/strict";
import { test } from "node:test";

import { parseLine } from "../../web/static/ansi.js";

const FLAGS = [
  [1, "bold"],
  [2, "dim"],
  [4, "italic"],
  [8, "underline"],
  [16, "reverse"],
  [32, "strike"],
];

/** A line as text with its styles: `<fg1+bold>text`, runs separated by `|`. */
function styled(line) {
  return parseLine(line)
    .runs.map(({ text, style: { fg, bg, flags } }) => {
      const names = FLAGS.filter(([flag]) => flags & flag).map(([, name]) => name);
      if (bg !== null) names.unshift(`bg${bg}`);
      if (fg !== null) names.unshift(`fg${fg}`);
      return names.length ? `<${names.join("+")}>${text}` : text;
    })
    .join("|");
}

/** @type {Record<string, [line: string, expected: string][]>} */
const CASES = {
  "styles and colours": [
    ["plain", "plain"],
    ["a\x1b[31mb\x1b[0mc", "a|<fg1>b|c"],
    ["\x1b[1;4;33mx\x1b[22my\x1b[24;39mz", "<fg3+bold+underline>x|<fg3+underline>y|z"],
    ["\x1b[91;102mx", "<fg9+bg10>x"],
    ["\x1b[38;5;200mx\x1b[48;5;7my", "<fg200>x|<fg200+bg7>y"],
    ["\x1b[38;2;1;2;3mx", "<fgrgb(1, 2, 3)>x"],
    ["\x1b[38:2::1:2:3mx\x1b[38:5:9my", "<fgrgb(1, 2, 3)>x|<fg9>y"],
    ["\x1b[3;7;9mx\x1b[23;27;29my", "<italic+reverse+strike>x|y"],
    ["\x1b[2mx\x1b[my", "<dim>x|y"],
  ],
  "values out of range, unknown codes and private sequences change nothing": [
    ["\x1b[38;5;999mx\x1b[?25ly\x1b[99mz", "xyz"],
    ["\x1b[38;2;1mx", "x"],
    [`\x1b[${"9".repeat(200)}mx`, "x"],
  ],
  "later text overwrites earlier text": [
    ["10%\r20%\r100%", "100%"],
    ["long text\rshort", "shorttext"],
    ["long text\rshort\x1b[K", "short"],
    ["long\r\x1b[Kok", "ok"],
    ["gone\x1b[2K\rok", "ok"],
    ["abc\b\bX", "aXc"],
    ["\x1b[32mdone\r\x1b[31mD", "<fg1>D|<fg2>one"],
    ["end\r", "end"],
    ["a\x1b[3Cb\x1b[1Gc", "c   b"],
    ["日本語テキスト\rabcd", "abcd語テキスト"],
    ["日本語\rabc", "abc 語"],
    ["日本語\b\bx", "日本x "],
    ["a日\x1b[2Gx", "ax "],
    ["日本語\x1b[4G\x1b[K", "日 "],
    ["e\u0301e\u0301\rxy", "xy"],
    ["e\u0301e\u0301\rx", "xe\u0301"],
    ["ab\tc\rx", "xb      c"],
    ["日本\tc\rx", "x 本    c"],
  ],
  "complete sequences are dropped, broken ones shown": [
    ["\x1b]0;title\x07a\x1b]8;;ftp://x\x1b\\link\x1b]8;;\x1b\\", "alink"],
    ["\x1b(Ba\x1b=b", "ab"],
    ["a\x1b]0;never ends", "a\x1b]0;never ends"],
    ["a\x1b[12;", "a\x1b[12;"],
    ["\x1b", "\x1b"],
  ],
  "markers are dropped where the runner writes them": [
    ["travis_fold:start:a.1\r\x1b[0Ktravis_time:start:0a\r\x1b[0K$ make", "$ make"],
    ["travis_time:end:0a:start=1,finish=3,duration=2\r\x1b[0K", ""],
    ["echo travis_fold:start:a and more", "echo travis_fold:start:a and more"],
  ],
};

for (const [name, cases] of Object.entries(CASES)) {
  test(name, () => {
    for (const [line, expected] of cases) assert.equal(styled(line), expected);
  });
}
