"""Runs the activities of a lifecycle, each on its task queue and within its limits."""

from typing import Any

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.types import archive_queue
    from workflows import policies


class LocalActivityFailed(Exception):
    """A local activity failed: run it as a normal one."""


async def run_locally(activity: str, argument: Any, result_type: type) -> Any:
    """Run a database activity once, as a local activity.

    That saves five history events and a round trip through the server.
    """
    try:
        return await workflow.execute_local_activity(
            activity,
            argument,
            result_type=result_type,
            start_to_close_timeout=policies.LOCAL_TIME,
            retry_policy=policies.LOCAL_ONCE,
        )
    except FailureError as error:  # a local activity's cause is not in an ActivityError
        if is_cancelled_exception(error):
            raise
        raise LocalActivityFailed from error


async def run_in_database(activity: str, argument: Any, result_type: type) -> Any:
    """Run a database activity, which the server retries."""
    return await workflow.execute_activity(
        activity,
        argument,
        result_type=result_type,
        start_to_close_timeout=policies.DATABASE_TIME,
        heartbeat_timeout=policies.HEARTBEAT,
        retry_policy=policies.RETRIES,
    )


async def run_in_archive(activity: str, argument: Any, result_type: type | None) -> Any:
    """Run an archive activity, which the server retries for some minutes."""
    return await workflow.execute_activity(
        activity,
        argument,
        result_type=result_type,
        task_queue=archive_queue(workflow.info().task_queue),
        start_to_close_timeout=policies.ARCHIVE_TIME,
        heartbeat_timeout=policies.HEARTBEAT,
        retry_policy=policies.ARCHIVE_RETRIES,
    )
