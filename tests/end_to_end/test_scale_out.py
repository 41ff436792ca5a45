"""Several drains, workers and webs start and stop under load: every log stays exact."""

import asyncio
import base64
import itertools
import json
import os
import random
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import aio_pika
import httpx
import pytest

from logflume import contract
from logflume.archive.store import key
from tests.support.s3 import s3
from tests.support.services import draining, serving
from tests.support.waiting import until

LOGFLUME = Path(sys.executable).with_name("logflume")
pytestmark = pytest.mark.timeout(300)

PACE_SECONDS = 0.05


class Processes:
    """Our processes with the test's own database, vhost, bucket and task queue."""

    def __init__(self, settings, folder: Path) -> None:
        self._folder = folder
        self._environment = {
            **os.environ,
            "LOGFLUME_AMQP__URL": settings.amqp.url.get_secret_value(),
            "LOGFLUME_DATABASE__URL": settings.database.url.get_secret_value(),
            "LOGFLUME_TEMPORAL__TASK_QUEUE": settings.temporal.task_queue,
            "LOGFLUME_S3__BUCKET": settings.s3.bucket,
            "LOGFLUME_LIFECYCLE__SETTLE_SECONDS": "0.2",
            "LOGFLUME_LIFECYCLE__GAP_SECONDS": "25",
        }
        self._numbers = itertools.count()
        self._running = []

    async def start(self, *arguments: str):
        """Start one and wait until it logs that it has started."""
        path = self._folder / f"{next(self._numbers)}.log"
        with path.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                LOGFLUME, *arguments, env=self._environment, stderr=output
            )
        self._running.append(process)

        async def started() -> bool:
            assert process.returncode is None, path.read_text()
            return "_started" in path.read_text()

        await until(started)
        return process

    async def end(self) -> None:
        for process in self._running:
            if process.returncode is None:
                process.terminate()
        await asyncio.gather(*(process.wait() for process in self._running))


async def stop(process, number: int) -> int:
    """Send a signal; returns the exit code."""
    process.send_signal(number)
    return await asyncio.wait_for(process.wait(), 60)


@pytest.fixture
async def processes(amqp_settings, tmp_path):
    made = Processes(amqp_settings, tmp_path)
    yield made
    await made.end()


class Load:
    """Jobs, each published through one of: the plain exchange, the sharded one, HTTP."""

    def __init__(self, channel, webs: list[httpx.AsyncClient], jobs) -> None:
        self._channel = channel
        self._webs = itertools.cycle(webs)
        self._ways = list(zip(jobs, itertools.cycle((self._plain, self._shard, self._http))))
        self._random = random.Random(17)
        self.published = dict.fromkeys(jobs, b"")
        self.parts = 0

    async def run(self, ends: asyncio.Event) -> None:
        """Publish parts of every job until `stop` is set, then the final ones."""
        while not ends.is_set():
            await self._publish(final=False)
            await asyncio.sleep(PACE_SECONDS)
        await self._publish(final=True)

    async def _publish(self, *, final: bool) -> None:
        publishing = []
        for job, way in self._ways:
            text = self._random.randbytes(self._random.randrange(1, 1200))
            self.published[job] += text
            content = base64.b64encode(text).decode()
            part = {"@type": "log_part", "encoding": "base64", "content": content, "final": final}
            publishing.append(way(job, part))
        await asyncio.gather(*publishing)
        self.parts += 1

    async def _plain(self, job: int, part: dict) -> None:
        await self._publish_to(contract.EXCHANGE, contract.ROUTING_KEY, job, part)

    async def _shard(self, job: int, part: dict) -> None:
        await self._publish_to(contract.SHARDED_EXCHANGE, str(job), job, part)

    async def _publish_to(self, exchange: str, routing_key: str, job: int, part: dict) -> None:
        body = {"id": job, "number": self.parts, "uuid": "run", "log": part["content"]}
        body |= {"encoding": part["encoding"], "final": part["final"]}
        message = aio_pika.Message(json.dumps(body).encode())
        await (await self._channel.get_exchange(exchange)).publish(message, routing_key)

    async def _http(self, job: int, part: dict) -> None:
        """Post to one web, then to the next if the response is not 204, as runners do."""
        for web in self._webs:
            try:
                answer = await web.put(f"/log-parts/{job}/{self.parts}", json=part)
            except httpx.TransportError:
                continue
            if answer.status_code == 204:
                return


async def test_every_log_is_exact_while_processes_come_and_go(
    processes, amqp_settings, channel, pool, numbers
):
    # On a busy machine, parts may arrive late; do not verify a log without them.
    patient = amqp_settings.lifecycle.model_copy(update={"gap_seconds": 25})
    settings = amqp_settings.model_copy(update={"lifecycle": patient})
    jobs = [next(numbers) for _ in range(24)]
    victim, worker = await asyncio.gather(
        processes.start("drain", "--sharded"), processes.start("worker")
    )
    async with AsyncExitStack() as stays:
        url = settings.amqp.url.get_secret_value()
        connection = await stays.enter_async_context(await aio_pika.connect(url))
        strict = await connection.channel(on_return_raises=True)
        client = await stays.enter_async_context(serving(settings, pool))
        async with draining(settings), serving(settings, pool) as second:
            # A client that outlives its web, as a runner's does.
            other = httpx.AsyncClient(base_url=second.base_url, headers=second.headers)
            await stays.enter_async_context(other)
            load = Load(strict, [client, other], jobs)
            ends = asyncio.Event()
            publishing = asyncio.create_task(load.run(ends))
            await stores_more(pool)
            await stays.enter_async_context(draining(settings, sharded=True))
            await processes.start("worker")
            await stores_more(pool)
            assert await stop(victim, signal.SIGKILL) == -signal.SIGKILL
            assert await stop(worker, signal.SIGTERM) == 0
        await stores_more(pool)
        ends.set()
        await publishing
        verified = "SELECT count(*) = $1 FROM logs WHERE archive_verified"
        await until(lambda: pool.fetchval(verified, len(jobs)))
        for job in jobs:
            archived = s3(settings).get_object(Bucket=settings.s3.bucket, Key=key(job))
            assert archived["Body"].read() == load.published[job]
            assert (await client.get(f"/logs/{job}/raw")).content == load.published[job]
    left = await channel.declare_queue(contract.QUEUE, durable=True)
    assert left.declaration_result.message_count == 0


async def stores_more(pool) -> None:
    """Wait until more parts are stored."""
    count = "SELECT count(*) FROM log_parts"
    before = await pool.fetchval(count)
    await until(lambda: pool.fetchval(f"SELECT ({count}) > $1", before))
