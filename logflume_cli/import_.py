"""`logflume import`: taking over the logs of another service."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import asyncpg
import click
from pydantic import SecretStr, ValidationError

from db import travis_logs
from db.connect import UNREACHABLE, Connection, check_schema, describe, open_pool
from db.importing import Importer, Told, reserve_ids
from db.travis_logs import SourceLog
from logflume.errors import ComponentError, LogflumeError
from logflume.settings import load_settings
from logflume.settings.groups import DatabaseSettings

PAGE_ROWS = 1000
TELL_EVERY = 100_000

OnPage = Callable[[list[SourceLog]], Awaitable[list[Told]]]


class _Source(click.ParamType[DatabaseSettings]):
    """The URL of a database; what is wrong with one is told without repeating it."""

    name = "URL"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> DatabaseSettings:
        try:
            _ = urlsplit(str(value)).port
            return DatabaseSettings(url=SecretStr(str(value)))
        except (ValueError, ValidationError):
            self.fail(
                "it must be postgresql://USER@HOST:PORT/NAME, with %XX for special characters",
                param,
                ctx,
            )


@click.group("import")
def import_() -> None:
    """Take over the logs of another service."""


@import_.command("travis-logs")
@click.option(
    "--from",
    "source",
    type=_Source(),
    required=True,
    metavar="URL",
    help="The database of travis-logs. The password may be in PGPASSWORD instead.",
)
@click.option("--verify", is_flag=True, help="Take over nothing: compare, and name what differs.")
def travis_logs_(source: DatabaseSettings, *, verify: bool) -> None:
    """Take over a travis-logs database, or what is new in it since the last time.

    Goes through its logs by their ids and leaves alone what it took over before, so it may be
    interrupted and repeated. Nothing is written there. What is here otherwise than there is named,
    a line for each job; with --verify the exit code is 1 then.
    """
    counts = asyncio.run(take_over(load_settings().database, source, verify=verify))
    total = sum(counts.values())
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    click.echo(f"{total} logs in travis-logs: {told}" if told else "no logs in travis-logs")
    if verify and any(name.startswith("different") for name in counts):
        raise LogflumeError("not all logs are here as they are in travis-logs")


async def take_over(
    ours: DatabaseSettings, theirs: DatabaseSettings, *, verify: bool = False
) -> Counter[str]:
    """Go through all logs of theirs; counts them by what became of them and where the text was.

    Raises:
        ComponentError: a database is out of reach, lacks its schema or fails on the way.
        UnderMaintenance: an operator keeps everyone away from parts.
    """
    async with await open_pool(ours, 1) as pool, await open_pool(theirs, 1) as sources:
        await check_schema(pool)
        async with pool.acquire() as connection, sources.acquire() as source:
            await travis_logs.check_source(source, describe(theirs))
            try:
                importer = Importer(connection, source)
                if verify:
                    return await _pages(source, importer.differences)
                await reserve_ids(connection, await travis_logs.highest_id(source))
                return await _pages(source, importer.store_page)
            except (*UNREACHABLE, asyncpg.PostgresError) as error:
                raise ComponentError(
                    f"{error or type(error).__name__}: what is here by now stays; run it again"
                ) from error


async def _pages(source: Connection, on_page: OnPage) -> Counter[str]:
    counts, after, rows_seen = Counter[str](), 0, 0
    while True:
        # One state of their tables for a whole page: a text moves from parts to row to archive.
        async with source.transaction(isolation="repeatable_read", readonly=True):
            rows, logs = await travis_logs.page(source, after, PAGE_ROWS)
            told = await on_page(logs)
        for one in told:
            counts[f"{one.outcome} ({one.kind})"] += 1
            if one.note:
                click.echo(f"job {one.job_id}: {one.note}")
        for log_id, job_id in rows:
            if job_id is None:
                click.echo(f"row {log_id}: it has no job and was left in travis-logs")
        if not rows:
            return counts
        after, rows_seen = rows[-1][0], rows_seen + len(rows)
        if rows_seen % TELL_EVERY == 0:
            click.echo(f"{rows_seen} rows, up to id {after}", err=True)
