"""Aggregation: small logs per second on one connection, and single large logs."""

import time
from statistics import median

from bench import logs
from bench.figures import Figure
from bench.servers import Bench

SMALL_PARTS = 100
LARGE, LARGE_TRIES = 50_000_000, 3
# Part sizes (a runner's buffer; the observed mean), and the target in seconds.
SIZES = {9_216: 0.4, 1_653: 0.8}
HUGE_MB = 1_000  # long enough to be measured once
MB = (1, 10, 50, HUGE_MB)
PART_BYTES = 9_216
# Target: cost per byte of the largest log relative to the cheapest smaller one.
LINEAR = 1.5


async def measure(bench: Bench) -> list[Figure]:
    """Measure small logs one after another, then single large ones."""
    count = 100 if bench.quick else 500
    jobs = bench.jobs(count)
    for job_id in jobs:
        await logs.store(bench.pool, job_id, SMALL_PARTS)
    seconds = sum([await aggregated(bench, job_id) for job_id in jobs])
    figures = [Figure("aggregate 100 KiB, one connection", count / seconds, "logs/s", 450)]
    for size, most in SIZES.items():
        tries = [await large(bench, LARGE, size) for _ in range(LARGE_TRIES)]
        what = f"aggregate 50 MB of {size:,}-byte parts"
        figures.append(Figure(what, median(tries), "s", most, less=True))
    costs = []
    for size in MB[:3] if bench.quick else MB:
        count = LARGE_TRIES if size < HUGE_MB else 1
        tries = [await large(bench, size * 1_000_000, PART_BYTES) for _ in range(count)]
        costs.append(median(tries) / size)
        figures.append(Figure(f"aggregate {size:,} MB, per MB", 1000 * costs[-1], "ms"))
        await bench.clean()
    dearer = costs[-1] / min(costs[:-1])
    what = "a MB of the largest of these, of the cheapest"
    return [*figures, Figure(what, dearer, "times", LINEAR, less=True)]


async def large(bench: Bench, size: int, part_bytes: int) -> float:
    """Seconds to aggregate one log of `size` bytes in parts of `part` bytes."""
    job_id = bench.jobs(1)[0]
    content = (logs.PART * (part_bytes // len(logs.PART) + 1))[:part_bytes]
    await logs.store_large(bench.pool, job_id, size // part_bytes, content)
    return await aggregated(bench, job_id)


async def aggregated(bench: Bench, job_id: int) -> float:
    """Seconds to aggregate a log."""
    began = time.perf_counter()
    content = await logs.aggregate(bench.pool, job_id)
    assert content.sha256  # noqa: S101 - it was stored completely
    return time.perf_counter() - began
