"""The text of hostile logs on a terminal: colours at most."""

from hypothesis import given
from hypothesis import strategies as st

from logflume_cli.clean import RESET, Cleaner, plain

PIECES = st.sampled_from(
    [b"\x1b", b"[", b"]", b"0;", b"31m", b"2J", b"\x07", b"\r", b"\n", b"\x9b", b"\xc2\x9b", b"P",
     b"\\", b"travis_fold:start:a", b"section_end:1:b[c=d]\r", b"s",
     b"tr", b"\x1b[0K", b"text", b"\xe2\x80\xae", b"\xff", b"\0", b"\t"]
)  # fmt: skip


def test_only_colours_are_left():
    hostile = (
        b"\x1b]0;title\x07a\x1b[31mred\x1b[0m\x1b[2J\x1b[1;1Hb\x1bcc\x9d\xc2\x9d8;;x\x1b\\d"
        b"\x1bP+q\x1b\\e\x08\xe2\x80\xae\xff\r\nprogress 1\rprogress 2\r"
        b"travis_fold:start:git\r\x1b[0Ksection_start:1:b\r\x1b[0Kfolded\n\x1b]never ended\nlast"
    )
    text = "ab c\ufffdde\\x08\\u202e\ufffd\nprogress 1\nprogress 2\nfolded\n\nlast"
    text = text.replace("b c", "redbc")
    assert plain(hostile) == text
    cleaner = Cleaner(colours=True)
    coloured = cleaner.feed(hostile) + cleaner.end()
    assert coloured == text.replace("red", "\x1b[31mred\x1b[0m", 1) + RESET


@given(st.lists(PIECES, max_size=30), st.data())
def test_cleaning_does_not_depend_on_the_pieces(pieces, data):
    log = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=5)))
    cleaner = Cleaner(colours=False)
    parts = [log[a:b] for a, b in zip([0, *cuts], [*cuts, len(log)], strict=True)]
    text = "".join(map(cleaner.feed, parts)) + cleaner.end()
    assert text == plain(log)
    assert all(one.isprintable() or one in "\n\t" for one in text)
