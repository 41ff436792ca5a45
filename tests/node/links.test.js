import assert from "node:assert/strict";
import { test } from "node:test";

import { parseLine } from "../../web/static/ansi.js";
import { linkRuns, linkTo } from "../../web/static/links.js";

/** A line with its links as `[text -> href]`. */
function linked(line, isCut = false) {
  return linkRuns(parseLine(line).runs, isCut)
    .map(({ text, style: { link } }) => (link ? `[${text} -> ${link.href}]` : text))
    .join("");
}

const osc8 = (url, text) => `\x1b]8;;${url}\x1b\\${text}\x1b]8;;\x1b\\`;

test("URLs are links, without what surrounds them", () => {
  for (const [line, expected] of [
    [
      "see https://a.example/b?c=d#e.",
      "see [https://a.example/b?c=d#e -> https://a.example/b?c=d#e].",
    ],
    ["(http://a.example/x_(y)), ok", "([http://a.example/x_(y) -> http://a.example/x_(y)]), ok"],
    ['"https://a.example/",', '"[https://a.example/ -> https://a.example/]",'],
    ["<https://a.example/>", "<[https://a.example/ -> https://a.example/]>"],
    ["http://[::1]:80/x", "[http://[::1]:80/x -> http://[::1]/x]"],
    [
      "http://a.example http://b.example",
      "[http://a.example -> http://a.example/] [http://b.example -> http://b.example/]",
    ],
    ["xhttps://a.example https:// http://?", "xhttps://a.example https:// http://?"],
    ["https://a.example/\u202egpj", "[https://a.example/ -> https://a.example/]\u202egpj"],
  ]) {
    assert.equal(linked(line), expected);
  }
});

test("a URL in two colours is two links to one place", () => {
  const href = "https://a.example/b";
  assert.equal(
    linked("https://a\x1b[31m.example/b\x1b[0m."),
    `[https://a -> ${href}][.example/b -> ${href}].`,
  );
});

test("a URL where the text is cut is not a link", () => {
  assert.equal(linked("https://a.example/b", true), "https://a.example/b");
});

test("only http and https without credentials are links", () => {
  for (const url of [
    "javascript:alert(1)",
    "data:text/html,x",
    "file:///etc/passwd",
    "ftp://a.example",
    "https://github.com@evil.example/",
    "https://user:secret@a.example/",
    "//a.example",
    `https://a.example/${"x".repeat(2000)}`,
  ]) {
    assert.equal(linkTo(url), undefined);
    assert.equal(linked(osc8(url, "text")), "text");
  }
  assert.equal(linked("https://github.com@evil.example/"), "https://github.com@evil.example/");
});

test("marked links name their host, end with their line, and keep the colours", () => {
  const [run] = parseLine(
    osc8("https://b\u00fccher.example/x", "\x1b[1mhttps://a.example\x1b[0m"),
  ).runs;
  assert.deepEqual(run.style, {
    fg: null,
    bg: null,
    flags: 1,
    link: {
      href: "https://xn--bcher-kva.example/x",
      host: "xn--bcher-kva.example",
      isMarked: true,
    },
  });
  const { style } = parseLine("\x1b[31m\x1b]8;;https://a.example\x07open");
  assert.deepEqual(style, { fg: 1, bg: null, flags: 0 });
});
