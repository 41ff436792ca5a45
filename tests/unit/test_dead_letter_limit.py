"""The limit of invalid messages among recent ones."""

from hypothesis import given
from hypothesis import strategies as st

from drain.dead_letter_limit import DeadLetterLimit


def test_it_is_exceeded_once_the_window_is_full_and_the_share_too_high():
    limit = DeadLetterLimit(0.5, 10)
    limit.record(9, 9)
    assert not limit.is_exceeded
    limit.record(1, 1)
    assert limit.is_exceeded
    assert limit.describe() == "10 of the last 10 messages are invalid"


def test_a_share_of_exactly_the_limit_is_allowed():
    limit = DeadLetterLimit(0.5, 10)
    limit.record(10, 5)
    assert not limit.is_exceeded
    limit.record(10, 6)
    assert limit.is_exceeded


def test_old_messages_leave_the_window():
    limit = DeadLetterLimit(0.5, 10)
    limit.record(1_000_000, 0)
    for _ in range(5):
        assert not limit.is_exceeded
        limit.record(2, 2)
    assert limit.is_exceeded
    limit.record(10, 0)
    assert not limit.is_exceeded


def test_a_share_of_one_is_never_exceeded():
    limit = DeadLetterLimit(1, 10)
    limit.record(100, 100)
    assert not limit.is_exceeded


def test_a_reset_starts_from_zero():
    limit = DeadLetterLimit(0.5, 10)
    limit.record(10, 10)
    limit.reset()
    limit.record(10, 0)
    assert not limit.is_exceeded
    limit.record(10, 10)
    assert limit.is_exceeded


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9))), st.integers(1, 30))
def test_it_counts_the_last_messages_rounded_up_to_whole_batches(sizes, window):
    limit, batches = DeadLetterLimit(0.3, window), []
    for valid, invalid in sizes:
        limit.record(valid + invalid, invalid)
        batches.append((valid, invalid))
        recent = batches[:]
        while recent and sum(map(sum, recent[1:])) >= window:
            del recent[0]
        messages, bad = sum(map(sum, recent)), sum(invalid for _, invalid in recent)
        assert limit.is_exceeded == (messages >= window and bad > 0.3 * messages)
