"""Time limits and retry policies of activities."""

from dataclasses import replace
from datetime import timedelta

from temporalio.common import RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    ServerError,
    TimeoutError,  # noqa: A004
)

from logflume.errors import ArchiveRefused, PermanentError


def permanent_errors(error: type[Exception] = PermanentError) -> list[str]:
    """The class names of `PermanentError` and all its subclasses, as retry policies want them."""
    return sorted({error.__name__}.union(*map(permanent_errors, error.__subclasses__())))


# A component that is down comes back, so activities are retried until it does. Policies have no
# jitter: the worker adds it (activities/jitter.py).
RETRIES = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2,
    maximum_interval=timedelta(seconds=30),
    non_retryable_error_types=permanent_errors(),
)
# Activities heartbeat, so the loss of a worker is noticed long before they time out.
HEARTBEAT = timedelta(seconds=20)
LOCAL_TIME = timedelta(seconds=5)
LOCAL_BYTES = 32 * 1024 * 1024
LOCAL_ONCE = RetryPolicy(maximum_attempts=1)
DATABASE_TIME = timedelta(minutes=30)
ARCHIVE_TIME = timedelta(hours=2)
SWEEP_TIME = timedelta(minutes=5)
RETENTION_TIME = timedelta(minutes=10)
# A partition's lock is unavailable while any transaction stays open. Each try blocks writers for
# the lock timeout at most. Tries continue for an hour per partition; then the next run continues.
LOCK_TIME = timedelta(hours=1)
RESCUE_TIME = timedelta(hours=6)
# The archive may be down for about eight minutes before a try counts as failed.
ARCHIVE_RETRIES = replace(RETRIES, maximum_attempts=20)


# A refusal may pass (an expired token, a clock, a policy) or be fixed; the others never succeed.
FINAL = set(permanent_errors()) - set(permanent_errors(ArchiveRefused))


def is_final(error: ActivityError) -> bool:
    """Whether no retry can succeed."""
    return isinstance(error.cause, ApplicationError) and error.cause.type in FINAL


def reason(error: ActivityError) -> str:
    """The step that failed, and why."""
    return describe(error.activity_type, error)


def describe(activity_type: str, error: BaseException) -> str:
    """An activity and the error of its last try, which may be behind a timeout or a cut failure."""
    while isinstance(error, ActivityError | TimeoutError | ServerError) and error.cause:
        error = error.cause
    return f"{activity_type}: {error}"
