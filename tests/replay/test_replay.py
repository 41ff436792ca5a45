"""Histories of lives that ran on earlier code replay on today's.

A change to a workflow that breaks one of these would break the logs that are under way when it is
deployed: guard it with `workflow.patched` and record the new way beside the old one, by
`bin/test tests/workflows --record-histories`.
"""

from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from workflows.lifecycle import LogLifecycle
from workflows.partitions import PartitionMaintenance
from workflows.retention import Retention
from workflows.sweep import Sweep

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def test_there_are_histories():
    assert len(HISTORIES) > 20


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_replays(path):
    history = WorkflowHistory.from_json(path.stem, path.read_text())
    workflows = [LogLifecycle, PartitionMaintenance, Retention, Sweep]
    await Replayer(workflows=workflows).replay_workflow(history)
