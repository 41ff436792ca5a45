"""`logflume import`: imports the logs of another service."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import click
from pydantic import SecretStr, ValidationError

from db import travis_logs
from db.connect import Connection, allow_transfers, check_schema, describe, open_pool
from db.errors import FAILURES
from db.importing import Importer, ImportResult, reserve_ids
from db.travis_logs import SourceLog
from logflume.errors import ComponentError, LogflumeError
from logflume.settings import load_settings
from logflume.settings.servers import DatabaseSettings
from logflume_cli.terminal import echo

PAGE_ROWS = 1000
PROGRESS_ROWS = 100_000

OnPage = Callable[[list[SourceLog]], Awaitable[list[ImportResult]]]


class _Source(click.ParamType[DatabaseSettings]):
    """A database URL; errors do not quote it, as it may contain a password."""

    name = "URL"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> DatabaseSettings:
        try:
            return DatabaseSettings(url=SecretStr(str(value)))
        except (ValueError, ValidationError):
            self.fail(
                "expected postgresql://USER@HOST:PORT/NAME, with %XX for special characters",
                param,
                ctx,
            )


@click.group("import")
def import_() -> None:
    """Import the logs of another service."""


@import_.command("travis-logs")
@click.option(
    "--from",
    "source",
    type=_Source(),
    required=True,
    metavar="URL",
    help="The database of travis-logs. The password may be in PGPASSWORD instead.",
)
@click.option("--verify", is_flag=True, help="Import nothing; compare and report differences.")
def travis_logs_(source: DatabaseSettings, *, verify: bool) -> None:
    """Import a travis-logs database; run it again to import changes.

    Safe to interrupt and repeat: unchanged logs are skipped. Nothing is written to the travis-logs
    database. Prints a line for each job that differs; with --verify the exit code is then 1.
    """
    counts = asyncio.run(import_logs(load_settings().database, source, verify=verify))
    total = sum(counts.values())
    summary = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    click.echo(f"{total} logs in travis-logs: {summary}" if summary else "no logs in travis-logs")
    if verify and any(name.startswith("different") for name in counts):
        raise LogflumeError("some logs differ from travis-logs (see above)")


async def import_logs(
    ours: DatabaseSettings, theirs: DatabaseSettings, *, verify: bool = False
) -> Counter[str]:
    """Import or compare all logs of `theirs`; counts them by outcome and source of the text.

    Raises:
        ComponentError: a database is unreachable, lacks its schema or fails during the import.
        UnderMaintenance: the maintenance switch is on.
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
            except FAILURES as error:
                raise ComponentError(
                    f"{str(error) or type(error).__name__}; "
                    "run it again: imported logs are not lost"
                ) from error


async def _pages(source: Connection, on_page: OnPage) -> Counter[str]:
    counts, after, rows_seen = Counter[str](), 0, 0
    while True:
        # One snapshot per page: travis-logs moves a text from parts to row to archive.
        async with source.transaction(isolation="repeatable_read", readonly=True):
            await allow_transfers(source)
            rows, logs = await travis_logs.page(source, after, PAGE_ROWS)
            results = await on_page(logs)
        for result in results:
            counts[f"{result.outcome} ({result.kind})"] += 1
            if result.note:
                echo(f"job {result.job_id}: {result.note}")
        for log_id, job_id in rows:
            if job_id is None:
                click.echo(f"row {log_id}: skipped, it has no job")
        if not rows:
            return counts
        after, rows_seen = rows[-1][0], rows_seen + len(rows)
        if rows_seen % PROGRESS_ROWS == 0:
            click.echo(f"{rows_seen} rows, up to id {after}", err=True)
