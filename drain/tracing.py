"""Spans of a flush: one for the batch, and one for each log that begins or ends in it."""

import time
from collections.abc import Mapping
from datetime import datetime

from drain.batch import Batch
from logflume.observability import spans
from workflows.lifecycle_types import PartsStored


def flushed(batch: Batch, stored: Mapping[int, PartsStored], began_ns: int) -> None:
    """Record the spans of a committed batch, if a sampled log begins or ends in it."""
    contexts = {
        job_id: context
        for job_id, added in stored.items()
        if (added.begun or added.final) and spans.is_sampled(context := spans.of_log(job_id))
    }
    if not contexts:
        return
    ended_ns = time.time_ns()
    received: dict[int, datetime] = {}
    callers: dict[int, spans.SpanContext] = {}
    for part, message in zip(batch.parts, batch.messages, strict=True):
        if part.job_id in contexts:
            received.setdefault(part.job_id, part.received_at)
            header = message.read().headers.get("traceparent")
            if header and (caller := spans.read_traceparent(header)):
                callers.setdefault(part.job_id, caller)
    whole = next(iter(contexts.values())).beside()
    attributes = {"logflume.parts": len(batch.parts), "logflume.bytes": batch.bytes}
    spans.record(
        spans.FinishedSpan("flush batch", (began_ns, ended_ns), own=whole, attributes=attributes)
    )
    for job_id, context in contexts.items():
        added = stored[job_id]
        span = spans.FinishedSpan(
            "flush",
            (spans.ns(received[job_id]), ended_ns),
            parent=context,
            links=[whole, callers[job_id]] if job_id in callers else [whole],
            attributes={
                "logflume.parts": added.parts,
                "logflume.bytes": added.bytes,
                "logflume.begun": added.begun,
                "logflume.final": added.final,
            },
        )
        spans.record(span)
