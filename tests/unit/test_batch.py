"""Batches and the order of acknowledgements."""

from hypothesis import given
from hypothesis import strategies as st

from drain.batch import AckLedger, Batch, Batcher, DeadLetter
from drain.deliveries import Delivery
from tests.support.parts import part


def message(tag: int, size: int = 1) -> Delivery:
    return Delivery(tag, b"x" * size)


def test_a_batch_is_full_by_messages_or_by_bytes():
    batcher = Batcher(max_messages=3, max_bytes=10)
    assert not batcher.add(message(1), part(1, 0))
    assert not batcher.add(message(2), DeadLetter(message(2), "bad"))
    assert batcher.next() is None
    assert batcher.add(message(3), part(1, 1))
    assert batcher.is_empty
    full = batcher.next()
    assert full and (len(full.parts), len(full.invalid), full.last_tag) == (2, 1, 3)
    assert batcher.add(message(4, 10), part(1, 2))


def test_full_batches_come_before_an_expired_one():
    batcher = Batcher(max_messages=2, max_bytes=10)
    for tag in range(1, 6):
        batcher.add(message(tag), part(1, tag))
    batcher.expire()
    batches = [batcher.next() for _ in range(4)]
    assert [batch and batch.last_tag for batch in batches] == [2, 4, 5, None]
    batcher.add(message(6), part(1, 6))
    assert batcher.next() is None


def test_an_empty_batch_does_not_expire():
    batcher = Batcher(2, 10)
    batcher.expire()
    assert batcher.next() is None
    batcher.add(message(1), part(1, 1))
    assert batcher.next() is None


@given(st.permutations(range(1, 8)))
def test_the_ack_watermark_never_passes_an_uncommitted_batch(order):
    ledger, done, acked = AckLedger(), set(), 0
    for tag in range(1, 8):
        ledger.open(Batch(last_tag=tag))
    for tag in order:
        done.add(tag)
        acked = max([acked, *(batch.last_tag for batch in ledger.complete(Batch(last_tag=tag)))])
        assert set(range(1, acked + 1)) <= done
        assert acked + 1 not in done
    assert acked == 7
