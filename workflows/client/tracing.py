"""Spans of a worker: one for each workflow run, and one for each activity under its run.

Histories contain nothing of them: span contexts are derived from ids that Temporal knows anyway. So
histories are the same and replay with and without tracing.
"""

from typing import Any

from temporalio import activity, workflow
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    ExecuteWorkflowInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

from logflume.observability import spans
from workflows.lifecycle_types import LIFECYCLE, job_of


def interceptors() -> list[Interceptor]:
    """The interceptors of a worker; none without a collector."""
    return [_Spans()] if spans.is_on() else []


class _Spans(Interceptor):
    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _Activities(next)

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002, ARG002
    ) -> type[WorkflowInboundInterceptor]:
        return _Runs


class _Activities(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        info = activity.info()
        run = _run(info.workflow_type or "", info.workflow_id or "", info.workflow_run_id or "")
        with spans.span(info.activity_type, run, attributes={"logflume.try": info.attempt}):
            return await super().execute_activity(input)


class _Runs(WorkflowInboundInterceptor):
    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002
        """Record a run when it ends, unless it was cancelled or terminated."""
        try:
            result = await super().execute_workflow(input)
        except workflow.ContinueAsNewError:
            _record_run()
            raise
        except Exception as error:
            _record_run(type(error).__name__)
            raise
        _record_run()
        return result


def _record_run(error: str | None = None) -> None:
    if workflow.unsafe.is_replaying():
        return
    info = workflow.info()
    own = _run(info.workflow_type, info.workflow_id, info.run_id)
    parent = None if own.job_id is None else spans.of_log(own.job_id)
    times = (spans.ns(info.start_time), workflow.time_ns())
    with workflow.unsafe.sandbox_unrestricted():
        spans.record(spans.FinishedSpan(info.workflow_type, times, parent, own, error=error))


def _run(kind: str, workflow_id: str, run_id: str) -> spans.SpanContext:
    """The span context of a run: in its log's trace, otherwise in a trace of its own."""
    job_id = job_of(workflow_id) if kind == LIFECYCLE else None
    return spans.of_run(run_id) if job_id is None else spans.of_log(job_id).inner(run_id)
