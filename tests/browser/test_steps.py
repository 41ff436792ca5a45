"""The steps of a log: the panel, the keys and the header that stays in view; its errors."""

import re

from playwright.async_api import expect

from tests.support.pages import finish, first_line, numbers, store, texts

END = "\r\x1b[0K"
LOG = "".join(
    f"{line}\n"
    for line in (
        "##[group]Set up",  # 1
        "runner",
        "##[endgroup]",
        f"section_start:1580000000:build_it{END}Build everything",  # 4
        "make",
        f"section_end:1580000063:build_it{END}",
        "--- :docker: Images",  # 7
        "one",
        "+++ Tests",  # 9
        *(f"test {n}" for n in range(10, 201)),
        "~~~ Clean up",  # 201
        "^^^ +++",
        f"travis_time:start:0a{END}$ make report",  # 203
        "report",
        f"travis_time:end:0a:start=158{0:016},finish=158{21 * 10**9:016}{END}",
        *(f"end {n}" for n in range(206, 251)),
    )
).encode()


async def test_steps_of_all_systems_are_listed_visited_and_stay_in_view(visits, pool, job_id):
    await finish(pool, job_id, LOG)
    page = await visits.open(f"/jobs/{job_id}")
    # The reader is at the end, in the last group, which was opened and has no end.
    stuck = page.locator("#stuck")
    await expect(stuck).to_have_text("Clean up")
    await page.keyboard.press("g")
    await first_line(page, 1)
    assert (await numbers(page))[:5] == [1, 4, 5, 7, 9]
    assert (await texts(page))[:2] == ["Set up", "Build everything"]
    await expect(stuck).to_be_hidden()

    await page.keyboard.press("s")
    panel = page.get_by_role("navigation", name="Steps")
    items = panel.get_by_role("button")
    names = ["Set up", "Build everything", ":docker: Images", "Tests", "Clean up", "$ make report"]
    await expect(items.locator(".name")).to_have_text(names)
    await expect(items.locator(".time")).to_have_text(["", "1m 3s", "", "", "", "21.0s"])
    states = await items.evaluate_all("all => all.map(({ dataset }) => dataset.state)")
    assert states == ["done"] * 4 + ["unfinished", "done"]
    shares = "all => all.map((bar) => getComputedStyle(bar).backgroundSize)"
    sizes = await items.locator(".share").evaluate_all(shares)
    assert re.fullmatch(r"33\.\d+% 100%", sizes[5])
    assert sizes[1] == "100% 100%"
    await items.nth(2).click()
    await expect(items.nth(0)).to_have_attribute("aria-current", "step")
    await page.get_by_role("button", name="fold Tests").click()
    await expect(page.get_by_text("test 10", exact=True)).to_have_count(0)

    focused = page.locator(".row:has(:focus) .number")
    for key, line in (("[", "7"), ("[", "4"), ("]", "7"), ("]", "9"), ("]", "201")):
        await page.keyboard.press(key)
        await expect(focused).to_have_text(line)
    await page.keyboard.press("]")  # 203, which has no fold
    await page.keyboard.press("[")
    await expect(focused).to_have_text("201")

    await page.evaluate("location.hash = '#L150'")
    await expect(page.get_by_text("test 150", exact=True)).to_be_visible()
    await expect(stuck).to_have_text("Tests")
    await stuck.click()
    await expect(page.get_by_text("+++ Tests")).to_be_visible()
    await expect(stuck).to_be_hidden()


async def test_open_steps_of_a_live_log_are_running(visits, pool, job_id):
    await store(pool, job_id, b"::group::Set up\nrunner\n")
    page = await visits.open(f"/jobs/{job_id}")
    await page.get_by_role("button", name="Steps").click()
    item = page.get_by_role("navigation", name="Steps").get_by_role("button")
    await expect(item).to_have_attribute("data-state", "running")
    await expect(page.get_by_text("runner")).to_be_visible()
    await store(pool, job_id, b"::endgroup::\n--- Go", first=1)
    await expect(item).to_have_attribute("data-state", "done")
    await store(pool, job_id, b" on\nx\n", first=2)
    await expect(item.nth(1)).to_contain_text("Go on")
    # A timer runs until its end marker, which is missing if the log ends before it.
    await store(pool, job_id, b"travis_time:start:0a\r\x1b[0K$ make\n", first=3)
    await expect(item.nth(2)).to_contain_text("$ make")
    await expect(item.nth(2)).to_have_attribute("data-state", "running")
    await store(pool, job_id, b"end\n", first=4, final=True)
    await expect(item).to_have_count(2)
    await expect(item.nth(1)).to_have_attribute("data-state", "unfinished")


async def test_errors_are_counted_visited_and_marked(visits, pool, job_id):
    lines = [*LOG.decode().split("\n")[:-1], "The command exited with 2.", *["after"] * 50]
    lines[149] = "FAILED tests/x"
    lines[4] = "make: *** [all] Error 2"
    lines[7] = "Traceback (most recent call last):"
    await store(pool, job_id, "\n".join(lines[:240]).encode())
    page = await visits.open(f"/jobs/{job_id}")
    button = page.locator("#errors")
    await expect(button).to_have_text("3 errors, first at line 5")
    # The last fold with an error is open.
    await page.keyboard.press("g")
    await expect(page.get_by_text("Traceback")).to_be_visible()
    # What follows is found when the log ends.
    await store(pool, job_id, ("\n" + "\n".join(lines[240:])).encode(), first=1, final=True)
    await expect(button).to_have_text("4 errors, first at line 5")
    await expect(page.locator("#marks .error")).to_have_count(4)
    current = page.locator(".row.here .number")
    for key, line in (("e", "5"), ("e", "8"), ("E", "5"), ("E", "251"), ("E", "150")):
        await page.keyboard.press(key)
        await expect(current).to_have_text(line)
    await expect(page.locator(".row.here")).to_have_class("row error here")
    await page.keyboard.press("s")
    failed = page.locator("#steps [data-state=failed] .name")
    await expect(failed).to_have_text(["Build everything", ":docker: Images", "Tests", "Clean up"])
    await page.keyboard.press("/")
    await page.keyboard.type("make report")
    await expect(page.locator("#marks .match")).to_have_count(1)
