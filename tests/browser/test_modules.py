"""The page's modules on their own, run where they live: in the browser."""

from typing import Any

import pytest


@pytest.fixture
async def page(visits):
    return await visits.open("/", rows=False)


async def call(page, module: str, name: str, *arguments: Any) -> Any:
    return await page.evaluate(
        "([module, name, given]) => "
        "import(`/static/${module}.js`).then((found) => found[name](...given))",
        [module, name, list(arguments)],
    )


async def shown(page, text: str) -> str:
    """A line as it is shown, with its styles: `fg1+bold:text`."""
    runs = (await call(page, "ansi", "parseLine", text))["runs"]
    flags = {1: "bold", 2: "dim", 4: "italic", 8: "underline", 16: "reverse", 32: "strike"}
    found = []
    for run in runs:
        style = run["style"]
        names = [f"fg{style['fg']}"] if style["fg"] is not None else []
        names += [f"bg{style['bg']}"] if style["bg"] is not None else []
        names += [name for flag, name in flags.items() if style["flags"] & flag]
        found.append(f"<{'+'.join(names)}>{run['text']}" if names else run["text"])
    return "|".join(found)


LINES = {
    "plain": "plain",
    "a\x1b[31mb\x1b[0mc": "a|<fg1>b|c",
    "\x1b[1;4;33mx\x1b[22my\x1b[24;39mz": "<fg3+bold+underline>x|<fg3+underline>y|z",
    "\x1b[91;102mx": "<fg9+bg10>x",
    "\x1b[38;5;200mx\x1b[48;5;7my": "<fg200>x|<fg200+bg7>y",
    "\x1b[38;2;1;2;3mx": "<fgrgb(1, 2, 3)>x",
    "\x1b[38:2::1:2:3mx\x1b[38:5:9my": "<fgrgb(1, 2, 3)>x|<fg9>y",
    "\x1b[3;7;9mx\x1b[23;27;29my": "<italic+reverse+strike>x|y",
    "\x1b[2mx\x1b[my": "<dim>x|y",
    # Values out of range, unknown codes and private sequences change nothing.
    "\x1b[38;5;999mx\x1b[?25ly\x1b[99mz": "xyz",
    "\x1b[38;2;1mx": "x",
    f"\x1b[{'9' * 200}mx": "x",
    # Going back over what was written.
    "10%\r20%\r100%": "100%",
    "long text\rshort": "shorttext",
    "long text\rshort\x1b[K": "short",
    "long\r\x1b[Kok": "ok",
    "gone\x1b[2K\rok": "ok",
    "abc\b\bX": "aXc",
    "\x1b[32mdone\r\x1b[31mD": "<fg1>D|<fg2>one",
    "end\r": "end",
    "a\x1b[3Cb\x1b[1Gc": "c   b",
    # Sequences that are whole are no text; broken ones are shown.
    "\x1b]0;title\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\": "alink",
    "\x1b(Ba\x1b=b": "ab",
    "a\x1b]0;never ends": "a\x1b]0;never ends",
    "a\x1b[12;": "a\x1b[12;",
    "\x1b": "\x1b",
    # Markers are no text, where they stand as the runner writes them.
    "travis_fold:start:a.1\r\x1b[0Ktravis_time:start:0a\r\x1b[0K$ make": "$ make",
    "travis_time:end:0a:start=1,finish=3,duration=2\r\x1b[0K": "",
    "echo travis_fold:start:a and more": "echo travis_fold:start:a and more",
}


async def test_lines_are_read_as_a_terminal_would(page):
    assert {text: await shown(page, text) for text in LINES} == LINES


async def test_what_cannot_be_seen_or_does_harm_is_shown_as_a_symbol(page):
    harmful = "\0\a\x1b\x7f\x9b\u202e\u2066\u200b\u2028\ufeff\U000e0041"
    symbols = [await call(page, "paint", "symbol", char) for char in harmful]
    assert symbols[:5] == ["^@", "^G", "^[", "^?", "U+009B"]
    assert symbols[5:] == ["U+202E", "U+2066", "U+200B", "U+2028", "U+FEFF", "U+E0041"]
    runs = [{"text": harmful + "é", "style": {}}]
    assert await call(page, "paint", "shownText", runs) == "".join(symbols) + "é"


FOLDS = """async ([marks, lines]) => {
  const { Folds } = await import("/static/folds.js");
  const folds = new Folds();
  folds.update(marks, lines, false);
  const visible = () => Array.from({length: folds.rows}, (_, row) => folds.lineOf(row));
  const closed = visible();
  const sound = closed.every((line, row) => folds.rowOf(line) === row && !folds.isHidden(line));
  folds.setAll(false);
  const heads = [...folds.headers.values()].map((f) => [f.name, f.start, f.end, f.seconds ?? null]);
  return {closed, sound, open: visible(), heads};
}"""


def marks(*texts: tuple[int, str]) -> list[list[Any]]:
    return [[at, line, f"travis_{text}"] for at, (line, text) in enumerate(texts)]


@pytest.mark.parametrize(
    ("given", "closed", "heads"),
    [
        ([], range(10), []),
        ([(1, "fold:start:a"), (4, "fold:end:a")], [0, 1, 4, 5, 6, 7, 8, 9], [["a", 1, 4, None]]),
        # Nested: the outer one hides the inner.
        (
            [(1, "fold:start:a"), (2, "fold:start:b"), (5, "fold:end:b"), (8, "fold:end:a")],
            [0, 1, 8, 9],
            [["a", 1, 8, None], ["b", 2, 5, None]],
        ),
        # Crossing, unmatched and empty ones, and one that never ends.
        (
            [(0, "fold:end:x"), (1, "fold:start:a"), (3, "fold:start:b"), (6, "fold:end:a"),
             (7, "fold:end:b"), (8, "fold:start:c"), (8, "fold:end:c")],
            [0, 1, 6, 7, 8, 9],
            [["a", 1, 6, None], ["b", 3, 6, None]],
        ),
        ([(6, "fold:start:tail")], range(10), [["tail", 6, None, None]]),
        # Names that nobody would give are text, not folds.
        ([(1, "fold:start:a b"), (4, "fold:end:a b"), (5, "fold:start:")], range(10), []),
        # Times: on the fold, or added up inside it; nonsense counts for nothing.
        (
            [(1, "fold:start:a"), (1, "time:start:t"),
             (4, "time:end:t:start=5,finish=9,duration=2000000000"), (4, "fold:end:a"),
             (5, "time:start:u"), (6, "time:end:u:duration=-5"), (6, "time:end:v:start=a,finish=b"),
             (7, "time:start:w"), (7, "time:end:w:duration=9e99")],
            [0, 1, 4, 5, 6, 7, 8, 9],
            [["a", 1, 4, 2]],
        ),
    ],
)  # fmt: skip
async def test_folds_make_sense_of_any_marks(page, given, closed, heads):
    found = await page.evaluate(FOLDS, [marks(*given), 10])
    assert found == {
        "closed": list(closed), "sound": True, "open": list(range(10)), "heads": heads
    }  # fmt: skip


OUTLINE = """async ([first, pieces]) => {
  const { Outline } = await import("/static/outline.js");
  const outline = new Outline({bytes: 0, lines: 0, block_bytes: 8, newlines: [0], marks: [],
    marks_truncated: false, cursor: "", ended: false});
  const bytes = (text) => new TextEncoder().encode(text);
  outline.append(bytes(first));
  outline.seed(bytes(first));
  for (const piece of pieces) outline.append(bytes(piece));
  const {newlines, marks, lines} = outline;
  return {bytes: outline.bytes, newlines, marks, lines};
}"""


async def test_an_outline_that_grows_is_that_of_the_whole(page):
    text = "ab\n\ntravis_fold:start:x\r\x1b[0Kcd\nlonger than a block\ntravis_fold:end:x\r\nend"
    whole = await page.evaluate(OUTLINE, [text, []])
    assert whole["bytes"] == len(text)
    assert whole["newlines"] == [
        text[:at].count("\n") for at in (*range(0, len(text), 8), len(text))
    ]
    assert (whole["lines"], [mark[1:] for mark in whole["marks"]]) == (
        6,
        [[2, "travis_fold:start:x"], [4, "travis_fold:end:x"]],
    )
    for size in (1, 3, 7, 8, 30):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        assert await page.evaluate(OUTLINE, [pieces[0], pieces[1:]]) == whole, size


EVENTS = """async (pieces) => {
  const { events } = await import("/static/stream.js");
  const encoder = new TextEncoder();
  const body = new ReadableStream({
    start(controller) {
      for (const piece of pieces) controller.enqueue(encoder.encode(piece));
      controller.close();
    },
  });
  const found = [];
  for await (const event of events(body)) found.push([event.name, event.id, event.data]);
  return found;
}"""


async def test_events_are_read_whatever_pieces_they_come_in(page):
    text = ": hello\n\nevent: part\nid: 7\ndata: {}\n\nevent: final\r\ndata: é\r\n\r\n"
    expected = [["part", "7", "{}"], ["final", None, "é"]]
    for size in (1, 2, 5, len(text)):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        assert await page.evaluate(EVENTS, pieces) == expected, size


async def test_lines_are_named_in_the_address(page):
    for text, lines in {"#L5": (4, 4), "#L2-L4": (1, 3), "#L4-L2": (1, 3), "#L0": (0, 0)}.items():
        found = await call(page, "selection", "readHash", text)
        assert (found["first"], found["last"]) == lines
    for text in ("", "#L", "#L1-", "#Lx", "#L1-L2-L3", "#L99999999999999999999"):
        assert await call(page, "selection", "readHash", text) is None


BLOCKS = """async ([before, during]) => {
  const { Blocks } = await import("/static/blocks.js");
  const { Outline } = await import("/static/outline.js");
  const encoded = new TextEncoder().encode(before + during);
  const outline = new Outline({bytes: 0, lines: 0, block_bytes: 8, newlines: [0], marks: [],
    marks_truncated: false, cursor: "", ended: false});
  outline.append(encoded.slice(0, before.length));
  let answer;
  const fetchRange = (from, to) =>
    new Promise((resolve) => (answer = () => resolve(encoded.slice(from, to))));
  const blocks = new Blocks(fetchRange, () => {}, () => {});
  blocks.reset(outline);
  const loading = blocks.load(0, outline.blocks - 1);
  for (const byte of encoded.slice(before.length)) {
    outline.append(Uint8Array.of(byte));
    blocks.append(Uint8Array.of(byte));
  }
  answer();
  await loading;
  let text = "";
  for (let i = 0; i < outline.blocks; i++) {
    text += new TextDecoder().decode(blocks.get(i)?.bytes ?? new Uint8Array());
  }
  return text;
}"""


@pytest.mark.parametrize("before", ["a", "abcdefg", "abcdefgh", "abcdefghij"])
async def test_bytes_that_come_in_while_their_block_is_fetched_are_put_behind(page, before):
    during = "0123456789\n0123"
    assert await page.evaluate(BLOCKS, [before, during]) == before + during
