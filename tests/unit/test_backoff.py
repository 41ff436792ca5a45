"""Delays between retries."""

from itertools import islice

from logflume.backoff import Backoff


def delays(backoff: Backoff, count: int) -> list[float]:
    return list(islice(iter(backoff.next, None), count))


def test_delays_double_up_to_the_maximum():
    backoff = Backoff(2.0, first=0.1)
    expected = [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    for delay, middle in zip(delays(backoff, 7), expected, strict=True):
        assert 0.5 * middle <= delay <= 1.5 * middle


def test_a_reset_starts_over():
    backoff = Backoff(5.0)
    delays(backoff, 10)
    backoff.reset()
    assert backoff.next() <= 0.15


def test_no_two_processes_wait_equally_long():
    assert len({Backoff(5.0).next() for _ in range(20)}) > 1
