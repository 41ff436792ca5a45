"""Access to a log's page by token or share link, and how the page passes them on."""

import re
from datetime import timedelta

import pytest
from playwright.async_api import expect

from tests.support.pages import finish, store
from tests.support.services import TOKEN
from web.auth import sign_link

CLOSED = pytest.mark.parametrize("public_reads", [False])


@CLOSED
async def test_page_asks_for_the_token_and_stores_it_in_the_tab(visits, pool, job_id):
    await store(pool, job_id, b"secret text\n")
    page = await visits.open(f"/jobs/{job_id}", rows=False)
    form = page.locator("#token-form")
    await expect(form).to_be_visible()
    await expect(page.get_by_text("secret text")).to_have_count(0)
    await page.get_by_label("Token").fill("wrong")
    await page.keyboard.press("Enter")
    await expect(form).to_be_visible()
    await expect(form).to_contain_text("token is missing or wrong")
    await page.get_by_label("Token").fill(TOKEN)
    await page.get_by_role("button", name="Show the log").click()
    await expect(page.locator(".row .text")).to_have_text("secret text")
    await expect(page.locator("#state")).to_have_text("live")  # the stream sends the token too
    await page.reload()
    await expect(page.locator(".row .text")).to_have_text("secret text")
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Download").click()
    assert (await (await download.value).path()).read_bytes() == b"secret text\n"
    async with page.expect_popup() as popup:
        await page.get_by_role("link", name="Raw").click()
    raw = await popup.value
    await expect(raw.locator("body")).to_contain_text("secret text")
    assert TOKEN not in page.url + raw.url
    await page.keyboard.press("i")
    link = page.get_by_role("link", name="Open in Temporal UI")
    await expect(link).to_have_attribute("href", re.compile(f"log-{job_id}"))


@CLOSED
async def test_share_link_opens_one_log(visits, site, pool, numbers, job_id):
    await store(pool, job_id, b"shared text\n")
    other = next(numbers)
    await finish(pool, other, b"other text\n")
    link = sign_link(site.settings.web, job_id, timedelta(minutes=5))
    page = await visits.open(f"/jobs/{job_id}?share={link}")
    await expect(page.locator(".row .text")).to_have_text("shared text")
    await store(pool, job_id, b"live text\n", first=1, final=True)
    await expect(page.locator(".row .text").last).to_have_text("live text")
    await page.locator("[name=q]").fill("text")
    await expect(page.locator("#search output")).to_contain_text("of 2")
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Download").click()
    assert (await (await download.value).path()).read_bytes() == b"shared text\nlive text\n"
    await page.goto(f"/jobs/{other}?share={link}")
    await expect(page.locator("#token-form")).to_be_visible()
    await expect(page.get_by_text("other text")).to_have_count(0)


@CLOSED
async def test_expired_share_link_says_so(visits, site, pool, job_id):
    await store(pool, job_id, b"shared text\n")
    link = sign_link(site.settings.web, job_id, timedelta(seconds=-1))
    page = await visits.open(f"/jobs/{job_id}?share={link}", rows=False)
    await expect(page.locator("#message")).to_contain_text("the link expired on 20")
    await expect(page.locator("#token-form")).to_be_hidden()
    # Also while the page is open.
    link = sign_link(site.settings.web, job_id, timedelta(seconds=2))
    await page.goto(f"/jobs/{job_id}?share={link}")
    await expect(page.locator("#state")).to_have_text("link expired")
    await expect(page.locator("#token-form")).to_be_hidden()


@CLOSED
async def test_front_page_asks_for_the_token(visits, pool, job_id):
    await finish(pool, job_id, b"text\n")
    page = await visits.open("/", rows=False)
    await page.get_by_label("Token").fill(TOKEN)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("link", name=str(job_id))).to_be_visible()
