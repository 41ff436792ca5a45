"""Fuzzes the modules that parse and render lines, in one visit."""

from tests.support import poison

CASES = 3000

FUZZ = r"""async ([seed, cases]) => {
  const { parseLine, RESET } = await import("/static/ansi.js");
  const { paintRuns, cutRuns, shownText } = await import("/static/paint.js");
  const { Outline } = await import("/static/outline.js");
  const { Folds } = await import("/static/folds.js");
  const PIECES = [
    "\x1b", "\x1b[", "\x1b[31m", "\x1b[0m", "\x1b[1;38;5;", "\x1b[48;2;1;2;3m", "\x1b[38:2::1:2:3m",
    ";", ":", "m", "9999999999", "\x1b[K", "\x1b[2K", "\x1b[1K", "\x1b[99999C", "\x1b[5D", "\x1b[G",
    "\x1b]0;", "\x1b]8;;javascript:x\x07", "\x07", "\x1b\\", "\x1b(B", "\r", "\b", "\b\b\b", "\t",
    "\0", "\x7f", "\n", "<script>", "</span>", "&lt;", "<img src=x onerror=x>", "\"'`", "text ",
    "travis_fold:start:a", "travis_fold:end:a", "travis_fold:start:b.1\r\x1b[0K", "travis_",
    "travis_fold:end:b.1", "travis_time:start:t", "travis_time:end:t:start=1,finish=9,duration=2",
    "travis_time:end:t:duration=9e99", "\xc3\xa9", "\xc3", "\xff", "\xe2\x80\xae", "\xe2\x81\xa6",
    "\xe2\x80\x8b", "\xf3\xa0\x81\x81", "\xed\xa0\xbd", "\xcc\x81", "\xf0\x9f\x8e\x89", "\xc2\x9b",
    "\xef\xbb\xbf", "\xd7\xa9",
  ];
  const random = () => {  // mulberry32
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const below = (count) => Math.floor(random() * count);
  const some = (list) => list[below(list.length)];
  const bytesOf = () => {
    let text = "";
    for (let left = below(24); left > 0; left--) {
      const piece = below(8) ? some(PIECES) : String.fromCharCode(below(256));
      text += piece.repeat(below(40) ? 1 : 1 + below(2000));
    }
    return Uint8Array.from(text, (char) => char.charCodeAt(0));
  };
  const INVISIBLE =
    /[\0-\x08\n-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ufeff\u{e0000}-\u{e007f}]/u;
  const RGB = String.raw`rgb\(\d+, \d+, \d+\)`;
  const COLOUR = `(?:${RGB}|light-dark\\(${RGB}, ${RGB}\\))`;
  const STYLE = RegExp(`^(?:(?:background-)?color: ${COLOUR};? ?)+$`);
  const isStyled = ({ name, value }) =>
    name === "class" ? /^[a-z0-9 ]+$/.test(value)
      : name === "style" && STYLE.test(value);
  const fresh = () => new Outline({ bytes: 0, lines: 0, block_bytes: 64, newlines: [0], marks: [],
    marks_truncated: false, bare_lines: [], error_lines: [], cursor: "", ended: false });

  function checkLine(bytes, style) {
    const parsed = parseLine(new TextDecoder().decode(bytes), style);
    const { runs } = cutRuns(parsed.runs, 2000);
    const row = document.createElement("div");
    paintRuns(row, runs);
    if (row.textContent !== shownText(runs)) return "the text differs from the copied text";
    if (INVISIBLE.test(row.textContent)) return "an invisible character";
    for (const element of row.querySelectorAll("*")) {
      const isRun = element.localName === "span" && [...element.attributes].every(isStyled);
      if (!isRun) return element.outerHTML;
    }
    return parsed.style;
  }

  function checkLog(bytes) {
    const whole = fresh();
    whole.append(bytes);
    const pieces = fresh();
    for (let at = 0; at < bytes.length; ) pieces.append(bytes.subarray(at, (at += 1 + below(90))));
    for (const name of ["bytes", "lines", "newlines", "bare"]) {
      if (String(whole[name]) !== String(pieces[name])) return `${name} depends on the pieces`;
    }
    const folds = new Folds();
    folds.update(pieces.markers, pieces.lines, false, pieces.bare);
    for (const closed of [true, false]) {
      folds.setAll(closed);
      for (let row = 0; row < folds.rows; row++) {
        if (folds.rowOf(folds.lineOf(row)) !== row) return JSON.stringify([row, pieces.markers]);
      }
    }
    return null;
  }

  let style = RESET;
  for (let n = 0; n < cases; n++) {
    const bytes = bytesOf();
    let wrong;
    try {
      const found = checkLine(bytes, style);
      if (typeof found === "string") wrong = found;
      else style = found;
      wrong ??= checkLog(bytes);
    } catch (error) {
      wrong = `${error} ${error.stack}`;
    }
    if (wrong) return { n, wrong, text: String.fromCharCode(...bytes.slice(0, 2000)) };
  }
  return null;
}"""


async def test_any_bytes_become_visible_text_only(visits):
    page = await visits.open("/", rows=False)
    assert await page.evaluate(FUZZ, [poison.seed(), CASES]) is None
