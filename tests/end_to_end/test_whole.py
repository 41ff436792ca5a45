"""The whole system, started with one command: real logs and killed components."""

import asyncio
import io
import os
import re
import signal
import subprocess
import sys
from functools import partial

import httpx
import psutil
import pytest

from logflume.settings import load_settings
from logflume_cli.devstack.fleet import Job, compare_fleet, follow_fleet, play_fleet
from logflume_cli.devstack.home import PROCESSES
from logflume_cli.devstack.runner import new_job_ids
from logflume_cli.devstack.samples import fleet
from logflume_cli.devstack.stack import LocalStack
from tests.support.processes import LOGFLUME, run
from tests.support.real_logs import shared_logs
from workflows.client.connection import connect_temporal

pytestmark = pytest.mark.timeout(400)
AT_LEAST_ONE = r"[1-9][\d.]*"


# Settings of absent components are set, too: secrets could leak through connection errors.
SECRETS_AWAY = ("the-secret-of-pusher", "the-key-of-sentry", "the-key-of-otlp")
SETTINGS = {
    "lifecycle": {"purge_seconds": 2, "settle_seconds": 1},
    # A drain that is killed between commit and signal leaves the log to the sweep.
    "sweep": {"every_seconds": 10, "after_seconds": 10},
    "s3": {"longest_request_seconds": 1},
    "pusher": {
        "app_id": "1", "key": "pusher-key", "secret": SECRETS_AWAY[0], "host": "127.0.0.1",
        "port": 1, "tls": False, "check_existence": False,
    },
    "telemetry": {
        "sentry_dsn": f"http://{SECRETS_AWAY[1]}@127.0.0.1:1/1",
        "otlp_endpoint": "http://127.0.0.1:1",
        "otlp_headers": f"x-key={SECRETS_AWAY[2]}",
    },
}  # fmt: skip


@pytest.fixture
def settings(stack, monkeypatch):
    monkeypatch.setenv("LOGFLUME_STACK__DATA_DIR", str(stack.home.data_dir))
    return load_settings()


def pid(stack: LocalStack, name: str) -> int:
    found = next(item.pid for item in stack.status() if item.name == name)
    assert found
    return found


def jobs(seed: int, count: int, seconds: float) -> list[Job]:
    """Generated logs, each published over some seconds."""
    named = zip(new_job_ids(count), fleet(seed, count), strict=True)
    return [
        Job(job_id, name, partial(io.BytesIO, content), rate=max(1, len(content)) / seconds)
        for job_id, (name, content) in named
    ]


async def more_parts(jobs: list[Job], count: int) -> None:
    """Wait until this many more parts, or all, are published."""
    until = sum(job.parts for job in jobs) + count
    async with asyncio.timeout(60):
        while sum(job.parts for job in jobs) < until and not all(job.played for job in jobs):
            await asyncio.sleep(0.02)


async def play_and_compare(settings, jobs: list[Job], trouble=None) -> None:
    await asyncio.gather(
        play_fleet(settings.amqp.url.get_secret_value(), jobs),
        follow_fleet(settings.database.url.get_secret_value(), jobs),
        *([trouble()] if trouble else []),
    )
    equal = await compare_fleet(settings.s3, jobs)
    assert [job.name for job in jobs if not equal[job.job_id]] == []
    assert [job.name for job in jobs if job.log.missing_parts] == []


def test_the_demo_carries_real_logs_byte_for_byte(stack):
    """Uses the real logs beside the project, or generated ones."""
    done = run(
        *(sys.executable, "-m", "logflume_cli.devstack.demo", "--once"),
        *shared_logs(),
        env={**os.environ, "LOGFLUME_STACK__DATA_DIR": str(stack.home.data_dir), "COLUMNS": "120"},
        timeout=300,
    )
    count = len(shared_logs()) or 12
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} of {count} equal" in done.stdout
    assert "DIFFERENT" not in done.stdout


async def test_each_process_serves_metrics_and_health(stack, settings):
    played = jobs(seed=6, count=2, seconds=0.5)
    await play_and_compare(settings, played)
    done = {
        "drain": f"logflume_drain_publish_to_commit_seconds_count {AT_LEAST_ONE}",
        "worker": rf"(?s)logflume_worker_verified_logs_total {AT_LEAST_ONE}.*"
        'temporal_activity_execution_latency_seconds_count{activity_type="verify"',
        "web": "logflume_web_streams 0",
    }
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        for name, figures in done.items():
            port = stack.home.ports[name]
            shown = await client.get(f"http://127.0.0.1:{port}/metrics")
            assert re.search(figures, shown.text), name
            ready = await client.get(f"http://127.0.0.1:{port}/health/ready")
            assert (ready.status_code, ready.json()["status"]) == (200, "ok"), ready.text
            assert (await health_check(port)).returncode == 0
    assert b"no process responds" in (await health_check(1)).stderr


async def health_check(port: int) -> subprocess.CompletedProcess[bytes]:
    """The health check of the image."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "deploy/healthcheck.py"],
        env={"LOGFLUME_TELEMETRY__PORT": str(port), "LOGFLUME_WEB__PORT": "1"},
        capture_output=True,
        timeout=60,
    )


@pytest.mark.parametrize("name", ["drain", "worker", "postgres", "temporal", "s3"])
async def test_a_component_killed_in_mid_flight_loses_nothing(stack, settings, name):
    played = jobs(seed=7, count=12, seconds=6)

    async def kill() -> None:
        for _ in range(2):
            await more_parts(played, 60)
            process = psutil.Process(pid(stack, name))
            process.kill()
            await asyncio.to_thread(process.wait, 10)
            await stack.up()

    await play_and_compare(settings, played, kill)


async def test_a_stopped_drain_finishes_its_work(stack, settings):
    played = jobs(seed=8, count=8, seconds=3)

    async def stop() -> None:
        await more_parts(played, 60)
        process = psutil.Process(pid(stack, "drain"))
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 30)
        await stack.up()

    await play_and_compare(settings, played, stop)


async def test_no_log_text_and_no_secret_leaks(stack, settings):
    """Checks everything visible without access to logs or secrets, after all tests above."""
    texts = {log.name: log.read_bytes() for log in (stack.home.data_dir / "logs").iterdir()}
    for name in ("postgres", *PROCESSES):
        texts[f"command {name}"] = " ".join(psutil.Process(pid(stack, name)).cmdline()).encode()
    for name in ("config", "doctor"):
        command = [LOGFLUME, name]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=60)
        texts[name] = done.stdout + done.stderr
    texts |= await histories(settings) | await answers(stack, settings)
    for seen in (
        "history log-",
        "schedule sweep",
        *(f"{name}.log" for name in PROCESSES),
        "config",
    ):
        assert any(where.startswith(seen) and it for where, it in texts.items()), seen
    # An access key id is like a user name, not a secret.
    secrets = {name: one for name, one in stack.home.secrets.items() if name != "s3_access_key"}
    secrets |= {one: one for one in (*SECRETS_AWAY, "travis_fold")}
    found = {(where, name) for where, it in texts.items() for name in secrets
             if secrets[name].encode() in it}  # fmt: skip
    assert found == set()


async def histories(settings) -> dict[str, bytes]:
    """Raw events of every workflow (the JSON hides payloads), and schedules."""
    texts, client = {}, await connect_temporal(settings.temporal)
    async for one in client.list_workflows():
        history = await client.get_workflow_handle(one.id, run_id=one.run_id).fetch_history()
        texts[f"history {one.id}"] = b"".join(event.SerializeToString() for event in history.events)
    async for schedule in await client.list_schedules():
        described = await client.get_schedule_handle(schedule.id).describe()
        texts[f"schedule {schedule.id}"] = described.raw_description.SerializeToString()
    return texts


async def answers(stack, settings) -> dict[str, bytes]:
    """Responses without the token, and with it for anything but logs."""
    urls = [f"http://127.0.0.1:{stack.home.ports[name]}/metrics" for name in PROCESSES]
    paths = ("health/ready", "schema", "logs", "logs/x", "logs/1/lifecycle", "jobs/1", "")
    urls += [f"{settings.web.url}/{path}" for path in paths]
    texts = {}
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        for url in urls:
            for token in ("wrong", stack.home.secrets["auth_token"]):
                answer = await client.get(url, headers={"Authorization": f"token {token}"})
                texts[f"{url}, {token[:5]}"] = str(answer.headers).encode() + answer.content
    return texts
