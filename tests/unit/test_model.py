"""The model of the protocol in `docs/model`: searched to its end, and with seeded faults."""

import re
import subprocess
from pathlib import Path

import pytest

MODEL = Path(__file__).parents[2] / "docs/model/logflume.pml"
PARTITIONS = ("-DPARTITIONS", "-DFLUSHES=1", "-DTROUBLES=2")
SMALL = ("-DPARTITIONS", "-DFLUSHES=1", "-DTROUBLES=1")
AT_ONCE = ("-DPARTITIONS", "-DFLUSHES=2", "-DTROUBLES=0")
REQUEUE = ("-DREQUEUE", "-DFLUSHES=2", "-DTROUBLES=1")
FAULTS = {
    "FAULT_ACK_BEFORE_COMMIT": (SMALL, "byte_lost"),
    "FAULT_PURGE_DURING_A_FLUSH": (SMALL, "byte_lost"),
    "FAULT_PURGE_WITHOUT_THE_HASH": (SMALL, "purged_unverified"),
    "FAULT_VERIFY_WITHOUT_THE_HASH": (SMALL, "purged_unverified"),
    "FAULT_APPEND": (SMALL, "byte_doubled"),
    "FAULT_DROP_WITHOUT_RESCUE": (SMALL, "dropped_unarchived"),
    "FAULT_CLOSED_ATTEMPTS_TAKE_PARTS": (REQUEUE, "from_closed_attempt"),
}


def search(folder: Path, bounds: tuple[str, ...], optimize: str) -> str:
    """Search all runs of the model within these bounds; returns what the search tells."""
    commands = (
        ["spin", "-a", *bounds, str(MODEL)],
        # For safety only; what spin generates is not free of warnings.
        ["gcc", optimize, "-w", "-DSAFETY", "-o", "pan", "pan.c"],
        # -E: at their end processes wait, which the model itself judges.
        ["./pan", "-E", "-m10000", "-w22"],
    )
    for command in commands:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def unreached(said: str) -> set[str]:
    """The statements that no run came to, as `process: statement`."""
    found = set()
    for process, listed in re.findall(r"unreached in proctype (\w+)\n((?:\t.*\n)*)", said):
        found |= {f"{process}: {line}" for line in re.findall(r'state \d+, "(.*)"', listed)}
    return {line for line in found if not line.endswith("-end-")}


def test_no_run_breaks_a_promise_and_every_statement_is_reached(tmp_path):
    never = []
    for bounds in (PARTITIONS, AT_ONCE, REQUEUE):
        said = search(tmp_path, bounds, "-O1")
        assert "errors: 0" in said, said
        assert "max search depth too small" not in said
        assert "Search not completed" not in said
        never.append(unreached(said))
    assert set.intersection(*never) == set()


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_breaks_the_promise_that_it_should(tmp_path, fault):
    bounds, promise = FAULTS[fault]
    said = search(tmp_path, (*bounds, f"-D{fault}"), "-O0")
    assert re.findall(r"assertion violated +(.*) \(at depth", said) == [f"!({promise})"]


def test_every_fault_of_the_model_is_tried():
    assert set(re.findall(r"\bFAULT_\w+", MODEL.read_text())) == set(FAULTS)
