"""Bodies of all requests together, and of one address, are bounded; others wait."""

import asyncio
from types import SimpleNamespace

import pytest
from litestar.exceptions import HTTPException

from web import bodies
from web.bodies import Bodies

LIMIT = 1000


async def begin(app, held: list[str], address: str, size: int) -> tuple:
    """Start a request whose body is read; returns it with the event that ends it."""
    headers = [(b"content-length", b"%d" % size)]
    handler = SimpleNamespace(resolve_request_max_body_size=lambda: LIMIT)
    scope = {
        "method": "PUT",
        "headers": headers,
        "client": (address, 1),
        "route_handler": handler,
        "end": asyncio.Event(),
    }

    async def receive():
        held.append(address)

    task = asyncio.create_task(app(scope, receive, None))
    for _ in range(10):
        await asyncio.sleep(0)
    return task, scope["end"]


async def read_body(scope, receive, _) -> None:
    await receive()
    await scope["end"].wait()


async def test_bodies_wait_for_those_of_their_address_and_of_all(monkeypatch):
    held: list[str] = []
    app = Bodies(LIMIT).middleware(read_body)
    first, end_first = await begin(app, held, "a", LIMIT)
    second, end_second = await begin(app, held, "a", 1)
    third, end_third = await begin(app, held, "b", LIMIT)
    fourth, end_fourth = await begin(app, held, "c", LIMIT)
    assert held == ["a", "b"]
    end_first.set()
    await first
    for _ in range(10):
        await asyncio.sleep(0)
    assert held == ["a", "b", "a"]
    for end in (end_second, end_third, end_fourth):
        end.set()
    await asyncio.gather(second, third, fourth)
    assert held == ["a", "b", "a", "c"]
    monkeypatch.setattr(bodies, "WAIT_SECONDS", 0.01)
    fifth, end_fifth = await begin(app, held, "a", LIMIT)
    refused, _ = await begin(app, held, "a", LIMIT)
    with pytest.raises(HTTPException, match="too many large bodies"):
        await refused
    end_fifth.set()
    await fifth
