"""Retention: deletes logs that the policies let expire, a bounded number in each round."""

from dataclasses import dataclass, field

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.types import (
        DELETE_EXPIRED,
        EXPIRE_LOGS,
        DeleteInput,
        ExpiredPage,
        ExpireInput,
        RetentionToken,
        archive_queue,
    )
    from logflume.domain import Policy
    from workflows.policies import ARCHIVE_RETRIES, HEARTBEAT, RETENTION_TIME, reason

RETENTION_ID = "retention"
# S3 deletes up to 1000 objects in one call; rows stay locked while a page is processed.
PAGE_LOGS = 500


@dataclass(frozen=True)
class RetentionInput:
    """Input of a round; `logs`: most logs that each policy examines."""

    policies: list[Policy]
    logs: int


@dataclass
class PolicyReport:
    """What one policy did in a round, in logs; `bytes`: text deleted.

    `held`: left alone because of a legal hold. `rows`: rows deleted. `after`: where the next round
    continues. `error`: why this round stopped early.
    """

    policy: str
    examined: int = 0
    logs: int = 0
    bytes: int = 0
    rows: int = 0
    held: int = 0
    after: RetentionToken = field(default_factory=RetentionToken)
    error: str = ""


@dataclass
class RetentionResult:
    """What a round did, by policy."""

    policies: list[PolicyReport] = field(default_factory=list)


@workflow.defn
class Retention:
    """One round of retention. A policy that fails does not delay the others."""

    @workflow.run
    async def run(self, options: RetentionInput) -> RetentionResult:
        """Apply each policy, starting where the last round stopped."""
        last = workflow.get_last_completion_result(RetentionResult) or RetentionResult()
        tokens = {report.policy: report.after for report in last.policies}
        result = RetentionResult()
        for policy in options.policies:
            report = PolicyReport(policy.name, after=tokens.get(policy.name, RetentionToken()))
            result.policies.append(report)
            try:
                await self._apply(policy, report, options.logs)
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                report.error = reason(error)
            workflow.set_current_details("\n".join(map(_summary, result.policies)))
        return result

    async def _apply(self, policy: Policy, report: PolicyReport, logs: int) -> None:
        while report.examined < logs:
            count = min(PAGE_LOGS, logs - report.examined)
            page = await self._expire(ExpireInput(policy, report.after, count))
            report.examined += page.examined
            report.logs += len(page.job_ids)
            report.bytes += page.bytes
            report.held += page.held
            report.after = page.last or RetentionToken()
            if page.job_ids:
                report.rows += await self._delete(page.job_ids, policy)
            if page.last is None:
                return

    async def _expire(self, argument: ExpireInput) -> ExpiredPage:
        page: ExpiredPage = await workflow.execute_activity(
            EXPIRE_LOGS,
            argument,
            result_type=ExpiredPage,
            task_queue=archive_queue(workflow.info().task_queue),
            start_to_close_timeout=RETENTION_TIME,
            heartbeat_timeout=HEARTBEAT,
            retry_policy=ARCHIVE_RETRIES,
            summary=argument.policy.name,
        )
        return page

    async def _delete(self, job_ids: list[int], policy: Policy) -> int:
        rows: int = await workflow.execute_activity(
            DELETE_EXPIRED,
            DeleteInput(job_ids, rows=policy.delete == "row"),
            result_type=int,
            task_queue=archive_queue(workflow.info().task_queue),
            start_to_close_timeout=RETENTION_TIME,
            heartbeat_timeout=HEARTBEAT,
            retry_policy=ARCHIVE_RETRIES,
            summary=f"{policy.name}: {len(job_ids)} logs",
        )
        return rows


def _summary(report: PolicyReport) -> str:
    text = f"- **{report.policy}**: {report.logs} logs, {report.bytes} bytes, {report.rows} rows"
    if report.held:
        text += f", {report.held} under legal hold"
    return f"{text}; {report.error}" if report.error else text
