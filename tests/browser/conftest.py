"""Chromium against the real web service, which can be restarted on the same port."""

import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from aio_pika.abc import AbstractChannel
from playwright.async_api import (
    Browser,
    async_playwright,
    expect,
)
from pydantic import SecretStr

from db.connect import open_pool
from logflume.settings import Settings
from logflume_cli.devstack.home import Home
from tests.support.broker import open_channel
from tests.support.databases import new_database
from tests.support.pages import LINK_SECRET, WAIT_SECONDS, Site, Visits

expect.set_options(timeout=WAIT_SECONDS * 1000)
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


@pytest.fixture
def public_reads() -> bool:
    """Whether reading needs no token; tests parametrize this."""
    return True


@pytest.fixture
def site_port() -> int:
    """The port of the site (0: any free port); tests override this."""
    return 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run these tests in one event loop, so that one Playwright driver serves all of them."""
    for item in items:
        if item.path.parent == Path(__file__).parent and isinstance(item, pytest.Function):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(loop_scope="session")
async def database_url(servers: Home, name: str) -> AsyncIterator[str]:
    async with new_database(servers, name) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="session")
async def pool(settings: Settings) -> AsyncIterator[asyncpg.Pool]:
    async with await open_pool(settings.database) as pool:
        yield pool


@pytest_asyncio.fixture(loop_scope="session")
async def channel(settings: Settings) -> AsyncIterator[AbstractChannel]:
    async with open_channel(settings) as channel:
        yield channel


@pytest_asyncio.fixture(loop_scope="session")
async def site(
    settings: Settings, pool: asyncpg.Pool, public_reads, site_port
) -> AsyncIterator[Site]:
    site = Site(
        settings, pool, site_port, public_reads=public_reads, link_secret=SecretStr(LINK_SECRET)
    )
    await site.start()
    yield site
    await site.stop()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one Chromium for all tests; each test has its own contexts."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert path, "Chromium is not installed: run `bin/setup --browser`"
    profile = tmp_path_factory.mktemp("chromium")
    command = [path, *ARGUMENTS, "--remote-debugging-port=0", f"--user-data-dir={profile}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        address = next(line for line in process.stderr if line.startswith("DevTools listening on "))
        # Drain the rest, or Chromium would block on a full pipe.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield address.split()[-1]
        process.terminate()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(chromium)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visits(browser: Browser, site: Site) -> AsyncIterator[Visits]:
    visits = Visits(browser, site)
    yield visits
    await visits.closing.aclose()
    assert visits.wrong == []
