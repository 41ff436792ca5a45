"""The commands that read over the HTTP API: `logs`."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.support import processes
from tests.support.processes import LOGFLUME, on_terminal
from tests.support.services import TOKEN, serving

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
