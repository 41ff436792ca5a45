"""Archiving and verifying: logs per second against boto3 alone, and single large logs.

Ours are the worker's own activities, as many at once as the worker runs: the row is marked, its
content read and sent, then read back, hashed, searched for steps, compared and noted.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from temporalio.testing import ActivityEnvironment

from activities.logs import ArchiveActivities
from activities.types import ArchiveInput
from bench import logs
from bench.figures import Figure
from bench.lifecycle import finished
from bench.servers import Bench, peak_rss
from logflume.archive.store import Archive
from logflume.domain import Content
from logflume_cli.devstack.s3 import client

SMALL_PARTS = 100
LARGE_BYTES, LARGE_TRIES = 50_000_000, 3
HUGE_BYTES = 1_000_000_000
PART_BYTES = 9_216


async def measure(bench: Bench) -> list[Figure]:
    """Measure small logs against boto3 alone, single large ones, and 1 GB in the worker."""
    count = 100 if bench.quick else 500
    at_once = bench.settings.worker.archive_activities
    activities = ArchiveActivities(bench.pool, Archive(bench.settings.s3, at_once))
    jobs = bench.jobs(count)
    orders = [await order(bench, job_id, SMALL_PARTS, logs.PART) for job_id in jobs]
    bare = [await bare_rate(bench, count // 2, at_once, "before")]
    ours = await rate(activities, orders, at_once)
    bare.append(await bare_rate(bench, count // 2, at_once, "after"))
    base = sum(bare) / 2
    figures = [
        Figure(f"archive and verify 100 KiB, {at_once} at once", ours, "logs/s"),
        Figure("boto3 alone, PUT and GET", base, "logs/s"),
        Figure("archive and verify, of boto3 alone", 100 * ours / base, "%", 60),
    ]
    tries = []
    for job_id in bench.jobs(LARGE_TRIES):
        large = await order(bench, job_id, LARGE_BYTES // PART_BYTES, logs.PART * 9)
        began = time.perf_counter()
        await one(activities, large)
        tries.append(time.perf_counter() - began)
    figures.append(Figure("archive and verify 50 MB", median(tries), "s", 1.5, less=True))
    if not bench.quick:
        figures.append(await huge(bench))
    return figures


async def order(bench: Bench, job_id: int, parts: int, content: bytes) -> ArchiveInput:
    """Store and aggregate a log; returns the activities' input."""
    await logs.store_large(bench.pool, job_id, parts, content)
    made: Content = await logs.aggregate(bench.pool, job_id)
    return ArchiveInput(job_id, made.sha256, made.bytes, made.parts)


async def one(activities: ArchiveActivities, given: ArchiveInput) -> None:
    """Archive and verify one log, as its workflow does."""
    environment = ActivityEnvironment()
    assert await environment.run(activities.archive, given)  # noqa: S101
    assert (await environment.run(activities.verify, given)).ok  # noqa: S101


async def rate(activities: ArchiveActivities, orders: list[ArchiveInput], at_once: int) -> float:
    """Logs per second."""
    places = asyncio.Semaphore(at_once)

    async def take(given: ArchiveInput) -> None:
        async with places:
            await one(activities, given)

    began = time.perf_counter()
    await asyncio.gather(*map(take, orders))
    return len(orders) / (time.perf_counter() - began)


async def bare_rate(bench: Bench, count: int, at_once: int, name: str) -> float:
    """Objects of 100 KiB per second that boto3 alone puts and gets with as many threads."""
    s3: Any = client(bench.settings.s3, max_pool_connections=at_once)
    body = logs.PART * SMALL_PARTS

    def put_and_get(number: int) -> None:
        place = {"Bucket": bench.settings.s3.bucket, "Key": f"bare/{name}/{number}"}
        s3.put_object(**place, Body=body)
        assert s3.get_object(**place)["Body"].read() == body  # noqa: S101

    began = time.perf_counter()
    with ThreadPoolExecutor(at_once) as threads:
        work = [asyncio.wrap_future(threads.submit(put_and_get, n)) for n in range(count)]
        await asyncio.gather(*work)
    return count / (time.perf_counter() - began)


async def huge(bench: Bench) -> Figure:
    """Peak RSS of a worker during the lifecycle of a 1 GB log."""
    await bench.stack.up(["worker"])
    jobs = bench.jobs(1)
    parts = HUGE_BYTES // PART_BYTES
    await logs.store_large(bench.pool, jobs[0], parts, logs.PART * 9)
    began = time.perf_counter()
    await finished(bench, jobs, parts, parts * PART_BYTES)
    note = f"{time.perf_counter() - began:.0f} s from final part to purge"
    peak = peak_rss(bench.pid("worker"))
    return Figure("memory of the worker, 1 GB", peak, "MB", 200, less=True, note=note)
