"""How the log page feels: long tasks, frames, bytes fetched, for a log of 1,000,000 lines.

`python -m bench.page [LINES]`: starts servers and the web, stores one log of LINES lines of 100
bytes, and reads it in headless Chromium: opens it, drags the scroll bar, turns the wheel, jumps,
searches; then follows a live log of 3,000 parts. A long task is one that keeps the page's main
thread for more than 50 ms.
"""

import asyncio
import shutil
import sys
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import asyncpg
from playwright.async_api import Page, async_playwright

from bench.servers import servers
from db import aggregation
from db.connect import open_pool
from db.parts import store_batch
from logflume.domain import Part

LINES = 1_000_000
LINE = b"\x1b[32m[%07d]\x1b[0m compiling a module; each line has a hundred bytes, of which this is 1 %s\n"  # noqa: E501
BIG, LIVE = 1, 2
LIVE_PARTS = 3_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--headless", "--disable-gpu", "--no-first-run", "--disable-sync"]
WATCH = """
  window.long = []; window.frames_ = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) window.long.push(entry.duration);
  }).observe({ type: "longtask", buffered: true });
  let last = performance.now();
  const frame = (now) => {
    window.frames_.push(now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
"""
SETTLED = """async (text) => {
  const there = () => document.querySelector(".row") && !document.querySelector(".row.waiting")
    && (!text || document.querySelector(".layer").textContent.includes(text));
  while (!there()) await new Promise((then) => requestAnimationFrame(then));
}"""
DRAG = """async () => {
  const log = document.getElementById("log");
  for (let step = 0; step <= 200; step++) {
    log.scrollTop = ((log.scrollHeight - log.clientHeight) * step) / 200;
    await new Promise((then) => requestAnimationFrame(then));
  }
}"""


async def main(lines: int) -> None:
    """Measure and print."""
    async with servers(web={"public_reads": True}) as (stack, settings), AsyncExitStack() as held:
        pool = await open_pool(settings.database)
        held.push_async_callback(pool.close)
        await stack.up(["web"])
        await store(pool, BIG, [b"".join(LINE % (n, b"x" * 10) for n in range(lines))], final=True)
        async with pool.acquire() as connection:
            made = await aggregation.aggregate(connection, BIG, force=True, restore=False)
        print(f"a log of {lines:,} lines, {made.bytes:,} bytes")
        path = next(filter(None, map(shutil.which, BROWSERS)))
        playwright = await held.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        held.push_async_callback(browser.close)
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        await page.add_init_script(WATCH)
        url = f"http://{settings.web.host}:{settings.web.port}"
        await big(page, url, lines)
        await live(page, url, pool)


async def big(page: Page, url: str, lines: int) -> None:
    """Read the big log in the ways people do."""
    fetched: list[int] = []
    page.on("response", lambda r: fetched.append(int(r.headers.get("content-length", 0))))

    async def told(name: str, began: float) -> None:
        rows = await page.locator(".row").count()
        await tell(page, name, began, f"{sum(fetched) / 1024:8.0f} KiB fetched, {rows} rows")
        fetched.clear()

    for name in ("opened, outline made", "opened again"):
        began = time.perf_counter()
        await page.goto(f"{url}/jobs/{BIG}")
        await page.evaluate(SETTLED, f"[{lines - 1:07d}]")
        await told(name, began)
    began = time.perf_counter()
    await page.evaluate(DRAG)
    await page.evaluate(SETTLED)
    await told("bar dragged over all", began)
    await page.mouse.move(600, 400)
    await page.evaluate("document.getElementById('log').scrollTop = 4e6")
    await page.evaluate(SETTLED)
    began = time.perf_counter()
    for _ in range(200):
        await page.mouse.wheel(0, 300)
    await page.evaluate(SETTLED)
    await told("wheel, 200 turns", began)
    for line in (lines // 3, lines // 7, lines // 2):
        began = time.perf_counter()
        await page.evaluate("line => { location.hash = `#L${line + 1}` }", line)
        await page.evaluate(SETTLED, f"[{line:07d}]")
        await told(f"jump to line {line}", began)
    began = time.perf_counter()
    await page.locator("[name=q]").fill("[0777777]")
    await page.evaluate(SETTLED, "[0777777]")
    await told("searched, one match", began)
    began = time.perf_counter()
    await page.locator("[name=q]").fill("compiling")
    await page.wait_for_selector("#search output:text('of 1,000,000')", timeout=120_000)
    await told("searched, in every line", began)


async def live(page: Page, url: str, pool: asyncpg.Pool) -> None:
    """Follow a log whose parts come in as fast as they are stored."""
    await store(pool, LIVE, [b"begin\n"])
    await page.goto(f"{url}/jobs/{LIVE}")
    await page.wait_for_selector("#state:text('live')")
    began = time.perf_counter()
    for number in range(1, LIVE_PARTS):
        piece = b"".join(LINE % (number * 10 + n, b"y" * 10) for n in range(10))
        await store(pool, LIVE, [piece], first=number)
    await page.evaluate(SETTLED, f"[{(LIVE_PARTS - 1) * 10 + 9:07d}]")
    await tell(page, f"followed {LIVE_PARTS} parts", began)


async def tell(page: Page, name: str, began: float, more: str = "") -> None:
    """Print what happened since the last time."""
    seconds = time.perf_counter() - began
    long, frames = await page.evaluate("[window.long.splice(0), window.frames_.splice(0)]")
    print(
        f"{name:24} {seconds:7.2f} s, {len(long)} long tasks, longest {max(long, default=0):.0f} "
        f"ms, longest frame {max(frames, default=0):.0f} ms {more}"
    )


async def store(
    pool: asyncpg.Pool, job_id: int, contents: list[bytes], first: int = 0, *, final: bool = False
) -> None:
    """Store parts of a job."""
    now = datetime.now(UTC)
    parts = [
        Part(job_id, "a", first + n, content, final, now, now + timedelta(microseconds=n))
        for n, content in enumerate(contents)
    ]
    async with pool.acquire() as connection:
        await store_batch(connection, parts)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else LINES))
