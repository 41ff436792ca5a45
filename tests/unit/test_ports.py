"""Ports of local stacks that start at the same time."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from logflume_cli.devstack import ports


def test_stacks_that_start_together_have_different_ports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files = [tmp_path / f"{number}.json" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        chosen = list(pool.map(ports.load_ports, files))
    blocks = [set(one.values()) for one in chosen]
    assert sum(map(len, blocks)) == len(set.union(*blocks))
    assert ports.load_ports(files[0]) == chosen[0]


def test_the_ports_of_a_deleted_stack_are_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first = ports.load_ports(tmp_path / "first.json")
    (tmp_path / "first.json").unlink()
    assert ports.load_ports(tmp_path / "second.json") == first
