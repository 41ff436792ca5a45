"""The shipper: what it costs a command, how fast it delivers, and what 100 kills lose."""

import asyncio
import http.client
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import asyncpg
import jwt
import psutil

from bench.figures import Figure, waits
from bench.servers import Bench

LOGFLUME = str(Path(sys.executable).parent / "logflume")
GB = 1_000_000_000
MB = 1_000_000
AWAY = {"LOGFLUME_WEB__URL": "http://127.0.0.1:1", "LOGFLUME_SHIP__GIVE_UP_SECONDS": "0"}
LINE = "one line of the output of a build, as long as most of them: " + "x" * 26
CONTENT = """
SELECT DISTINCT ON (number) log_parts.content FROM log_parts JOIN logs ON logs.id = log_id
WHERE job_id = $1 ORDER BY number, log_parts.id DESC
"""


async def measure(bench: Bench) -> list[Figure]:
    """Measure the command's time, the delivery and the kills."""
    await bench.stack.up(["drain", "web"])
    size = GB // 10 if bench.quick else GB
    return [
        *await asyncio.to_thread(_cost, bench, size),
        *await asyncio.to_thread(_delivery, bench, size // 5),
        *await asyncio.to_thread(_latency, bench, 10 if bench.quick else 30),
        await _kills(bench, 10 if bench.quick else 100),
    ]


def _environment(bench: Bench, job_id: int) -> dict[str, str]:
    key = (bench.stack.home.data_dir / "jwt_private.pem").read_text()
    return {
        "PATH": os.environ["PATH"],
        "LOGFLUME_WEB__URL": f"http://{bench.web.host}:{bench.web.port}",
        "LOGFLUME_SHIP__TOKEN": jwt.encode({"sub": str(job_id)}, key, "RS512"),
        "LOGFLUME_SHIP__SPOOL_DIR": str(bench.stack.home.data_dir / "spools"),
    }


def _cost(bench: Bench, size: int) -> list[Figure]:
    """Seconds until a command has written everything while the web is away.

    With it, its share of these cores would be in the figures.
    """
    times = bench.stack.home.data_dir / "times"
    command = f"yes '{LINE}' | head -c {size}"
    timed = f"date +%s.%N >{times}; {command}; date +%s.%N >>{times}"
    found, memory = [], 0
    for what, line in {
        ">/dev/null": ["sh", "-c", timed],
        "script": ["script", "-qc", timed, "/dev/null"],
        "logflume run": [LOGFLUME, "run", "--", "sh", "-c", timed],
        "logflume run --no-tty": [LOGFLUME, "run", "--no-tty", "--", "sh", "-c", timed],
    }.items():
        (job_id,) = bench.jobs(1)
        with subprocess.Popen(  # noqa: S603 - ours
            line, env=_environment(bench, job_id) | AWAY, stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            while process.poll() is None:
                if line[0] == LOGFLUME:
                    memory = max(memory, _peak(process.pid))
                time.sleep(0.2)
        began, ended = map(float, times.read_text().split())
        found.append(Figure(f"{size // MB} MB written: {what}", ended - began, "s"))
    return [*found, Figure("both processes of logflume run: peak RSS", memory / MB, "MB")]


def _peak(pid: int) -> int:
    """The peak RSS of a shipper and its sender together."""
    total = 0
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children()):
            if "logflume" in " ".join(one.cmdline()):
                lines = Path(f"/proc/{one.pid}/status").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (psutil.Error, OSError, StopIteration):
        return 0
    return total * 1024


def _delivery(bench: Bench, size: int) -> list[Figure]:
    """Bytes per second until all are confirmed, and CPU of both processes, beside `cat`."""
    path = bench.stack.home.data_dir / "file"
    path.write_bytes((f"{LINE}\n".encode() * (size // 80 + 1))[:size])
    found = []
    for what, line, amqp in (
        ("cat", ["cat"], ""),
        ("ship over HTTP", [LOGFLUME, "ship"], ""),
        ("ship over AMQP", [LOGFLUME, "ship"], bench.amqp_url),
    ):
        (job_id,) = bench.jobs(1)
        given = _environment(bench, job_id)
        if amqp:
            given |= {"LOGFLUME_SHIP__TOKEN": "", "LOGFLUME_AMQP__URL": amqp}
        began = time.perf_counter()
        with path.open("rb") as file:
            process = subprocess.Popen(  # noqa: S603 - ours
                line, env=given, stdin=file, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            _, status, used = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"{what}: exit status {status}")
        seconds = time.perf_counter() - began
        cpu = 1000 * (used.ru_utime + used.ru_stime) * MB / size
        found.append(Figure(what, size / MB / seconds, "MB/s", note=f"CPU {cpu:.2f} ms per MB"))
    return found


def _latency(bench: Bench, seconds: int) -> list[Figure]:
    """From a line's writing to its event in a stream, which sets the fast pace."""
    (job_id,) = bench.jobs(1)
    with subprocess.Popen(  # noqa: S603 - ours
        [LOGFLUME, "ship"], env=_environment(bench, job_id), stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdin  # noqa: S101 - a pipe
        found: list[float] = []
        process.stdin.write(b"first")
        process.stdin.flush()
        reader = threading.Thread(target=_read, args=(bench, job_id, found))
        reader.start()
        for _ in range(20 * seconds):
            process.stdin.write(f"at={time.time()};".encode())
            process.stdin.flush()
            time.sleep(0.05)
    reader.join()
    # The shipper gets the fast pace with the response to its next part.
    return waits("written to reader", found[100:], (1000, 1500))


def _read(bench: Bench, job_id: int, found: list[float]) -> None:
    """Read a complete stream; one that does not exist yet is requested again."""
    response = None
    while response is None or response.status == 404:
        connection = http.client.HTTPConnection(bench.web.host, bench.web.port)
        headers = {"Authorization": f"token {bench.web.token}"}
        connection.request("GET", f"/logs/{job_id}/stream", headers=headers)
        response = connection.getresponse()
    for line in response:
        found += [time.time() - float(at) for at in re.findall(rb"at=([0-9.]+);", line)]
        if line.startswith(b"event: final"):
            break
    connection.close()


async def _kills(bench: Bench, count: int) -> Figure:
    """Follow a growing file, killing the shipper at random; the log must be the file."""
    (job_id,) = bench.jobs(1)
    path, given = bench.stack.home.data_dir / "growing", _environment(bench, job_id)
    path.touch()
    for index in range(count + 1):
        process = await asyncio.create_subprocess_exec(
            LOGFLUME, "ship", "--follow", str(path), env=given,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with path.open("ab") as file:
            file.write(os.urandom(random.randrange(500_000)))  # noqa: S311 - not a secret
        if index < count:
            await asyncio.sleep(random.uniform(0.05, 1))  # noqa: S311 - not a secret
            process.send_signal(signal.SIGKILL)
        else:
            await asyncio.sleep(1)
            process.send_signal(signal.SIGTERM)
        await process.wait()
    content = await _stored(bench.pool, job_id, path.stat().st_size)
    lost = sum(a != b for a, b in zip(content, path.read_bytes(), strict=True))
    return Figure(
        f"bytes lost or misplaced of {len(content):,}, {count} kills", lost, target=0, less=True
    )


async def _stored(pool: asyncpg.Pool, job_id: int, size: int) -> bytes:
    """The content, once it is there; a part that was sent twice counts once, as in the log."""
    content = b""
    async with asyncio.timeout(60):
        while len(content) < size:
            await asyncio.sleep(0.5)
            rows = await pool.fetch(CONTENT, job_id)
            content = b"".join(row["content"] for row in rows)
    return content
