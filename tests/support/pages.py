"""The web service and its pages in a browser."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Page,
    Request,
)

from db import aggregation
from db.parts import store_batch
from logflume.settings import Settings
from tests.support.parts import part
from tests.support.services import serving

LINK_SECRET = "a secret of thirty-two characters"
WAIT_SECONDS = 30


class Site:
    """The web service on a free port; a restart uses the same port."""

    def __init__(self, settings: Settings, pool: asyncpg.Pool, port: int, **web: Any) -> None:
        self.settings = settings.model_copy(update={"web": settings.web.model_copy(update=web)})
        self.pool = pool
        self.port = port
        self.running = AsyncExitStack()

    async def start(self) -> None:
        client = await self.running.enter_async_context(
            serving(self.settings, self.pool, port=self.port)
        )
        self.url = str(client.base_url).rstrip("/")
        self.port = client.base_url.port or 0

    async def stop(self) -> None:
        await self.running.aclose()


class Visits:
    """Opens pages and records errors and requests that no page may cause."""

    def __init__(self, browser: Browser, site: Site) -> None:
        self.browser = browser
        self.site = site
        self.wrong: list[str] = []
        self.closing = AsyncExitStack()

    async def open(self, path: str, *, rows: bool = True, **options: Any) -> Page:
        """Open a page; with `rows`, wait until its rows have text."""
        options = {"viewport": {"width": 1280, "height": 720}, "reduced_motion": "reduce"} | options
        context = await self.browser.new_context(base_url=self.site.url, **options)
        self.closing.push_async_callback(context.close)
        page = await context.new_page()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error} {error.stack}"))
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        page.on("request", self._request)
        await page.goto(path)
        if rows:
            await settled(page)
        return page

    def _console(self, message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text or "Uncaught" in message.text:
            self.wrong.append(f"console: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.site.url, "blob:" + self.site.url)):
            self.wrong.append(f"asked {request.url}")


async def until(page: Page, check: str, given: Any = None) -> None:
    """Wait until a JavaScript function returns true, checked every frame.

    Playwright's own waiting uses eval in the page, which our content security policy forbids.
    """
    async with asyncio.timeout(WAIT_SECONDS):
        await page.evaluate(
            f"""async (given) => {{
              const check = {check};
              while (!check(given)) await new Promise((then) => requestAnimationFrame(then));
            }}""",
            given,
        )


async def settled(page: Page) -> None:
    """Wait until every row has its text."""
    await until(
        page, "() => document.querySelector('.row') && !document.querySelector('.row.waiting')"
    )


async def first_line(page: Page, line: int) -> None:
    """Wait until the first rendered row is this line."""
    check = "(line) => Number(document.querySelector('.row .number')?.textContent) === line"
    await until(page, check, line)
    await settled(page)


async def store(
    pool: asyncpg.Pool, job_id: int, *contents: bytes, first: int = 0, **fields: Any
) -> None:
    """Store parts of a running job."""
    async with pool.acquire() as connection:
        parts = [part(job_id, first + n, each, **fields) for n, each in enumerate(contents)]
        await store_batch(connection, parts)


async def finish(pool: asyncpg.Pool, job_id: int, content: bytes) -> None:
    """Store a complete log and aggregate it."""
    await store(pool, job_id, content, final=True)
    async with pool.acquire() as connection:
        await aggregation.aggregate(connection, job_id, force=False, restore=False)


async def texts(page: Page) -> list[str]:
    """The text of the rendered rows, without numbers and tags."""
    found: list[str] = await page.eval_on_selector_all(
        ".row .text", "rows => rows.map(row => row.textContent)"
    )
    return found


async def numbers(page: Page) -> list[int]:
    """The line numbers of the rendered rows."""
    found: list[str] = await page.eval_on_selector_all(
        ".row .number", "rows => rows.map(row => row.textContent)"
    )
    return [int(number) for number in found]
