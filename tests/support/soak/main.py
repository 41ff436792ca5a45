"""A soak test: seeded load with one seeded fault after another, then quiet, oracle and report.

Run as `bin/soak [--minutes N] [--seed S]`. The exit code is 0 only if no part was lost, doubled or
misplaced, every log's workflow is closed, and none of our processes exited by itself.
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
# Of the faults alone; running jobs and workflows finish afterwards.
MINUTES = 30.0
RECOVER_SECONDS = 180
PEACE_SECONDS = 600


@dataclass
class Outcome:
    """The results of a soak test; times in seconds."""

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
    has_wrong_clocks: bool = False
    in_transaction: int = 0
    verdict: oracle.Verdict = field(default_factory=oracle.Verdict)

    @property
    def is_good(self) -> bool:
        wrong = self.wrong_reads or self.not_recovered or any(self.ends.values())
        return self.verdict.is_good and not wrong


async def soak(
    system: System, seed: str, faults: Iterable[Fault], jobs_at_once: int = JOBS_AT_ONCE
) -> Outcome:
    """Inject faults under load, wait until all workflows finish, and compare all logs."""
    outcome = Outcome(seed, has_wrong_clocks=system.faketime is not None)
    load = Load(system, seed, jobs_at_once)
    injector = Injector(system, load)
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
    outcome.recovery |= injector.others
    outcome.in_transaction = injector.in_transaction
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
    # The fault's own duration is not part of the recovery time.
    who = fault.targets[0] if len(fault.targets) == 1 else f"{len(fault.targets)} at once"
    outcome.recovery[fault.kind, who].append(time.monotonic() - began - fault.seconds)


async def _read(load: Load, outcome: Outcome) -> None:
    """Read logs meanwhile: content may be incomplete but never mixed."""
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
    """Wait until every log is finished; returns the unfinished ones with the reason."""
    deadline = time.monotonic() + PEACE_SECONDS
    while (left := await oracle.unfinished(system, load.jobs)) and time.monotonic() < deadline:
        _say(f"{len(left)} logs are not finished: {Counter(left.values()).most_common(3)}"[:200])
        await asyncio.sleep(2)
    return left


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def report(outcome: Outcome) -> str:
    """Format the results."""
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
        f"frozen in a transaction: {outcome.in_transaction} of {kinds['freeze']}",
        f"logs: {verdict.logs} ({shapes})",
        f"parts published: {verdict.published}",
        f"messages: {outcome.messages}; sent again without a confirm: {outcome.again}",
        f"HTTP calls repeated: {outcome.calls_again}",
        f"parts stored more than once but read once: {verdict.stored_again}",
        f"reads meanwhile: {outcome.reads}, mixed: {len(outcome.wrong_reads)}",
        f"seconds without faults until every log was finished: {outcome.peace_seconds:.0f}",
        f"lost: {verdict.lost}, doubled: {verdict.doubled}, misplaced: {verdict.misplaced}",
    ]
    if not outcome.has_wrong_clocks:
        lines.append("not possible on this machine: processes with a wrong clock (faketime)")
    if outcome.skipped:
        skipped = Counter(fault.kind for fault in outcome.skipped)
        lines.append(f"not possible on this machine: {dict(skipped)}")
    for name, ends in outcome.ends.items():
        lines += [f"{name} exited by itself {n} times: {said}" for said, n in ends.items()]
    for title, wrong in (
        ("wrong logs", verdict.wrong),
        ("open workflows", verdict.open),
        ("mixed reads", outcome.wrong_reads),
        ("faults without recovery in time", outcome.not_recovered),
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
    parser.add_argument("--minutes", type=float, default=MINUTES, help="minutes of faults")
    parser.add_argument("--seed", default=None, help="seed of load and faults; random by default")
    given = parser.parse_args()
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    logging.getLogger("aio_pika").setLevel(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix="logflume-soak-"))
    code = run_until_signal(_main(given.seed or secrets.token_hex(4), given.minutes, folder))
    if code == 0:
        shutil.rmtree(folder)
    else:
        print(f"data of the failed run: {folder}")
    sys.exit(code)


if __name__ == "__main__":
    main()
