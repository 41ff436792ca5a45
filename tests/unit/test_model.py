"""Searches the protocol model in `docs/model` exhaustively, as it is and with seeded faults."""

import re
import subprocess
from pathlib import Path

import pytest

MODEL = Path(__file__).parents[2] / "docs/model/logflume.pml"
PARTITIONS = ("-DPARTITIONS", "-DFLUSHES=1", "-DTROUBLES=2")
SMALL = ("-DPARTITIONS", "-DFLUSHES=1", "-DTROUBLES=1")
CONCURRENT = ("-DPARTITIONS", "-DFLUSHES=2", "-DTROUBLES=0")
REQUEUE = ("-DREQUEUE", "-DFLUSHES=2", "-DTROUBLES=1")
FAULTS = {
    "FAULT_ACK_BEFORE_COMMIT": (SMALL, "byte_lost"),
    "FAULT_PURGE_DURING_A_FLUSH": (SMALL, "byte_lost"),
    "FAULT_PURGE_WITHOUT_THE_HASH": (SMALL, "purged_unverified"),
    "FAULT_VERIFY_WITHOUT_THE_HASH": (SMALL, "purged_unverified"),
    "FAULT_UPLOAD_WITHOUT_CONDITION": (SMALL, "purged_unverified"),
    "FAULT_DELETION_WITHOUT_CHECK": (REQUEUE, "from_closed_attempt"),
    "FAULT_APPEND": (SMALL, "byte_doubled"),
    "FAULT_DROP_WITHOUT_RESCUE": (SMALL, "dropped_unarchived"),
    "FAULT_CLOSED_ATTEMPTS_TAKE_PARTS": (REQUEUE, "from_closed_attempt"),
}


def search(folder: Path, bounds: tuple[str, ...], optimize: str) -> str:
    """Search all runs of the model within these bounds; returns the report of pan."""
    commands = (
        ["spin", "-a", *bounds, str(MODEL)],
        # Safety properties only; -w because spin's output has warnings.
        ["gcc", optimize, "-w", "-DSAFETY", "-o", "pan", "pan.c"],
        # -E: ignore invalid end states; the process End of the model judges them.
        ["./pan", "-E", "-m10000", "-w22"],
    )
    for command in commands:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def unreached(report: str) -> set[str]:
    """The statements that no run reached, as `process: statement`."""
    statements = set()
    for process, listed in re.findall(r"unreached in proctype (\w+)\n((?:\t.*\n)*)", report):
        statements |= {f"{process}: {line}" for line in re.findall(r'state \d+, "(.*)"', listed)}
    return {line for line in statements if not line.endswith("-end-")}


def test_no_run_breaks_a_promise_and_every_statement_is_reached(tmp_path):
    never_reached = []
    for bounds in (PARTITIONS, CONCURRENT, REQUEUE):
        report = search(tmp_path, bounds, "-O1")
        assert "errors: 0" in report, report
        assert "max search depth too small" not in report
        assert "Search not completed" not in report
        never_reached.append(unreached(report))
    assert set.intersection(*never_reached) == set()


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_breaks_its_promise(tmp_path, fault):
    bounds, promise = FAULTS[fault]
    report = search(tmp_path, (*bounds, f"-D{fault}"), "-O0")
    assert re.findall(r"assertion violated +(.*) \(at depth", report) == [f"!({promise})"]


def test_every_fault_in_the_model_is_tested():
    assert set(re.findall(r"\bFAULT_\w+", MODEL.read_text())) == set(FAULTS)
