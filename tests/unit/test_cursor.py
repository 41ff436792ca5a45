"""The cursor against a plain model: each part is sent once, whatever the order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.tail import Horizon
from logflume.domain import LAST, WHOLE, StoredPart
from web.streams.cursor import MAX_GAPS, MAX_LASTS, Cursor, digest

NUMBERS = st.integers(0, 30)


def stored(id_: int, number: int, *, final: bool = False) -> StoredPart:
    return StoredPart(id_, number, final, b"")


def in_gap(cursor: Cursor, number: int) -> bool:
    return any(first <= number <= last for first, last in cursor.gaps)


def last(id_: int, content: bytes) -> StoredPart:
    return StoredPart(id_, LAST, final=False, content=content)


@given(st.permutations(range(20)), st.sets(st.integers(0, 19)), st.lists(st.integers(1, 6)))
def test_each_number_is_sent_once_whatever_the_order_and_the_reconnects(order, resumed, sizes):
    """Each step sees all committed parts; ids are assigned in another order than commits."""
    cursor = Cursor(0, 1)
    sent: list[int] = []
    committed: list[StoredPart] = []
    left = [stored(100 + n, number) for n, number in enumerate(order)]
    for step, size in enumerate([*sizes, 20]):
        committed += left[:size]
        left = left[size:]
        if step in resumed:
            parsed = Cursor.parse(str(cursor))
            assert parsed
            cursor = parsed
        below = sorted((p for p in committed if in_gap(cursor, p.number)), key=lambda p: p.id)
        above = sorted((p for p in committed if p.number >= cursor.next), key=lambda p: p.number)
        sent += [p.number for p in (*below, *above) if cursor.take(p) is not None]
        assert all(cursor.take(p) is None for p in committed)
    assert sorted(sent) == [*range(20)]
    assert cursor.gaps == []


@given(st.lists(NUMBERS, unique=True), st.booleans())
def test_parts_up_to_a_gap_are_contiguous(numbers, whole):
    parts = [stored(n + 1, n) for n in sorted(numbers)]
    if whole:
        parts = [stored(99, WHOLE), *parts]
    ready = [*Cursor(0, 1).contiguous([*parts, stored(100, LAST)])]
    wanted = 0
    while wanted in numbers:
        wanted += 1
    complete = wanted == len(numbers)
    assert len(ready) == wanted + whole + complete


def test_a_log_ends_with_its_final_part_and_all_earlier_ones():
    cursor = Cursor(0, 1)
    cursor.take(stored(1, 0))
    cursor.take(stored(3, 2, final=True))
    assert not cursor.ended
    assert cursor.take(stored(2, 1)) is False
    assert cursor.ended


def test_content_written_whole_ends_a_log_until_a_part_follows():
    cursor = Cursor(0, 1)
    cursor.take(stored(1, WHOLE))
    assert cursor.ended
    cursor.take(stored(2, 0))
    assert not cursor.ended


def test_last_parts_are_sent_once_whatever_the_commit_order():
    cursor = Cursor(0, 1)
    lasts = [last(6, b"b"), last(5, b"a"), last(7, b"b")]
    assert [cursor.take(part) for part in lasts] == [True, True, None]
    assert cursor.lasts == [digest(b"b"), digest(b"a")]
    assert cursor.take(stored(8, 0)) is True
    for n in range(2 * MAX_LASTS):
        cursor.take(last(n + 10, b"%d" % n))
    assert len(cursor.lasts) == MAX_LASTS


def test_parts_behind_too_many_gaps_are_not_reachable():
    cursor = Cursor(0, 1)
    parts = [stored(n + 1, n) for n in range(1, 1000, 2)]  # every other number is missing
    reached = [*cursor.reachable(parts)]
    assert len(reached) == MAX_GAPS
    for part in reached:
        assert cursor.take(part) is True
    assert [*cursor.reachable(parts[MAX_GAPS:])] == []
    cursor.take(stored(5000, 0))
    assert [part.number for part in cursor.reachable(parts[MAX_GAPS:])] == [201]


def test_gaps_are_ranges_of_any_width():
    cursor = Cursor(0, 1)
    cursor.take(stored(1, 2_000_000_000))
    assert cursor.gaps == [(0, 1_999_999_999)]
    assert cursor.take(stored(2, 1_000_000)) is False
    assert cursor.gaps == [(0, 999_999), (1_000_001, 1_999_999_999)]
    assert cursor.take(stored(2, 1_000_000)) is None


@given(st.data())
def test_a_cursor_survives_formatting_and_parsing(data):
    cursor = Cursor(data.draw(st.integers(0, 10**9 - 1)), data.draw(st.integers(0, 10**18 - 1)))
    for number in data.draw(st.lists(NUMBERS, unique=True)):
        id_, final = data.draw(st.integers(1, 10**9)), data.draw(st.booleans())
        cursor.take(stored(id_, number, final=final))
    for text in data.draw(st.lists(st.binary(), max_size=5)):
        cursor.take(last(1, text))
    twin = Cursor.parse(str(cursor))
    assert all(getattr(twin, name) == getattr(cursor, name) for name in Cursor.__slots__)


@pytest.mark.parametrize(
    "text",
    [
        "0.1.9999999999.0.0", "0.1.5.0.0_3-2", "0.1.5.0.0_1-2_0-0", "0.1.5.0.0_1-9999999999",
        "0.1.5.0.0_3-5", "0.1.5.0.4", "0.1.5.0.0~abc", "0.1.5.0.0" + "_1-1" * 101,
        "\u0660.1.5.0.0", "-1.1.5.0.0", "",
    ],
)  # fmt: skip
def test_an_impossible_cursor_is_rejected(text):
    assert Cursor.parse(text) is None


@given(st.text())
def test_any_other_text_is_rejected_without_an_error(text):
    cursor = Cursor.parse(text)
    assert cursor is None or str(cursor) == text


def test_a_horizon_tells_which_transactions_were_seen():
    horizon = Horizon.parse("10:15:11,13")
    assert [one for one in range(9, 17) if horizon.saw(one)] == [9, 10, 12, 14]
    assert Horizon.parse("10:10:").saw(9) and not Horizon.parse("10:10:").saw(10)
