"""Tests the steps read from markers; `tests/node/markers.test.js` runs the same corpora."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logflume.markers import MAX_MARKERS, MAX_STEPS, Step, StepReader
from tests.support.markers import AT, end, start
from tests.support.real_logs import shared_logs
from web.outline import outline_of

FOLDER = Path(__file__).parents[1] / "corpus"
SYSTEMS = json.loads((FOLDER / "steps.json").read_text())
CORPUS = json.loads((FOLDER / "travis_time.json").read_text()) + SYSTEMS


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


def test_steps_have_names_lines_and_times():
    assert steps(LOG) == [
        Step("0a", "setup_filter", "", 1, AT, AT + 5),
        Step("0c", "", "install.1", 4, AT + 10, AT + 20),
        Step("0b", "", "install.1", 3, AT + 10, AT + 30),
    ]


@given(st.integers(1, 400))
def test_piece_size_does_not_matter(size):
    assert steps(LOG, size) == steps(LOG)


def test_last_marker_may_end_with_the_log():
    assert len(steps(start("a") + end("a").partition(b"\r")[0])) == 1


def expand(text: str) -> str:
    """Replace `@N` in the corpus with the timestamp N seconds after 1580000000."""
    return re.sub(r"@(\d+)", lambda match: f"{1_580_000_000 + int(match[1])}" + "0" * 9, text)


def corpus_log(lines: list[str | dict[str, Any]]) -> bytes:
    """Build a log of the corpus; `{n}` counts the repetitions of a line."""
    found: list[str] = []
    for line in lines:
        if isinstance(line, str):
            found.append(line)
        else:
            found += [line["line"].replace("{n}", str(n)) for n in range(line["repeat"])]
    return expand("\n".join(found)).encode()


@pytest.mark.parametrize("case", CORPUS, ids=[case["name"] for case in CORPUS])
def test_corpus(case):
    assert steps(corpus_log(case["log"])) == [
        Step(
            step["id"],
            step.get("event", ""),
            step.get("fold", ""),
            step["line"],
            int(expand(step["start"])),
            int(expand(step["finish"])),
        )
        for step in case["steps"]
    ]


@pytest.mark.parametrize("case", SYSTEMS, ids=[case["name"] for case in SYSTEMS])
@pytest.mark.parametrize("size", [1, 7, 2**20])
def test_markers_of_all_systems(case, size):
    log = corpus_log(case["log"]) + b"\n"
    outline = outline_of([log[at : at + size] for at in range(0, len(log), size)])
    assert [[line, text] for _, line, text in outline.marks] == [
        [line, expand(text)] for line, text in case["markers"]
    ]
    assert outline.bare_lines == case["bare"]
    assert all(log[int(byte) :].startswith(str(text).encode()) for byte, _, text in outline.marks)


def test_markers_steps_and_open_timers_are_bounded():
    many = b"".join(start(f"{n}") + end(f"{n}") for n in range(MAX_STEPS + 10))
    assert len(steps(many)) == MAX_STEPS
    reader = StepReader()
    reader.feed(start("x") * MAX_MARKERS + start("a") + end("a") + b"." * 300)
    reader.feed(b"travis_fold:start:" * 10_000)
    assert reader.steps == []
    assert len(reader._open) <= 1
    flooded = StepReader()
    flooded.feed(b"".join(start(f"{n}") + b"travis_fold:start:x\r" for n in range(5000)))
    assert (len(flooded._open), len(flooded._folds)) == (100, 100)


@pytest.mark.parametrize("path", shared_logs(), ids=lambda path: path.stem)
def test_real_logs(path):
    log = gzip.decompress(path.read_bytes())
    ended = re.findall(rb"travis_time:end:([0-9a-f]+):", log)  # some ids are reused
    assert {step.id.encode() for step in steps(log)} == {*ended}
    assert steps(log) == steps(log, 1653)
