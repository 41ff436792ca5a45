"""A log of a million lines (100 MB): few elements exist and little is fetched."""

import pytest
from playwright.async_api import expect

from db import aggregation
from tests.support.pages import first_line, numbers, settled, store, until

LINES = 1_000_000
TEXT = b"compiling; each line has a hundred bytes, and this one has them too "
LINE = b"\x1b[32m[%07d]\x1b[0m " + TEXT + b"%s\n"


def content() -> bytes:
    ends = (b" needle....." if n % 100_000 == 54_321 else b"." * 12 for n in range(LINES))
    return b"".join(LINE % line for line in enumerate(ends))


@pytest.mark.timeout(400)
async def test_log_of_a_million_lines(visits, pool, job_id):
    text = content()
    assert len(text) == 100_000_000
    await store(pool, job_id, text, final=True)
    async with pool.acquire() as connection:
        await aggregation.aggregate(connection, job_id, force=True, restore=False)
    fetched = []
    page = await visits.open("/", rows=False)

    async def keep(response):
        if response.url.endswith("/raw"):
            fetched.append(int(response.headers["content-length"]))

    page.on("response", keep)
    await page.goto(f"/jobs/{job_id}")
    await settled(page)
    await expect(page.locator(".row .text").last).to_contain_text("[0999999]")
    await expect(page.locator("#facts")).to_contain_text("1,000,000 lines")
    assert sum(fetched) < 1_000_000

    scroller = page.locator("#log")
    await scroller.evaluate("log => { log.scrollTop = log.scrollHeight / 2 }")
    middle = "() => Math.abs(document.querySelector('.row').dataset.line - 500000) < 1000"
    await until(page, middle)
    await settled(page)
    # The wheel moves by rows, although the scroll bar is scaled.
    before = (await numbers(page))[0]
    await page.mouse.move(600, 300)
    await page.mouse.wheel(0, 400)
    await first_line(page, before + 20)
    for row, number in zip(
        await page.locator(".row .text").all_text_contents(), await numbers(page), strict=True
    ):
        assert row.startswith(f"[{number - 1:07d}]")

    await page.locator("[name=q]").fill("needle")
    await expect(page.locator("#search output")).to_contain_text("of 10", timeout=60_000)
    await expect(page.locator(".row.here .text")).to_contain_text("[0554321]")
    await page.locator("#next").click()
    await expect(page.locator(".row.here .text")).to_contain_text("[0654321]")
    await page.evaluate("location.hash = '#L123456-L123460'")
    await expect(page.locator(".row.selected .text").first).to_contain_text("[0123455]")
    await page.keyboard.press("Home")
    await expect(page.locator(".row .text").first).to_contain_text("[0000000]")
    await page.keyboard.press("End")
    await expect(page.locator(".row .text").last).to_contain_text("[0999999]")

    assert len(await numbers(page)) < 150
    assert await scroller.evaluate("log => log.scrollHeight") <= 8_000_000
    assert sum(fetched) < len(text) / 10
