"""Retention: deletes what is older than the policies say, a bounded number of logs in a round."""

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.types import (
        DELETE_EXPIRED,
        EXPIRE_LOGS,
        DeleteOrder,
        ExpiredPage,
        ExpireOrder,
        Reached,
        archive_queue,
    )
    from logflume.domain import Policy
    from workflows.policies import ARCHIVE_RETRIES, HEARTBEAT, RETENTION_TIME, reason
    from workflows.types import RETENTION, PolicyReport, Retained, RetentionInput

# S3 deletes up to 1000 objects in one call; rows are locked for as long as a page takes.
PAGE_LOGS = 500


@workflow.defn(name=RETENTION)
class Retention:
    """One round. One policy that fails does not hold the others up."""

    @workflow.run
    async def run(self, options: RetentionInput) -> Retained:
        """Apply each policy, from where the last round stopped."""
        last = workflow.get_last_completion_result(Retained) or Retained()
        reached = {one.policy: one.after for one in last.policies}
        done = Retained()
        for policy in options.policies:
            report = PolicyReport(policy.name, after=reached.get(policy.name, Reached()))
            done.policies.append(report)
            try:
                await self._apply(policy, report, options.logs)
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                report.error = reason(error)
            workflow.set_current_details("\n".join(_tell(one) for one in done.policies))
        return done

    async def _apply(self, policy: Policy, report: PolicyReport, logs: int) -> None:
        while report.looked < logs:
            order = ExpireOrder(policy, report.after, min(PAGE_LOGS, logs - report.looked))
            page = await self._expire(order)
            report.looked += page.looked
            report.logs += len(page.job_ids)
            report.bytes += page.bytes
            report.held += page.held
            report.after = page.last or Reached()
            if page.job_ids:
                report.rows += await self._delete(page.job_ids, policy)
            if page.last is None:
                return

    async def _expire(self, order: ExpireOrder) -> ExpiredPage:
        page: ExpiredPage = await workflow.execute_activity(
            EXPIRE_LOGS,
            order,
            result_type=ExpiredPage,
            task_queue=archive_queue(workflow.info().task_queue),
            start_to_close_timeout=RETENTION_TIME,
            heartbeat_timeout=HEARTBEAT,
            retry_policy=ARCHIVE_RETRIES,
            summary=order.policy.name,
        )
        return page

    async def _delete(self, job_ids: list[int], policy: Policy) -> int:
        rows: int = await workflow.execute_activity(
            DELETE_EXPIRED,
            DeleteOrder(job_ids, rows=policy.delete == "row"),
            result_type=int,
            task_queue=archive_queue(workflow.info().task_queue),
            start_to_close_timeout=RETENTION_TIME,
            heartbeat_timeout=HEARTBEAT,
            retry_policy=ARCHIVE_RETRIES,
            summary=f"{policy.name}: {len(job_ids)} logs",
        )
        return rows


def _tell(report: PolicyReport) -> str:
    told = f"- **{report.policy}**: {report.logs} logs, {report.bytes} bytes, {report.rows} rows"
    if report.held:
        told += f", {report.held} held"
    return f"{told}; {report.error}" if report.error else told
