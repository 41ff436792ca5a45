"""Spans of a verified log: one for its lifecycle so far, and one for each step of its job."""

import time
from collections.abc import Sequence

from logflume.domain import Log
from logflume.markers import Step
from logflume.observability import spans


def verified(log: Log, steps: Sequence[Step]) -> None:
    """Record the root span of the log, and one span for each stored step.

    Verifying again records the same spans. A step's span has the runner's names for the step and
    its fold, which are text of the log, but not its id.
    """
    root = spans.of_log(log.job_id)
    attributes = {"logflume.parts": log.part_count or 0, "logflume.bytes": log.content_bytes or 0}
    times = (spans.ns(log.created_at), time.time_ns())
    spans.record(spans.FinishedSpan("log", times, own=root, attributes=attributes))
    for step in steps:
        span = spans.FinishedSpan(
            f"step {step.event or step.fold}".rstrip(),
            (step.start_ns, step.finish_ns),
            parent=root,
            own=root.inner(f"step {step.id} {step.start_ns}"),
            attributes={"logflume.fold": step.fold, "logflume.line": step.line},
        )
        spans.record(span)
