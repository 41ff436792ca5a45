"""Runs an activity without a worker."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from temporalio.testing import ActivityEnvironment

T = TypeVar("T")


async def run_activity(activity: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """Run an activity in an environment that takes its heartbeats."""
    result: T = await ActivityEnvironment().run(activity, *arguments)
    return result
