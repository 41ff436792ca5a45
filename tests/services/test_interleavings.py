"""One log through every event in any order, compared with a simple model.

Workers run their activities on real Postgres and S3; days pass, and partitions expire.
"""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any

import asyncpg
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from activities.types import AGGREGATE
from db import partitions, reading
from db.connect import open_pool
from db.parts import store_batch
from logflume.archive.store import Archive
from logflume.domain import Part
from tests.support.lifecycle import LifecycleSteps
from tests.support.model import Model, contents, parts
from tests.support.partitions import RETENTION, drop, make_past
from tests.support.parts import received_now, replace_whole, store_parts
from tests.support.waiting import until

# Parts that came then are old enough to go.
FIRST_DAY = 10
IS_BLOCKED = """
SELECT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0
)
"""
batches = st.lists(parts, min_size=1, max_size=4)


async def done_or_blocked(pool, task: asyncio.Task) -> None:
    """Wait until the task is done, or blocked by a lock."""

    async def is_so() -> bool:
        return bool(await pool.fetchval(IS_BLOCKED)) or task.done()

    await until(is_so)


class LogMachine(RuleBasedStateMachine):
    """Each rule is a step of a drain, a web process, a worker or partition maintenance."""

    def __init__(self, runner, pool, archive: Archive, job_id: int) -> None:
        super().__init__()
        self.run, self.pool, self.archive, self.job_id = runner.run, pool, archive, job_id
        self.steps = LifecycleSteps(pool, archive, job_id)
        self.model = Model()
        self.sent: list[Part] = []  # since parts were last gone
        self.days_ago = FIRST_DAY
        # An aggregation ended before a flush committed that had started earlier: the signal of the
        # flush causes the next one.
        self.is_behind = False

    @initialize(whole=contents)
    def begin(self, whole):
        self.run(self._write(whole))

    # Drains and web processes.

    @rule(batch=batches)
    def store(self, batch):
        self.run(self._store(self._received(batch, begun=self.days_ago)))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def deliver_again(self, data):
        batch = data.draw(st.lists(st.sampled_from(self.sent), min_size=1, max_size=4))
        self.run(self._store(self._received(batch)))

    @rule(content=contents)
    def write(self, content):
        self.run(self._write(content))

    @rule(batch=batches, content=contents)
    def write_while_parts_are_stored(self, batch, content):
        self.run(self._while_stored(batch, lambda: self._write(content)))

    # The activities of the workflow; between two of them anything may happen.

    @rule()
    def work(self):
        self.run(self._step())

    @rule(batch=batches)
    def work_while_parts_are_stored(self, batch):
        self.run(self._while_stored(batch, self._step))

    @rule()
    def work_to_the_end(self):
        self.run(self._go_on())

    @rule(force=st.booleans(), restore=st.booleans())
    def restart(self, force, restore):
        self.run(self._look(force=force, restore=restore))

    # The passing of time.

    @rule(is_done=st.booleans() | st.just(value=True))
    def days_go_by(self, is_done):
        """Drop partitions with archived parts; unarchived parts are moved first."""
        if is_done:
            self.run(self._look())
            self.run(self._go_on())
        self.run(self._maintain())

    # Invariants.

    @invariant()
    def the_archive_holds_what_the_row_says_it_holds(self):
        self.run(self._check_archive())

    @invariant()
    def readers_see_the_log(self):
        self.run(self._check_reading())

    def teardown(self):
        try:
            self.run(self._go_on())
            self.run(self._look())
            self.run(self._go_on())
            self.run(self._check_end())
        finally:
            self.run(self.pool.execute("DELETE FROM log_parts"))
            self.run(self.archive.delete(self.job_id))

    # Helpers.

    def _received(self, batch: list[Part], begun: int = 0) -> list[Part]:
        """Return the same parts as received now, with attempts that began `begun` days earlier.

        So an attempt whose parts were dropped never becomes the log again.
        """
        now = [
            received_now(
                self.job_id,
                one,
                published_at=one.published_at and one.published_at - timedelta(begun),
            )
            for one in batch
        ]
        return [replace(one, received_at=one.received_at - timedelta(self.days_ago)) for one in now]

    async def _store(self, received: list[Part]) -> None:
        await store_parts(self.pool, received)
        self._receive(received)

    def _receive(self, received: list[Part]) -> None:
        for one in received:
            self.model.receive(one)
        self.sent += received

    async def _while_stored(
        self, batch: list[Part], act: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Run a step while a batch is stored, and commit the batch only then."""
        received = self._received(batch, begun=self.days_ago)
        async with self.pool.acquire() as drain:
            transaction = drain.transaction()
            await transaction.start()
            await store_batch(drain, received)
            acting = asyncio.create_task(act())
            await done_or_blocked(self.pool, acting)
            if acting.done():
                acting.result()
                self.is_behind = True
            self._receive(received)
            await transaction.commit()
            await acting

    async def _write(self, content: bytes) -> None:
        await replace_whole(self.pool, self.job_id, content)
        self.model.write(content)

    async def _step(self) -> None:
        self.is_behind = self.is_behind and self.steps.next != AGGREGATE
        # A purge does not wait for a flush in progress: it is retried as the next step.
        with suppress(asyncpg.LockNotAvailableError):
            await self.steps.step()
        if self.steps.aggregated.sha256:
            async with self.pool.acquire() as connection:
                log = await reading.find(connection, self.job_id)
                # A replaced log has no aggregated content, so it cannot lack parts of it.
                if log.content_sha256 and not await reading.has_all_parts(connection, log.id):
                    self.model.lose_parts()  # what was made of them stays as it is, from now on

    async def _go_on(self) -> None:
        await self._step()
        while not self.steps.is_over:
            await self._step()

    async def _look(self, *, force: bool = True, restore: bool = False) -> None:
        self.steps.restart(force=force, restore=restore)
        await self._step()
        while self.steps.aggregated.needs_archived:
            await self._step()
        made, model = self.steps.aggregated, self.model
        if not model.lost:
            assert made.ended == model.ended
        assert (made.stale_parts, made.missing_parts) == (model.stale, model.missing)
        if made.sha256:
            assert made.sha256 == hashlib.sha256(model.content).hexdigest()

    async def _maintain(self) -> None:
        async with self.pool.acquire() as connection:
            for name in await partitions.expired(connection, RETENTION):
                for log_id in await partitions.unfinished(connection, name):
                    await partitions.rescue(connection, log_id)
                    self.days_ago = 0
                if await connection.fetchval(f"SELECT count(*) FROM {name}"):
                    assert await drop(connection, name)
                    self.model.lose_parts()
                    self.sent = []
                    await make_past(connection)
        self.days_ago = max(self.days_ago - 1, 0)

    async def _check_archive(self) -> None:
        async with self.pool.acquire() as connection:
            log = await reading.find(connection, self.job_id)
            own = await connection.fetchval("SELECT content FROM logs WHERE id = $1", log.id)
        assert own is None or not log.purged_at
        if own is not None and log.content_sha256:
            assert hashlib.sha256(own).hexdigest() == log.content_sha256
        if log.archive_verified:
            archived = await self.steps.archived()
            assert archived is not None
            assert hashlib.sha256(archived).hexdigest() == log.content_sha256

    async def _check_reading(self) -> None:
        async with self.pool.acquire() as connection:
            found = await reading.snapshot(connection, await reading.find(connection, self.job_id))
            if found.parts is not None:
                if self.model.lost:
                    return  # where another attempt became the log, its parts alone
                every = range(len(found.parts))
                read = await reading.read_parts(connection, found.log.id, found.parts, every)
                assert b"".join(one.content for one in read) == self.model.content
            elif not found.log.late_parts and not self.is_behind:
                assert found.log.content_sha256 == hashlib.sha256(self.model.content).hexdigest()

    async def _check_end(self) -> None:
        assert await self.steps.archived() == (
            self.model.content if self.steps.aggregated.parts else None
        )
        assert self.steps.aggregated.parts or not self.model.content


async def make_partitions(pool) -> None:
    async with pool.acquire() as connection:
        await make_past(connection)


def test_a_log_matches_the_model_after_any_sequence_of_events(runner, settings, numbers):
    pool = runner.run(open_pool(settings.database, 4))
    archive = Archive(settings.s3, 4)
    runner.run(make_partitions(pool))
    try:
        run_state_machine_as_test(
            lambda: LogMachine(runner, pool, archive, next(numbers)),  # type: ignore[arg-type]
            settings=hypothesis_settings(
                max_examples=20,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        runner.run(pool.close())
