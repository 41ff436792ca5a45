"""Seeded jobs: what runners and the site send, and what the logs must contain by the model.

A job's script depends only on its seed. Unconfirmed messages are sent again until they are
confirmed, so every part is known to be published. Each part begins with a unique mark, by which the
oracle finds lost, doubled and misplaced parts.
"""

import asyncio
import base64
import random
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import aio_pika

from logflume import amqp, contract
from logflume.domain import LAST, Part
from tests.support.model import Model
from tests.support.parts import part
from tests.support.soak.way import Way

WINDOW = 50
SEEN_SECONDS = 180
# AMQP times have whole seconds: a run must start in a later second than the previous one.
RUN_SECONDS = 1.1
# The most seconds by which a runner's clock is wrong; longer than a job waits between two runs.
MOST_AHEAD = 600
PART_BYTES = 1653
SHAPES = {
    "tiny": 25, "chatty": 14, "large": 7, "huge": 1, "restarted": 8, "requeued": 7,
    "cleared": 8, "cleared late": 5, "removed": 4, "never final": 5, "last": 6,
    "duplicates": 6, "shuffled": 8, "gaps": 5, "gap filled late": 4, "http": 8, "whole first": 3,
    "bytes": 5, "empty": 2,
}  # fmt: skip
TEXT = (
    "ok ",
    "test ",
    "\x1b[32m",
    "é",
    "日本",
    "\r\n",
    "travis_fold:start:a\r",
    "<b>",
    "0123456789",
)


class Run:
    """One run of a job: its uuid, its parts, and how many seconds its runner's clock is ahead."""

    def __init__(self, uuid: str, contents: Sequence[bytes], ahead: int = 0) -> None:
        self.uuid = uuid
        self.contents = contents
        self.ahead = ahead


class Job:
    """One job: its script, and the model of its log by what was sent so far."""

    def __init__(self, seed: str, job_id: int, shape: str | None = None) -> None:
        self.id = job_id
        self.chance = random.Random(f"{seed} job {job_id}")
        chosen = self.chance.choices(list(SHAPES), list(SHAPES.values()))[0]
        self.shape = shape or chosen
        self.model = Model()
        self.messages = 0
        self.is_over = False
        self._runs = 0
        self._marks = 0

    async def play(self, way: Way) -> None:
        self._way = way
        await getattr(self, "_" + self.shape.replace(" ", "_"))()
        self.is_over = True

    # The shapes

    async def _tiny(self) -> None:
        await self._all(self._run(1, 3))

    async def _chatty(self) -> None:
        await self._all(self._run(60, 200, 10, 90), window=8, pause=0.3)

    async def _large(self) -> None:
        await self._all(self._run(100, 400, PART_BYTES, PART_BYTES), window=100)

    async def _huge(self) -> None:
        """More than one slice: a multipart upload."""
        await self._all(self._run(3300, 3500, PART_BYTES, PART_BYTES), window=200)

    async def _bytes(self) -> None:
        await self._all(self._run(5, 60, raw=True), window=10, pause=0.1)

    async def _empty(self) -> None:
        await self._final(self._run(0, 0))

    async def _restarted(self) -> None:
        """Two runs without a clear; the first one's final part arrives after the second one's.

        A second run whose runner's clock is behind the first one's is superseded.
        """
        first, second = self._run(3, 40), self._run(3, 40)
        second.ahead = abs(second.ahead)
        if self.chance.random() < 0.2:
            second.ahead = min(first.ahead, 0) - MOST_AHEAD
        await self._send(first, range(self.chance.randrange(1, len(first.contents))))
        await self._until_seen()  # a clock that is ahead counts only until a part is received
        await asyncio.sleep(RUN_SECONDS)
        await self._all(second, window=10, pause=0.2)
        await self._final(first)

    async def _requeued(self) -> None:
        """The same run again with the same uuid and other text.

        Which text of a number comes last is decided by the order in which it is stored, and two
        drains, or a redelivery, may change that order while both are unacknowledged.
        """
        first = self._run(3, 40)
        await self._send(first, range(self.chance.randrange(1, len(first.contents))))
        again = Run(first.uuid, self._contents(len(first.contents), 10, 400), self._ahead())
        await self._all(again, window=10, pause=0.2)

    async def _cleared(self) -> None:
        """Abandoned halfway and cleared by the site; the stale rest arrives afterwards."""
        first = self._run(6, 60)
        # Part 0 of a clock that is ahead, delivered again after the clear, would begin a new run.
        first.ahead = min(first.ahead, 0)
        middle = self.chance.randrange(1, len(first.contents))
        await self._send(first, range(middle))
        await self._until_seen()
        await self._write(b"")
        await self._send(first, range(middle, len(first.contents)))
        await self._final(first)
        if self.chance.random() < 0.8:  # otherwise the log stays empty
            await asyncio.sleep(RUN_SECONDS)
            await self._all(self._run(3, 40), window=10, pause=0.2)

    async def _cleared_late(self) -> None:
        """Run again when the first run may already be archived."""
        first = self._run(3, 40)
        first.ahead = min(first.ahead, 0)  # as above
        await self._all(first)
        await self._until_seen()
        await asyncio.sleep(self.chance.uniform(0, 6))
        await self._write(b"")
        await self._final(first)
        await asyncio.sleep(RUN_SECONDS)
        await self._all(self._run(3, 40))

    async def _removed(self) -> None:
        await self._all(self._run(3, 40))
        await self._until_seen()
        await asyncio.sleep(self.chance.uniform(0, 6))
        await self._write(self._mark() + b"Log removed by A at B", removed_by=7)

    async def _whole_first(self) -> None:
        await self._write(self._mark() + b"written whole")
        await self._all(self._run(1, 20))

    async def _never_final(self) -> None:
        run = self._run(1, 30)
        await self._send(run, range(len(run.contents)))

    async def _last(self) -> None:
        run = self._run(1, 20)
        await self._all(run)
        lasts = [self._mark() + b"one more" for _ in range(self.chance.choice((1, 2)))]
        for content in (*lasts, lasts[0]):
            await self._put_part("last", content)

    async def _duplicates(self) -> None:
        run = self._run(5, 40)
        numbers = [
            n for n in range(len(run.contents)) for _ in range(self.chance.choice((1, 2, 3)))
        ]
        await self._send(run, numbers)
        await self._final(run)
        await asyncio.sleep(self.chance.uniform(0, 5))
        await self._send(run, range(len(run.contents)))  # all parts again after the end

    async def _shuffled(self) -> None:
        run = self._run(10, 120)
        numbers = list(range(len(run.contents)))
        self.chance.shuffle(numbers)
        middle = self.chance.randrange(len(numbers))
        await self._send(run, numbers[:middle], window=15, pause=0.1)
        await self._final(run)
        await self._send(run, numbers[middle:], window=15)

    async def _gaps(self) -> None:
        run = self._run(10, 60)
        numbers = [n for n in range(len(run.contents)) if self.chance.random() < 0.8]
        await self._send(run, numbers)
        await self._final(run)

    async def _gap_filled_late(self) -> None:
        run = self._run(10, 60)
        lost = set(self.chance.sample(range(len(run.contents)), 3))
        await self._send(run, [n for n in range(len(run.contents)) if n not in lost])
        await self._final(run)
        await asyncio.sleep(self.chance.uniform(0, 15))
        await self._send(run, sorted(lost))

    async def _single(self) -> None:
        """One message, which one drain stores."""
        run = self._run(1, 1)
        await self._publish([self._part(run, 0, run.contents[0], final=True)])

    async def _http(self) -> None:
        contents = self._contents(self.chance.randrange(1, 40), 10, 1500)
        for start in range(0, len(contents), 5):
            some = range(start, min(start + 5, len(contents)))
            await asyncio.gather(*(self._put_part(n, contents[n]) for n in some))
        await self._put_part(len(contents), b"", final=True)

    # Their building blocks

    def _run(
        self, fewest: int, most: int, small: int = 10, big: int = 900, *, raw: bool = False
    ) -> Run:
        uuid = str(UUID(int=self.chance.getrandbits(128), version=4))
        contents = self._contents(self.chance.randint(fewest, most), small, big, raw=raw)
        return Run(uuid, contents, self._ahead())

    def _ahead(self) -> int:
        return self.chance.choice((0, 0, self.chance.randint(-MOST_AHEAD, MOST_AHEAD)))

    def _contents(self, count: int, small: int, big: int, *, raw: bool = False) -> list[bytes]:
        self._runs += 1
        return [self._content(n, self.chance.randint(small, big), raw=raw) for n in range(count)]

    def _content(self, number: int, size: int, *, raw: bool) -> bytes:
        mark = b"\x1e%d.%d.%d\x1f" % (self.id, self._runs, number)
        if raw:
            return mark + self.chance.randbytes(size).replace(b"\x1e", b"\0")
        words = "".join(self.chance.choices(TEXT, k=max(1, size // 6))).encode()
        # Cut at any byte, also inside a character, as runners do.
        return (mark + words * 3)[: max(size, len(mark))]

    def _mark(self) -> bytes:
        self._marks += 1
        return b"\x1e%d.w.%d\x1f" % (self.id, self._marks)

    async def _all(self, run: Run, *, window: int = WINDOW, pause: float = 0) -> None:
        await self._send(run, range(len(run.contents)), window=window, pause=pause)
        await self._final(run)

    async def _final(self, run: Run) -> None:
        await self._publish([self._part(run, len(run.contents), b"", final=True)])

    async def _send(
        self, run: Run, numbers: Sequence[int], *, window: int = WINDOW, pause: float = 0
    ) -> None:
        for start in range(0, len(numbers), window):
            some = numbers[start : start + window]
            await self._publish([self._part(run, n, run.contents[n]) for n in some])
            if pause:
                await asyncio.sleep(self.chance.uniform(0, 2 * pause))

    def _part(self, run: Run, number: int, content: bytes, *, final: bool = False) -> Part:
        now = datetime.now(UTC)
        at = now.replace(microsecond=0) + timedelta(seconds=run.ahead)
        return Part(self.id, run.uuid, number, content, final, published_at=at, received_at=now)

    async def _publish(self, parts: Sequence[Part]) -> None:
        """Publish parts concurrently in this order; returns when all are confirmed."""
        self.messages += len(parts)
        await asyncio.gather(*(self._way.runner.publish(message_of(one)) for one in parts))
        for one in parts:
            self.model.receive(one)

    async def _put_part(self, number: int | str, content: bytes, *, final: bool = False) -> None:
        body = {
            "@type": "log_part", "encoding": "base64", "final": final,
            "content": base64.encodebytes(content).decode(),
        }  # fmt: skip
        self.messages += 1
        path = f"/log-parts/{self.id}/{number}"
        await self._way.call("PUT", path, direct=False, json=body)
        number = LAST if number == "last" else int(number)
        self.model.receive(part(self.id, number, content, attempt="", final=final))

    async def _write(self, content: bytes, **query: int) -> None:
        path = f"/logs/{self.id}"
        await self._way.call("PUT", path, direct=True, content=content, params=query)
        self.model.write(content)

    async def _until_seen(self) -> None:
        """Wait until parts of the run are stored: clearing closes only runs that were seen.

        If they never are stored, the oracle reports it.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(SEEN_SECONDS):
                while not await self._way.read(self.id):
                    await asyncio.sleep(0.2)


def message_of(one: Part) -> aio_pika.Message:
    message = contract.PartMessage.of(
        one.job_id, one.number, one.content, uuid=one.attempt, final=one.final
    )
    return amqp.part_message(message, one.published_at)
