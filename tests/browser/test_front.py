"""The front page: logs by phase, and the form that opens one."""

import asyncio
import re

from playwright.async_api import expect

from tests.support.options import lifecycle_options
from tests.support.pages import finish, store
from workflows.client.connection import connect_temporal
from workflows.client.logs import LogWorkflows
from workflows.lifecycle_types import PartsStored


async def test_logs_are_listed_by_phase_and_linked(visits, pool, settings, numbers):
    running, ended = next(numbers), next(numbers)
    await store(pool, running, b"running\n")
    # The phase comes from the workflow; without a worker, this one stays in its first phase.
    client = await connect_temporal(settings.temporal)
    workflows = LogWorkflows(client, "unserved", lifecycle_options())
    await workflows.parts_stored(running, PartsStored(1, 8, begun=True))
    while not (await client.count_workflows(f"JobId = {running}")).count:
        await asyncio.sleep(0.05)
    await finish(pool, ended, b"ended\n")
    page = await visits.open("/", rows=False)
    jobs = page.locator("tbody td.id")
    await expect(jobs).to_have_text([str(ended), str(running)])
    await page.get_by_role("button", name="receiving").click()
    await expect(jobs).to_have_text([str(running)])
    await expect(page).to_have_url(re.compile(r"\?phase=receiving$"))
    await page.get_by_role("button", name="stuck").click()
    await expect(page.locator("#message")).to_have_text("No log is stuck.")
    await page.get_by_role("button", name="all").click()
    # An update keeps the focus.
    link = page.get_by_role("link", name=str(ended))
    await link.focus()
    new = next(numbers)
    await store(pool, new, b"new\n")
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await expect(jobs).to_have_text([str(new), str(ended), str(running)])
    await expect(link).to_be_focused()
    await link.click()
    await expect(page.locator(".row .text")).to_have_text("ended")


async def test_log_is_opened_by_job_id(visits, pool, job_id):
    await finish(pool, job_id, b"found\n")
    page = await visits.open("/", rows=False)
    await page.keyboard.press("/")
    await page.keyboard.type("12a")
    await page.keyboard.press("Enter")
    await expect(page.locator("#go output")).to_have_text("a job id is a number")
    await page.get_by_label("Job id").fill(str(job_id))
    await page.keyboard.press("Enter")
    await expect(page.locator(".row .text")).to_have_text("found")


async def test_older_logs_are_loaded_on_request(visits, pool, numbers):
    jobs = [next(numbers) for _ in range(60)]
    for job in jobs:
        await store(pool, job, b"text\n")
    page = await visits.open("/", rows=False)
    await expect(page.locator("tbody tr")).to_have_count(50)
    await page.get_by_role("button", name="Show older logs").click()
    await expect(page.locator("tbody tr")).to_have_count(60)
    listed = await page.locator("tbody td.id").all_text_contents()
    assert listed == [str(job) for job in reversed(jobs)]
    await expect(page.locator("#more")).to_be_hidden()
