"""Spans of a log that is verified: of its whole life so far, and of the steps of its job."""

import time
from collections.abc import Sequence

from logflume.domain import Log
from logflume.markers import Step
from logflume.observability import spans


def verified(log: Log, steps: Sequence[Step]) -> None:
    """Make the span that all others are under, and one for each step that was stored.

    They are the same when it is verified again. Of a step there are the runner's names for it and
    its fold, which are words of the log: its id is left out.
    """
    whole = spans.of_log(log.job_id)
    about = {"logflume.parts": log.part_count or 0, "logflume.bytes": log.content_bytes or 0}
    times = (spans.ns(log.created_at), time.time_ns())
    spans.record(spans.FinishedSpan("log", times, own=whole, attributes=about))
    for step in steps:
        made = spans.FinishedSpan(
            f"step {step.event or step.fold}".rstrip(),
            (step.start_ns, step.finish_ns),
            parent=whole,
            own=whole.inner(f"step {step.id} {step.start_ns}"),
            attributes={"logflume.fold": step.fold, "logflume.line": step.line},
        )
        spans.record(made)
