"""The activities of retention. Each may run again: it looks at what is there first."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import structlog
from temporalio import activity

from activities.heartbeat import beating
from activities.types import (
    DELETE_EXPIRED,
    EXPIRE_LOGS,
    DeleteOrder,
    ExpiredPage,
    ExpireOrder,
    Reached,
)
from db import retention
from db.retention import PageToken
from logflume.archive.store import Archive

log = structlog.get_logger()


class RetentionActivities:
    """What retention does to rows and to archived objects."""

    def __init__(self, pool: asyncpg.Pool, archive: Archive) -> None:
        self._pool = pool
        self._archive = archive

    @property
    def all(self) -> Sequence[Callable[..., Any]]:
        """Every one, for a worker."""
        return (self.expire_logs, self.delete_expired)

    @activity.defn(name=EXPIRE_LOGS)
    async def expire_logs(self, order: ExpireOrder) -> ExpiredPage:
        """Let go of the text of the next logs that a policy is about."""
        policy, after = order.policy, order.after
        place = PageToken(datetime.fromisoformat(after.at), after.id) if after.at else PageToken()
        async with beating(), self._pool.acquire() as connection:
            found = await retention.look(connection, policy, place, order.logs)
            expired = await retention.expire(connection, policy, found.log_ids)
        for one in expired:
            log.info(
                "log_expired",
                policy=policy.name,
                job_id=one.job_id,
                log_id=one.id,
                bytes=one.bytes,
                sha256=one.sha256,
            )
        return ExpiredPage(
            looked=found.looked,
            job_ids=[one.job_id for one in expired],
            bytes=sum(one.bytes for one in expired),
            held=found.held,
            last=Reached(found.last.at.isoformat(), found.last.id) if found.last else None,
        )

    @activity.defn(name=DELETE_EXPIRED)
    async def delete_expired(self, order: DeleteOrder) -> int:
        """Delete the objects of logs whose text went, and rows where ordered; returns how many.

        What became of the logs meanwhile is looked at first: one that has text again stays.
        """
        async with beating(), self._pool.acquire() as connection:
            async with retention.deleting(connection, order.job_ids) as owed:
                await self._archive.delete_many(owed)
            if not order.rows:
                return 0
            return await retention.delete_rows(connection, order.job_ids)
