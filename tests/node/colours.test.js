import assert from "node:assert/strict";
import { test } from "node:test";

import { contrast, cssColours, readable, rgbOf, THEMES } from "../../web/static/colours.js";

test("text in any colour is readable on any background", () => {
  const colours = Array.from({ length: 256 }, (_, index) => index);
  const grounds = [...colours.map(rgbOf), ...Object.values(THEMES).map(({ ground }) => ground)];
  for (const ground of grounds) {
    for (const colour of colours) {
      const text = readable(rgbOf(colour), ground);
      assert.ok(contrast(text, ground) >= 4.5, `${colour} on ${ground}: ${text}`);
    }
  }
});

test("a readable colour stays, another one is changed in the theme that needs it", () => {
  assert.equal(cssColours("rgb(1, 2, 3)", 231, false).color, "rgb(1, 2, 3)");
  assert.match(cssColours("rgb(1, 2, 3)", null, false).color, /^light-dark\(rgb\(1, 2, 3\), /);
  assert.match(cssColours(226, null, false).color, /, rgb\(255, 255, 0\)\)$/);
  assert.equal(cssColours(226, null, false).backgroundColor, "");
  assert.equal(cssColours(null, 226, false).backgroundColor, "rgb(255, 255, 0)");
  assert.match(cssColours(null, 226, true).backgroundColor, /^rgb\(255/);
});
