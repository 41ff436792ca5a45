"""The activities of partition maintenance. Each may run again: it looks at what is there first."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import asyncpg
from temporalio import activity

from activities.heartbeat import beating
from activities.metrics import RESCUED_PARTS
from activities.types import (
    ANALYZE_PARTS,
    DROP_PARTITION,
    FIND_EXPIRED,
    MAKE_PARTITIONS,
    RESCUE_PARTS,
    RESCUE_STRAYS,
    DropOrder,
    Made,
    PartitionOptions,
    Rescued,
)
from db import partitions


class PartitionActivities:
    """What happens to the partitions of parts, inside Postgres."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    @property
    def all(self) -> Sequence[Callable[..., Any]]:
        """Every one, for a worker."""
        return (
            self.make_partitions,
            self.find_expired_partitions,
            self.rescue_strays,
            self.rescue_parts,
            self.drop_partition,
            self.analyze_parts,
        )

    @activity.defn(name=MAKE_PARTITIONS)
    async def make_partitions(self, options: PartitionOptions) -> Made:
        """Make the partitions of the present and of the time ahead."""
        made: list[str] = list(next(iter(activity.info().heartbeat_details), []))
        async with beating(lambda: made), self._pool.acquire() as connection:
            blocked = await partitions.make_ahead(
                connection,
                options.interval,
                options.premake,
                options.lock_timeout_seconds,
                lambda begin: made.append(f"{begin:%Y-%m-%dT%H:%MZ}"),
            )
        return Made(made, [f"{begin:%Y-%m-%dT%H:%MZ}" for begin in blocked])

    @activity.defn(name=FIND_EXPIRED)
    async def find_expired_partitions(self, options: PartitionOptions) -> list[str]:
        """Name the partitions that are older than the retention, oldest first."""
        retention = timedelta(seconds=options.retention_seconds)
        async with beating(), self._pool.acquire() as connection:
            return await partitions.expired(connection, retention)

    @activity.defn(name=RESCUE_STRAYS)
    async def rescue_strays(self) -> Rescued:
        """Move what clocks that are wrong put into the default partition."""
        async with self._pool.acquire() as connection:
            found = await partitions.strays(connection)
        return await self._rescue(found)

    @activity.defn(name=RESCUE_PARTS)
    async def rescue_parts(self, name: str) -> Rescued:
        """Move the parts of logs that are not finished out of a partition."""
        async with beating(), self._pool.acquire() as connection:
            found = await partitions.unfinished(connection, name)
        return await self._rescue([(log_id, False) for log_id in found])

    async def _rescue(self, logs: Sequence[tuple[int, bool]]) -> Rescued:
        """Move one log after the other; what an earlier try moved is counted on from there."""
        rescued = Rescued(*next(iter(activity.info().heartbeat_details), ()))
        async with beating(lambda: (rescued.parts, rescued.logs)):
            for log_id, whole in logs:
                async with self._pool.acquire() as connection:
                    parts = await partitions.rescue(connection, log_id, whole=whole)
                RESCUED_PARTS.inc(parts)
                rescued += Rescued(parts, 1)
        if rescued.logs:
            activity.logger.warning(
                "moved %d parts of %d logs to a newer partition", rescued.parts, rescued.logs
            )
        return rescued

    @activity.defn(name=DROP_PARTITION)
    async def drop_partition(self, order: DropOrder) -> bool:
        """Drop a partition; False where a log with parts in it is not finished."""
        options = order.options
        retention = timedelta(seconds=options.retention_seconds)
        async with beating(), self._pool.acquire() as connection:
            return await partitions.drop(
                connection, order.name, retention, options.lock_timeout_seconds
            )

    @activity.defn(name=ANALYZE_PARTS)
    async def analyze_parts(self, options: PartitionOptions) -> None:
        """Let the planner know what became of the partitions."""
        async with beating(), self._pool.acquire() as connection:
            await partitions.analyze(connection, options.lock_timeout_seconds)
