"""Batches and the order of acknowledgements."""

from hypothesis import given
from hypothesis import strategies as st

from drain.batch import AckLedger, Batch, Batcher, Reject
from drain.deliveries import Delivery
from tests.support.parts import part


def message(tag: int, size: int = 1) -> Delivery:
    return Delivery(tag, b"x" * size)


def test_a_batch_is_full_by_messages_or_by_bytes():
    batcher = Batcher(most_messages=3, most_bytes=10)
    assert batcher.add(message(1), part(1, 0)) is None
    assert batcher.add(message(2), Reject(message(2), "bad")) is None
    full = batcher.add(message(3), part(1, 1))
    assert full and (len(full.parts), len(full.rejects), full.last_tag) == (2, 1, 3)
    assert len(batcher) == 0
    assert batcher.add(message(4, 10), part(1, 2)) is not None


def test_an_empty_batch_is_none():
    assert Batcher(1, 1).take() is None


@given(st.permutations(range(1, 8)))
def test_acks_go_only_as_far_as_everything_before_is_done(order):
    ledger, done, acked = AckLedger(), set(), 0
    for tag in range(1, 8):
        ledger.opened(Batch(last_tag=tag))
    for tag in order:
        done.add(tag)
        acked = max([acked, *(batch.last_tag for batch in ledger.done(Batch(last_tag=tag)))])
        assert set(range(1, acked + 1)) <= done
        assert acked + 1 not in done
    assert acked == 7
