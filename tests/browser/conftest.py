"""A real Chromium on the real web service, which can be stopped and started on the same port."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
import uvicorn
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright
from pydantic import SecretStr

import temporal
from archive.store import Archive
from db import logs
from db.parts import store_batch
from settings import Settings
from tests.conftest import part
from web.app import make_app

TOKEN = "the-token"
LINK_SECRET = "a secret of thirty-two characters"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Site:
    """The web service on a port of its own."""

    def __init__(self, settings: Settings, pool: asyncpg.Pool) -> None:
        self.settings = settings
        self.pool = pool
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        if self.socket.fileno() < 0:
            self.socket = socket.create_server(("127.0.0.1", self.port))
        app = make_app(
            self.settings,
            self.pool,
            Archive(self.settings.s3, 4),
            await temporal.connect(self.settings.temporal),
        )
        self.server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=2)
        )
        self.task = asyncio.create_task(self.server.serve(sockets=[self.socket]))
        while not self.server.started:
            await asyncio.sleep(0.01)
            if self.task.done():
                self.task.result()

    async def stop(self) -> None:
        self.server.should_exit = True
        await self.task
        self.socket.close()


@pytest.fixture
def web_changes() -> dict[str, Any]:
    """Web settings that a test changes by parametrizing; here anyone may read."""
    return {"public_reads": True}


@pytest.fixture
async def site(settings: Settings, pool: asyncpg.Pool, web_changes) -> AsyncIterator[Site]:
    given = {"auth_token": SecretStr(TOKEN), "link_secret": SecretStr(LINK_SECRET)}
    web = settings.web.model_copy(update=given | web_changes)
    site = Site(settings.model_copy(update={"web": web}), pool)
    await site.start()
    yield site
    await site.stop()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium here: install the package chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        await browser.close()


class Visits:
    """Opens pages, and keeps what no page of ours may do."""

    def __init__(self, browser: Browser, site: Site) -> None:
        self.browser = browser
        self.site = site
        self.wrong: list[str] = []
        self.closing = AsyncExitStack()

    async def open(self, path: str, *, rows: bool = True, **options: Any) -> Page:
        """Open a page; with `rows`, wait until there are rows with text in it."""
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


async def settled(page: Page) -> None:
    """Wait until every row that is there has its text."""
    await page.wait_for_function(
        "document.querySelector('.row') && !document.querySelector('.row.waiting')"
    )


@pytest.fixture
async def visits(browser: Browser, site: Site) -> AsyncIterator[Visits]:
    visits = Visits(browser, site)
    yield visits
    await visits.closing.aclose()
    assert visits.wrong == []


async def store(pool: asyncpg.Pool, job_id: int, *contents: bytes, first: int = 0, **fields: Any):
    """Store parts of a running job."""
    async with pool.acquire() as connection:
        parts = [part(job_id, first + n, each, **fields) for n, each in enumerate(contents)]
        await store_batch(connection, parts)


async def finish(pool: asyncpg.Pool, job_id: int, content: bytes) -> None:
    """Store a log that has ended and is aggregated."""
    await store(pool, job_id, content, final=True)
    async with pool.acquire() as connection:
        await logs.aggregate(connection, job_id, force=False, restore=False)


async def texts(page: Page) -> list[str]:
    """The text of the rows that are there, without numbers and tags."""
    found: list[str] = await page.eval_on_selector_all(
        ".row .text", "rows => rows.map(row => row.textContent)"
    )
    return found


async def numbers(page: Page) -> list[int]:
    """The line numbers of the rows that are there."""
    found: list[str] = await page.eval_on_selector_all(
        ".row .number", "rows => rows.map(row => row.textContent)"
    )
    return [int(number) for number in found]
