"""`logflume run` and `logflume ship` against a real web, broker and drain."""

import asyncio
import base64
import os
import random
import re
import resource
import signal
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from logflume import contract
from logflume.ship.sender import FINAL_TRIES
from tests.support.broker import close_connections
from tests.support.http_parts import runner_token
from tests.support.processes import LOGFLUME, on_terminal
from tests.support.services import draining
from tests.support.ship import (
    Shipper,
    fixed_boundary,
    has_size,
    is_after,
    refusing,
    until_final,
    until_sent,
)
from tests.support.waiting import until

BYTES = bytes(range(256)) * 40
PARTS = "SELECT count(*) FROM log_parts JOIN logs ON logs.id = log_id WHERE job_id = $1"
ATTEMPTS = PARTS.replace("log_parts", "log_attempts")


@pytest.fixture
def settings(amqp_settings):
    return amqp_settings


@pytest.fixture
async def drain(settings):
    async with draining(settings) as drain:
        yield drain


@pytest.fixture
def shipper(web, servers, job_id, tmp_path):
    return Shipper(str(web.base_url), job_id, servers.data_dir, tmp_path / "spools")


def python(code: str) -> tuple[str, ...]:
    return "--", sys.executable, "-c", code


@pytest.mark.parametrize("option", [(), ("--no-tty",)])
async def test_a_command_is_shown_and_shipped_byte_for_byte(
    shipper, drain, pool, aggregate, option
):
    code = f"import sys; sys.stdout.buffer.write({BYTES!r}); sys.exit(3)"
    done = await shipper.run("run", *option, *python(code))
    assert (done.code, done.out) == (3, BYTES)
    assert done.err == f"logflume: job {shipper.job_id} {shipper.url}/jobs/{shipper.job_id}\n"
    assert await until_final(pool, shipper.job_id) == BYTES
    assert (await aggregate(shipper.job_id)).complete is True
    assert not shipper.spool.exists()


async def test_parts_that_the_broker_lost_are_sent_again(
    shipper, settings, channel, pool, aggregate, monkeypatch
):
    monkeypatch.setattr("web.receipts.ANSWER_SECONDS", 2)
    process = await shipper.begin("ship")
    process.stdin.write(BYTES)
    await until_sent(shipper, 1000)
    await (await channel.declare_queue(contract.QUEUE, durable=True)).purge()
    async with draining(settings):
        process.stdin.close()
        await process.communicate()
    assert await until_final(pool, shipper.job_id) == BYTES
    assert (await aggregate(shipper.job_id)).complete is True


async def test_exit_codes_are_those_of_a_shell(shipper, drain):
    for command, code in {
        "exit 7": 7,
        "kill -TERM $$": 128 + signal.SIGTERM,
        "kill -KILL $$": 128 + signal.SIGKILL,
    }.items():
        assert (await shipper.run("run", "--", "sh", "-c", command)).code == code
    done = await shipper.run("run", "--", "/missing")
    assert (done.code, done.out) == (127, b"logflume: /missing: No such file or directory\n")
    assert (await shipper.run("run", "--", "/")).code == 126
    for arguments in (("run",), ("run", "--job-id", "x", "--", "true"), ("ship", "--nope")):
        assert (await shipper.run(*arguments)).code == 2


async def test_a_command_gets_signals(shipper, drain, pool):
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'terminated\\n'), sys.exit(4)))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    process = await shipper.begin("run", *python(code))
    assert await process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    out, _ = await process.communicate()
    assert (process.returncode, out) == (4, b"terminated\n")
    assert await until_final(pool, shipper.job_id) == b"ready\nterminated\n"


async def test_a_command_has_a_terminal_of_the_same_size(shipper, drain):
    shell = f"stty rows 33 cols 99; {LOGFLUME} run -- sh -c 'stty size; tty <&1'"
    printed = await asyncio.to_thread(on_terminal, "sh", "-c", shell, env=shipper.environment())
    assert "33 99" in printed
    assert "/dev/pts/" in printed


async def test_a_background_process_does_not_keep_the_command_from_ending(shipper, drain):
    done = await shipper.run("run", "--", "sh", "-c", "sleep 60 & echo end")
    assert (done.code, done.out) == (0, b"end\n")


async def test_a_killed_shipper_continues_with_the_same_parts(shipper, drain, pool):
    """Some parts are confirmed, one is fixed and may have been sent, others are only on disk."""
    pieces = [random.randbytes(100_000) for _ in range(6)]
    process = await shipper.begin("ship")
    for piece in pieces[:3]:
        process.stdin.write(piece)
        assert await process.stdout.readexactly(len(piece)) == piece
    await until_sent(shipper, 100_000)
    async with refusing(shipper.url, *["reset"] * 100) as url:
        process.kill()
        await process.communicate()
        shipper.url, real = url, shipper.url
        process = await shipper.begin("ship")
        for piece in pieces[3:5]:
            process.stdin.write(piece)
            assert await process.stdout.readexactly(len(piece)) == piece
        await until(lambda: fixed_boundary(shipper))
        process.kill()
        await process.communicate()
    shipper.url = real
    assert (await shipper.run("ship", stdin=pieces[5])).code == 0
    assert await until_final(pool, shipper.job_id) == b"".join(pieces)
    assert await pool.fetchval(ATTEMPTS, shipper.job_id) == 1


async def test_a_new_token_sends_everything_again(shipper, drain, pool):
    """The server knows parts with another token as another attempt: the one that began last."""
    process = await shipper.begin("ship")
    process.stdin.write(b"first,")
    await until_sent(shipper, 6)
    began = int(time.time())  # AMQP has times in seconds
    process.kill()
    await process.communicate()
    await until(partial(is_after, began))
    shipper.settings["LOGFLUME_SHIP__TOKEN"] = runner_token(shipper.stack, shipper.job_id, run=2)
    await shipper.run("ship", stdin=b"second")
    assert await until_final(pool, shipper.job_id) == b"first,second"
    assert await pool.fetchval(PARTS, shipper.job_id) == 4  # the web missed none


async def test_a_sender_that_is_killed_is_started_again(shipper, drain, pool):
    process = await shipper.begin("ship")
    process.stdin.write(b"first,")
    await until_sent(shipper, 6)
    (sender,) = psutil.Process(process.pid).children()
    sender.kill()
    await process.communicate(b"second")
    assert process.returncode == 0
    assert await until_final(pool, shipper.job_id) == b"first,second"


async def test_what_may_succeed_later_is_retried(shipper, drain, pool):
    """Among other things, a part that is too large is sent as two."""
    responses = ("503 Busy", "429 Slow\r\nRetry-After: 0.2", "reset", "413 Large", "502 Gateway")
    async with refusing(shipper.url, *responses) as shipper.url:
        done = await shipper.run("ship", "--strict", stdin=BYTES)
    assert (done.code, done.out) == (0, BYTES)
    assert await until_final(pool, shipper.job_id) == BYTES
    assert await pool.fetchval(PARTS, shipper.job_id) == 3


async def test_missing_parts_are_sent_again(shipper, drain, pool, channel):
    """The first parts are confirmed by a proxy that drops them; the final response names them."""
    ok = "204 OK"
    final = "200 OK\r\nLogflume-Missing-Parts: 0-1, 7"
    shipper.settings["LOGFLUME_SHIP__FLUSH_SECONDS"] = "0"
    async with refusing(shipper.url, ok, ok, final) as shipper.url:
        process = await shipper.begin("ship")
        for piece in (b"first,", b"second"):
            process.stdin.write(piece)
            await until_sent(shipper, len(b"first,") if piece == b"first," else 12)
        await process.communicate(b"")
    assert process.returncode == 0
    assert await until_final(pool, shipper.job_id) == b"first,second"


async def test_a_log_whose_parts_stay_missing_is_not_delivered(shipper):
    missing = "200 OK\r\nLogflume-Missing-Parts: 7"
    async with refusing(shipper.url, *[missing] * FINAL_TRIES) as shipper.url:
        process = await shipper.begin("ship", "--strict")
        _, err = await process.communicate(b"")
    assert b"the server still misses parts after 5 tries: 7" in err
    assert process.returncode == 1


@pytest.mark.parametrize("strict", [(), ("--strict",)])
async def test_a_log_that_cannot_be_shipped_does_no_harm(shipper, servers, strict, tmp_path):
    """One line says why; the exit code is the command's own, unless that is strict."""
    (tmp_path / "file").touch()
    closed = tmp_path / "closed" / str(shipper.job_id)
    closed.mkdir(parents=True)
    (closed / "meta").write_text("{")
    wrong = runner_token(shipper.stack, shipper.job_id).rsplit(".", 1)[0] + ".AAAA"
    for settings in (
        {"LOGFLUME_SHIP__TOKEN": wrong},
        {"LOGFLUME_SHIP__TOKEN": "x"},
        {"LOGFLUME_SHIP__TOKEN": ""},
        {"LOGFLUME_WEB__URL": "nowhere"},
        {"LOGFLUME_SHIP__SPOOL_DIR": str(tmp_path / "file")},
        {"LOGFLUME_SHIP__SPOOL_DIR": str(tmp_path / "closed")},
        {"LOGFLUME_SHIP__SPOOL_BYTES": "x"},
    ):
        shipper.settings = settings
        done = await shipper.run("run", *strict, "--", "echo", "hello")
        assert (done.code, done.out) == (len(strict), b"hello\n"), settings
        lines = [line for line in done.err.splitlines() if " job " not in line[:14]]
        assert len(lines) == 1, done.err


async def test_a_full_disk_cuts_the_log(shipper, drain, pool, aggregate):
    """The disk is full as soon as a file has 10,000 bytes."""
    limit = (10_000, 10_000)
    process = await shipper.begin(
        "ship", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    )
    out, err = await process.communicate(BYTES)
    assert (process.returncode, out) == (0, BYTES)
    assert err.decode().count("File too large") == 1
    assert await until_final(pool, shipper.job_id) == BYTES[:10_000]
    assert (await aggregate(shipper.job_id)).complete is False


async def test_a_full_spool_holds_the_oldest_output_and_says_what_is_missing(
    shipper, settings, pool, tmp_path
):
    shipper.settings = {
        "LOGFLUME_WEB__URL": "http://127.0.0.1:1",
        "LOGFLUME_SHIP__SPOOL_BYTES": str(1024 * 1024),
        "LOGFLUME_SHIP__GIVE_UP_SECONDS": "0",
    }
    sent = random.randbytes(3 * 1024 * 1024)
    done = await shipper.run("ship", "--strict", stdin=sent)
    assert (done.code, done.out) == (1, sent)
    assert done.err.count("the spool is full") == 1
    assert "the log is not delivered" in done.err
    del shipper.settings["LOGFLUME_WEB__URL"]
    async with draining(settings):
        await shipper.run("ship", stdin=b"")
        content = await until_final(pool, shipper.job_id)
    first, _, rest = content.partition(b"\r\n[logflume: the spool is full")
    assert sent.startswith(first)
    assert len(first) > 1024 * 1024 - 2 * 65536
    assert rest == b": output is missing from here]\r\n"


async def test_a_file_is_followed_across_kills_rotation_and_truncation(
    shipper, drain, pool, tmp_path
):
    """Killed during an append and at random, and rotated while nothing follows the file."""
    path, expected = tmp_path / "job.log", b""
    shipper.settings["SECRET"] = "correct horse"
    command = ("ship", "--follow", str(path), "--mask", "SECRET")

    def write(count: int) -> None:
        nonlocal expected
        with path.open("ab", buffering=0) as file:
            for _ in range(count):
                line = random.randbytes(random.randrange(3000)) + b"correct horse"
                file.write(line)
                expected += line.replace(b"correct horse", b"[secure]")

    real, shipper.url = shipper.url, "http://127.0.0.1:1"
    shipper.settings["LOGFLUME_SHIP__FLUSH_SECONDS"] = "60"
    process = await shipper.begin(*command)
    for _ in range(2):
        write(1)
        await until(partial(has_size, shipper, len(expected)))
    process.kill()
    await process.communicate()
    os.truncate(shipper.spool / "0", len(expected) - 7)
    shipper.url = real
    del shipper.settings["LOGFLUME_SHIP__FLUSH_SECONDS"]
    for _ in range(5):
        process = await shipper.begin(*command)
        await until(partial(has_size, shipper, random.randrange(len(expected) + 1)))
        write(50)
        await until(partial(has_size, shipper, random.randrange(len(expected))))
        process.kill()
        await process.communicate()
    path.rename(tmp_path / "job.log.1")
    write(3)
    process = await shipper.begin(*command)
    await until(partial(has_size, shipper, len(expected)))
    path.rename(tmp_path / "job.log.2")
    write(3)
    await until(partial(has_size, shipper, len(expected)))
    path.write_bytes(b"")
    write(1)
    await until(partial(has_size, shipper, len(expected)))
    process.terminate()
    _, err = await process.communicate(b"")
    assert process.returncode == 0, err
    assert await until_final(pool, shipper.job_id) == expected


async def test_secrets_are_masked_before_they_are_stored(shipper, drain, pool, tmp_path):
    shipper.settings["SECRET"] = "correct horse"
    (tmp_path / "secrets").write_text("battery staple\n\n")
    options = ("--mask", "SECRET", "--mask-file", str(tmp_path / "secrets"))
    code = (
        "import base64, os, sys\n"
        "for one in 'correct ho', 'rse, battery%20staple, ', os.environ['LOGFLUME_SHIP__TOKEN'],"
        " base64.b64encode(b' user:correct horse').decode():\n"
        "    print(end=one, flush=True)"
    )
    done = await shipper.run("run", *options, *python(code))
    assert b"correct horse" in done.out
    masked = b"[secure], [secure], [secure]" + base64.b64encode(b" user:") + b"[secure]"
    assert await until_final(pool, shipper.job_id) == masked + b"Q=="
    shipper.settings = {}
    done = await shipper.run("run", *options, "--", "echo", "hello")
    assert (done.code, done.out) == (0, b"hello\n")
    assert done.err.startswith("logflume: the log is not shipped: --mask SECRET: not set")


async def test_parts_go_to_rabbitmq_without_a_token(
    shipper, servers, settings, drain, pool, aggregate
):
    """Its connection is closed and the shipper killed meanwhile; the log is complete."""
    shipper.settings = {
        "LOGFLUME_SHIP__TOKEN": "",
        "LOGFLUME_AMQP__URL": settings.amqp.url.get_secret_value(),
        "LOGFLUME_SHIP__FLUSH_SECONDS": "0",
    }
    command = ("ship", "--job-id", str(shipper.job_id))
    process = await shipper.begin(*command)
    process.stdin.write(BYTES)
    await until_sent(shipper, len(BYTES))
    vhost = settings.amqp.url.get_secret_value().rpartition("/")[2]
    await close_connections(servers, vhost, "logflume ship")
    process.stdin.write(b"second,")
    await until_sent(shipper, len(BYTES) + 7)
    process.kill()
    await process.communicate()
    done = await shipper.run(*command, "--strict", stdin=b"third")
    assert done.code == 0, done.err
    assert await until_final(pool, shipper.job_id) == BYTES + b"second,third"
    assert (await aggregate(shipper.job_id)).complete is True


async def test_a_job_without_an_id_gets_a_new_one(shipper, settings, drain, pool):
    url = settings.amqp.url.get_secret_value()
    shipper.settings = {"LOGFLUME_SHIP__TOKEN": "", "LOGFLUME_AMQP__URL": url}
    done = await shipper.run("run", "--", "echo", "hello")
    address = re.fullmatch(r"logflume: job (\d+) (.*)/jobs/\1\n", done.err)
    assert address and address[2] == shipper.url
    assert await until_final(pool, int(address[1])) == b"hello\n"


async def test_the_recipe_of_a_shell_script_works(shipper, drain, pool, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "shipping.md").read_text()
    script = tmp_path / "build"
    script.write_text(page.partition("### A shell script")[2].split("```")[1].removeprefix("sh\n"))
    script.chmod(0o755)
    path = f"{Path(LOGFLUME).parent}:{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        script, env=shipper.environment() | {"PATH": path}, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out == b"building\ndone\n"
    assert await until_final(pool, shipper.job_id) == b"building\ndone\n"
