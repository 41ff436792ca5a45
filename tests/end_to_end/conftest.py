"""Fixtures of the tests of the whole stack, which a module's tests share."""

import asyncio

import pytest

from logflume_cli.devstack.stack import LocalStack
from tests.support.stacks import discard


@pytest.fixture(scope="module")
def stack(request, new_folder):
    """The whole stack with the module's SETTINGS; tests restart what they kill."""
    stack = LocalStack(new_folder(), request.module.SETTINGS)
    asyncio.run(stack.up())
    yield stack
    asyncio.run(discard(stack))
