"""The running system over HTTP: writing parts, reading logs, removal, a large log."""

import asyncio
import base64
import hashlib
import os
import random
from functools import partial

import asyncpg
import httpx
import psutil
import pytest

from db.parts import store_batch
from logflume import amqp
from logflume.archive.store import Archive
from logflume.settings import load_settings
from logflume_cli.devstack.runner import PART_BYTES, connect, new_job_ids, play
from tests.support import broker
from tests.support.parts import part
from tests.support.processes import peak_bytes
from tests.support.ship import Shipper, has_size
from tests.support.sse import reading
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(200)

SETTINGS = {
    "lifecycle": {"purge_seconds": 1, "settle_seconds": 1, "gap_seconds": 1},
    "s3": {"longest_request_seconds": 1},
}


@pytest.fixture
def settings(stack, monkeypatch):
    monkeypatch.setenv("LOGFLUME_STACK__DATA_DIR", str(stack.home.data_dir))
    return load_settings()


@pytest.fixture
async def web(settings):
    headers = {"Authorization": f"token {settings.web.auth_token.get_secret_value()}"}
    async with httpx.AsyncClient(base_url=settings.web.url, headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def job_id():
    return new_job_ids(1)[0]


async def until_phase(web: httpx.AsyncClient, job_id: int, phase: str) -> dict:
    async with asyncio.timeout(60):
        while True:
            answer = await web.get(f"/logs/{job_id}/lifecycle")
            if answer.status_code == 200 and answer.json()["phase"] == phase:
                return answer.json()
            await asyncio.sleep(0.1)


async def archived(settings, job_id: int) -> bytes:
    return b"".join([piece async for piece in Archive(settings.s3, 1).stream(job_id)])


async def put(web: httpx.AsyncClient, job_id: int, number: int | str, text: bytes, **f) -> None:
    content = base64.b64encode(text).decode()
    body = {"@type": "log_part", "content": content, "encoding": "base64", "final": False, **f}
    answer = await web.put(f"/log-parts/{job_id}/{number}", json=body)
    assert answer.status_code == 204


async def test_a_shipped_log_is_complete_though_everything_on_its_way_is_killed(
    stack, web, settings, job_id, tmp_path
):
    shipper = Shipper(settings.web.url, job_id, stack.home.data_dir, tmp_path / "spools")
    path = tmp_path / "log"
    path.touch()
    command = ("ship", "--follow", str(path))
    process = await shipper.begin(*command)
    for name in ("web", "shipper", "rabbitmq", "shipper", "drain"):
        with path.open("ab") as file:
            file.write(random.randbytes(600_000))  # three parts
        await until(partial(has_size, shipper, path.stat().st_size))
        if name == "shipper":
            process.kill()
            await process.communicate()
            process = await shipper.begin(*command)
        else:
            killed = psutil.Process(next(it.pid for it in stack.status() if it.name == name))
            killed.kill()
            await asyncio.to_thread(killed.wait)
            await stack.up()
    process.terminate()
    _, err = await process.communicate(b"")
    assert process.returncode == 0, err
    assert (await until_phase(web, job_id, "done"))["complete"] is True
    assert await archived(settings, job_id) == path.read_bytes()


async def test_parts_over_http_are_stored_like_all_parts(web, settings, job_id):
    await put(web, job_id, 0, b"caf\xc3")
    await put(web, job_id, 0, b"caf\xc3")  # a repetition, as after a lost response
    await put(web, job_id, 1, b"\xa9\0")
    async with asyncio.timeout(30):
        while (await web.get(f"/logs/{job_id}")).status_code == 404:
            await asyncio.sleep(0.05)
    async with reading(web, job_id) as reader:
        assert await reader.parts(2) == [(0, b"caf\xc3"), (1, b"\xa9\0")]
        await put(web, job_id, 2, b"", final=True)
        assert (await reader.next()).data["final"] is True
        assert (await reader.next()).name == "final"
    await until_phase(web, job_id, "done")
    assert await archived(settings, job_id) == "café\0".encode()
    assert (await web.get(f"/logs/{job_id}/raw")).content == "café\0".encode()


def pieces(content):
    """A log's bytes, cut into parts as a runner does."""
    return [content[at : at + PART_BYTES] for at in range(0, len(content), PART_BYTES)]


async def test_readers_see_the_same_bytes_in_every_phase(web, settings, job_id):
    content = random.Random(4).randbytes(2_000_000)
    async with await connect(settings.amqp.url.get_secret_value()) as connection:
        channel = await connection.channel(publisher_confirms=False)
        await play(channel, job_id, content)
    seen: set[str] = set()
    async with asyncio.timeout(90):
        while "done" not in seen:
            answer = await web.get(f"/logs/{job_id}/lifecycle")
            if answer.status_code == 404:
                continue
            phase = answer.json()["phase"]
            raw = await web.get(f"/logs/{job_id}/raw")
            if phase in {"receiving", "settling"}:
                # Batches commit concurrently: a later one may be visible before an earlier one.
                places = [content.find(read) for read in pieces(raw.content)]
                assert -1 not in places and places == sorted(places)
            else:
                assert raw.content == content, phase
            seen.add(phase)
    assert len(seen) > 1


@pytest.mark.parametrize("when", ["receiving", "done"])
async def test_removed_text_is_never_returned_again(web, settings, job_id, when):
    secret, notice = b"the secret " * 1000, b"Log removed by an admin"
    async with await connect(settings.amqp.url.get_secret_value()) as connection:
        channel = await connection.channel(publisher_confirms=False)
        if when == "done":
            await play(channel, job_id, secret, uuid="run")
            await until_phase(web, job_id, "done")
            assert await archived(settings, job_id) == secret
        else:
            await amqp.declare(channel)
            await broker.publish(channel, broker.message(job_id, 0, secret.decode(), uuid="run"))
            await until_phase(web, job_id, "receiving")
        removed = await web.put(f"/logs/{job_id}?removed_by=7", content=notice)
        assert removed.json()["content"] == notice.decode()
        assert (await web.get(f"/logs/{job_id}/raw")).content == notice
        await play(channel, job_id, secret, uuid="run")  # the rest of the dying runner's output
    log = await until_phase(web, job_id, "done")
    assert log["removed_at"]
    assert (await web.get(f"/logs/{job_id}/raw")).content == notice
    assert await archived(settings, job_id) == notice
    database = await asyncpg.connect(settings.database.url.get_secret_value())
    held = await database.fetchval(
        "SELECT count(*) FROM log_parts p JOIN logs l ON l.id = p.log_id "
        "WHERE l.job_id = $1 AND position($2 IN p.content) > 0",
        job_id,
        secret[:20],
    )
    await database.close()
    assert held == 0


async def test_a_log_of_256_mb_is_read_in_bounded_memory(web, stack, settings, job_id):
    piece = os.urandom(1024 * 1024)
    connection = await asyncpg.connect(settings.database.url.get_secret_value())
    for start in range(0, 256, 8):
        parts = [part(job_id, number, piece) for number in range(start, start + 8)]
        await store_batch(connection, parts)
    await connection.close()
    digest, expected = hashlib.sha256(), hashlib.sha256()
    async with web.stream("GET", f"/logs/{job_id}/raw") as answer:
        assert int(answer.headers["content-length"]) == 256 * len(piece)
        async for chunk in answer.aiter_raw():
            digest.update(chunk)
    async with web.stream("GET", f"/logs/{job_id}?by=job_id") as answer:
        length = 0
        async for chunk in answer.aiter_raw():
            length += len(chunk)
        assert length > 256 * len(piece)
    for _ in range(256):
        expected.update(piece)
    assert digest.digest() == expected.digest()
    pid = next(item.pid for item in stack.status() if item.name == "web")
    assert pid and peak_bytes(pid) < 200 * 1024 * 1024
