"""The soak in short: faults of nearly every kind under load, and the oracle after them."""

import pytest

from tests.faults.faults import schedule, short
from tests.faults.soak import report, soak
from tests.faults.system import System

pytestmark = [
    pytest.mark.timeout(900),
    # Of the AMQP library's connections that could not be made, collected in another thread.
    pytest.mark.filterwarnings("ignore:coroutine 'Connection.close' was never awaited"),
]
# Chosen for its jobs: nearly each of the first is of another shape.
SEED = "281"


async def test_no_part_is_lost_doubled_or_misplaced_by_any_fault(tmp_path):
    system = System(tmp_path, small=True)
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
