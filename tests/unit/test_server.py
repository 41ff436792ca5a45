"""Limits of the HTTP server, attacked over sockets; the app is minimal."""

import asyncio
import logging
import re
from contextlib import suppress

import pytest
from prometheus_client import REGISTRY

from web import server
from web.server import HEAD_BYTES, HEADERS, PARAMETERS, PIPELINED, Server

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
ENDLESS = GET.replace(b"/ ", b"/endless ") + b"\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
LAST = b"Connection: close\r\n\r\n"
FULL = b"x" * (HEAD_BYTES - len(GET + LAST) - len("a: \r\n"))


async def app(scope, receive, send):
    """Return the size of the body; `/unread` does not read it, `/endless` does not end."""
    if scope["type"] != "http":
        return
    path, size, more = scope["path"], 0, scope["path"] != "/unread"
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while path == "/endless" and not receive.__self__.disconnected:
        await send({"type": "http.response.body", "body": b"x" * HEAD_BYTES, "more_body": True})
    await send({"type": "http.response.body", "body": b"%d bytes" % size})


@pytest.fixture
async def port():
    """The port of a running server."""
    running = Server(app, port=0, timeout_keep_alive=1)
    task = asyncio.create_task(running.serve())
    while not running.started:
        await asyncio.sleep(0.01)
    yield running.servers[0].sockets[0].getsockname()[1]
    running.should_exit = True
    await task


@pytest.fixture
def _impatient(monkeypatch):
    """Short time limits; a body must grow by a kilobyte meanwhile."""
    for name in ("HEAD", "BODY", "LINGER", "STALL"):
        monkeypatch.setattr(server, f"{name}_SECONDS", 0.2)
    monkeypatch.setattr(server, "BODY_BYTES", 1024)


async def exchange(port: int, *pieces: bytes) -> bytes:
    """Send the pieces, and read until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    response = b""
    try:
        for piece in pieces:
            writer.write(piece)
            if piece == GET + b"\r\n":
                response = await reader.readuntil(b"0\r\n\r\n")
        return response + await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def refused(reason: str) -> float:
    return REGISTRY.get_sample_value("logflume_web_refused_total", {"reason": reason}) or 0.0


HEADS = {
    "url": b"GET /" + b"x" * HEAD_BYTES + b" HTTP/1.1\r\n" + LAST,
    "header": GET + b"a: " + FULL + b"x\r\n" + LAST,
    "headers": GET + b"a: b\r\n" * (HEADERS + 1) + LAST,
    "no end": GET + b"a: b\r\n" * (HEADERS + 1),
    "name": GET + b"a" * 2 * HEAD_BYTES,
    "trailer": CHUNKED + b"0\r\na: " + b"x" * 2 * HEAD_BYTES,
    "trailers": CHUNKED + b"0\r\n" + b"a: b\r\n" * (HEADERS + 1),
    "extension": CHUNKED + b"3;" + b"x" * 2 * HEAD_BYTES,
}


@pytest.mark.parametrize("before", [b"", GET + b"\r\n"], ids=["first request", "second request"])
async def test_heads_and_trailers_are_bounded(port, before):
    count = refused("request_header_fields_too_large")
    responses = await asyncio.gather(*[exchange(port, before, head) for head in HEADS.values()])
    sent = dict(zip(HEADS, responses, strict=True))
    assert [name for name, response in sent.items() if b"HTTP/1.1 431 " not in response] == []
    assert refused("request_header_fields_too_large") == count + len(HEADS)


async def test_a_head_and_a_body_within_the_bounds_pass(port):
    assert (await exchange(port, GET + b"a: " + FULL + b"\r\n" + LAST)).endswith(
        b"0 bytes\r\n0\r\n\r\n"
    )
    body = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n" % (20 * HEAD_BYTES) + LAST
    response = await exchange(port, body, *[b"x" * HEAD_BYTES] * 20)
    assert b"%d bytes" % (20 * HEAD_BYTES) in response
    trailers = CHUNKED.replace(b"\r\n\r\n", b"\r\n" + LAST) + b"0\r\na: b\r\n\r\n"
    assert b"3 bytes" in await exchange(port, trailers)


INCOMPLETE = [
    (b"", []),
    (b"\r\n", []),
    (b"GET /", [b"408"]),
    (GET, [b"408"]),
    (GET + b"\r\n", [b"200"]),
    (GET + b"\r\n\r\n", [b"200"]),
    (GET + b"\r\n" + GET, [b"200", b"408"]),
    (b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n12345", [b"408"]),
    (b"POST /unread HTTP/1.1\r\nContent-Length: 9\r\n\r\n12345", [b"200"]),
    (CHUNKED + b"0\r\na:", [b"408"]),
]


@pytest.mark.usefixtures("_impatient")
async def test_clients_that_do_not_send_are_disconnected(port):
    responses = await asyncio.gather(*[exchange(port, sent) for sent, _ in INCOMPLETE])
    statuses = [re.findall(rb"HTTP/1.1 (\d+)", response) for response in responses]
    assert statuses == [expected for _, expected in INCOMPLETE]


@pytest.mark.usefixtures("_impatient")
async def test_a_reader_that_takes_nothing_is_disconnected(port):
    count = refused("slow_reader")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(ENDLESS)
    while refused("slow_reader") == count:
        await asyncio.sleep(0.02)
    with suppress(ConnectionError):
        while await reader.read(HEAD_BYTES):
            pass
    writer.close()


async def test_parameters_are_bounded(port):
    response = await exchange(
        port, GET.replace(b"/ ", b"/?%b " % (b"a&" * (PARAMETERS + 1))) + LAST
    )
    assert response.startswith(b"HTTP/1.1 414 ")


async def test_requests_without_waiting_for_responses_are_bounded(port):
    response = await exchange(port, (GET + b"\r\n") * 10 * PIPELINED)
    assert response.count(b"HTTP/1.1 200") <= PIPELINED + 1
    few = (GET + b"\r\n") * 3 + GET + LAST
    assert (await exchange(port, few)).count(b"HTTP/1.1 200") == 4


UPGRADE = GET + b"Connection: Upgrade, close\r\nUpgrade: "
MALFORMED = [
    b"nonsense\r\n\r\n",
    GET + b"a b: c\r\n\r\n",
    GET.replace(b"/", b"/\xff") + b"\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    CHUNKED + b"x\r\n",
]


async def test_malformed_requests_and_upgrades_cost_no_log_line(port, caplog):
    with caplog.at_level(logging.INFO, "root"):
        for sent in MALFORMED:
            assert (await exchange(port, sent)).startswith(b"HTTP/1.1 400 ")
        for protocol in (b"websocket", b"h2c"):
            response = await exchange(port, UPGRADE + protocol + b"\r\n\r\n")
            assert response.startswith(b"HTTP/1.1 200 ")
    assert caplog.messages == []


@pytest.fixture
def limit(monkeypatch):
    """The most connections that the server accepts."""
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    return 3


async def test_idle_connections_give_way_to_new_ones(limit, port, capsys):
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(limit)]
    assert b"HTTP/1.1 200" in await exchange(port, GET + LAST)
    for _, writer in opened[1:]:
        writer.write(ENDLESS)
    assert [await reader.read(1) for reader, _ in opened[1:]] == [b"H"] * (limit - 1)
    assert b"HTTP/1.1 200" in await exchange(port, GET + LAST)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(ENDLESS)
    assert await reader.read(1) == b"H"
    assert await exchange(port, GET + LAST) == b""
    assert capsys.readouterr().err.count("connections_near_limit") == 1
    for _, opened_writer in [*opened, (reader, writer)]:
        opened_writer.close()
