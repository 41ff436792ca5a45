"""The in-flight window: bounded in bytes, and freed again."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from drain.flow_control import InFlightWindow


def make_window(max_bytes: int = 100, max_messages: int = 64) -> InFlightWindow:
    return InFlightWindow(max_bytes, max_messages, max_messages)


def test_a_message_alone_fits_whatever_its_size():
    window = make_window()
    assert window.fits(1000)
    window.add(1000)
    assert not window.fits(1) and not window.is_half_free
    window.remove(1, 1000)
    assert window.fits(1000) and window.is_half_free


def test_the_prefetch_shrinks_to_what_fits_at_the_average_size():
    window = make_window()
    for _ in range(4):
        window.add(20)
    window.shrink()
    assert window.prefetch == 5
    window.shrink()
    assert window.prefetch == 5
    window.add(1000)
    window.shrink()
    assert window.prefetch == 1


def test_an_empty_window_halves_its_prefetch():
    window = make_window()
    window.shrink()
    assert window.prefetch == 32


def test_the_prefetch_grows_again_after_many_small_messages():
    window = make_window()
    window.add(99)
    window.shrink()
    window.remove(1, 99)
    prefetches = []
    for _ in range(1000):
        window.add(1)
        window.remove(1, 1)
        if window.can_grow:
            window.grow()
            prefetches.append(window.prefetch)
    assert prefetches == [2, 4, 8, 16, 32, 64]
    assert not window.can_grow


def test_the_prefetch_does_not_grow_while_messages_are_large():
    window = make_window()
    window.add(30)
    window.shrink()
    for _ in range(1000):
        window.add(30)
        window.remove(1, 30)
        assert not window.can_grow


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 200))
def test_held_bytes_stay_within_bounds_and_every_message_is_delivered(sizes, max_bytes):
    """Simulates a broker that honours the prefetch and delivers requeued messages in order."""
    window, waiting, held, stored = make_window(max_bytes), deque(sizes), deque(), 0
    while stored < len(sizes):
        while waiting and window.messages < window.prefetch:
            if not window.fits(waiting[0]):
                window.shrink()
                break
            held.append(waiting.popleft())
            window.add(held[-1])
            assert window.bytes <= max_bytes or window.messages == 1
        window.remove(1, held.popleft())
        stored += 1
        if window.can_grow:
            window.grow()
    assert window.messages == window.bytes == 0
