"""The activities of partition maintenance. All are idempotent: each checks the state first."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import asyncpg
from temporalio import activity

from activities.heartbeat import heartbeating
from activities.metrics import RESCUED_PARTS
from activities.types import (
    ANALYZE_PARTS,
    CREATE_PARTITIONS,
    DROP_PARTITION,
    FIND_EXPIRED,
    RESCUE_PARTS,
    RESCUE_STRAYS,
    CreatedPartitions,
    DropInput,
    PartitionOptions,
    Rescued,
)
from db import partitions


class PartitionActivities:
    """Creates, empties and drops the partitions of parts."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    @property
    def all(self) -> Sequence[Callable[..., Any]]:
        """All of them, for a worker."""
        return (
            self.create_partitions,
            self.find_expired_partitions,
            self.rescue_strays,
            self.rescue_parts,
            self.drop_partition,
            self.analyze_parts,
        )

    @activity.defn(name=CREATE_PARTITIONS)
    async def create_partitions(self, options: PartitionOptions) -> CreatedPartitions:
        """Create the current partition and those ahead of time."""
        created: list[str] = list(next(iter(activity.info().heartbeat_details), []))
        async with heartbeating(lambda: created), self._pool.acquire() as connection:
            blocked = await partitions.make_ahead(
                connection,
                options.interval,
                options.premake,
                options.lock_timeout_seconds,
                lambda begin: created.append(f"{begin:%Y-%m-%dT%H:%MZ}"),
            )
        return CreatedPartitions(created, [f"{begin:%Y-%m-%dT%H:%MZ}" for begin in blocked])

    @activity.defn(name=FIND_EXPIRED)
    async def find_expired_partitions(self, options: PartitionOptions) -> list[str]:
        """Names of partitions past their retention, oldest first."""
        retention = timedelta(seconds=options.retention_seconds)
        async with heartbeating(), self._pool.acquire() as connection:
            return await partitions.expired(connection, retention)

    @activity.defn(name=RESCUE_STRAYS)
    async def rescue_strays(self) -> Rescued:
        """Move parts out of the default partition, where wrong clocks put them."""
        async with self._pool.acquire() as connection:
            strays = await partitions.strays(connection)
        return await self._rescue(strays)

    @activity.defn(name=RESCUE_PARTS)
    async def rescue_parts(self, name: str) -> Rescued:
        """Move the parts of unfinished logs out of a partition."""
        async with heartbeating(), self._pool.acquire() as connection:
            log_ids = await partitions.unfinished(connection, name)
        return await self._rescue([(log_id, False) for log_id in log_ids])

    async def _rescue(self, logs: Sequence[tuple[int, bool]]) -> Rescued:
        """Move log by log; the count includes what the previous try moved."""
        rescued = Rescued(*next(iter(activity.info().heartbeat_details), ()))
        async with heartbeating(lambda: (rescued.parts, rescued.logs)):
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
    async def drop_partition(self, argument: DropInput) -> bool:
        """Drop a partition; False if it has parts of an unfinished log."""
        options = argument.options
        retention = timedelta(seconds=options.retention_seconds)
        async with heartbeating(), self._pool.acquire() as connection:
            return await partitions.drop(
                connection, argument.name, retention, options.lock_timeout_seconds
            )

    @activity.defn(name=ANALYZE_PARTS)
    async def analyze_parts(self, options: PartitionOptions) -> None:
        """Update the planner's statistics after partitions changed."""
        async with heartbeating(), self._pool.acquire() as connection:
            await partitions.analyze(connection, options.lock_timeout_seconds)
