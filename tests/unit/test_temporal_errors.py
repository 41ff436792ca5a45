"""The translation of Temporal's errors."""

import asyncio

import pytest
from temporalio.client import Client

from logflume.errors import ComponentError
from workflows.client.connection import temporal_errors


async def test_a_missing_answer_is_named():
    client = await Client.connect("127.0.0.1:1", lazy=True)
    with pytest.raises(ComponentError, match=r"127\.0\.0\.1:1, namespace default: no answer"):
        async with temporal_errors(client, 0):
            await asyncio.Event().wait()
