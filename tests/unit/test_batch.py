"""Batches and the order of acknowledgements."""

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from drain.batch import AckLedger, Acks, Batch, Batcher, DeadLetter
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


def test_a_batch_waits_for_a_flush_with_the_same_part():
    batcher = Batcher(max_messages=1, max_bytes=10)
    for tag, number in enumerate((0, 1, 0), 1):
        batcher.add(message(tag), part(1, number))
    first = batcher.next()
    assert first
    second = batcher.next([first])
    assert second and second.last_tag == 2
    assert batcher.next([second, first]) is None
    again = batcher.next([second])
    assert again and again.last_tag == 3


class Broker:
    """RabbitMQ's view of a channel: an ack must name an unacknowledged tag."""

    def __init__(self, tags: int) -> None:
        self.unacked = list(range(1, tags + 1))

    def receive(self, acks: Acks) -> None:
        count = len(self.unacked)
        for tag, is_cumulative in acks.tags:
            at = self.unacked.index(tag)  # ValueError: unknown delivery tag
            del self.unacked[0 if is_cumulative else at : at + 1]
        assert (acks.messages, acks.bytes) == (count - len(self.unacked),) * 2


def batch(tags: list[int], invalid: set[int]) -> Batch:
    batcher = Batcher(max_messages=len(tags), max_bytes=1000)
    for tag in tags:
        is_invalid = tag in invalid
        batcher.add(message(tag), DeadLetter(message(tag), "bad") if is_invalid else part(1, tag))
    full = batcher.next()
    assert full
    return full


@given(st.data())
def test_an_ack_names_unacknowledged_tags_and_covers_only_what_is_stored(data):
    """Batches are committed in any order; dead letters are refused, and accepted later."""
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    total = sum(sizes)
    tags = iter(range(1, total + 1))
    invalid = data.draw(st.sets(st.integers(1, total)))
    ledger, broker, stored, held = AckLedger(), Broker(total), set(), []
    flushing = [batch(list(islice(tags, size)), invalid) for size in sizes]
    for one in flushing:
        ledger.open(one)
    while flushing or held:
        if flushing and (not held or data.draw(st.booleans())):
            done = flushing.pop(data.draw(st.integers(0, len(flushing) - 1)))
            refused = [x.message for x in done.invalid if data.draw(st.booleans())]
            stored |= set(done.tags) - {one.tag for one in refused}
            held += refused
            broker.receive(ledger.complete(done, refused))
        else:
            accepted = held.pop(data.draw(st.integers(0, len(held) - 1)))
            stored.add(accepted.tag)
            broker.receive(ledger.release(accepted))
        assert {*range(1, total + 1)} - {*broker.unacked} <= stored
        watermark = min((one.tags[0] for one in flushing), default=total + 1)
        waiting = {one.tag for one in held}
        assert [tag for tag in broker.unacked if tag < watermark and tag not in waiting] == []
    assert broker.unacked == []


def test_a_held_last_message_of_a_batch_is_not_acknowledged_with_it():
    ledger, first, second = AckLedger(), batch([1, 2, 3], {3}), batch([4, 5], set())
    ledger.open(first)
    ledger.open(second)
    refused = first.invalid[0].message
    assert ledger.complete(first, [refused]).tags == [(2, True)]
    assert ledger.complete(second).tags == [(4, False), (5, False)]
    assert ledger.release(refused).tags == [(3, False)]
