"""Archives logs, ages them and expires them as the retention workflow does."""

from dataclasses import replace
from datetime import timedelta

import asyncpg

from activities.retention import RetentionActivities
from activities.types import DeleteInput, ExpiredPage, ExpireInput, RetentionToken
from db import aggregation, logs
from logflume.archive.store import Archive
from logflume.domain import Part, Policy
from logflume.settings import Settings
from tests.support.activities import run_activity
from tests.support.parts import part, store_parts
from tests.support.s3 import s3

OLD = Policy("old", older_than_days=30, delete="archive")
ROWS = replace(OLD, name="rows", delete="row")


class Keeper:
    """Archives logs, ages them and expires them as the workflow does."""

    def __init__(
        self, pool: asyncpg.Pool, settings: Settings, archive: Archive | None = None
    ) -> None:
        self.pool = pool
        self.settings = settings
        self.archive = archive or Archive(settings.s3, 2)
        self.activities = RetentionActivities(pool, self.archive)

    async def store(self, *parts: Part) -> None:
        await store_parts(self.pool, parts)

    async def finish(
        self, job_id: int, content: bytes = b"one log", *, days: int = 40, attempt: str = "a"
    ) -> None:
        """Archive and purge a log as of `days` ago."""
        await self.store(part(job_id, 0, content, final=True, attempt=attempt))
        async with self.pool.acquire() as connection:
            made = await aggregation.aggregate(connection, job_id, force=True, restore=False)
            await logs.mark_archiving(connection, job_id, made.sha256)

            async def read(start: int, size: int) -> bytes:
                return content[start : start + size]

            await self.archive.upload(job_id, read, made.bytes, sha256=made.sha256, parts=1)
            await logs.mark_verified(connection, job_id, made.sha256)
            assert await logs.purge(connection, job_id, made.sha256)
            await self.age(days)

    async def age(self, days: int) -> None:
        await self.pool.execute(
            "UPDATE logs SET archived_at = archived_at - $1::interval,"
            " updated_at = updated_at - $1::interval, removed_at = removed_at - $1::interval",
            timedelta(days=days),
        )

    async def expire(self, policy: Policy = OLD) -> ExpiredPage:
        return await run_activity(
            self.activities.expire_logs, ExpireInput(policy, RetentionToken(), 100)
        )

    async def delete(self, policy: Policy = OLD) -> tuple[list[int], int]:
        """Expire and delete one page; returns its jobs and the number of failed deletions."""
        page = await self.expire(policy)
        order = DeleteInput(page.job_ids, rows=policy.delete == "row")
        return page.job_ids, await run_activity(self.activities.delete_expired, order)

    def keys(self) -> list[str]:
        found = s3(self.settings).list_objects_v2(Bucket=self.settings.s3.bucket)
        return [one["Key"] for one in found.get("Contents", ())]
