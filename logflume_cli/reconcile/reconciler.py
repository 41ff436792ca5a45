"""Going through rows, objects and workflows, telling what is wrong, and repairing what can be."""

import asyncio
import functools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

import asyncpg

from db import holds, recovery
from db.recovery import Archived, Row
from logflume.archive.inventory import Inventory, Listed
from logflume.archive.store import Stored
from logflume.errors import NotArchived, UnderHold, UnknownLog
from logflume.markers import StepReader
from logflume_cli.reconcile.compare import Wrong, between, compare, origin_of
from workflows.client.signal_history import Memory

PAGE_ROWS = 1000
AT_ONCE = 16
# Stores tell times in whole seconds. An object from before its log was written whole would be gone.
SECOND = timedelta(seconds=1)
# How far the clocks of the store and of Postgres may be apart.
SKEW = timedelta(minutes=5)
HOLD_REASON = "found by reconcile: copies in the bucket and no hold in the database"


class LogWorkflows(Protocol):
    """What reconciling needs of the logs' workflows."""

    async def look_again(self, job_id: int) -> None:
        """Have the workflow that runs, if one does, look at its log anew."""

    async def archive_again(self, job_id: int) -> None:
        """Have a log archived again, or go on where it is stuck."""


class Options(NamedTuple):
    """What is looked at, and whether what can be repaired is.

    `read`: read every object to its end. `memory`: of the time after the one that the database was
    restored to; objects that changed after it are looked at one by one.
    """

    repair: bool = False
    read: bool = False
    memory: Memory | None = None


class Reconciler:
    """Compares page by page, in the order of the bucket; memory does not grow with what is there.

    `say` gets a line for each difference. `counts` tells what became of how many logs: `same`;
    `repaired`, or `repairable` without the option; `left` to a person; `busy`, as they changed just
    then; and `foreign`, objects that no row knows and others put there.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        archive: Inventory,
        workflows: LogWorkflows,
        options: Options,
        say: Callable[[str], None],
    ) -> None:
        self._pool = pool
        self._archive = archive
        self._workflows = workflows
        self._options = options
        self._say = say
        self.counts = Counter[str]()
        self._places = asyncio.Semaphore(AT_ONCE)

    async def logs(self, from_job: int | None, reached: Callable[[int], None]) -> None:
        """Compare all rows and objects; `reached` hears up to which job from time to time."""
        after, inclusive = "" if from_job is None else str(from_job), from_job is not None
        async for page in self._archive.logs(from_job):
            if page:
                last = page[-1].job_id
                await self._stretch(page, between(after, str(last), inclusive=inclusive))
                after, inclusive = str(last), False
                reached(last)
        await self._stretch([], between(after, None, inclusive=inclusive))

    async def _stretch(self, page: Iterable[Listed], ranges: Iterable[tuple[int, int]]) -> None:
        objects = {one.job_id: one for one in page}
        for first, last in ranges:
            async for rows in self._rows(first, last):
                found = [(row, objects.pop(row.job_id, None)) for row in rows]
                await asyncio.gather(*(self._log(*one) for one in found))
        await asyncio.gather(*(self._log(None, listed) for listed in objects.values()))

    async def _rows(self, first: int, last: int) -> AsyncIterator[list[Row]]:
        while first <= last:
            async with self._pool.acquire() as connection:
                rows = await recovery.page(connection, first, last, PAGE_ROWS)
            yield rows
            if len(rows) < PAGE_ROWS:
                return
            first = rows[-1].job_id + 1

    async def _log(self, row: Row | None, listed: Listed | None) -> None:
        async with self._places:
            if row and self._is_plain(row, listed):
                self.counts["same"] += 1
                return
            job_id = row.job_id if row else listed.job_id  # type: ignore[union-attr]
            found = await self._look(job_id)
            wrong: Wrong | None = compare(row, found)
            if wrong is None and row and found and self._options.read:
                wrong = await self._read(row)
            if wrong is None:
                self.counts["same" if row else "foreign"] += 1
            elif row != await self._row(job_id):
                self.counts["busy"] += 1
            else:
                await self._differs(job_id, row, found, wrong)

    def _is_plain(self, row: Row, listed: Listed | None) -> bool:
        """Whether the list of the bucket is enough to see that nothing is wrong."""
        if listed is None:
            return not row.verified
        memory = self._options.memory
        return (
            row.verified
            and row.bytes in (listed.bytes, None)
            and not self._options.read
            and not (memory and listed.changed_at + SKEW > memory.since)
        )

    async def _read(self, row: Row) -> Wrong | None:
        if not row.verified or row.sha256 is None:
            return None
        digest = await self._archive.digest(row.job_id, lambda _: None)
        return None if digest and digest.sha256 == row.sha256 else "other"

    async def _differs(
        self, job_id: int, row: Row | None, found: Stored | None, wrong: Wrong
    ) -> None:
        if wrong == "newer":
            assert found  # noqa: S101 - it is newer than something
            await self._adopt(job_id, found)
        elif wrong == "leftover":
            assert found  # noqa: S101 - it is left over
            await self._act(
                job_id,
                f"its row says that it has no text, and the archive has {found.bytes} bytes",
                "deleted by the sweep",
                lambda: self._owe_deletion(job_id, origin_of(found).upload),
            )
        else:
            assert row  # noqa: S101 - it says that the archive holds the log
            await self._bring_back(row, found)

    async def _adopt(self, job_id: int, found: Stored) -> None:
        """Take over what was archived after the row's time, once it is read to its end."""
        reader = StepReader()
        digest = await self._archive.digest(job_id, reader.feed)
        reader.feed(b"", last=True)
        what = f"archived after the row's time, {found.bytes} bytes on {found.changed_at:%F %T}"
        if digest is None or (digest.sha256, digest.bytes) != (found.sha256, found.bytes):
            self._leave(job_id, f"{what}, and damaged: look for an older version in the bucket")
            return
        archived = Archived(
            job_id=job_id,
            bytes=digest.bytes,
            sha256=digest.sha256,
            parts=found.parts,
            origin=origin_of(found),
            changed_at=found.changed_at,
            steps=reader.steps,
        )

        async def adopt() -> bool:
            async with self._pool.acquire() as connection:
                return await recovery.adopt(connection, archived)

        await self._act(job_id, what, "taken over", adopt)

    async def _owe_deletion(self, job_id: int, upload: int) -> bool:
        async with self._pool.acquire() as connection:
            return await recovery.owe_deletion(connection, job_id, upload)

    async def _bring_back(self, row: Row, found: Stored | None) -> None:
        """Give the archive back what its row says that it holds."""
        job_id, sha256 = row.job_id, row.sha256
        what = f"its object holds {found.bytes} other bytes" if found else "its object is missing"
        async with self._pool.acquire() as connection:
            can_make = await recovery.can_make(connection, job_id)
        told = await self._options.memory.of(job_id) if self._options.memory else None
        if told and told.replaced_at:
            self._leave(job_id, f"{what}: {_replaced(told.replaced_at)}")
        elif found and found.sha256 and not found.origin:
            self._leave(job_id, f"{what}, archived by an earlier release: older or newer?")
        elif sha256 and await self._archive.has_copy(job_id, sha256):
            await self._act(
                job_id,
                what,
                "put back from the copy of its hold",
                lambda: self._archive.put_back(job_id, sha256),
            )
        elif can_make:
            await self._act(
                job_id, what, "archived again", lambda: self._workflows.archive_again(job_id)
            )
        else:
            self._leave(job_id, f"{what}, and neither parts nor a copy are left")

    async def holds(self) -> None:
        """Compare the legal holds with the copies that they keep."""
        async for jobs in self._archive.held():
            async with self._pool.acquire() as connection:
                held = await recovery.held(connection, jobs)
            for job_id in sorted(jobs - held):
                await self._act(
                    job_id,
                    "the bucket has copies of a hold, and the database has no hold",
                    "held again",
                    functools.partial(self._put_on, job_id),
                )
        async with self._pool.acquire() as connection:
            archived = await recovery.held_archived(connection)
        for job_id in archived:
            if not await self._archive.kept(job_id):
                self._leave(
                    job_id,
                    "it is held, and the bucket has no copy: `logflume hold off`, if that was "
                    "done after the row's time, or `hold on` to copy it again",
                )

    async def _put_on(self, job_id: int) -> None:
        async with self._pool.acquire() as connection:
            await holds.put_on(connection, job_id, HOLD_REASON)

    async def workflows(self, memory: Memory) -> None:
        """Compare what the workflows heard with what is here; after all else."""
        async for told in memory.of_all():
            row, found = await self._row(told.job_id), await self._look(told.job_id)
            if row and row.verified and not found:
                continue  # told already
            replaced_at = told.replaced_at
            is_later = found and replaced_at and found.changed_at + SECOND > replaced_at
            if replaced_at and row and row.has_text and not is_later:
                self._leave(told.job_id, _replaced(replaced_at))
            if told.done and found:
                continue
            moment = max(memory.since, found.changed_at) if found else memory.since
            async with self._pool.acquire() as connection:
                here = await recovery.stored_since(connection, told.job_id, moment)
            if (lost := told.parts_after(moment) - here) > 0:
                self._leave(
                    told.job_id,
                    f"up to {lost} parts are lost: they came after the row's time and were not "
                    "archived",
                )

    async def _act(
        self, job_id: int, what: str, done: str, act: Callable[[], Awaitable[bool | None]]
    ) -> None:
        """Repair it, where that is asked for, and have its workflow know."""
        if not self._options.repair:
            self._note("repairable", job_id, f"{what}; it can be {done}")
            return
        try:
            if await act() is False:
                self.counts["busy"] += 1
                return
        except (UnderHold, UnknownLog) as error:
            self._leave(job_id, f"{what}; {error}")
            return
        await self._workflows.look_again(job_id)
        self._note("repaired", job_id, f"{what}; {done}")

    def _leave(self, job_id: int, what: str) -> None:
        self._note("left", job_id, what)

    def _note(self, fate: str, job_id: int, what: str) -> None:
        self.counts[fate] += 1
        self._say(f"job {job_id}: {what}")

    async def _look(self, job_id: int) -> Stored | None:
        try:
            return await self._archive.look(job_id)
        except NotArchived:
            return None

    async def _row(self, job_id: int) -> Row | None:
        async with self._pool.acquire() as connection:
            return await recovery.find(connection, job_id)


def _replaced(at: datetime) -> str:
    return (
        f"its text was written whole or cleared on {at:%F %T}, after the row's time, and the row "
        "has what was there before: write or clear it once more"
    )
