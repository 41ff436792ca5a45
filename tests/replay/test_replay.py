"""Histories recorded on released and earlier code replay on today's code.

A workflow change that breaks one of them would break the workflows that are running when it is
deployed: guard it with `workflow.patched`, and record the new behaviour beside the old one with
`bin/test tests/workflows --record-histories`.
"""

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from tests.support.histories import HISTORIES, recorded
from workflows.all import WORKFLOWS


def test_every_workflow_has_histories():
    types = {
        WorkflowHistory.from_json(path.stem, path.read_text())
        .events[0]
        .workflow_execution_started_event_attributes.workflow_type.name
        for path in recorded()
    }
    assert types == {workflow.__name__ for workflow in WORKFLOWS}


@pytest.mark.parametrize("path", recorded(), ids=lambda path: str(path.relative_to(HISTORIES)))
async def test_a_recorded_history_replays(path):
    history = WorkflowHistory.from_json(path.stem, path.read_text())
    await Replayer(workflows=WORKFLOWS).replay_workflow(history)
