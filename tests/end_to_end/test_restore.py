"""Restores only Postgres to an earlier time with the commands of docs/backups.md."""

import asyncio
import os
import re
import shutil
import textwrap
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
from botocore.exceptions import ClientError

from db import partitions
from db.parts import store_batch
from logflume import amqp, contract
from logflume.archive.store import key
from logflume_cli.devstack.stack import LocalStack
from tests.support.parts import content, part
from tests.support.processes import LOGFLUME, environment, run, running
from tests.support.s3 import s3
from tests.support.waiting import until
from workflows.client.connection import connect_temporal
from workflows.sweep import Sweep, SweepInput

pytestmark = pytest.mark.timeout(300)

PAGE = (Path(__file__).parents[2] / "docs" / "backups.md").read_text()


def block(name: str) -> str:
    """The commands of one block of the page."""
    [found] = re.findall(rf"^( *)```sh {name}\n(.*?)^\1```", PAGE, re.MULTILINE | re.DOTALL)
    return textwrap.dedent(found[1])


async def typed(
    name: str, variables: dict[str, str], folder: Path, *, code: int = 0, **places: Path
) -> str:
    """Run a block of the page with `places` instead of /var/backups; returns its output."""
    commands = block(name)
    for place, path in places.items():
        commands = commands.replace(f"/var/backups/{place}", str(path))
    done = await asyncio.to_thread(
        run,
        *("bash", "-euo", "pipefail", "-c", commands),
        env={**os.environ, **variables, "PATH": f"{Path(LOGFLUME).parent}:{os.environ['PATH']}"},
        cwd=folder,
        timeout=120,
    )
    assert done.returncode == code, done
    return done.stdout


def libpq(url: str) -> dict[str, str]:
    """The environment of Postgres's own programs."""
    parts = urlsplit(url)
    return {
        "PGHOST": str(parts.hostname),
        "PGPORT": str(parts.port),
        "PGUSER": str(parts.username),
        "PGPASSWORD": str(parts.password),
        "PGDATABASE": parts.path[1:],
    }


class System:
    """All of logflume as processes, with a publisher and checks of the results."""

    def __init__(self, settings, channel, folder):
        self.settings = settings
        self.folder = folder
        self._channel = channel
        self._url = settings.database.url.get_secret_value()
        headers = {"Authorization": f"token {settings.web.auth_token.get_secret_value()}"}
        self.web = httpx.AsyncClient(base_url=settings.web.url, headers=headers, timeout=30)

    @asynccontextmanager
    async def up(self):
        async with AsyncExitStack() as stack:
            for name in ("drain", "worker", "web"):
                folder = self.folder / name
                await stack.enter_async_context(
                    running(self.settings, folder, LOGFLUME, name, started="_started")
                )
            yield

    async def publish(self, job_id: int, *numbers: int, final: bool = False) -> None:
        for number in numbers:
            part = contract.PartMessage.of(
                job_id,
                number,
                f"{job_id}:{number}\n".encode(),
                uuid="a",
                final=final and number == numbers[-1],
            )
            message = amqp.part_message(part)
            await self._channel.default_exchange.publish(message, contract.QUEUE)

    async def ask(self, query: str, *arguments: object):
        connection = await asyncpg.connect(self._url)
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            await connection.close()

    async def until_stored(self, job_id: int, parts: int) -> None:
        query = (
            "SELECT count(*) = $2 FROM log_parts p JOIN logs l ON l.id = p.log_id"
            " WHERE l.job_id = $1"
        )
        await until(lambda: self.ask(query, job_id, parts))

    async def until_archived(self, job_id: int, text: bytes | None) -> None:
        """Wait until this is archived and the row has no pending work."""
        pending = (
            "(purged_at IS NULL AND aggregated_at IS NOT NULL) OR late_parts OR archive_outdated"
        )
        query = f"SELECT NOT ({pending}) FROM logs WHERE job_id = $1"

        async def is_archived() -> bool:
            return self.archived(job_id) == text and bool(await self.ask(query, job_id))

        await until(is_archived)

    def archived(self, job_id: int) -> bytes | None:
        store = s3(self.settings)
        try:
            found = store.get_object(Bucket=self.settings.s3.bucket, Key=key(job_id))
        except ClientError:
            return None
        return found["Body"].read()

    async def sweep(self) -> None:
        client = await connect_temporal(self.settings.temporal)
        await client.execute_workflow(
            Sweep.run,
            SweepInput(after_seconds=0.01, purge_seconds=0.5, logs=500),
            id=f"sweep-{self.settings.temporal.task_queue}",
            task_queue=self.settings.temporal.task_queue,
        )


@pytest.fixture
async def system(amqp_settings, channel, tmp_path):
    drain = amqp_settings.drain.model_copy(update={"signal_seconds": 0})
    system = System(amqp_settings.model_copy(update={"drain": drain}), channel, tmp_path)
    yield system
    await system.web.aclose()


def text(job_id: int, *numbers: int) -> bytes:
    return b"".join(b"%d:%d\n" % (job_id, number) for number in numbers)


class Jobs(NamedTuple):
    """Jobs by what happens to their logs after the dump."""

    ended: int  # finished before; gets late parts
    going: int  # continues and finishes
    fresh: int  # starts and finishes
    cut: int  # continues; its last parts are still in RabbitMQ
    lost: int  # starts; is not archived
    cleared: int
    removed: int
    queued: int  # all parts are still in RabbitMQ


async def before_the_dump(system: System, jobs: Jobs) -> None:
    finished = (jobs.ended, jobs.cleared, jobs.removed)
    for job_id in finished:
        await system.publish(job_id, 0, 1, 2, final=True)
    for job_id in (jobs.going, jobs.cut):
        await system.publish(job_id, 0, 1)
        await system.until_stored(job_id, 2)
    for job_id in finished:
        await system.until_archived(job_id, text(job_id, 0, 1, 2))


async def after_the_dump(system: System, jobs: Jobs) -> None:
    await system.publish(jobs.ended, 3)
    await system.publish(jobs.going, *range(2, 9), final=True)
    await system.publish(jobs.fresh, 0, 1, final=True)
    await system.publish(jobs.cut, 2, 3, 4)
    await system.publish(jobs.lost, 0, 1, 2)
    await system.web.put(f"/logs/{jobs.cleared}", content=b"")
    await system.web.put(f"/logs/{jobs.removed}?removed_by=7", content=b"Log removed")
    await system.until_archived(jobs.ended, text(jobs.ended, 0, 1, 2, 3))
    await system.until_archived(jobs.going, text(jobs.going, *range(9)))
    await system.until_archived(jobs.fresh, text(jobs.fresh, 0, 1))
    await system.until_archived(jobs.cleared, None)
    await system.until_archived(jobs.removed, b"Log removed")
    await system.until_stored(jobs.cut, 5)
    await system.until_stored(jobs.lost, 3)


async def while_all_is_down(system: System, jobs: Jobs) -> None:
    await system.publish(jobs.ended, 4)
    await system.publish(jobs.queued, 0, 1, 2, final=True)
    await system.publish(jobs.cut, 5, 6, final=True)


def count_left(said: str, jobs: Jobs) -> int:
    """How many of these jobs are left; those of other tests are on the same Temporal server."""
    others = sum(
        int(job_id) not in jobs for job_id in re.findall(r"^job (\d+):", said, re.MULTILINE)
    )
    found = re.search(r"(\d+) left", said)
    assert found, said
    return int(found[1]) - others


def check_repaired(said: str, jobs: Jobs) -> None:
    found = re.findall(r"^job (\d+): (.*)$", said, re.MULTILINE)
    reports = {job_id: report for job_id, report in found if int(job_id) in jobs}
    for job_id in (jobs.ended, jobs.going, jobs.fresh, jobs.removed):
        assert reports.pop(str(job_id)).endswith("adopted by the database")
    cleared = reports.pop(str(jobs.cleared))
    assert "object missing: the whole log was written or cleared" in cleared
    lost = "up to 3 parts are lost: {} were stored and acknowledged, {} exist"
    assert reports == {str(jobs.cut): lost.format(5, 2), str(jobs.lost): lost.format(3, 0)}
    assert "4 repaired" in said
    assert count_left(said, jobs) == 3


async def check_each_log(system: System, jobs: Jobs) -> None:
    await system.until_archived(jobs.ended, text(jobs.ended, 0, 1, 2, 3, 4))
    await system.until_archived(jobs.going, text(jobs.going, *range(9)))
    await system.until_archived(jobs.fresh, text(jobs.fresh, 0, 1))
    await system.until_archived(jobs.queued, text(jobs.queued, 0, 1, 2))
    await system.until_archived(jobs.cut, text(jobs.cut, 0, 1, 5, 6))
    await system.until_archived(jobs.removed, b"Log removed")
    await system.until_archived(jobs.cleared, None)
    assert await system.ask("SELECT missing_parts FROM logs WHERE job_id = $1", jobs.cut) == 3
    raw = await system.web.get(f"/logs/{jobs.ended}/raw")
    assert raw.content == text(jobs.ended, 0, 1, 2, 3, 4)


async def test_after_a_restore_each_log_is_exact_or_named(system, numbers, tmp_path):
    jobs = Jobs(*(next(numbers) for _ in Jobs._fields))
    url = system.settings.database.url.get_secret_value()
    variables = {**libpq(url), **environment(system.settings, tmp_path / "operator")}
    async with system.up():
        await before_the_dump(system, jobs)
        variables["RESTORED_TO"] = str(await system.ask("SELECT now()"))
        await typed("dump", variables, tmp_path)
        await after_the_dump(system, jobs)
    await while_all_is_down(system, jobs)

    await typed("restore", variables, tmp_path)
    await typed("numbers", variables, tmp_path)
    done = await typed("compare", variables, tmp_path, code=1)
    assert "4 repairable" in done, done
    assert count_left(done, jobs) == 3
    check_repaired(await typed("repair", variables, tmp_path, code=1), jobs)

    async with system.up():
        await system.until_stored(jobs.queued, 3)
        await system.until_stored(jobs.cut, 4)
        await system.web.put(f"/logs/{jobs.cleared}", content=b"")  # as the page says
        await system.sweep()
        await check_each_log(system, jobs)
    done = await typed("compare", {**variables, "RESTORED_TO": "2999-01-01"}, tmp_path, code=1)
    assert f"job {jobs.lost}: up to 3 parts are lost" in done  # its workflow still waits
    assert done.endswith(" left, 7 same\n"), done
    assert count_left(done, jobs) == 1
    connection = await asyncpg.connect(url)
    made = []
    await partitions.make_ahead(connection, "daily", 8, 0.2, made.append)
    await connection.close()
    assert len(made) == 1  # pg_partman works in the restored database


async def test_point_in_time_recovery(new_folder, tmp_path):
    stack = LocalStack(new_folder())
    data, wal, base = stack.home.folder("postgres") / "data", tmp_path / "wal", tmp_path / "base"
    url = stack.home.database_url("logflume")
    variables = {**libpq(url), "PGDATA": str(data)}
    wal.mkdir()
    await stack.up(["postgres"])
    belong_to_postgres(wal)
    await typed("archive", variables, tmp_path, wal=wal)
    await stack.down()
    await stack.up(["postgres"])
    await typed("base", variables, tmp_path, base=base)

    connection = await asyncpg.connect(url)
    await store_batch(connection, [part(1, 0, b"before")])
    variables["RESTORED_TO"] = str(await connection.fetchval("SELECT clock_timestamp()"))
    await store_batch(connection, [part(2, 0, b"after")])
    await connection.close()
    await stack.down()  # which archives the last WAL

    data.rename(tmp_path / "aside")
    await typed("pitr", variables, tmp_path, wal=wal, base=base)
    belong_to_postgres(data)
    await stack.up(["postgres"])
    connection = await asyncpg.connect(url)
    try:
        assert await connection.fetchval("SELECT array_agg(job_id) FROM logs") == [1]
        assert await content(connection, 1) == b"before"
        assert not await connection.fetchval("SELECT pg_is_in_recovery()")
    finally:
        await connection.close()
        await stack.down()


def belong_to_postgres(folder: Path) -> None:
    """Give the files to the server's user, who runs such commands."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, "postgres", "postgres")
