"""`logflume doctor`: checks every component and setting, and suggests fixes."""

import asyncio
import sys
from collections.abc import Awaitable, Callable

import aio_pika
import click
from aiormq.exceptions import AMQPError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from db.connect import check_schema, connect_directly, open_pool
from drain.queue_checks import QueueChecker
from logflume import amqp, contract
from logflume.archive.probe import Probe
from logflume.errors import ComponentError, LogflumeError
from logflume.settings import Settings, load_settings
from logflume_cli.schedules import check_schedules
from logflume_cli.terminal import printable
from workflows.client.connection import connect_temporal, ensure_search_attributes

CHECK_SECONDS = 10
# For about twenty requests to the archive.
PROBE_SECONDS = 60


@click.command()
def doctor() -> None:
    """Check the settings and the servers that logflume needs, and suggest fixes.

    Exits with 1 if a check fails.
    """
    results = asyncio.run(_check_all(load_settings()))
    console = Console(soft_wrap=True)
    table = Table("check", "", "result, or problem and fix", box=None)
    for name, (problem, fix) in results.items():
        text = " ".join(f"{problem} {fix}".split())
        text = printable(text) if console.is_terminal else text
        table.add_row(name, "[red]failed" if problem else "[green]ok", escape(text))
    console.print(table)
    sys.exit(any(problem for problem, _ in results.values()))


async def _check_all(settings: Settings) -> dict[str, tuple[str, str]]:
    """Run every check; returns the problem and its fix by name.

    A check that passed has no problem, and instead of a fix its result or nothing.
    """
    checks: dict[str, tuple[Callable[[Settings], Awaitable[None]], str]] = {
        "rabbitmq": (_rabbitmq, "Is it running? Set LOGFLUME_AMQP__URL."),
        "queues": (_queues, ""),
        "postgres and its schema": (_postgres, "Is it running? Set LOGFLUME_DATABASE__URL."),
        "temporal": (_temporal, "Is it running? Set LOGFLUME_TEMPORAL__ADDRESS."),
        "schedules": (check_schedules, "Run `logflume schedules apply`."),
        "archive": (_archive, "Does the bucket exist, and may we use it? Set LOGFLUME_S3__*."),
        "web token": (_token, "Set LOGFLUME_WEB__AUTH_TOKEN to a long random text."),
    }
    results = {name: await _check(check, settings, fix) for name, (check, fix) in checks.items()}
    if not results["archive"][0]:
        results |= await _operations(settings)
    return results


async def _check(
    check: Callable[[Settings], Awaitable[None]], settings: Settings, fix: str
) -> tuple[str, str]:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check(settings)
    except LogflumeError as error:
        return str(error), fix
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS} s.", fix
    return "", ""


async def _rabbitmq(settings: Settings) -> None:
    url = settings.amqp.url.get_secret_value()
    try:
        async with await aio_pika.connect(url) as connection:
            await connection.channel()
    except (OSError, AMQPError, ValueError) as error:
        raise ComponentError(f"{amqp.describe(url)}: {amqp.describe_error(error)}.") from None


async def _queues(settings: Settings) -> None:
    """Check that the queues can be declared, and that RabbitMQ drops none of their messages."""
    async with amqp.connecting(settings.amqp.url.get_secret_value(), "logflume doctor") as broker:
        await amqp.declare(await broker.channel())
    checker = QueueChecker(settings.amqp)
    try:
        findings = await checker.check([contract.QUEUE])
    finally:
        await checker.close()
    if findings.problems:
        raise ComponentError("; ".join(findings.problems))


async def _postgres(settings: Settings) -> None:
    async with await open_pool(settings.database, 1) as pool:
        await check_schema(pool)
    await (await connect_directly(settings.database, "logflume doctor")).close()


async def _temporal(settings: Settings) -> None:
    await ensure_search_attributes(await connect_temporal(settings.temporal))


async def _archive(settings: Settings) -> None:
    await Probe(settings.s3, 1).check()


async def _operations(settings: Settings) -> dict[str, tuple[str, str]]:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            findings = await Probe(settings.s3, 1).findings()
    except TimeoutError:
        return {"archive: operations": (f"not done within {PROBE_SECONDS} s.", "Is it overloaded?")}
    return {
        f"archive: {found.operation}": (found.problem, found.fix if found.problem else found.result)
        for found in findings
    }


async def _token(settings: Settings) -> None:
    if settings.web.auth_token is None:
        raise ComponentError("No token is set: requests that require it are refused.")
