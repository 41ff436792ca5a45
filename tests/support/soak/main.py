"""A soak: a seeded load, seeded faults one after another, then peace, the oracle and the report.

Run as `bin/soak [--minutes N] [--seed S]`. The exit code is 0 only if no part was lost, doubled or
misplaced, each log's workflow is closed, and no process of ours ended by itself once it had begun.
"""

import argparse
import asyncio
import itertools
import logging
import random
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from logflume.errors import ComponentError
from logflume_cli.devstack.tasks import run_until_signal
from tests.support.soak import oracle
from tests.support.soak.faults import Fault, Injector, schedule
from tests.support.soak.load import Load
from tests.support.soak.system import System

JOBS_AT_ONCE = 6
# Of the faults alone; then what is under way is played to its end, and each log gets to its own.
MINUTES = 30.0
RECOVER_SECONDS = 180
PEACE_SECONDS = 600


@dataclass
class Outcome:
    """What a soak did and found; times are in seconds."""

    seed: str
    faults: list[Fault] = field(default_factory=list)
    skipped: list[Fault] = field(default_factory=list)
    recovery: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    not_recovered: list[str] = field(default_factory=list)
    shapes: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    again: int = 0
    calls_again: int = 0
    reads: int = 0
    wrong_reads: list[str] = field(default_factory=list)
    ends: dict[str, Counter[str]] = field(default_factory=dict)
    peace_seconds: float = 0
    verdict: oracle.Verdict = field(default_factory=oracle.Verdict)

    @property
    def is_good(self) -> bool:
        wrong = self.wrong_reads or self.not_recovered or any(self.ends.values())
        return self.verdict.is_good and not wrong


async def soak(
    system: System, seed: str, faults: Iterable[Fault], jobs_at_once: int = JOBS_AT_ONCE
) -> Outcome:
    """Make faults under load, then have peace, and look at what is left."""
    outcome = Outcome(seed)
    injector, load = Injector(system), Load(system, seed, jobs_at_once)
    reading = asyncio.create_task(_read(load, outcome))
    try:
        async with load.playing():
            for fault in faults:
                await _endure(fault, system, injector, load, outcome)
        began = time.monotonic()
        left = await _peace(system, load)
        outcome.peace_seconds = time.monotonic() - began
        reading.cancel()
        outcome.verdict = await oracle.compare(system, load.jobs, load.way)
        outcome.verdict.open = [f"job {job}: {why}" for job, why in left.items()]
    finally:
        reading.cancel()
        await load.way.close()
    outcome.shapes = Counter(job.shape for job in load.jobs)
    counts = load.counts
    outcome.messages = sum(job.messages for job in load.jobs)
    outcome.again, outcome.calls_again = counts.again, counts.calls_again
    outcome.ends = {name: one.ends for name, one in system.ours.items()}
    return outcome


async def _endure(
    fault: Fault, system: System, injector: Injector, load: Load, outcome: Outcome
) -> None:
    if not injector.can(fault):
        outcome.skipped.append(fault)
        return
    _say(f"{len(outcome.faults) + 1}: {fault}")
    outcome.faults.append(fault)
    began = time.monotonic()
    try:
        await injector.inject(fault)
        async with asyncio.timeout(RECOVER_SECONDS):
            await asyncio.gather(system.until_ready(), load.probe())
    except (ComponentError, TimeoutError, OSError) as error:
        outcome.not_recovered.append(f"{fault}: {error or type(error).__name__}")
        return
    # What it is made to last is no time that it took.
    who = fault.targets[0] if len(fault.targets) == 1 else f"{len(fault.targets)} at once"
    outcome.recovery[fault.kind, who].append(time.monotonic() - began - fault.seconds)


async def _read(load: Load, outcome: Outcome) -> None:
    """Read logs while all that happens: what is read may be short, and never mixed."""
    chance = random.Random(outcome.seed)
    while True:
        if load.jobs:
            job = chance.choice(load.jobs[-50:])
            found = await load.way.read(job.id)
            if found is not None:
                outcome.reads += 1
                if not oracle.is_possible(job, found):
                    outcome.wrong_reads.append(f"job {job.id} ({job.shape}): {found[:200]!r}")
        await asyncio.sleep(0.2)


async def _peace(system: System, load: Load) -> dict[int, str]:
    """Wait until each log is at its end; returns those that are not, and why."""
    deadline = time.monotonic() + PEACE_SECONDS
    while (left := await oracle.unfinished(system, load.jobs)) and time.monotonic() < deadline:
        _say(
            f"{len(left)} logs are not at their end: {Counter(left.values()).most_common(3)}"[:200]
        )
        await asyncio.sleep(2)
    return left


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def report(outcome: Outcome) -> str:
    """What a soak did and found, for people."""
    verdict = outcome.verdict
    kinds = Counter(fault.kind for fault in outcome.faults for _ in fault.targets)
    lines = [f"seed {outcome.seed}", "", "faults, in this order:"]
    lines += [f"  {n}: {fault}" for n, fault in enumerate(outcome.faults, 1)]
    lines += ["", f"{'fault':<34}{'times':>6}{'median s':>10}{'longest s':>10}"]
    lines += [
        f"{' '.join(what):<34}{len(times):>6}{statistics.median(times):>10.1f}{max(times):>10.1f}"
        for what, times in sorted(outcome.recovery.items())
    ]
    shapes = ", ".join(f"{count} {shape}" for shape, count in outcome.shapes.most_common())
    lines += [
        "",
        "faults injected: " + ", ".join(f"{n} {kind}" for kind, n in kinds.most_common()),
        f"logs: {verdict.logs} ({shapes})",
        f"parts to be kept: {verdict.published}",
        f"messages: {outcome.messages}; sent again, not being confirmed: {outcome.again}",
        f"HTTP calls made again: {outcome.calls_again}",
        f"parts stored more than once, and read once: {verdict.stored_again}",
        f"reads meanwhile: {outcome.reads}, mixed: {len(outcome.wrong_reads)}",
        f"seconds of peace until every log was at its end: {outcome.peace_seconds:.0f}",
        f"lost: {verdict.lost}, doubled: {verdict.doubled}, misplaced: {verdict.misplaced}",
    ]
    if outcome.skipped:
        skipped = Counter(fault.kind for fault in outcome.skipped)
        lines.append(f"not possible on this machine: {dict(skipped)}")
    for name, ends in outcome.ends.items():
        lines += [f"{name} ended by itself, {n} times: {said}" for said, n in ends.items()]
    for title, wrong in (
        ("logs that are not as they must be", verdict.wrong),
        ("workflows that are not closed", verdict.open),
        ("reads that were mixed", outcome.wrong_reads),
        ("faults not recovered from in time", outcome.not_recovered),
    ):
        lines += [f"{title}: {len(wrong)}", *(f"  {one}" for one in wrong[:50])]
    return "\n".join(lines)


async def _main(seed: str, minutes: float, folder: Path) -> int:
    system = System(folder)
    try:
        await system.start()
        deadline = time.monotonic() + 60 * minutes
        in_time = itertools.takewhile(lambda _: time.monotonic() < deadline, schedule(seed))
        outcome = await soak(system, seed, in_time)
    finally:
        await system.close()
    print(report(outcome))
    return 0 if outcome.is_good else 1


def main() -> None:
    """Run a soak from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="how long faults are made")
    parser.add_argument("--seed", default=None, help="chooses load and faults; else one is drawn")
    given = parser.parse_args()
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    logging.getLogger("aio_pika").setLevel(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix="logflume-soak-"))
    code = run_until_signal(_main(given.seed or secrets.token_hex(4), given.minutes, folder))
    if code == 0:
        shutil.rmtree(folder)
    else:
        print(f"kept, to look at: {folder}")
    sys.exit(code)


if __name__ == "__main__":
    main()
