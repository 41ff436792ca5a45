"""Measures speed and cost, as ratios to references in the same run where possible.

`bin/bench [--quick] [SECTION…]` starts one stack of servers and prints a table. Run it on an idle
machine.
"""

import argparse
import asyncio
import signal
import sys
import time

import uvloop

from bench import aggregate, archive, cost, growth, ingest, latency, lifecycle, read, ship, streams
from bench.figures import HEAD, Figure
from bench.servers import bench

SECTIONS = {
    "ingest": ingest,
    "latency": latency,
    "lifecycle": lifecycle,
    "aggregate": aggregate,
    "archive": archive,
    "read": read,
    "streams": streams,
    "growth": growth,
    "cost": cost,
    "ship": ship,
}
# All of production's timers, but short.
TIMES = {"settle_seconds": 1, "gap_seconds": 1, "purge_seconds": 1}


async def main(sections: list[str], *, quick: bool) -> None:
    """Measure the sections one after another and print each."""
    found: list[Figure] = []
    task = asyncio.current_task()
    assert task  # noqa: S101 - a coroutine runs in a task
    # Stop the servers as after Ctrl-C.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    began = time.monotonic()
    async with bench(quick=quick, lifecycle=TIMES) as here:
        print("\n".join([*await here.about(), "quick" if quick else "full", "", HEAD]), flush=True)
        for name in sections:
            since = time.monotonic()
            figures = await SECTIONS[name].measure(here)
            await here.clean()
            print(f"| **{name}** | {time.monotonic() - since:.0f} s | | | |")
            print("\n".join(figure.row for figure in figures), flush=True)
            found += figures
    verdicts = [figure.verdict for figure in found]
    print(f"\n{verdicts.count('pass')} pass, {verdicts.count('short')} short", end="; ")
    print(f"{time.monotonic() - began:.0f} s in total")


if __name__ == "__main__":
    parser = argparse.ArgumentParser("bin/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small scale, three minutes")
    parser.add_argument("section", nargs="*", choices=[*SECTIONS, []], help="default: all")
    given = parser.parse_args()
    try:
        uvloop.run(main(given.section or [*SECTIONS], quick=given.quick))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit("bin/bench: interrupted")
