"""Jitter for retried activities, which Temporal's retry policies lack."""

import random
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError, FailureError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor


class Jitter(Interceptor):
    """Asks Temporal to wait 50 to 150 % of what the retry policy says before the next try."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Wrap the activities of a worker."""
        return _Activities(next)


class _Activities(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        try:
            return await super().execute_activity(input)
        except FailureError:
            raise
        except Exception as error:  # noqa: BLE001 - converted and raised
            # As the library would convert it: retry policies go by the type.
            failure = ApplicationError(
                str(error), type=type(error).__name__, next_retry_delay=_delay(activity.info())
            )
            # Without causes, whose text our errors repeat: Temporal cuts long failures.
            raise failure.with_traceback(error.__traceback__) from None


def _delay(info: activity.Info) -> timedelta | None:
    policy = info.retry_policy
    if policy is None:
        return None
    delay = policy.initial_interval * policy.backoff_coefficient ** (info.attempt - 1)
    delay = min(delay, policy.maximum_interval or delay)
    return delay * random.uniform(0.5, 1.5)  # noqa: S311 - not a secret
