"""What the page says about the job: its result, state, attempts, and views in place of a log."""

from playwright.async_api import expect

from tests.support.pages import finish, settled, store

PASSED = b'$ make\nThe command "make" exited with 0.\n\nDone. Your build exited with 0.\n'
FAILED = b'$ make\nThe command "make" exited with 2.\n\nDone. Your build exited with 1.\n'


async def test_result_is_in_the_bar_title_and_icon(visits, pool, job_id, numbers):
    failing = next(numbers)
    await finish(pool, failing, FAILED)
    await store(pool, job_id, b"line\n" * 200)
    page = await visits.open(f"/jobs/{job_id}")
    icon, result = page.locator("#icon"), page.locator("#result")
    await expect(page).to_have_title(f"● Job {job_id} · running")
    running = await icon.get_attribute("href")
    await expect(page.locator("#pace")).to_contain_text("no output for")
    await store(pool, job_id, b"line\n", first=1)
    await expect(page.locator("#pace")).to_contain_text("last output")
    await expect(page.locator("#position")).to_contain_text("at the top")
    await page.keyboard.press("g")
    await expect(page.locator("#position")).to_have_text("line 1 at the top")
    await store(pool, job_id, PASSED, first=2, final=True)
    await expect(result).to_have_text("passed")
    await expect(result).to_have_css("color", "rgb(26, 127, 55)")
    await expect(page).to_have_title(f"✓ Job {job_id} · passed")
    await expect(page.locator("#pace")).to_have_text("")
    passed = await icon.get_attribute("href")
    await page.goto(f"/jobs/{failing}")
    await expect(result).to_have_text("failed (exit code 1)")
    await expect(page).to_have_title(f"✗ Job {failing} · failed")
    assert len({running, passed, await icon.get_attribute("href")}) == 3
    # The lifecycle of the log is not the result of the job.
    await expect(page.locator("#phase")).to_have_css("color", "rgb(89, 99, 110)")


async def test_earlier_attempts_open_from_a_menu(visits, pool, job_id):
    await store(pool, job_id, b"first run\n", attempt="a")
    await store(pool, job_id, b"second run\n", attempt="b")
    page = await visits.open(f"/jobs/{job_id}")
    menu, row = page.locator("#attempt"), page.locator(".row .text")
    await expect(row).to_have_text("second run")
    await expect(menu.locator("option")).to_have_count(2)
    await menu.select_option("a")
    await expect(row).to_have_text("first run")
    await expect(menu).to_have_value("a")
    assert page.url.endswith("?attempt=a")
    await page.locator("[name=q]").fill("first")
    await expect(page.locator("#search output")).to_have_text("1 of 1")
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Download").click()
    assert (await (await download.value).path()).read_bytes() == b"first run\n"
    await menu.select_option("b")
    await expect(row).to_have_text("second run")
    assert page.url.endswith(f"/jobs/{job_id}")
    await page.goto(f"/jobs/{job_id}?attempt=nope")
    await expect(page.locator("#message")).to_contain_text("has no attempt 'nope'")


async def test_views_in_place_of_a_log_say_what_to_do(visits, pool, job_id, numbers):
    page = await visits.open(f"/jobs/{job_id}", rows=False)
    message = page.locator("#message")
    await expect(message.locator("h2")).to_have_text("Waiting for the first line")
    await expect(message).to_contain_text("its id is wrong")
    await finish(pool, job_id, b"")
    await expect(message.locator("h2")).to_have_text("The job ended without output")
    await expect(message).to_contain_text("before its first command")
    deleted = next(numbers)
    await finish(pool, deleted, b"text\n")
    await pool.execute(
        "UPDATE logs SET expired_at = now(), content = NULL WHERE job_id = $1", deleted
    )
    await page.goto(f"/jobs/{deleted}")
    await expect(message.locator("h2")).to_have_text("The text of this log is gone")
    await expect(message).to_contain_text("by a retention policy")
    await expect(message).to_contain_text("Restart the job")
    await expect(page.locator("#phase")).to_be_visible()


async def test_lines_beyond_the_window_are_marked_wrapped_and_printed(visits, pool, job_id):
    await finish(pool, job_id, b"short\n" + b"long " * 300 + b"\n")
    page = await visits.open(f"/jobs/{job_id}", color_scheme="dark")
    beyond = page.locator(".row.beyond .number")
    await expect(beyond).to_have_text("2")
    await page.evaluate("document.querySelector('#log').scrollLeft = 1e6")
    await expect(beyond).to_have_count(0)
    width = (
        "document.querySelector('#log').scrollWidth - document.querySelector('#log').clientWidth"
    )
    assert await page.evaluate(width) > 0
    await page.keyboard.press("w")
    await expect(page.get_by_role("button", name="Wrap lines")).to_have_attribute(
        "aria-pressed", "true"
    )
    assert await page.evaluate(width) == 0
    await page.reload()
    await settled(page)
    assert await page.evaluate(width) == 0  # remembered
    await page.keyboard.press("w")
    await page.evaluate("dispatchEvent(new Event('beforeprint'))")
    await page.emulate_media(media="print")
    await expect(page.locator("body")).to_have_css("background-color", "rgb(255, 255, 255)")
    await expect(page.locator(".foot")).to_be_hidden()
    rows = await page.eval_on_selector_all(".row", "rows => rows.map(row => row.offsetHeight)")
    assert rows[1] > 3 * rows[0]
    phone = await visits.open(
        f"/jobs/{job_id}", viewport={"width": 375, "height": 667}, is_mobile=True
    )
    assert await phone.evaluate(width) == 0


async def test_invalid_job_id_is_explained_and_the_api_is_a_page(visits):
    page = await visits.open("/jobs/%3Cb%3Eabc", rows=False)
    await expect(page.locator("#message")).to_contain_text("job_id must be an integer")
    await expect(page.locator("#message")).to_contain_text("Check the address")
    response = await page.goto("/schema")
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    await expect(page.get_by_role("heading", name="logs", exact=True)).to_be_visible()
    await page.get_by_text("GET /logs/{job_id}/search").click()
    await expect(page.get_by_text("list the matches around this line").first).to_be_visible()
    document = await page.request.get("/schema", headers={"Accept": "*/*"})
    assert (await document.json())["openapi"]


LARGE_TEXT = """
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(".log { font-size: 24px !important }");
    document.adoptedStyleSheets = [sheet];
"""


async def test_rows_grow_with_the_minimum_font_size(visits, pool, job_id):
    await finish(pool, job_id, b"line\n" * 1000)
    page = await visits.open(f"/jobs/{job_id}")
    await page.add_init_script(LARGE_TEXT)
    await page.reload()
    await settled(page)
    await expect(page.locator(".row").last).to_have_css("height", "38px")
    await expect(page.locator(".row .number").last).to_have_text("1000")
    await expect(page.locator(".row").last).to_be_in_viewport()
