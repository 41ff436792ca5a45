"""The local stack's Pusher server runs only on request."""

import json

import pytest

from logflume.errors import ComponentError
from logflume.settings import load_settings, stack_file
from logflume_cli.devstack import pusher as component
from logflume_cli.devstack.stack import LocalStack


async def test_the_app_is_configured_while_the_server_runs(tmp_path):
    def app() -> str | None:
        return load_settings(stack={"data_dir": tmp_path}).pusher.app_id

    stack = LocalStack(tmp_path)
    assert app() is None
    assert "pusher" not in {item.name for item in stack.status()}
    assert await stack.up(["pusher"]) == ["pusher"]
    assert app() is not None
    assert await stack.up([]) == []  # still running
    assert app() is not None
    assert {item.name: item.state for item in stack.status()}["pusher"] == "running"
    await stack.down()
    await stack.up([])
    assert app() is None
    assert "pusher" not in {item.name for item in stack.status()}


async def test_an_app_that_was_configured_by_hand_stays(tmp_path):
    app = {"app_id": "7", "key": "k", "secret": "s"}
    stack = LocalStack(tmp_path, {"pusher": app})
    await stack.up([])
    assert json.loads(stack_file(tmp_path).read_text())["pusher"] == app


async def test_a_missing_server_is_an_error_and_not_configured(tmp_path, monkeypatch):
    monkeypatch.setattr(component, "PROGRAM", tmp_path / "nothing")
    stack = LocalStack(tmp_path)
    with pytest.raises(ComponentError, match=r"^pusher is not installed: run bin/setup --pusher$"):
        await stack.up(["pusher"])
    assert load_settings(stack={"data_dir": tmp_path}).pusher.app_id is None
