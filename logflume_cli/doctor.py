"""`logflume doctor`: checks every component, process and setting, and suggests fixes."""

import asyncio
import math
import sys
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import aiohttp
import click
import httpx
import msgspec
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import ChannelNotFoundEntity
from pusher.errors import PusherError  # type: ignore[import-untyped]
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.client import Client

from activities.types import archive_queue
from db.connect import check_schema, check_writable, connect_directly, open_pool
from db.maintenance import until
from db.partitions import partitions
from db.stats import OLDEST_PENDING_DELETION, count_overdue
from drain.queue_checks import QueueChecker
from logflume import amqp, contract
from logflume.archive.probe import Probe
from logflume.errors import ArchiveRefused, ComponentError
from logflume.pusher import make_sender
from logflume.settings import Settings, load_settings
from logflume_cli.findings import CHECK_SECONDS, Problem, Report, Row, make_row
from logflume_cli.schedules import apply_schedules, recurring
from logflume_cli.services import make_workflows
from logflume_cli.worker import QUEUES
from web.auth import sign_link
from workflows.client.connection import (
    connect_temporal,
    ensure_search_attributes,
    last_polls,
    missing_search_attributes,
)
from workflows.client.schedules import PAUSED, difference

PROBE_SECONDS = 60  # for about twenty requests to the archive
POLL_AGE = timedelta(seconds=90)  # a worker polls again after a minute at most
SWEEP_SECONDS = 600
REMOVAL_SECONDS = 300


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.option(
    "--fix",
    is_flag=True,
    help="Create missing queues and search attributes, and apply the schedules. Without this "
    "option nothing is changed, except that probe objects are written to the archive and deleted.",
)
def doctor(*, as_json: bool, fix: bool) -> None:
    """Check settings, servers and running processes, and suggest fixes.

    Exits with 1 if a check fails.
    """
    report = Report()
    asyncio.run(check_all(load_settings(), report, fix=fix))
    report.print(as_json=as_json)
    sys.exit(not all(row.ok for row in report.rows))


async def check_all(settings: Settings, report: Report, *, fix: bool = False) -> None:
    """Run every check."""
    if await report.run("rabbitmq", _rabbitmq(settings), "LOGFLUME_AMQP__URL"):
        await report.run("queues", _queues(settings, fix=fix), "LOGFLUME_AMQP__MANAGEMENT_URL")
        await report.run("drains", _drains(settings))
        await report.run("dead letters", _dead_letters(settings))
    else:
        report.skip("rabbitmq", "queues", "drains", "dead letters")
    if await report.run("postgres", _postgres(settings), "LOGFLUME_DATABASE__URL"):
        await report.run("logs", _logs(settings), "LOGFLUME_DATABASE__URL")
    else:
        report.skip("postgres", "maintenance", "partitions", "removed text", "overdue logs")
    if await report.run("temporal", _temporal(settings, fix=fix), "LOGFLUME_TEMPORAL__ADDRESS"):
        client = await connect_temporal(settings.temporal)
        for queue in QUEUES:
            await report.run(f"worker: {queue}", _workers(client, settings, queue))
        await report.run("schedules", _schedules(client, settings, fix=fix))
        await report.run("sweep", _sweep(client, settings))
        await report.run("stuck logs", _stuck_logs(client, settings))
    else:
        workers = [f"worker: {queue}" for queue in QUEUES]
        report.skip("temporal", *workers, "schedules", "sweep", "stuck logs")
    if await report.run("archive", _archive(settings), "LOGFLUME_S3__ENDPOINT"):
        await report.run("archive: operations", _operations(settings), seconds=PROBE_SECONDS)
    else:
        report.skip("archive", "archive: operations")
    await report.run("pusher", _pusher(settings), "LOGFLUME_PUSHER__*")
    await report.run("web token", _token(settings))
    await report.run("web", _web(settings), "LOGFLUME_WEB__URL")


def _amqp(settings: Settings) -> AbstractAsyncContextManager[AbstractConnection]:
    return amqp.connecting(settings.amqp.url.get_secret_value(), "logflume doctor")


async def _rabbitmq(settings: Settings) -> str:
    async with _amqp(settings) as connection:
        await connection.channel()
    return amqp.describe(settings.amqp.url.get_secret_value())


async def _queues(settings: Settings, *, fix: bool) -> str:
    """Check that the queues exist as runners declare them, and that RabbitMQ drops no message."""
    async with _amqp(settings) as connection:
        channel = await connection.channel()
        if fix:
            await amqp.declare(channel)
        elif await _counts(connection, contract.QUEUE) is None:
            raise Problem(
                f"The queue {contract.QUEUE} does not exist.",
                "Start a drain or run `logflume doctor --fix`.",
            )
        else:  # of a queue that exists, this only compares the arguments
            await channel.declare_queue(contract.QUEUE, durable=True)
    checker = QueueChecker(settings.amqp)
    try:
        findings = await checker.check([contract.QUEUE])
    finally:
        await checker.close()
    if findings.problems:
        raise Problem("; ".join(findings.problems), "Change the queues or policies as it says.")
    if settings.amqp.management_url is None:
        return "limits and policies not checked: LOGFLUME_AMQP__MANAGEMENT_URL is unset"
    return "no limit or policy drops messages"


async def _counts(connection: AbstractConnection, queue: str) -> tuple[int, int] | None:
    """The consumers and ready messages of a queue; None if it does not exist."""
    channel: AbstractChannel = await connection.channel()
    try:
        result = (await channel.declare_queue(queue, passive=True)).declaration_result
    except ChannelNotFoundEntity:
        return None
    return result.consumer_count or 0, result.message_count or 0


async def _drains(settings: Settings) -> str:
    async with _amqp(settings) as connection:
        consumers, messages = await _counts(connection, contract.QUEUE) or (0, 0)
    if not consumers:
        raise Problem(
            f"No drain consumes the queue of parts; {messages} messages wait.",
            "Start `logflume drain`. If one runs, its log says why it does not consume: "
            "maintenance, too many invalid messages, or a server that is down.",
        )
    return f"{consumers} consumers, {messages} messages wait"


async def _dead_letters(settings: Settings) -> str:
    async with _amqp(settings) as connection:
        _, messages = await _counts(connection, contract.DEAD_LETTER_QUEUE) or (0, 0)
    if messages:
        raise Problem(
            f"{messages} messages are in the dead-letter queue.",
            "See `logflume rejected list`; fix their sender, then requeue or drop them.",
        )
    return "none"


async def _postgres(settings: Settings) -> str:
    async with await open_pool(settings.database, 1) as pool:
        await check_schema(pool)
        await check_writable(pool)
    await (await connect_directly(settings.database, "logflume doctor")).close()
    return "schema is current"


async def _logs(settings: Settings) -> list[Row]:
    """What the database says about maintenance, partitions, removals and overdue logs."""
    lifecycle = settings.lifecycle
    late = ""
    async with await open_pool(settings.database, 1) as pool, pool.acquire() as connection:
        found, ends = await partitions(connection), await until(connection)
        removed = await connection.fetchval(OLDEST_PENDING_DELETION)
        if ends is None:  # under maintenance an operator may hold locks
            overdue = await count_overdue(
                connection, lifecycle.idle_timeout_seconds, lifecycle.purge_seconds
            )
            counts = msgspec.structs.asdict(overdue).items()
            late = ", ".join(f"{count} {phase}" for phase, count in counts if count)
    ahead = sum(partition.begin > found.now for partition in found.ranges)
    return [
        make_row(
            "maintenance",
            f"The switch is on until {ends:%H:%M:%S} UTC: no part is stored or read."
            if ends
            else "",
            "Run `logflume maintenance off`, unless work on the database is going on.",
            "off",
        ),
        make_row(
            "partitions",
            "" if ahead else "None exists for the next interval.",
            "Run `temporal schedule trigger --schedule-id partition-maintenance` and read the "
            "result of that workflow.",
            f"{ahead} ahead",
        ),
        make_row(
            "removed text",
            f"It is still in the archive after {removed / 60:.0f} min."
            if removed > REMOVAL_SECONDS
            else "",
            "Is a worker serving `archive`, and does the archive accept deletions? See below.",
            "deleted",
        ),
        make_row(
            "overdue logs",
            f"In one phase for more than 30 min: {late}." if late else "",
            "`logflume show JOB_ID` says why; see `LogflumeLogsOverdue` in the runbook.",
            "not checked during maintenance" if ends else "none",
        ),
    ]


async def _temporal(settings: Settings, *, fix: bool) -> str:
    client = await connect_temporal(settings.temporal)
    if fix:
        await ensure_search_attributes(client)
    elif missing := await missing_search_attributes(client):
        raise Problem(
            f"The namespace lacks the search attributes {', '.join(missing)}.",
            "Start a worker or run `logflume doctor --fix`.",
        )
    return f"namespace {client.namespace}"


async def _workers(client: Client, settings: Settings, queue: str) -> str:
    task_queue, kind = settings.temporal.task_queue, TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
    if queue == "archive":
        task_queue, kind = archive_queue(task_queue), TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
    since = datetime.now(UTC) - POLL_AGE
    polling = sum(at > since for at in await last_polls(client, task_queue, kind))
    if not polling:
        raise Problem(
            f"No worker polls the task queue {task_queue}.",
            f"Run `logflume worker --queues {queue}`, with this LOGFLUME_TEMPORAL__TASK_QUEUE.",
        )
    return f"{polling} polling {task_queue}"


async def _schedules(client: Client, settings: Settings, *, fix: bool) -> str:
    if fix:
        await apply_schedules(settings)
    wanted = recurring(settings)
    for one in wanted:
        if problem := await difference(client, settings.temporal.task_queue, one):
            raise Problem(
                f"The schedule {one.name} {problem}.",
                f"Run `temporal schedule toggle --schedule-id {one.name} --unpause`."
                if problem.startswith(PAUSED)
                else "Run `logflume schedules apply`.",
            )
    return ", ".join(one.name for one in wanted)


async def _sweep(client: Client, settings: Settings) -> str:
    seconds = await make_workflows(client, settings).last_sweep_seconds()
    if seconds > max(SWEEP_SECONDS, 2 * settings.sweep.every_seconds):
        raise Problem(
            f"The last sweep finished {seconds / 60:.0f} min ago."
            if math.isfinite(seconds)
            else "No sweep has finished yet.",
            "If workers and schedules are well, read the result of the last workflow `sweep`.",
        )
    return f"finished {seconds:.0f} s ago"


async def _stuck_logs(client: Client, settings: Settings) -> str:
    if count := await make_workflows(client, settings).count_stuck():
        raise Problem(
            f"{count} logs are stuck.",
            'List them: `temporal workflow list --query \'LogPhase="stuck" AND '
            'ExecutionStatus="Running"\'`; see `LogflumeLogsStuck` in the runbook.',
        )
    return "none"


async def _archive(settings: Settings) -> str:
    probe = Probe(settings.s3, 1)
    try:
        await probe.check()
    except ArchiveRefused:  # a HEAD has no error code; a list has one
        await probe.hold_copies(0)
        raise
    return settings.s3.bucket


async def _operations(settings: Settings) -> list[Row]:
    return [
        make_row(f"archive: {found.operation}", found.problem, found.fix, found.result)
        for found in await Probe(settings.s3, 1).findings()
    ]


async def _pusher(settings: Settings) -> str:
    sender = make_sender(settings.pusher)
    if sender is None:
        return "no app is configured: parts are not sent live"
    try:
        answer = await sender.channels_info()
    except (PusherError, aiohttp.ClientError, TimeoutError, ValueError) as error:
        where = f"Pusher at {settings.pusher.host}:{settings.pusher.port}"
        raise ComponentError(f"{where}: {error or type(error).__name__}") from error
    finally:
        await sender.http.close()
    if refusal := answer.get("error"):  # a refusal with a success status
        raise Problem(f"Pusher refuses: {refusal}", "Correct LOGFLUME_PUSHER__APP_ID, KEY, SECRET.")
    return f"app {settings.pusher.app_id}"


async def _token(settings: Settings) -> str:
    if settings.web.auth_token is None:
        fix = "Set LOGFLUME_WEB__AUTH_TOKEN to a long random text."
        raise Problem("No token is set: requests that require it are refused.", fix)
    return "set"


async def _web(settings: Settings) -> str:
    """Check that a web answers at the public URL, and accepts the links that we sign."""
    web = settings.web
    if not web.url:
        if web.link_secret:
            raise Problem(
                "LOGFLUME_WEB__LINK_SECRET is set, but no URL: `logflume share` fails.",
                "Set LOGFLUME_WEB__URL to the public URL of the web.",
            )
        return "not checked: LOGFLUME_WEB__URL is unset"
    share = {"share": sign_link(web, 0, timedelta(minutes=1))} if web.link_secret else {}
    try:
        async with httpx.AsyncClient(base_url=web.url, timeout=CHECK_SECONDS) as client:
            (await client.get("/uptime")).raise_for_status()
            answer = await client.get("/logs/0/id", params=share)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ComponentError(f"{web.url}: {error or type(error).__name__}") from error
    if not share:
        return f"{web.url}; LOGFLUME_WEB__LINK_SECRET is unset: no links to single logs"
    if answer.status_code == HTTPStatus.FORBIDDEN:
        raise Problem(
            f"{web.url} refuses a link that was signed here.",
            "Give this machine and all webs the same LOGFLUME_WEB__LINK_SECRET.",
        )
    return f"{web.url}, links are accepted"
