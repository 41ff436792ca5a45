"""Compares rows, objects and workflows, reports differences and repairs what can be repaired."""

import asyncio
import functools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

import asyncpg

from db import holds, recovery
from db.recovery import Archived, Row
from logflume.archive.inventory import Inventory, ListedLog
from logflume.archive.store import ObjectInfo
from logflume.errors import ColdStorage, NotArchived, UnderHold, UnknownLog
from logflume.markers import StepReader
from logflume_cli.reconcile.compare import Difference, between, compare, origin_of
from workflows.client.signal_history import SignalHistory

PAGE_ROWS = 1000
CONCURRENCY = 16
# Stores report whole seconds. On a tie the object is newer than the rewrite of its log: a rewrite
# deletes older objects.
SECOND = timedelta(seconds=1)
# Maximum assumed difference between the clocks of the store and of Postgres.
SKEW = timedelta(minutes=5)
HOLD_REASON = "restored by reconcile: the bucket has hold copies, the database had no hold"


class LogWorkflows(Protocol):
    """The operations on lifecycle workflows that the reconciler needs."""

    async def recheck(self, job_id: int) -> None:
        """Make the log's workflow, if one runs, read the log's row again."""

    async def archive_again(self, job_id: int) -> None:
        """Archive a log again, or resume its workflow if it is stuck."""


class Options(NamedTuple):
    """What to compare, and whether to repair.

    `read`: read and hash every object. `history`: the workflows' signals since the restore point of
    the database; objects that changed after it are compared one by one.
    """

    repair: bool = False
    read: bool = False
    history: SignalHistory | None = None


class Reconciler:
    """Compares in pages, in key order, with bounded memory.

    `report` gets a line per difference. `counts` has the number of logs per result: `same`;
    `repaired`, or `repairable` without the option; `left` for a manual decision; `busy` if they
    changed meanwhile; `foreign` for objects of other programs without a row.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        archive: Inventory,
        workflows: LogWorkflows,
        options: Options,
        report: Callable[[int, str], None],
    ) -> None:
        self._pool = pool
        self._archive = archive
        self._workflows = workflows
        self._options = options
        self._report = report
        self.counts = Counter[str]()
        self._semaphore = asyncio.Semaphore(CONCURRENCY)

    async def logs(self, from_job: int | None, on_progress: Callable[[int], None]) -> None:
        """Compare all rows with all objects; `on_progress` gets the last job of each page."""
        after, inclusive = "" if from_job is None else str(from_job), from_job is not None
        async for page in self._archive.logs(from_job):
            if page:
                last = page[-1].job_id
                await self._page(page, between(after, str(last), inclusive=inclusive))
                after, inclusive = str(last), False
                on_progress(last)
        await self._page([], between(after, None, inclusive=inclusive))

    async def _page(self, page: Iterable[ListedLog], ranges: Iterable[tuple[int, int]]) -> None:
        objects = {listed.job_id: listed for listed in page}
        for first, last in ranges:
            async for rows in self._rows(first, last):
                pairs = [(row, objects.pop(row.job_id, None)) for row in rows]
                await asyncio.gather(*(self._log(*pair) for pair in pairs))
        await asyncio.gather(*(self._log(None, listed) for listed in objects.values()))

    async def _rows(self, first: int, last: int) -> AsyncIterator[list[Row]]:
        while first <= last:
            async with self._pool.acquire() as connection:
                rows = await recovery.page(connection, first, last, PAGE_ROWS)
            yield rows
            if len(rows) < PAGE_ROWS:
                return
            first = rows[-1].job_id + 1

    async def _log(self, row: Row | None, listed: ListedLog | None) -> None:
        async with self._semaphore:
            if row and self._matches_listing(row, listed):
                self.counts["same"] += 1
                return
            job_id = row.job_id if row else listed.job_id  # type: ignore[union-attr]
            try:
                await self._compare(job_id, row)
            except ColdStorage as error:
                self._leave(job_id, str(error))

    async def _compare(self, job_id: int, row: Row | None) -> None:
        info = await self._head(job_id)
        difference: Difference | None = compare(row, info)
        if row and info:
            difference = await self._compare_content(row, info, difference)
        if difference is None:
            self.counts["same" if row else "foreign"] += 1
        elif row != await self._row(job_id):
            self.counts["busy"] += 1
        else:
            await self._resolve(job_id, row, info, difference)

    def _matches_listing(self, row: Row, listed: ListedLog | None) -> bool:
        """Whether the listing alone shows that row and object agree."""
        if listed is None:
            return not row.verified
        history = self._options.history
        return (
            row.verified
            and row.bytes in (listed.bytes, None)
            and not self._options.read
            and not (history and listed.changed_at + SKEW > history.since)
        )

    async def _compare_content(
        self, row: Row, info: ObjectInfo, difference: Difference | None
    ) -> Difference | None:
        """Read the object if that is requested, or if only its metadata differs."""
        is_doubtful = difference == "different" and info.bytes == row.bytes
        is_requested = difference is None and self._options.read and row.verified
        if row.sha256 is None or not (is_doubtful or is_requested):
            return difference
        digest = await self._archive.digest(row.job_id, lambda _: None)
        if digest is None or digest.sha256 != row.sha256:
            return "different"
        return "unlabelled" if is_doubtful else None

    async def _resolve(
        self, job_id: int, row: Row | None, info: ObjectInfo | None, difference: Difference
    ) -> None:
        if difference == "newer":
            assert info  # noqa: S101 - see `compare`
            await self._adopt(job_id, info)
        elif difference == "leftover":
            assert info  # noqa: S101 - see `compare`
            await self._repair(
                job_id,
                f"the row has no text, but the archive has {info.bytes} bytes",
                "marked for deletion by the sweep",
                lambda: self._owe_deletion(job_id, origin_of(info).upload),
            )
        elif difference == "unlabelled":
            assert row  # noqa: S101 - see `_compare_content`
            assert info  # noqa: S101 - see `_compare_content`
            await self._repair(
                job_id,
                "object has the log's bytes, but not its metadata",
                "labelled",
                functools.partial(self._label, row, info),
            )
        else:
            assert row  # noqa: S101 - see `compare`
            await self._restore_object(row, info)

    async def _label(self, row: Row, info: ObjectInfo) -> bool:
        async with self._pool.acquire() as connection:
            label = await recovery.label(connection, row.job_id, row.sha256 or "")
        return label is not None and await self._archive.label(
            row.job_id, info, row.sha256 or "", *label
        )

    async def _adopt(self, job_id: int, info: ObjectInfo) -> None:
        """Update the row from an object archived after the restore point, once it is verified."""
        reader = StepReader()
        digest = await self._archive.digest(job_id, reader.feed)
        reader.feed(b"", last=True)
        problem = f"archived after the restore point ({info.changed_at:%F %T}, {info.bytes} bytes)"
        if digest is None or (digest.sha256, digest.bytes) != (info.sha256, info.bytes):
            self._leave(job_id, f"{problem}, but damaged: look for an older version in the bucket")
            return
        archived = Archived(
            job_id=job_id,
            bytes=digest.bytes,
            sha256=digest.sha256,
            parts=info.parts,
            origin=origin_of(info),
            changed_at=info.changed_at,
            steps=reader.steps,
        )

        async def adopt() -> bool:
            async with self._pool.acquire() as connection:
                return await recovery.adopt(connection, archived)

        await self._repair(job_id, problem, "adopted by the database", adopt)

    async def _owe_deletion(self, job_id: int, upload: int) -> bool:
        async with self._pool.acquire() as connection:
            return await recovery.add_pending_deletion(connection, job_id, upload)

    async def _restore_object(self, row: Row, info: ObjectInfo | None) -> None:
        """Restore the object that the row describes."""
        job_id, sha256 = row.job_id, row.sha256
        problem = f"object has different content ({info.bytes} bytes)" if info else "object missing"
        async with self._pool.acquire() as connection:
            can_make = await recovery.can_make(connection, job_id)
        signals = await self._options.history.of(job_id) if self._options.history else None
        if signals and signals.replaced_at and self._is_behind(row, signals.replaced_at):
            self._leave(job_id, f"{problem}: {_replaced(signals.replaced_at)}")
        elif info and info.sha256 and not info.origin:
            self._leave(
                job_id, f"{problem}, archived by an earlier release: cannot tell which is newer"
            )
        elif sha256 and await self._archive.has_hold_copy(job_id, sha256):
            await self._repair(
                job_id,
                problem,
                "restored from the hold copy",
                lambda: self._archive.restore_hold_copy(job_id, sha256),
            )
        elif can_make:
            await self._repair(
                job_id, problem, "archived again", lambda: self._workflows.archive_again(job_id)
            )
        else:
            self._leave(job_id, f"{problem}, and neither parts nor a hold copy exist")

    async def holds(self) -> None:
        """Compare the legal holds with their copies."""
        async for jobs in self._archive.held_jobs():
            async with self._pool.acquire() as connection:
                held = await recovery.held(connection, jobs)
            for job_id in sorted(jobs - held):
                await self._repair(
                    job_id,
                    "the bucket has hold copies, but the database has no hold",
                    "held again",
                    functools.partial(self._put_on, job_id),
                )
        async with self._pool.acquire() as connection:
            archived = await recovery.held_archived(connection)
        for job_id in archived:
            if not await self._archive.hold_copies(job_id):
                self._leave(
                    job_id,
                    "held, but the bucket has no hold copy: run `logflume hold off` again if the "
                    "hold ended after the restore point, or `logflume hold on` to copy it again",
                )

    async def _put_on(self, job_id: int) -> None:
        async with self._pool.acquire() as connection:
            await holds.put_on(connection, job_id, HOLD_REASON)

    async def workflows(self, history: SignalHistory) -> None:
        """Compare the signals that the workflows received with the stored parts; run it last."""
        async for signals in history.of_all():
            job_id, replaced_at = signals.job_id, signals.replaced_at
            row, info = await self._row(job_id), await self._head(job_id)
            if compare(row, info) in {"newer", "missing"}:
                continue  # `logs` reported it
            if row and row.has_text and replaced_at and self._is_behind(row, replaced_at):
                is_archived = info and info.changed_at + SECOND > replaced_at
                if not is_archived:
                    self._leave(job_id, _replaced(replaced_at))
            async with self._pool.acquire() as connection:
                stored = await recovery.count_stored(connection, job_id) if row else 0
            if stored is not None and signals.parts > stored:
                self._leave(
                    job_id,
                    f"up to {signals.parts - stored} parts are lost: {signals.parts} were stored "
                    f"and acknowledged, {stored} exist",
                )

    def _is_behind(self, row: Row, replaced_at: datetime) -> bool:
        """Whether the row does not know that its content was written as a whole then."""
        assert self._options.history  # noqa: S101 - it has that time
        since = max(self._options.history.since, replaced_at - SKEW)
        return row.cleared_at is None or row.cleared_at <= since

    async def _repair(
        self, job_id: int, problem: str, result: str, action: Callable[[], Awaitable[bool | None]]
    ) -> None:
        """Run the repair and notify the log's workflow; without `repair` only report it."""
        if not self._options.repair:
            self._count("repairable", job_id, f"{problem}; it can be {result}")
            return
        try:
            if await action() is False:
                self.counts["busy"] += 1
                return
        except (UnderHold, UnknownLog) as error:
            self._leave(job_id, f"{problem}; {error}")
            return
        await self._workflows.recheck(job_id)
        self._count("repaired", job_id, f"{problem}; {result}")

    def _leave(self, job_id: int, problem: str) -> None:
        self._count("left", job_id, problem)

    def _count(self, result: str, job_id: int, line: str) -> None:
        self.counts[result] += 1
        self._report(job_id, line)

    async def _head(self, job_id: int) -> ObjectInfo | None:
        try:
            return await self._archive.head(job_id)
        except NotArchived:
            return None

    async def _row(self, job_id: int) -> Row | None:
        async with self._pool.acquire() as connection:
            return await recovery.find(connection, job_id)


def _replaced(at: datetime) -> str:
    return (
        f"the whole log was written or cleared on {at:%F %T}, after the restore point, and the row "
        "has the earlier text: write or clear it again"
    )
