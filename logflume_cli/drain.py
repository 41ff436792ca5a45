"""`logflume drain`: the composition root of the drain."""

from contextlib import AsyncExitStack

import click
import structlog

from db.connect import check_schema, check_writable, close_pool, open_pool
from drain.drain import Drain
from drain.flush import SESSIONS
from drain.live.forwarder import Forwarder
from drain.metrics import SIGNAL_FAILURES, readings, signal_sent
from drain.shards import Shards
from logflume.observability.server import metrics_server
from logflume.pusher import make_sender
from logflume.settings import Settings
from logflume.settings.servers import PusherSettings
from logflume_cli.services import lazy_workflows, on_stop, run
from workflows.client.signaller import Signaller

log = structlog.get_logger()

MAX_SIGNAL_BACKOFF_SECONDS = 5.0


@click.command()
@click.option(
    "--sharded",
    is_flag=True,
    help="Also consume the sharded queues; needs RabbitMQ's plugin rabbitmq_sharding and the "
    "setting LOGFLUME_AMQP__MANAGEMENT_URL.",
)
def drain(*, sharded: bool) -> None:
    """Run a drain: commit parts from RabbitMQ to Postgres and signal each log's workflow.

    Ctrl-C or SIGTERM stops consuming, commits and acknowledges what was received, and exits.
    """
    run("drain", lambda settings: _drain(settings, sharded=sharded))


def _forwarder(settings: PusherSettings) -> Forwarder | None:
    sender = make_sender(settings)
    if sender and not settings.secure:
        log.warning(
            "pusher_channels_public",
            effect="whoever knows the app's key and a job id can read that job's live parts",
            next="set LOGFLUME_PUSHER__SECURE=true once readers subscribe to private channels",
        )
    return Forwarder(sender, settings) if sender else None


async def _drain(settings: Settings, *, sharded: bool) -> None:
    async with AsyncExitStack() as stack:
        shards = Shards(settings.amqp) if sharded else None
        if shards:
            stack.push_async_callback(shards.close)
        # One connection for each flush in flight, and one to ask what they wait for.
        pool = await open_pool(settings.database, settings.drain.flushes + 1, SESSIONS)
        stack.push_async_callback(close_pool, pool)
        await check_schema(pool, "logflume_drain")
        signaller = Signaller(
            # Ingest does not wait for Temporal, not even at the start.
            await lazy_workflows(settings),
            interval=settings.drain.signal_seconds,
            in_flight=settings.drain.signals_in_flight,
            max_backoff=MAX_SIGNAL_BACKOFF_SECONDS,
            on_sent=signal_sent,
            on_failed=SIGNAL_FAILURES.inc,
        )
        live = _forwarder(settings.pusher)
        process = Drain(settings.amqp, settings.drain, pool, signaller, live, shards)
        on_stop(process.stop)
        # Temporal is not among them: parts are stored without it.
        needs = {
            "rabbitmq": process.queue,
            "rabbitmq_alarm": process.check_publishing,
            "postgres": lambda: check_writable(pool),
            "dead_letter_limit": process.check_not_suspended,
        }
        shown = metrics_server("drain", settings.telemetry, needs, readings(process.queue))
        await stack.enter_async_context(shown)
        await process.run()
