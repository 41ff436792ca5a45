"""Room for what is not acknowledged yet: bounded in bytes, and found again."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from drain.batch import Batch
from drain.flow_control import Room


def room(most_bytes: int = 100, most_messages: int = 64) -> Room:
    return Room(most_bytes, most_messages, most_messages)


def batch(*sizes: int) -> Batch:
    return Batch(bytes=sum(sizes), count=len(sizes))


def test_a_message_alone_finds_room_whatever_its_size():
    one = room()
    assert one.fits(1000)
    one.take(1000)
    assert not one.fits(1) and not one.is_half_free
    one.free([batch(1000)])
    assert one.fits(1000) and one.is_half_free


def test_where_messages_are_large_as_many_are_asked_for_as_fit():
    one = room()
    for _ in range(4):
        one.take(20)
    one.shrink()
    assert one.prefetch == 5
    one.shrink()
    assert one.prefetch == 5
    one.take(1000)
    one.shrink()
    assert one.prefetch == 1


def test_what_was_held_may_be_gone_when_it_shrinks():
    one = room()
    one.shrink()
    assert one.prefetch == 32


def test_more_are_asked_for_again_once_messages_were_small_for_a_while():
    one = room()
    one.take(99)
    one.shrink()
    one.free([batch(99)])
    asked = []
    for _ in range(1000):
        one.take(1)
        one.free([batch(1)])
        if one.may_grow:
            one.grow()
            asked.append(one.prefetch)
    assert asked == [2, 4, 8, 16, 32, 64]
    assert not one.may_grow


def test_while_messages_are_large_no_more_are_asked_for():
    one = room()
    one.take(30)
    one.shrink()
    for _ in range(1000):
        one.take(30)
        one.free([batch(30)])
        assert not one.may_grow


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 200))
def test_held_bytes_stay_within_bounds_and_every_message_gets_in(sizes, most):
    """A broker that sends at most `prefetch`, and what is given back again, in order."""
    one, waiting, held, stored = room(most), deque(sizes), deque(), 0
    while stored < len(sizes):
        while waiting and one.messages < one.prefetch:
            if not one.fits(waiting[0]):
                one.shrink()
                break
            held.append(waiting.popleft())
            one.take(held[-1])
            assert one.bytes <= most or one.messages == 1
        one.free([batch(held.popleft())])
        stored += 1
        if one.may_grow:
            one.grow()
    assert one.messages == one.bytes == 0
