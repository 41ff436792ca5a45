"""Which timed steps are read from a log, whatever it says and however it is cut."""

import gzip
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logflume.markers import MOST_MARKS, MOST_STEPS, Step, StepReader
from tests.support.markers import AT, end, start
from tests.support.real_logs import shared_logs


def steps(log: bytes, size: int = 2**20) -> list[Step]:
    reader = StepReader()
    for at in range(0, len(log), size):
        reader.feed(log[at : at + size])
    reader.feed(b"", last=True)
    return reader.steps


LOG = (
    b"travis_fold:start:worker_info\r\x1b[0Khost\ntravis_fold:end:worker_info\r\x1b[0K"
    + start("0a")
    + end("0a", more=",event=setup_filter")
    + b"\r\nBuild language: c\r\ntravis_fold:start:install.1\r\x1b[0K"
    + start("0b")
    + b"$ ./configure\r\n"
    + start("0c")
    + b"checking\r\n"
    + end("0c", AT + 10, AT + 20)
    + end("0b", AT + 10, AT + 30)
    + b"travis_fold:end:install.1\r\x1b[0K\n"
)


def test_steps_have_their_names_lines_and_times():
    assert steps(LOG) == [
        Step("0a", "setup_filter", "", 1, AT, AT + 5),
        Step("0c", "", "install.1", 4, AT + 10, AT + 20),
        Step("0b", "", "install.1", 3, AT + 10, AT + 30),
    ]


@given(st.integers(1, 400))
def test_however_a_log_is_cut_its_steps_are_the_same(size):
    assert steps(LOG, size) == steps(LOG)


def test_the_last_marker_may_end_with_the_log():
    assert len(steps(start("a") + end("a").partition(b"\r")[0])) == 1


@pytest.mark.parametrize(
    ("why", "log"),
    [
        ("never began", end("a")),
        ("never ended", start("a")),
        ("ends another", start("a") + end("b")),
        ("ended before", start("a") + end("a", AT, AT - 1)),
        ("before there was CI", start("a") + end("a", 5, 10)),
        ("beyond 64 bits", start("a") + end("a", AT, 10**19)),
        ("of more digits than Python reads", start("a") + b"travis_time:end:a:start=" + b"1" * 190),
        ("for years", start("a") + end("a", AT, AT + 10**18)),
        ("no number", start("a") + b"travis_time:end:a:start=x,finish=y\r"),
        ("no times", start("a") + b"travis_time:end:a\r"),
        ("hostile id", start("<b>") + end("<b>")),
        ("hostile event", start("a") + end("a", more=",event=<script>")),
        ("began inside one that is over", start("b") + start("a") + end("b", 1, 2) + end("a")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_makes_no_sense_is_no_step(why, log):
    assert steps(log) == []


def test_one_that_begins_twice_began_the_second_time():
    assert [one.line for one in steps(start("a") + b"\n" + start("a") + end("a"))] == [1]


def test_a_flood_is_read_up_to_a_limit():
    many = b"".join(start(f"{n}") + end(f"{n}") for n in range(MOST_STEPS + 10))
    assert len(steps(many)) == MOST_STEPS
    reader = StepReader()
    reader.feed(start("x") * MOST_MARKS + start("a") + end("a") + b"." * 300)
    reader.feed(b"travis_fold:start:" * 10_000)
    assert reader.steps == []
    assert len(reader._open) <= 1
    open_ones = StepReader()
    open_ones.feed(b"".join(start(f"{n}") + b"travis_fold:start:x\r" for n in range(5000)))
    assert (len(open_ones._open), len(open_ones._folds)) == (100, 100)


@pytest.mark.parametrize("path", shared_logs(), ids=lambda path: path.stem)
def test_real_logs(path):
    log = gzip.decompress(path.read_bytes())
    found = steps(log)
    ended = re.findall(rb"travis_time:end:([0-9a-f]+):", log)  # some more than once
    assert {step.id.encode() for step in found} == {*ended}
    assert found == steps(log, 1653)
