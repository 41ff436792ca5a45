"""The connections over which jobs publish and readers read, with repetition until success."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aio_pika
import httpx
from yarl import URL

from logflume import amqp, contract
from tests.support.soak.system import System

# Longer than any fault: after an earlier timeout, the first message could overtake its repetition.
CONFIRM_SECONDS = 45
AGAIN_SECONDS = 0.3


@dataclass
class Counts:
    """Counts of the whole load."""

    messages: int = 0
    again: int = 0  # sent again because no confirm arrived
    calls_again: int = 0


class Runner:
    """Publishes with confirms for all jobs; repeats what is not confirmed."""

    def __init__(self, url: str, counts: Counts) -> None:
        self._url = url
        self._counts = counts
        self._connecting = asyncio.Lock()
        self._connection: aio_pika.abc.AbstractConnection | None = None
        self._exchange: aio_pika.abc.AbstractExchange | None = None

    async def publish(self, message: aio_pika.Message) -> None:
        while True:
            used = None
            self._counts.messages += 1
            try:
                async with asyncio.timeout(CONFIRM_SECONDS):
                    used = await self._connected()
                    await used.publish(message, contract.ROUTING_KEY, mandatory=True)
                    return
            except asyncio.CancelledError:
                # aiormq cancels waiters of a lost connection, too.
                task = asyncio.current_task()
                if task and task.cancelling():
                    raise
            except Exception:  # noqa: BLE001 - any error: the message is not confirmed
                pass
            self._counts.again += 1
            if used is not None and used is self._exchange:
                await self.close()
            await asyncio.sleep(AGAIN_SECONDS)

    async def _connected(self) -> aio_pika.abc.AbstractExchange:
        async with self._connecting:
            if self._exchange is None:
                await self.close()  # the rest of a failed attempt
                self._connection = aio_pika.Connection(URL(self._url))
                await self._connection.connect(timeout=10)
                channel = await self._connection.channel(on_return_raises=True)
                self._exchange = await amqp.declare(channel)
            return self._exchange

    async def close(self) -> None:
        connection, self._connection, self._exchange = self._connection, None, None
        if connection:
            with suppress(Exception):
                async with asyncio.timeout(5):
                    await connection.close()


class Way:
    """The connections over which a job's script sends and reads."""

    def __init__(self, system: System, runner: Runner, counts: Counts) -> None:
        self.runner = runner
        self._counts = counts
        self._web, self._direct = system.web(direct=False), system.web(direct=True)

    async def call(self, method: str, path: str, *, direct: bool, **more: Any) -> httpx.Response:
        """Call until the response is a success."""
        client = self._direct if direct else self._web
        while True:
            try:
                answer = await client.request(method, path, **more)
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.is_success:
                return answer
            self._counts.calls_again += 1
            await asyncio.sleep(AGAIN_SECONDS)

    async def read(self, job_id: int) -> bytes | None:
        """A log's bytes as a reader gets them now; None if the request fails."""
        try:
            answer = await self._web.get(f"/logs/{job_id}/raw")
        except httpx.HTTPError:
            return None
        return answer.content if answer.status_code == 200 else None

    async def close(self) -> None:
        await self.runner.close()
        await self._web.aclose()
        await self._direct.aclose()
