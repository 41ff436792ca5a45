"""`logflume doctor`: checks every component and setting, and says what to do."""

import asyncio
import sys
from collections.abc import Awaitable, Callable

import aio_pika
import click
from aiormq.exceptions import AMQPError
from rich.console import Console
from rich.table import Table

from db.connect import check_schema, connect_directly, open_pool
from logflume import amqp
from logflume.archive.store import Archive
from logflume.errors import ComponentError, LogflumeError
from logflume.settings import Settings, load_settings
from logflume_cli.schedules import check_schedules
from workflows.client import connection as temporal

CHECK_SECONDS = 10


@click.command()
def doctor() -> None:
    """Check every component and setting; say what is wrong and what to do.

    Exits with 1 if anything is wrong.
    """
    findings = asyncio.run(_examine(load_settings()))
    table = Table("check", "", "what to do", box=None)
    for name, (wrong, advice) in findings.items():
        table.add_row(name, "[red]wrong" if wrong else "[green]ok", f"{wrong} {advice}".strip())
    Console(soft_wrap=True).print(table)
    sys.exit(any(wrong for wrong, _ in findings.values()))


async def _examine(settings: Settings) -> dict[str, tuple[str, str]]:
    """Run every check; answers what is wrong (empty: nothing) and what to do about it."""
    checks: dict[str, tuple[Callable[[Settings], Awaitable[None]], str]] = {
        "rabbitmq": (_rabbitmq, "Is it running? Set LOGFLUME_AMQP__URL."),
        "postgres and its schema": (_postgres, "Is it running? Set LOGFLUME_DATABASE__URL."),
        "temporal": (_temporal, "Is it running? Set LOGFLUME_TEMPORAL__ADDRESS."),
        "schedules": (check_schedules, "Run `logflume schedules apply`."),
        "archive": (_archive, "Is the bucket there and ours? Set LOGFLUME_S3__*."),
        "web token": (_token, "Set LOGFLUME_WEB__AUTH_TOKEN to a long random text."),
    }
    return {name: await _check(check, settings, advice) for name, (check, advice) in checks.items()}


async def _check(
    check: Callable[[Settings], Awaitable[None]], settings: Settings, advice: str
) -> tuple[str, str]:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check(settings)
    except LogflumeError as error:
        return str(error), advice
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS} s.", advice
    return "", ""


async def _rabbitmq(settings: Settings) -> None:
    url = settings.amqp.url.get_secret_value()
    try:
        async with await aio_pika.connect(url) as connection:
            await amqp.declare(await connection.channel())
    except (OSError, AMQPError, ValueError) as error:
        raise ComponentError(f"{amqp.describe(url)}: {amqp.said(error)}.") from None


async def _postgres(settings: Settings) -> None:
    async with await open_pool(settings.database, 1) as pool:
        await check_schema(pool)
    await (await connect_directly(settings.database, "logflume doctor")).close()


async def _temporal(settings: Settings) -> None:
    await temporal.ensure_search_attributes(await temporal.connect(settings.temporal))


async def _archive(settings: Settings) -> None:
    await Archive(settings.s3, 1).check()


async def _token(settings: Settings) -> None:
    if settings.web.auth_token is None:
        raise ComponentError("No token is set: every call that needs it is refused.")
