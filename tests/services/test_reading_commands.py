"""The commands that read over the HTTP API, and `token`."""

import asyncio
import json
import os
import signal
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from logflume_cli.services import lazy_workflows
from tests.support import processes
from tests.support.http_parts import body
from tests.support.parts import part, store_parts
from tests.support.processes import LOGFLUME, on_terminal
from tests.support.services import TOKEN, serving
from tests.support.waiting import until
from workflows.lifecycle_types import PartsStored

TEXT = b"\x1b[31mone\x1b[0m\r\ntwo \xff\x1b]0;title\x07\nthree\n"


def environment(tmp_path, web) -> dict[str, str]:
    """The environment of a client: the web's address and a token, no other setting."""
    here = {"LOGFLUME_STACK__DATA_DIR": str(tmp_path / "none"), "HOME": str(tmp_path)}
    path = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return here | path | {"LOGFLUME_WEB__URL": str(web.base_url), "LOGFLUME_WEB__AUTH_TOKEN": TOKEN}


@pytest.fixture
def call(tmp_path, web):
    """Runs `logflume` against the test's web."""

    async def call(*command: object, **changed: str) -> processes.Done:
        env = environment(tmp_path, web) | changed
        return await asyncio.to_thread(processes.run, LOGFLUME, *map(str, command), env=env)

    return call


async def test_logs_prints_an_archived_log(call, move_to, job_id, tmp_path, web):
    await move_to("archive", [TEXT[:7], TEXT[7:20], TEXT[20:]])
    clean = "one\ntwo \ufffd\nthree\n"
    done = await call("logs", job_id)
    assert (done.returncode, done.stdout, done.stderr) == (0, clean, "")
    assert (await call("logs", job_id, "--follow")).stdout == clean
    assert (await call("logs", job_id, "--tail", 2)).stdout == "two \ufffd\nthree\n"
    assert (await call("logs", job_id, "-fn1")).stdout == "three\n"
    assert (await call("logs", job_id, "--tail", 0)).stdout == ""
    assert (await call("logs", job_id, "--grep", "^ONE$")).stdout == ""
    assert (await call("logs", job_id, "--grep", "^one$|^t", "-n", 2)).stdout == clean[4:]
    assert (await call("logs", job_id, "--attempt", "a")).stdout == clean
    command = [LOGFLUME, "logs", str(job_id)]
    env = environment(tmp_path, web)
    on_tty = await asyncio.to_thread(on_terminal, *command, env=env)
    assert on_tty == "\x1b[31mone\x1b[0m\r\ntwo \ufffd\r\nthree\r\n\x1b[0m"
    raw = await asyncio.create_subprocess_exec(*command, "--raw", env=env, stdout=-1)
    assert (await raw.communicate())[0] == TEXT


async def test_an_unknown_log_or_token_is_one_line(call, store, job_id):
    await store((0, b"x"))
    for command, words in {
        ("logs", job_id + 1): ("no log", "logflume list"),
        ("logs", job_id, "--attempt", "b"): ("attempt", "logflume list"),
    }.items():
        done = await call(*command)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert all(word in done.stderr for word in words), done.stderr
    refused = await call("logs", job_id, LOGFLUME_WEB__AUTH_TOKEN="wrong")
    assert "LOGFLUME_WEB__AUTH_TOKEN" in refused.stderr
    away = await call("logs", job_id, LOGFLUME_WEB__URL="http://127.0.0.1:1")
    assert (away.stderr.count("\n"), "http://127.0.0.1:1" in away.stderr) == (1, True)
    unset = await call("logs", job_id, LOGFLUME_WEB__URL="")
    assert (unset.stderr.count("\n"), "LOGFLUME_WEB__URL is not set" in unset.stderr) == (1, True)


@asynccontextmanager
async def following(tmp_path, web, job_id, *options):
    process = await asyncio.create_subprocess_exec(
        LOGFLUME, "logs", "-f", str(job_id), *options,
        env=environment(tmp_path, web), stdout=-1, stderr=-1, limit=2**22,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_follow_resumes_after_a_restart_of_the_web(settings, pool, store, job_id, tmp_path):
    await store((0, b"0\n"))
    async with AsyncExitStack() as readers:
        async with serving(settings, pool) as web:
            process = await readers.enter_async_context(following(tmp_path, web, job_id))
            options = ("--tail", "0", "--grep", "2")
            quiet = await readers.enter_async_context(following(tmp_path, web, job_id, *options))
            assert await process.stdout.readline() == b"0\n"
            await store((1, b"1\n"))
            assert await process.stdout.readline() == b"1\n"
        await store((2, b"2\n"), (3, b"3\n", {"final": True}))
        async with serving(settings, pool, port=web.base_url.port or 0):
            out, err = await process.communicate()
            assert (process.returncode, out) == (0, b"2\n3\n")
            assert err.count(b"\n") <= 1
            assert (await quiet.communicate())[0] == b"2\n"


async def test_interrupts_and_broken_pipes_are_quiet(web, store, job_id, tmp_path):
    await store((0, b"line\n" * 100_000))
    async with following(tmp_path, web, job_id) as process:
        assert await process.stdout.readline() == b"line\n"
        process.send_signal(signal.SIGINT)
        assert (await process.communicate())[1] == b""
        assert process.returncode == 130
    async with following(tmp_path, web, job_id) as process:
        assert await process.stdout.readline() == b"line\n"
        process._transport.get_pipe_transport(1).close()
        assert await process.stderr.read() == b""
        assert await process.wait() == -signal.SIGPIPE


async def test_list_prints_recent_logs_of_a_phase_or_age(
    call, pool, store, job_id, settings, tmp_path
):
    await store((0, b"x", {"final": True}))
    old = job_id + 1
    await store_parts(pool, [part(old, 0, b"y")])
    await pool.execute(
        "UPDATE logs SET created_at = now() - interval '2 hours' WHERE job_id = $1", old
    )
    done = await call("list")
    header, *lines = done.stdout.splitlines()
    assert (done.returncode, header.split()[0]) == (0, "JOB")
    assert [line.split()[:2] for line in lines] == [
        [str(old), "receiving"], [str(job_id), "receiving"],
    ]  # fmt: skip
    await pool.execute(
        "UPDATE logs SET created_at = now() - interval '3 hours' WHERE job_id = $1", job_id
    )
    assert json.loads((await call("list", "--since", "1h", "--json")).stdout) == []
    (listed,) = json.loads((await call("list", "--limit", 1, "--json")).stdout)
    assert (listed["job_id"], listed["bytes"]) == (old, None)
    workflows = await lazy_workflows(settings)
    await workflows.parts_stored(job_id, PartsStored(1, 1, begun=True))

    async def is_listed() -> bool:
        found = json.loads((await call("list", "--phase", "receiving", "--json")).stdout)
        return [log["job_id"] for log in found] == [job_id]

    await until(is_listed)
    env = processes.environment(settings, tmp_path / "stack")
    shown = await asyncio.to_thread(processes.run, LOGFLUME, "show", str(job_id), "--json", env=env)
    facts = json.loads(shown.stdout)
    assert (facts["phase"], facts["complete"], len(facts["attempts"])) == ("receiving", None, 1)


async def test_a_token_stores_parts_of_its_job_only(settings, channel, pool, job_id, tmp_path):
    env = processes.environment(settings, tmp_path / "stack")
    key = settings.stack.folder / "jwt_private.pem"
    env |= {"LOGFLUME_WEB__JWT_PRIVATE_KEY_FILE": str(key)}
    command = (LOGFLUME, "token", str(job_id), "--for", "1h")
    first, second = [await asyncio.to_thread(processes.run, *command, env=env) for _ in range(2)]
    assert first.stdout != second.stdout  # each names an attempt of its own
    bearer = {"Authorization": f"Bearer {first.stdout.strip()}"}
    async with serving(settings, pool) as web:
        for job, status in {job_id: 204, job_id + 1: 403}.items():
            response = await web.put(f"/log-parts/{job}/0", json=body(), headers=bearer)
            assert response.status_code == status
