"""A cursor against a plain model: whatever comes in which order, each part is told once."""

from hypothesis import given
from hypothesis import strategies as st

from domain import LAST, WHOLE, StoredPart
from live.cursor import MOST_MISSING, Cursor

NUMBERS = st.integers(0, 30)


def stored(id_: int, number: int, *, final: bool = False) -> StoredPart:
    return StoredPart(id_, number, final, b"")


@given(st.permutations(range(20)), st.sets(st.integers(0, 19)), st.lists(st.integers(1, 6)))
def test_each_number_is_told_once_whatever_the_order_and_the_reconnects(order, resumed, sizes):
    """Looks see all that is committed; ids are given in another order than commits."""
    cursor = Cursor(0, 1)
    told: list[int] = []
    committed: list[StoredPart] = []
    left = [stored(100 + n, number) for n, number in enumerate(order)]
    for step, size in enumerate([*sizes, 20]):
        committed += left[:size]
        left = left[size:]
        if step in resumed:
            cursor = Cursor.parse(str(cursor))
        below = sorted((p for p in committed if p.number in cursor.missing), key=lambda p: p.id)
        above = sorted((p for p in committed if p.number >= cursor.next), key=lambda p: p.number)
        told += [p.number for p in (*below, *above) if cursor.take(p) is not None]
        assert all(cursor.take(p) is None for p in committed)
    assert sorted(told) == [*range(20)]
    assert cursor.missing == []


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


def test_a_log_ends_with_its_final_part_and_all_before_it():
    cursor = Cursor(0, 1)
    cursor.take(stored(1, 0))
    cursor.take(stored(3, 2, final=True))
    assert not cursor.ended
    assert cursor.take(stored(2, 1)) is False
    assert cursor.ended


def test_content_written_whole_is_an_end_until_a_part_follows():
    cursor = Cursor(0, 1)
    cursor.take(stored(1, WHOLE))
    assert cursor.ended
    cursor.take(stored(2, 0))
    assert not cursor.ended


def test_last_parts_come_in_order_of_arrival_and_once():
    cursor = Cursor(0, 1)
    assert [cursor.take(stored(n, LAST)) for n in (5, 6, 6, 5)] == [True, True, None, None]
    assert cursor.take(stored(7, 0)) is True


def test_a_cursor_stays_small_whatever_is_missing():
    cursor = Cursor(0, 1)
    cursor.take(stored(1, 2_000_000_000))
    assert len(cursor.missing) == MOST_MISSING
    assert cursor.take(stored(2, 1_000_000)) is False  # beyond what is remembered: by its id
    assert len(str(cursor)) < 1100


@given(
    st.builds(
        lambda numbers, flags, missing: (numbers, flags, missing),
        st.tuples(*[st.integers(0, 10**9 - 1)] * 5),
        st.tuples(st.booleans(), st.booleans()),
        st.lists(NUMBERS, max_size=MOST_MISSING),
    )
)
def test_a_cursor_reads_what_it_wrote(made):
    numbers, flags, missing = made
    cursor = Cursor(numbers[0], numbers[1])
    cursor.next, cursor.top, cursor.last_id = numbers[2:]
    cursor.final, cursor.whole = flags
    cursor.missing = missing
    twin = Cursor.parse(str(cursor))
    assert all(getattr(twin, name) == getattr(cursor, name) for name in Cursor.__slots__)


@given(st.text())
def test_other_text_is_no_cursor_and_no_error(text):
    found = Cursor.parse(text)
    assert found is None or str(found) == text
