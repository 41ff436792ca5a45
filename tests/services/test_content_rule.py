"""The content rule: SQL against a simple model of the contract."""

import hashlib
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from db import aggregation, reading
from db.parts import store_batch
from logflume.domain import LAST, Part, Total
from tests.support.model import Model, contents, parts
from tests.support.parts import content, finish, part, pieces, received_now, write_whole

batches = st.lists(st.lists(parts, min_size=1, max_size=5) | contents, max_size=8)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(events=batches)
def test_sql_and_model_agree(runner, blocking, numbers, events):
    runner.run(check(blocking, next(numbers), events))


async def check(connection, job_id: int, events: list[list[Part] | bytes]) -> None:
    model = Model()
    await write_whole(connection, job_id, b"")
    for event in events:
        if isinstance(event, bytes):
            model.write(event)
            await write_whole(connection, job_id, event)
            continue
        received = [received_now(job_id, one) for one in event]
        for one in received:
            model.receive(one)
        await store_batch(connection, received)
    log = await reading.find(connection, job_id)
    assert await content(connection, job_id) == model.content
    ended = await aggregation.aggregate(connection, job_id, force=False, restore=False)
    assert ended.ended == model.ended
    assert ended.stale_parts == model.stale
    assert ended.missing_parts == model.missing
    made = await aggregation.aggregate(connection, job_id, force=True, restore=False)
    if made.sha256:
        stored = await reading.content_slice(connection, log.id, made.sha256, 0, 1000)
        assert stored == model.content
    else:
        assert model.content == b""


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_order_batches_and_redelivery_do_not_matter(runner, blocking, numbers, data):
    """The same parts, shuffled, redelivered and batched in any way, are the same log."""
    text = data.draw(st.binary(max_size=60))
    cuts = [text[at : at + 7] for at in range(0, len(text), 7)]
    job_id = next(numbers)
    sent = [part(job_id, number, cut) for number, cut in enumerate(cuts)]
    sent.append(part(job_id, len(cuts), b"", final=True))
    arrived = data.draw(st.permutations(sent + data.draw(st.lists(st.sampled_from(sent)))))
    size = data.draw(st.integers(1, 10))

    async def deliver() -> bytes:
        for at in range(0, len(arrived), size):
            await store_batch(blocking, arrived[at : at + size])
        made = await aggregation.aggregate(blocking, job_id, force=False, restore=False)
        assert (made.ended, made.missing_parts) == (True, 0)
        log = await reading.find(blocking, job_id)
        return await reading.content_slice(blocking, log.id, made.sha256, 0, len(text) + 1)

    assert runner.run(deliver()) == text


async def test_listed_parts_are_read_whatever_arrived_since(pool, job_id):
    sent = {0: b"0,", 2: b"2,", 4: b"4,", LAST: b"end"}
    async with pool.acquire() as connection:
        await store_batch(connection, [part(job_id, number, text) for number, text in sent.items()])
        found = await reading.snapshot(connection, await reading.find(connection, job_id))

        found_parts = found.parts
        assert found_parts is not None

        async def read(which: range) -> bytes:
            return await reading.read_bytes(connection, found.log.id, found_parts, which)

        assert await read(range(3)) == b"0,2,4,"
        await store_batch(connection, [part(job_id, 1, b"between"), part(job_id, 2, b"again")])
        assert await read(range(3)) == b"0,2,4,"
        assert await read(range(1, 2)) == b"2,"
        assert await read(range(4)) == b"0,2,4,end"


def sent(job_id: int, *texts: bytes) -> list[Part]:
    """The parts of a sender that announces their total with the last one."""
    whole = b"".join(texts)
    total = Total(len(texts), len(whole), hashlib.sha256(whole).hexdigest())
    parts = [part(job_id, number, text) for number, text in enumerate(texts)]
    return [*parts[:-1], replace(parts[-1], final=True, total=total)]


async def test_a_log_is_complete_if_it_is_what_its_sender_announced(pool, numbers):
    async with pool.acquire() as connection:

        async def complete(*parts: Part, **limit: int) -> bool | None:
            await store_batch(connection, parts)
            job_id = parts[0].job_id
            made = await aggregation.aggregate(
                connection, job_id, force=True, restore=False, **limit
            )
            assert (await reading.find(connection, job_id)).complete == made.complete
            return made.complete

        one, two, three = next(numbers), next(numbers), next(numbers)
        a, b, c = sent(one, b"a", b"b\xff", b"c")
        assert await complete(a, b) is None  # as those of older runners
        assert await complete(c) is True
        assert await complete(part(one, 1, b"B\xff")) is False
        assert await complete(b) is True
        assert await complete(c, max_bytes=2) is False
        assert await complete(part(one, 3, b"d")) is False

        a, b, c = sent(two, b"a", b"b", b"c")
        await write_whole(connection, two, b"of the site")
        assert await complete(a, c) is False
        last = part(two, LAST, b"of the site, too")
        assert await complete(last) is False
        await finish(connection, two)
        await connection.execute("DELETE FROM log_parts")
        await store_batch(connection, [b])  # merged into what the archive holds
        whole = pieces(b"of the siteacof the site, too")
        await aggregation.restore_content(connection, two, whole)
        assert await complete(b) is True
        await write_whole(connection, two, b"")
        assert (await reading.find(connection, two)).complete is None

        # A requeued run with the same uuid announces nothing.
        await complete(*sent(three, b"a"))
        await write_whole(connection, three, b"")
        later = datetime.now(UTC) + timedelta(seconds=1)
        again = part(three, 0, b"a", published_at=later)
        await connection.execute("UPDATE log_attempts SET closed_at = closed_at - interval '1 s'")
        assert await complete(replace(again, received_at=later)) is None
