"""How long activities may take and what is tried again."""

from dataclasses import replace
from datetime import timedelta

from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, FailureError

# A component that is away comes back: these are tried again until it does. Errors that the same
# call would meet again are named, by class.
RETRIES = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2,
    maximum_interval=timedelta(seconds=30),
    non_retryable_error_types=[
        "ArchiveAhead",
        "ArchiveRefused",
        "PartsGone",
        "ProgramLimitExceededError",
    ],
)
# Activities beat while they run, so a worker that died is noticed long before they could time out.
HEARTBEAT = timedelta(seconds=20)
LOCAL_TIME = timedelta(seconds=5)
LOCAL_BYTES = 32 * 1024 * 1024
LOCAL_ONCE = RetryPolicy(maximum_attempts=1)
DATABASE_TIME = timedelta(minutes=30)
ARCHIVE_TIME = timedelta(hours=2)
SWEEP_TIME = timedelta(minutes=5)
RETENTION_TIME = timedelta(minutes=10)
# Locks are not to be had while somebody's transaction stays open. Each try makes writers wait for
# as long as the lock time-out at most; for one partition tries go on for an hour, then the next
# maintenance goes on.
LOCK_RETRIES = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2,
    maximum_interval=timedelta(seconds=30),
    non_retryable_error_types=["PartitionError"],
)
LOCK_PATIENCE = timedelta(hours=1)
RESCUE_TIME = timedelta(hours=6)
# The archive may be away for about eight minutes before a try counts as failed.
ARCHIVE_RETRIES = replace(RETRIES, maximum_attempts=20)


def reason(error: ActivityError) -> str:
    """The innermost cause that says something: a time-out hides the error it gave up on."""
    cause: BaseException = error
    while isinstance(cause, FailureError) and cause.cause is not None:
        cause = cause.cause
    return f"{error.activity_type}: {cause}"
