"""Compares published parts with every row, object and response."""

import asyncio
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from botocore.exceptions import ClientError
from temporalio.client import WorkflowExecutionStatus

from logflume.archive.store import key
from logflume.domain import LAST, WHOLE
from logflume_cli.devstack.s3 import client
from tests.support.soak.jobs import Job
from tests.support.soak.system import System
from tests.support.soak.way import Way
from workflows.client.connection import connect_temporal
from workflows.lifecycle_types import workflow_id

MARK = re.compile(rb"\x1e(\d+\.\w+\.\d+)\x1f")
AT_ONCE = 8
ROW = """
SELECT l.id, content_bytes, encode(content_sha256, 'hex') AS sha256, missing_parts,
    archive_verified, purged_at IS NOT NULL AS purged, late_parts, archive_outdated
FROM logs l WHERE job_id = $1
"""
PARTS = """
SELECT a.uuid, p.number, p.content, p.final
FROM log_parts p JOIN log_attempts a ON a.id = p.attempt_id
WHERE p.log_id = $1
"""


@dataclass
class Verdict:
    """Counts of parts; `wrong` names each log that differs from the model."""

    logs: int = 0
    published: int = 0
    lost: int = 0
    doubled: int = 0
    misplaced: int = 0
    stored_again: int = 0  # rows of repeated parts, which is allowed
    wrong: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.doubled or self.misplaced or self.wrong or self.open)

    def differ(self, job: Job, what: str) -> None:
        self.wrong.append(f"job {job.id} ({job.shape}): {what}")


def expected(job: Job) -> list[bytes]:
    """The allowed contents: concurrent `last` parts may swap when a drain dies."""
    model = job.model
    lasts = list(dict.fromkeys(p.content for p in model.parts if p.number == LAST))
    numbered = model.content[: len(model.content) - len(b"".join(lasts))]
    return [numbered + b"".join(order) for order in itertools.permutations(lasts)]


def is_log(job: Job) -> bool:
    """Whether there is anything to archive; an empty part counts."""
    return bool(job.model.whole or job.model.parts)


def compare_bytes(verdict: Verdict, job: Job, where: str, found: bytes) -> None:
    """Count missing, doubled and misplaced parts."""
    wanted = expected(job)
    if found in wanted:
        return
    marks, right = MARK.findall(found), MARK.findall(wanted[0])
    have, want = Counter(marks), Counter(right)
    lost, more = sum((want - have).values()), have - want
    doubled = sum(count for mark, count in more.items() if mark in want)
    foreign = sum(more.values()) - doubled
    order = [mark for mark in dict.fromkeys(marks) if mark in want]
    displaced = sum(a != b for a, b in zip(order, [m for m in right if m in have], strict=True))
    verdict.lost += lost
    verdict.doubled += doubled
    verdict.misplaced += foreign + displaced
    verdict.differ(
        job,
        f"{where} has {len(found)} bytes, not {len(wanted[0])}: {lost} parts lost, "
        f"{doubled} doubled, {foreign + displaced} misplaced",
    )


def is_possible(job: Job, found: bytes) -> bool:
    """Whether a reader may see this during the job: marks of one run, in order, no repeats."""
    marks = [mark.split(b".") for mark in MARK.findall(found)]
    numbered = [mark for mark in marks if mark[1] != b"w"]
    numbers = [int(mark[2]) for mark in numbered]
    runs = {mark[1] for mark in numbered}
    # A run with the uuid of another replaces it part by part.
    is_one_run = len(runs) <= 1 or job.shape == "requeued"
    is_own = all(int(mark[0]) == job.id for mark in marks)
    return is_own and is_one_run and numbers == sorted(set(numbers))


async def compare(system: System, jobs: Sequence[Job], way: Way) -> Verdict:
    """Compare all jobs' logs once nothing changes any more."""
    verdict, places = Verdict(), asyncio.Semaphore(AT_ONCE)
    store = client(system.settings.s3)
    bucket = system.settings.s3.bucket
    url = system.home.database_url("logflume")
    async with asyncpg.create_pool(url, min_size=1, max_size=AT_ONCE) as pool:

        async def one(job: Job) -> None:
            async with places:
                choose(job, await way.read(job.id) or b"")
                await _compare_rows(verdict, job, pool)
                archived = await asyncio.to_thread(_archived, store, bucket, job.id)
                await _compare_copies(verdict, job, archived, way)

        await asyncio.gather(*map(one, jobs))
    return verdict


async def _compare_rows(verdict: Verdict, job: Job, pool: asyncpg.Pool) -> None:
    """Compare parts of open attempts, also superseded ones, and the row's content columns."""
    verdict.logs += 1
    model = job.model
    wanted = Counter((p.attempt, p.number, p.content, p.final) for p in model.parts)
    if model.whole:
        wanted["", WHOLE, model.whole, False] += 1
    verdict.published += len(wanted)
    row = await pool.fetchrow(ROW, job.id)
    if row is None:
        verdict.lost += len(wanted)
        verdict.differ(job, "there is no row")
        return
    found = Counter(tuple(one) for one in await pool.fetch(PARTS, row["id"]))
    lost, foreign = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    verdict.lost += len(lost)
    verdict.misplaced += len(foreign)
    verdict.stored_again += max(0, sum(found.values()) - len(found))
    if lost or foreign:
        verdict.differ(job, f"{len(lost)} parts not stored, {len(foreign)} parts of others")
    if not is_log(job):
        return
    hashes = {hashlib.sha256(content).hexdigest() for content in expected(job)}
    about = (row["content_bytes"], row["missing_parts"], row["archive_verified"], row["purged"])
    if row["sha256"] not in hashes or about != (len(model.content), model.missing, True, True):
        verdict.differ(job, f"its row says {dict(row)}, not {len(model.content)} bytes")


def choose(job: Job, found: bytes) -> None:
    """Let those texts of a requeued run win that are read: either may have been stored last."""
    if job.shape == "requeued":
        job.model.parts.sort(key=lambda one: one.content in found)


async def _compare_copies(verdict: Verdict, job: Job, archived: bytes | None, way: Way) -> None:
    answer = await way.call("GET", f"/logs/{job.id}/raw", direct=True)
    compare_bytes(verdict, job, "/raw", answer.content)
    answer = await way.call("GET", f"/logs/{job.id}", direct=True)
    texts = {content.decode("utf-8", "replace") for content in expected(job)}
    if (answer.json()["content"] or "") not in texts:
        verdict.differ(job, "/logs/{id} returns other text")
    if is_log(job):
        compare_bytes(verdict, job, "its object", archived or b"")
    if is_log(job) != (archived is not None):
        verdict.differ(job, "it has no object" if archived is None else "its object still exists")


def _archived(store: Any, bucket: str, job_id: int) -> bytes | None:
    try:
        body: bytes = store.get_object(Bucket=bucket, Key=key(job_id))["Body"].read()
    except ClientError:
        return None
    return body


async def open_workflows(system: System) -> dict[int, str]:
    """The logs whose workflow still runs, and its status and phase."""
    lifecycles = await connect_temporal(system.settings.temporal)
    query = "WorkflowType = 'LogLifecycle' AND ExecutionStatus != 'Completed'"
    names = WorkflowExecutionStatus
    found = {}
    async for one in lifecycles.list_workflows(query):
        if one.status == names.CONTINUED_AS_NEW:
            continue
        phase = next((v for k, v in one.search_attributes.items() if k == "LogPhase"), [""])[0]
        found[int(one.id.removeprefix(workflow_id(0)[:-1]))] = (
            f"{names(one.status or 0).name} {phase}"
        )
    return found


async def unfinished(system: System, jobs: Sequence[Job]) -> dict[int, str]:
    """Why each unfinished log is unfinished, by its workflow or its row."""
    found = await open_workflows(system)
    connection = await system.connect()
    try:
        for job in jobs:
            row = await connection.fetchrow(ROW, job.id)
            is_pending = row and (row["late_parts"] or row["archive_outdated"])
            if row is None or is_pending or (is_log(job) and not row["purged"]):
                found.setdefault(job.id, f"its row says {dict(row) if row else 'nothing'}")
    finally:
        await connection.close()
    return found
