"""The activities of retention. All are idempotent: each checks the row first."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import structlog
from temporalio import activity

from activities.heartbeat import heartbeating
from activities.types import (
    DELETE_EXPIRED,
    EXPIRE_LOGS,
    DeleteInput,
    ExpiredPage,
    ExpireInput,
    RetentionToken,
)
from db import retention
from db.retention import PageToken
from logflume.archive.store import Archive

log = structlog.get_logger()


class RetentionActivities:
    """Deletes expired logs from Postgres and from the archive."""

    def __init__(self, pool: asyncpg.Pool, archive: Archive) -> None:
        self._pool = pool
        self._archive = archive

    @property
    def all(self) -> Sequence[Callable[..., Any]]:
        """All of them, for a worker."""
        return (self.expire_logs, self.delete_expired)

    @activity.defn(name=EXPIRE_LOGS)
    async def expire_logs(self, argument: ExpireInput) -> ExpiredPage:
        """Clear the text of the next logs that a policy matches."""
        policy, after = argument.policy, argument.after
        token = PageToken(datetime.fromisoformat(after.at), after.id) if after.at else PageToken()
        async with heartbeating(), self._pool.acquire() as connection:
            found = await retention.find_expirable(connection, policy, token, argument.logs)
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
            examined=found.examined,
            job_ids=[one.job_id for one in expired],
            bytes=sum(one.bytes for one in expired),
            held=found.held,
            last=RetentionToken(found.next.at.isoformat(), found.next.id) if found.next else None,
        )

    @activity.defn(name=DELETE_EXPIRED)
    async def delete_expired(self, argument: DeleteInput) -> int:
        """Delete the objects of logs whose text expired; deletes and counts rows if requested.

        A log that has text again by now is left alone.
        """
        async with heartbeating(), self._pool.acquire() as connection:
            settle_seconds = self._archive.longest_request
            async with retention.pending_deletions(
                connection, argument.job_ids, settle_seconds
            ) as expired:
                await self._archive.delete_many(expired)
            if not argument.rows:
                return 0
            return await retention.delete_rows(connection, argument.job_ids)
