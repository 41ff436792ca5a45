"""The content rule: SQL against a plain model of the contract's words."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db import logs, reading
from db.parts import store_batch
from domain import LAST, Part
from tests.conftest import BEGIN, content, part, write_whole


@dataclass
class Model:
    """What the wire contract says of one log, in plain Python."""

    whole: bytes = b""
    parts: list[Part] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)
    stale: int = 0

    def write(self, content: bytes) -> None:
        self.whole, self.parts = content, []
        self.closed |= self.seen - {""}

    def receive(self, part: Part) -> None:
        self.seen.add(part.attempt)
        if part.attempt in self.closed:
            self.stale += 1
        else:
            self.parts.append(part)

    @property
    def attempt(self) -> str | None:
        begins: dict[str, object] = {}
        for one in self.parts:
            if one.number != LAST:
                known = begins.get(one.attempt, one.published_at)
                begins[one.attempt] = min(known, one.published_at)
        return max(begins, key=lambda uuid: (begins[uuid], uuid), default=None)

    @property
    def numbered(self) -> dict[int, Part]:
        mine = [p for p in self.parts if p.attempt == self.attempt and p.number != LAST]
        return {one.number: one for one in mine}  # the one received last counts

    @property
    def content(self) -> bytes:
        numbered = b"".join(one.content for _, one in sorted(self.numbered.items()))
        lasts = dict.fromkeys(one.content for one in self.parts if one.number == LAST)
        return self.whole + numbered + b"".join(lasts)

    @property
    def missing(self) -> int:
        return max(self.numbered, default=-1) + 1 - len(self.numbered)

    @property
    def ended(self) -> bool:
        lasts = [one for one in self.parts if one.number == LAST]
        final = any(one.final for one in [*self.numbered.values(), *lasts])
        return final or (bool(self.whole) and not self.numbered)


contents = st.sampled_from([b"", b"a", b"b", b"\0", b"\xff\xfe", "é".encode()[:1], b"long" * 9])
parts = st.builds(
    lambda attempt, number, content, final, second: part(
        0,
        number,
        content,
        attempt=attempt,
        final=final,
        # Whole seconds, as AMQP gives them: attempts often begin in the same one.
        published_at=BEGIN + timedelta(seconds=second),
    ),
    st.sampled_from(["", "a", "b"]),
    st.sampled_from([0, 1, 2, 4, LAST]),
    contents,
    st.booleans(),
    st.integers(0, 2),
)
batches = st.lists(st.lists(parts, min_size=1, max_size=5) | contents, max_size=8)


@pytest.fixture
def runner():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def connection(runner, database_url):
    connection = runner.run(asyncpg.connect(database_url))
    yield connection
    runner.run(connection.close())


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(happenings=batches)
def test_sql_and_model_agree(runner, connection, numbers, happenings):
    runner.run(check(connection, next(numbers), happenings))


async def check(connection, job_id: int, happenings: list[list[Part] | bytes]) -> None:
    model = Model()
    await write_whole(connection, job_id, b"")
    for happening in happenings:
        if isinstance(happening, bytes):
            model.write(happening)
            await write_whole(connection, job_id, happening)
            continue
        received = [
            part(
                job_id,
                one.number,
                one.content,
                attempt=one.attempt,
                final=one.final,
                published_at=one.published_at,
            )
            for one in happening
        ]
        for one in received:
            model.receive(one)
        await store_batch(connection, received)
    log = await reading.find(connection, job_id)
    assert await content(connection, job_id) == model.content
    told = await logs.aggregate(connection, job_id, force=False, restore=False)
    assert told.ended == model.ended
    assert told.stale_parts == model.stale
    assert told.missing_parts == model.missing
    made = await logs.aggregate(connection, job_id, force=True, restore=False)
    if made.sha256:
        stored = await reading.content_slice(connection, log.id, made.sha256, 0, 1000)
        assert stored == model.content
    else:
        assert model.content == b""


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_order_batches_and_redelivery_do_not_matter(runner, connection, numbers, data):
    """The same parts, shuffled, doubled and batched anyhow, are the same log."""
    text = data.draw(st.binary(max_size=60))
    cuts = [text[at : at + 7] for at in range(0, len(text), 7)]
    job_id = next(numbers)
    sent = [part(job_id, number, cut) for number, cut in enumerate(cuts)]
    sent.append(part(job_id, len(cuts), b"", final=True))
    arrived = data.draw(st.permutations(sent + data.draw(st.lists(st.sampled_from(sent)))))
    size = data.draw(st.integers(1, 10))

    async def deliver() -> bytes:
        for at in range(0, len(arrived), size):
            await store_batch(connection, arrived[at : at + size])
        made = await logs.aggregate(connection, job_id, force=False, restore=False)
        assert (made.ended, made.missing_parts) == (True, 0)
        log = await reading.find(connection, job_id)
        return await reading.content_slice(connection, log.id, made.sha256, 0, len(text) + 1)

    assert runner.run(deliver()) == text
