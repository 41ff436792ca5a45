"""A short soak test: almost every kind of fault under load, then the oracle."""

import pytest

from tests.support.parts import part
from tests.support.soak.faults import schedule, short
from tests.support.soak.jobs import Job
from tests.support.soak.load import FIRST_JOB
from tests.support.soak.main import report, soak
from tests.support.soak.oracle import Verdict, choose, compare_bytes, is_possible
from tests.support.soak.system import System

pytestmark = pytest.mark.timeout(900)
# Chosen because its first jobs have almost all shapes.
SEED = "281"


async def test_no_fault_loses_doubles_or_misplaces_a_part(new_folder):
    system = System(new_folder(), small=True)
    try:
        await system.start()
        outcome = await soak(system, SEED, short(SEED), jobs_at_once=3)
    finally:
        await system.close()
    assert outcome.is_good, report(outcome)
    assert outcome.verdict.published > 0


def test_a_seed_replays_its_faults():
    first, again, other = schedule("a"), schedule("a"), schedule("b")
    faults = [next(first) for _ in range(200)]
    assert faults == [next(again) for _ in range(200)]
    assert faults != [next(other) for _ in range(200)]


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ((0, 1, 2, 3), (0, 0, 0)),
        ((0, 1, 3), (1, 0, 0)),
        ((0, 1, 1, 2, 3), (0, 1, 0)),
        ((0, 2, 1, 3), (0, 0, 2)),
        ((0, 1, 2, 3, 4), (0, 0, 1)),  # of another run
    ],
)
def test_the_oracle_counts_lost_doubled_and_misplaced_parts(order, found):
    job, verdict = Job(SEED, FIRST_JOB, "tiny"), Verdict()
    contents = [*job._contents(4, 10, 20), *job._contents(1, 10, 20)]
    for number, content in enumerate(contents[:4]):
        job.model.receive(part(job.id, number, content))
    content = b"".join(contents[place] for place in order)
    compare_bytes(verdict, job, "an object", content)
    assert (verdict.lost, verdict.doubled, verdict.misplaced) == found
    assert bool(verdict.wrong) == any(found)
    assert is_possible(job, content) == (found in ((0, 0, 0), (1, 0, 0)))


@pytest.mark.parametrize(("found", "lost"), [((0, 4, 5), 0), ((3, 1, 2), 0), ((0, 2), 1)])
def test_either_text_for_a_number_of_a_requeued_run_may_win(found, lost):
    job, verdict = Job(SEED, FIRST_JOB, "requeued"), Verdict()
    contents = [*job._contents(3, 10, 20), *job._contents(3, 10, 20)]
    for place, one in enumerate(contents):
        job.model.receive(part(job.id, place % 3, one))
    content = b"".join(contents[place] for place in found)
    choose(job, content)
    compare_bytes(verdict, job, "an object", content)
    assert (verdict.lost, verdict.doubled, verdict.misplaced) == (lost, 0, 0)
