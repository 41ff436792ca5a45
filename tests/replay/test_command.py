"""`logflume replay` on valid and invalid files, without Temporal."""

import json
from pathlib import Path

import pytest

from tests.support.histories import UNRELEASED
from tests.support.processes import LOGFLUME, Done, run

WHOLE = json.loads((UNRELEASED / "a_log_passes_all_phases_until_the_purge.json").read_text())
TEXT = json.dumps(WHOLE)
EVENTS = WHOLE["events"]


def replay(*paths: Path) -> Done:
    return run(LOGFLUME, "replay", *paths)


def test_verdicts_are_printed_as_json():
    path = UNRELEASED / "a_log_passes_all_phases_until_the_purge.json"
    done = run(LOGFLUME, "replay", "--json", path)
    assert json.loads(done.stdout)[str(path)].startswith("same, LogLifecycle")
    assert done.returncode == 0


def test_recorded_histories_replay_as_the_same():
    names = ("a_log_passes_*", "expired_partitions_*", "sweep_each_round_*")
    paths = [next(UNRELEASED.glob(name)) for name in names]
    done = replay(*paths)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[1:3] for line in done.stdout.splitlines()] == [
        ["same,", "LogLifecycle,"],
        ["same,", "PartitionMaintenance,"],
        ["same,", "Sweep,"],
    ]


FILES: dict[str, tuple[str | bytes, str]] = {
    "other_order": (
        TEXT.replace('"name": "archive"', '"name": "verify"', 1),
        "differs, LogLifecycle: ",
    ),
    "other_input": (
        TEXT.replace(
            EVENTS[0]["workflowExecutionStartedEventAttributes"]["input"]["payloads"][0]["data"],
            "e30=",
        ),
        "differs, LogLifecycle: ",
    ),
    "other_workflow": (TEXT.replace("LogLifecycle", "Unheard"), "unknown workflow type Unheard"),
    "not_json": ("{", "unreadable, not the JSON of a history; "),
    "not_text": (b"\xff\xfe", "unreadable, not the JSON of a history; "),
    "not_an_object": ("[]", "unreadable, not the JSON of a history; "),
    "other_json": ('{"logs": []}', "unreadable, not the JSON of a history; "),
    "no_events": ('{"events": []}', "unreadable, its event ids are not 1, 2, 3 and so on; "),
    "without_the_start": (
        json.dumps({"events": EVENTS[3:]}),
        "unreadable, its event ids are not 1, 2, 3 and so on; ",
    ),
    "with_a_gap": (
        json.dumps({"events": EVENTS[:5] + EVENTS[8:]}),
        "unreadable, its event ids are not 1, 2, 3 and so on; ",
    ),
    "not_a_start": (
        json.dumps({"events": [{**EVENTS[4], "eventId": "1"}]}),
        "unreadable, it does not begin with the start of a workflow; ",
    ),
}


def test_each_invalid_file_is_reported_in_one_line(tmp_path):
    paths = []
    for name, (content, _) in FILES.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(content if isinstance(content, bytes) else content.encode())
    done = replay(*paths)
    assert done.returncode == 1
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths)
    for line, (name, (_, verdict)) in zip(lines, FILES.items(), strict=True):
        assert line.startswith(f"{tmp_path / name}: {verdict}"), line


@pytest.mark.parametrize("count", [1, 2, 8], ids=["started", "scheduled", "waiting"])
def test_a_running_workflow_is_replayed_as_far_as_it_got(tmp_path, count):
    path = tmp_path / "history.json"
    path.write_text(json.dumps({"events": EVENTS[:count]}))
    done = replay(path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{path}: same, LogLifecycle, ")
