"""Reading a finished log: folds, colours, search, links to lines, copying, themes."""

import re

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.support.pages import finish, first_line, numbers, settled, store, texts

STEP = "travis_time:start:0a\r\x1b[0K$ make\r\n"
LOG = (
    (
        "travis_fold:start:outer\r\x1b[0Kouter head\r\n"  # 1
        "travis_fold:start:inner\r\x1b[0Kinner head\r\n"  # 2
        "needle in the inner fold\r\n"  # 3
        "travis_fold:end:inner\r\x1b[0K\r\n"  # 4
        "travis_fold:end:outer\r\x1b[0K\r\n"  # 5
        + STEP  # 6
        + "\x1b[31;1mred\x1b[0m \x1b[38;2;1;2;3mtrue\x1b[0m \x1b[38;5;208morange\x1b[0m\r\n"  # 7
        "10%\r50%\r\x1b[K100%\r\n"  # 8
        "needle again, a Needle\r\n"  # 9
        f"travis_time:end:0a:start=158{0:016},finish=158{83 * 10**9:016}\r\x1b[0Kdone\r\n"  # 10
         + "".join(f"filler {n}\r\n" for n in range(11, 401)) + "the last needle\r\n"  # 401
    ).encode()
)


@pytest_asyncio.fixture(loop_scope="session")
async def page(visits, pool, job_id):
    await finish(pool, job_id, LOG)
    return await visits.open(f"/jobs/{job_id}")


async def to_top(page) -> None:
    await page.keyboard.press("g")
    await first_line(page, 1)


async def test_closed_folds_open_by_click_and_key(page):
    await to_top(page)
    assert (await numbers(page))[:2] == [1, 6]
    assert (await texts(page))[:2] == ["outer head", "$ make"]
    await expect(page.locator(".row").first.locator(".tag")).to_have_text("2 lines")
    outer = page.get_by_role("button", name="fold outer")
    await expect(outer).to_have_attribute("aria-expanded", "false")
    await page.get_by_text("outer head").click()
    await expect(outer).to_have_attribute("aria-expanded", "true")
    await expect(page.locator(".row .number").nth(1)).to_have_text("2")
    assert (await numbers(page))[:3] == [1, 2, 6]
    inner = page.get_by_role("button", name="fold inner")
    await inner.focus()
    await page.keyboard.press("Enter")
    await expect(inner).to_have_attribute("aria-expanded", "true")
    await expect(inner).to_be_focused()
    await settled(page)
    shown = ["outer head", "inner head", "needle in the inner fold", "$ make"]
    assert (await texts(page))[:4] == shown
    await page.keyboard.press("Space")
    await expect(page.get_by_text("needle in the inner fold")).to_have_count(0)
    await page.keyboard.press("[")
    await expect(outer).to_be_focused()
    await page.keyboard.press("c")
    await expect(page.locator(".row .number").nth(1)).to_have_text("6")
    await page.keyboard.press("o")
    await expect(page.locator(".row .number").nth(2)).to_have_text("3")


async def test_durations_colours_and_overwritten_lines(page):
    await to_top(page)
    row = page.locator(".row", has_text="$ make")
    await expect(row.locator(".text + .tag")).to_have_text("1m 23s")
    red = page.get_by_text("red", exact=True)
    await expect(red).to_have_css("font-weight", "700")
    await expect(page.get_by_text("true", exact=True)).to_have_css("color", "rgb(1, 2, 3)")
    await expect(page.get_by_text("orange", exact=True)).to_have_css("color", "rgb(153, 81, 0)")
    assert (await texts(page))[3:5] == ["100%", "needle again, a Needle"]
    shade = await red.evaluate("element => getComputedStyle(element).color")
    await page.keyboard.press("t")
    await expect(red).not_to_have_css("color", shade)


async def test_search_finds_folded_and_unrendered_lines(page):
    await page.keyboard.press("/")
    await page.keyboard.type("needle")
    count = page.locator("#search output")
    await expect(count).to_have_text("3 of 3")
    await expect(page.locator(".row.here .text")).to_have_text("the last needle")
    await page.keyboard.press("Enter")
    await expect(count).to_have_text("1 of 3")
    await expect(page.locator(".row.here .text")).to_have_text("needle in the inner fold")
    await page.get_by_role("button", name="Next match").click()
    await expect(page.locator(".row.here .text")).to_have_text("needle again, a Needle")
    marked = "[...CSS.highlights.get('found')].map(range => range.toString())"
    assert (await page.evaluate(marked)).count("Needle") == 1
    await page.get_by_role("button", name="Match case").click()
    await page.locator("[name=q]").fill("Needle")
    await expect(count).to_have_text("1 of 1")
    await page.locator("[name=q]").fill("nowhere")
    await expect(count).to_have_text("no match")
    await page.keyboard.press("Escape")
    await expect(count).to_have_text("")


async def test_matches_beyond_those_listed_at_once_can_be_visited(visits, pool, job_id):
    await finish(pool, job_id, b"needle\n" * 25_000)
    page = await visits.open(f"/jobs/{job_id}#L1")
    output, here = page.locator("#search output"), page.locator(".row.here .number")
    await page.locator("[name=q]").fill("needle")
    await expect(output).to_have_text("1 of 25,000")
    await page.locator("#previous").click()
    await expect(output).to_have_text("25,000 of 25,000")
    await expect(here).to_have_text("25000")
    await page.locator("#previous").click()
    await expect(here).to_have_text("24999")
    await page.evaluate("location.hash = '#L15000'")  # far from both ends
    await page.locator("#case").click()
    await expect(output).to_have_text(re.compile("^14,9.. of 25,000"))
    await expect(here).to_have_text(re.compile("^149..$"))


async def test_links_lead_only_where_they_say(visits, pool, job_id):
    marked = "\x1b]8;;https://b.example/\x1b\\https://a.example\x1b]8;;\x1b\\"
    await finish(
        pool,
        job_id,
        f"travis_fold:start:a\r\x1b[0K{marked} now\r\ntext\r\ntravis_fold:end:a\r\x1b[0K\r\n"
        "see https://a.example/x.\r\n"
        "\x1b]8;;javascript:alert(1)\x07click\x1b]8;;\x07 https://a.example@b.example/\r\n".encode(),
    )
    page = await visits.open(f"/jobs/{job_id}")
    await settled(page)
    links = page.locator(".row .text a")
    assert await links.evaluate_all(
        "all => all.map(a => [a.textContent, a.href, a.title, a.rel, a.target, a.dataset.host])"
    ) == [
        [
            "https://a.example",
            "https://b.example/",
            "b.example",
            "noopener noreferrer",
            "_blank",
            "b.example",
        ],
        [
            "https://a.example/x",
            "https://a.example/x",
            "a.example",
            "noopener noreferrer",
            "_blank",
            None,
        ],
    ]
    fold = page.get_by_role("button", name="fold a")
    before = await fold.get_attribute("aria-expanded")
    await page.context.route("https://b.example/", lambda route: route.fulfill(body="there"))
    async with page.context.expect_page() as opened:
        await links.first.click()
    assert (await opened.value).url == "https://b.example/"
    await expect(fold).to_have_attribute("aria-expanded", before)


async def test_link_to_lines_opens_folds_and_selects(visits, pool, job_id):
    await finish(pool, job_id, LOG)
    page = await visits.open(f"/jobs/{job_id}#L3-L7")
    await expect(page.get_by_text("needle in the inner fold")).to_be_visible()
    await expect(page.locator(".row.selected")).to_have_count(3)  # two of them contain only markers
    await expect(page.locator("#range")).to_have_text("Lines 3\u20137")
    await page.evaluate("location.hash = '#L999'")
    await expect(page.locator("#range")).to_have_text("Line 999: the log is shorter")


async def test_lines_are_selected_and_copied_without_numbers(page):
    await page.locator(".row .number", has_text=re.compile("^390$")).click()
    await expect(page).to_have_url(re.compile(r"#L390$"))
    await page.locator(".row .number", has_text=re.compile("^394$")).click(modifiers=["Shift"])
    await expect(page).to_have_url(re.compile(r"#L390-L394$"))
    await expect(page.locator(".row.selected")).to_have_count(5)
    await page.keyboard.press("Escape")
    await expect(page.locator(".row.selected")).to_have_count(0)
    assert "#" not in page.url
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.evaluate("location.hash = '#L7-L9'")
    await expect(page.locator(".row.selected")).to_have_count(3)
    await page.keyboard.press("y")
    await expect(page.locator("#toast")).to_have_text("Copied 3 lines")
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied == "red true orange\n100%\nneedle again, a Needle"
    # Text selected with the mouse reaches over rows that are not drawn any more.
    await page.keyboard.press("Escape")
    await page.keyboard.press("End")
    await expect(page.locator(".row[data-line='399']")).to_be_visible()
    await page.evaluate("""() => {
      const row = document.querySelector(".row[data-line='399']");
      getSelection().setBaseAndExtent(row.querySelector(".text").firstChild, 7, row, 0);
    }""")
    await page.keyboard.press("g")
    await first_line(page, 1)
    await page.evaluate("""() => {
      const row = document.querySelectorAll(".row:not(.outside)")[1];
      getSelection().extend(row.querySelector(".text").firstChild, 2);
    }""")
    for key in ("Control+c", "y"):
        await page.evaluate("navigator.clipboard.writeText('')")
        await page.keyboard.press(key)
        await expect(page.locator("#toast")).to_have_text("Copied 395 lines")
        lines = (await page.evaluate("navigator.clipboard.readText()")).split("\n")
        assert (lines[0], lines[-1], len(lines)) == ("make", "filler ", 395)
    await page.keyboard.press("Control+a")
    await expect(page.locator("#toast")).to_contain_text(
        "whole log is selected: 401 lines, 4.9 KiB"
    )
    await page.keyboard.press("End")
    await page.keyboard.press("Control+c")
    await expect(page.locator("#toast")).to_have_text("Copied 399 lines")
    lines = (await page.evaluate("navigator.clipboard.readText()")).split("\n")
    assert (lines[0], lines[-1], len(lines)) == ("outer head", "the last needle", 399)


async def test_opens_at_the_end_and_downloads_the_bytes(page, job_id):
    await expect(page.locator(".row .text").last).to_have_text("the last needle")
    await expect(page.locator("#facts")).to_contain_text("401 lines")
    assert len(await numbers(page)) < 100
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Download").click()
    path = await (await download.value).path()
    assert path.read_bytes() == LOG
    # What was requested before the first row: the page, script, styles, outline and bytes.
    names = "performance.getEntriesByType('resource').map(({ name }) => new URL(name).pathname)"
    requested = await page.evaluate(names)
    assert 1 + requested.index(f"/logs/{job_id}/raw") < 8, requested
    await expect(page.get_by_role("link", name="Raw")).to_have_attribute(
        "href", f"/logs/{job_id}/raw"
    )


async def test_keyboard_help_and_log_details(page, job_id):
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_contain_text("Search the whole log")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(page.locator("#phase")).to_have_text("aggregating")
    await page.keyboard.press("i")
    await expect(page.locator("#about")).to_contain_text("aggregating")
    # Only for readers with the token.
    await expect(page.get_by_role("link", name="Open in Temporal UI")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_system_theme_applies_until_another_is_chosen(visits, pool, job_id, scheme):
    await finish(pool, job_id, LOG)
    page = await visits.open(f"/jobs/{job_id}", color_scheme=scheme)
    grounds = {"dark": "rgb(13, 17, 23)", "light": "rgb(255, 255, 255)"}
    await expect(page.locator("body")).to_have_css("background-color", grounds.pop(scheme))
    await page.get_by_role("button", name="Switch theme").click()
    [(_, other)] = grounds.items()
    await expect(page.locator("body")).to_have_css("background-color", other)
    await page.reload()
    await expect(page.locator("body")).to_have_css("background-color", other)


async def test_pages_fit_a_phone(visits, pool, job_id):
    await finish(pool, job_id, LOG + b"x" * 500 + b"\n")
    page = await visits.open(
        f"/jobs/{job_id}", viewport={"width": 375, "height": 667}, has_touch=True, is_mobile=True
    )
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await page.evaluate(overflow) == 0
    for name in ("Download", "Switch theme", "Next match"):
        box = await page.get_by_label(name).bounding_box()
        assert box is not None
        assert 0 <= box["x"] <= box["x"] + box["width"] <= 375, name
    await store(pool, 2**63 - 1, b"text\n")
    await page.set_viewport_size({"width": 360, "height": 667})
    await page.goto("/")
    await expect(page.locator("#logs")).to_be_visible()
    assert await page.evaluate(overflow) == 0


async def test_page_waits_for_a_log_that_does_not_exist_yet(visits, pool, job_id):
    page = await visits.open(f"/jobs/{job_id}", rows=False)
    await expect(page.locator("#message")).to_contain_text("Waiting for the first line")
    await store(pool, job_id, b"here it is\n")
    await expect(page.locator(".row .text")).to_have_text("here it is")
    await expect(page.locator("#message")).to_be_hidden()


async def test_log_without_output(visits, pool, job_id):
    await finish(pool, job_id, b"")
    page = await visits.open(f"/jobs/{job_id}", rows=False)
    await expect(page.locator("#facts")).to_have_text("No output")
