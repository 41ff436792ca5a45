"""Speed and cost of what the project exists for, as ratios measured in one run.

`bin/bench [--quick] [SECTION…]` starts one stack of servers and prints a table; a machine that does
other things meanwhile shows in all of it.
"""

import argparse
import asyncio
import signal
import sys
import time

import uvloop

from bench import aggregate, archive, cost, growth, ingest, latency, lifecycle, read, streams
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
}
# Production's times, but short: no timer is left out.
TIMES = {"settle_seconds": 1, "gap_seconds": 1, "purge_seconds": 1}


async def main(sections: list[str], *, quick: bool) -> None:
    """Measure the sections in turn and print each as it is done."""
    found: list[Figure] = []
    task = asyncio.current_task()
    assert task  # noqa: S101 - this is one
    # The servers are stopped then, as they are after Ctrl-C.
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
    print(f"{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    parser = argparse.ArgumentParser("bin/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="in three minutes, at small scale")
    parser.add_argument("section", nargs="*", choices=[*SECTIONS, []], help="default: all of them")
    given = parser.parse_args()
    try:
        uvloop.run(main(given.section or [*SECTIONS], quick=given.quick))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit("bin/bench: stopped before its end")
