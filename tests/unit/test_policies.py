"""Retry policies of activities."""

from dataclasses import replace
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.jitter import Jitter
from logflume import errors
from logflume.errors import ArchiveRefused
from workflows.policies import ARCHIVE_RETRIES, RETRIES, permanent_errors


def test_no_permanent_error_is_retried():
    permanent = {
        name
        for name, error in vars(errors).items()
        if isinstance(error, type) and issubclass(error, errors.PermanentError)
    }
    assert permanent >= {"ArchiveRefused", "ContentTooLarge", "PartitionError"}
    for policy in (RETRIES, ARCHIVE_RETRIES):
        assert set(policy.non_retryable_error_types or ()) == permanent


def test_subclasses_of_subclasses_are_permanent_too():
    class Base(Exception):
        pass

    class Child(Base):
        pass

    class Grandchild(Child):
        pass

    assert permanent_errors(Base) == ["Base", "Child", Grandchild.__name__]


class Failing:
    """What an interceptor calls: an activity that fails."""

    async def execute_activity(self, _: object) -> None:
        raise ArchiveRefused("no") from ValueError("a long cause")


async def test_retries_of_activities_have_jitter():
    info = ActivityEnvironment.default_info()
    failing: Any = Failing()
    execute: Any = Jitter().intercept_activity(failing).execute_activity
    environment = ActivityEnvironment()
    environment.info = replace(info, attempt=3, retry_policy=RETRIES)
    delays = set()
    for _ in range(10):
        with pytest.raises(ApplicationError) as failed:
            await environment.run(execute, None)
        assert (failed.value.type, failed.value.message) == ("ArchiveRefused", "no")
        assert failed.value.__cause__ is None and failed.value.next_retry_delay
        delays.add(failed.value.next_retry_delay.total_seconds())
    assert len(delays) > 1 and all(2 <= delay <= 6 for delay in delays)
