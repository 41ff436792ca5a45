"""A fleet of jobs: publishes them, follows their lifecycles and compares the archive."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, BinaryIO

import asyncpg
from botocore.exceptions import BotoCoreError, ClientError

from db.errors import UNREACHABLE
from db.reading import find_many
from logflume.domain import Log
from logflume.errors import LogflumeError
from logflume.settings.servers import S3Settings
from logflume_cli.devstack.runner import Played, connect, play
from logflume_cli.devstack.s3 import client
from logflume_cli.devstack.tasks import together

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

JOBS_AT_ONCE = 50
DOWNLOADS_AT_ONCE = 4
POLL_SECONDS = 0.5
PROGRESS_SECONDS = 120
SLICE_BYTES = 1024 * 1024


@dataclass
class Job:
    """One job of the fleet and the state of its log; sizes in bytes, `rate` in bytes per second."""

    job_id: int
    name: str
    open: Callable[[], BinaryIO]
    rate: float | None = None
    parts: int = 0
    bytes: int = 0
    played: Played | None = None
    log: Log | None = None

    @property
    def phase(self) -> str:
        """`waiting` before the first part, then the phase of the log's row."""
        if self.log is not None:
            return self.log.phase
        return "receiving" if self.parts else "waiting"

    @property
    def verify_seconds(self) -> float | None:
        """Seconds from the final part to verification."""
        if self.played is None or self.log is None or self.log.archived_at is None:
            return None
        return (self.log.archived_at - self.played.finished_at) / timedelta(seconds=1)

    def count(self, size: int) -> None:
        """Count a published part of `size` bytes."""
        self.parts += 1
        self.bytes += size


async def play_fleet(amqp_url: str, jobs: Sequence[Job]) -> None:
    """Publish all jobs, at most JOBS_AT_ONCE at a time.

    Raises:
        ComponentError: the broker is unreachable.
        LogflumeError: a job's output cannot be read.
    """
    semaphore = asyncio.Semaphore(JOBS_AT_ONCE)
    async with await connect(amqp_url) as connection:
        channel = await connection.channel(publisher_confirms=False)

        async def publish(job: Job) -> None:
            async with semaphore:
                with job.open() as output:
                    job.played = await play(
                        channel, job.job_id, output, rate=job.rate, on_part=job.count
                    )

        await together(*map(publish, jobs))


async def follow_fleet(database_url: str, jobs: Sequence[Job]) -> None:
    """Refresh each job's `log` until all are archived, verified and purged.

    Raises:
        LogflumeError: there was no progress for two minutes.
    """
    last, since = None, time.monotonic()
    while open_jobs := [job for job in jobs if job.phase != "done"]:
        await _refresh(database_url, open_jobs)
        now = [(job.phase, job.parts) for job in jobs]
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > PROGRESS_SECONDS:
            raise LogflumeError(f"no progress for {PROGRESS_SECONDS} s: {summarize(jobs)}")
        await asyncio.sleep(POLL_SECONDS)


def summarize(jobs: Sequence[Job]) -> str:
    """The number of jobs per phase and some jobs that are not done, in one line."""
    phases = [job.phase for job in jobs]
    counts = ", ".join(f"{phases.count(phase)} {phase}" for phase in dict.fromkeys(phases))
    late = [str(job.job_id) for job in jobs if job.phase != "done"][:5]
    return f"{counts}; not done: {', '.join(late)}" if late else counts


async def compare_fleet(settings: S3Settings, jobs: Sequence[Job]) -> dict[int, bool]:
    """Whether each job's object equals what was published, by job id; objects are streamed."""
    semaphore, s3 = asyncio.Semaphore(DOWNLOADS_AT_ONCE), client(settings)

    async def compare(job: Job) -> bool:
        async with semaphore:
            archived = await asyncio.to_thread(_archived_sha256, s3, settings.bucket, job.job_id)
        return job.played is not None and archived == job.played.sha256

    results = await asyncio.gather(*map(compare, jobs))
    return {job.job_id: equal for job, equal in zip(jobs, results, strict=True)}


async def _refresh(database_url: str, jobs: Sequence[Job]) -> None:
    try:
        connection = await asyncpg.connect(database_url, timeout=10)
        try:
            logs = await find_many(connection, [job.job_id for job in jobs])
        finally:
            await connection.close()
    except UNREACHABLE:
        return  # Postgres may come back; otherwise there is no progress, which is an error
    for job in jobs:
        job.log = logs.get(job.job_id)


def _archived_sha256(s3: "S3Client", bucket: str, job_id: int) -> str | None:
    digest = hashlib.sha256()
    try:
        response = s3.get_object(Bucket=bucket, Key=f"jobs/{job_id}/log.txt")
        for data in response["Body"].iter_chunks(SLICE_BYTES):
            digest.update(data)
    except (BotoCoreError, ClientError):
        return None
    return digest.hexdigest()
