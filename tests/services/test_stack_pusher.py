"""The Pusher server of the local stack: there when it was asked for, and only then."""

import json

import pytest

from logflume.errors import ComponentError
from logflume.settings import load_settings, stack_file
from logflume_cli.devstack import pusher as component
from logflume_cli.devstack.stack import LocalStack


async def test_it_is_set_while_it_runs_and_not_after(tmp_path):
    def app() -> str | None:
        return load_settings(stack={"data_dir": tmp_path}).pusher.app_id

    stack = LocalStack(tmp_path)
    assert app() is None
    assert "pusher" not in {item.name for item in stack.status()}
    assert await stack.up(["pusher"]) == ["pusher"]
    assert app() is not None
    assert await stack.up([]) == []  # it still runs
    assert app() is not None
    assert {item.name: item.state for item in stack.status()}["pusher"] == "running"
    await stack.down()
    await stack.up([])
    assert app() is None
    assert "pusher" not in {item.name for item in stack.status()}


async def test_one_that_was_set_by_hand_stays(tmp_path):
    app = {"app_id": "7", "key": "k", "secret": "s"}
    stack = LocalStack(tmp_path, {"pusher": app})
    await stack.up([])
    assert json.loads(stack_file(tmp_path).read_text())["pusher"] == app


async def test_what_is_not_installed_is_told_and_not_set(tmp_path, monkeypatch):
    monkeypatch.setattr(component, "PROGRAM", tmp_path / "nothing")
    stack = LocalStack(tmp_path)
    with pytest.raises(ComponentError, match=r"^pusher is not installed: run bin/setup --pusher$"):
        await stack.up(["pusher"])
    assert load_settings(stack={"data_dir": tmp_path}).pusher.app_id is None
