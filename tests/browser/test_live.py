"""Reading a live log, also while the service restarts."""

import asyncio

import pytest
from playwright.async_api import expect

from db import logs
from tests.support.pages import numbers, settled, store, texts, until


async def line_texts(page, count: int) -> list[str]:
    """The texts of a short log, once it has `count` lines."""
    await expect(page.locator(".row .number").last).to_have_text(str(count))
    await settled(page)
    return await texts(page)


async def test_live_log_is_followed_at_its_end(visits, pool, job_id):
    await store(pool, job_id, b"".join(b"line %d\n" % n for n in range(100)))
    page = await visits.open(f"/jobs/{job_id}")
    follow = page.locator("#follow")
    await expect(page.locator("#state")).to_have_text("live")
    await expect(follow).to_have_attribute("aria-pressed", "true")
    # A character and a sequence cut between two parts.
    await store(pool, job_id, b"caf\xc3", b"\xa9 \x1b[3", b"1mred\x1b[0m\n", first=1)
    await expect(page.locator(".row .text").last).to_have_text("café red")
    await expect(page.get_by_text("red", exact=True)).to_be_in_viewport()
    await store(pool, job_id, b"".join(b"flood %d\n" % n for n in range(200)), first=4)
    await expect(page.get_by_text("flood 199", exact=True)).to_be_in_viewport()
    # Any movement up stops following; only one down to the end starts it.
    await page.mouse.move(600, 300)
    moves = (
        lambda: page.mouse.wheel(0, -5),
        lambda: page.keyboard.press("k"),
        lambda: page.mouse.wheel(0, -600),
    )
    for number, move in enumerate(moves, start=5):
        await move()
        await expect(follow).to_have_attribute("aria-pressed", "false")
        await settled(page)
        top = (await numbers(page))[0]
        await store(pool, job_id, b"".join(b"more %d\n" % n for n in range(100)), first=number)
        await expect(page.locator("#below")).to_have_text("100 new lines")
        assert (await numbers(page))[0] == top
        await page.keyboard.press("End")
        await expect(follow).to_have_attribute("aria-pressed", "true")
        await expect(page.locator("#below")).to_be_hidden()
    # Selecting text stops following too, so that it stays selected.
    await settled(page)
    await page.get_by_text("more 99", exact=True).last.dblclick()
    await store(pool, job_id, b"".join(b"most %d\n" % n for n in range(200)), first=8)
    await expect(page.locator("#below")).to_have_text("200 new lines")
    assert (await page.evaluate("String(getSelection())")).strip() == "99"
    await page.locator("#below").click()
    await expect(follow).to_have_attribute("aria-pressed", "true")
    await expect(page.locator(".row .text").last).to_have_text("most 199")
    await store(pool, job_id, b"the end\n", first=9, final=True)
    await expect(page.locator(".row .text").last).to_have_text("the end")
    await expect(follow).to_be_hidden()
    await expect(page.locator("#state")).to_have_text("")


async def test_live_folds_and_steps_also_cut_between_parts(visits, pool, job_id):
    await store(pool, job_id, b"begin\ntravis_fold:st")
    page = await visits.open(f"/jobs/{job_id}")
    await store(pool, job_id, b"art:build\r\x1b[0K$ make\nworking\n", first=1)
    assert await line_texts(page, 3) == ["begin", "$ make", "working"]
    button = page.get_by_role("button", name="fold build")
    await expect(button).to_have_attribute("aria-expanded", "true")
    await store(pool, job_id, b"done\ntravis_fold:end:build\r\x1b[0Knext\n", first=2)
    await expect(button).to_have_attribute("aria-expanded", "false")
    assert await line_texts(page, 5) == ["begin", "$ make", "next"]
    await store(pool, job_id, b"travis_time:start:a\r\x1b[0K$ test\nok\n", first=3)
    assert (await line_texts(page, 7))[-2:] == ["$ test", "ok"]
    end = f"travis_time:end:a:start=158{0:016},finish=158{1_500_000_000:016}\r\x1b[0K"
    await store(pool, job_id, end.encode(), first=4)
    step = page.locator(".row", has_text="$ test")
    await expect(step.locator(".tag")).to_have_text("1.50s")


async def test_progress_bar_is_overwritten_in_place(visits, pool, job_id):
    await store(pool, job_id, b"start\n 10%")
    page = await visits.open(f"/jobs/{job_id}")
    for number, part in enumerate((b"\r 60%", b"\r100%\n", b"ok\n"), start=1):
        await store(pool, job_id, part, first=number)
        expected = ["start", (" 60%", "100%", "100%")[number - 1], "ok"][: 2 if number < 3 else 3]
        await until(
            page,
            """(expected) => [...document.querySelectorAll(".row .text")]
                .map((text) => text.textContent).join("|") === expected""",
            "|".join(expected),
        )


async def test_link_to_a_line_waits_for_it(visits, pool, job_id):
    await store(pool, job_id, b"one\n")
    page = await visits.open(f"/jobs/{job_id}#L150")
    await expect(page.locator("#range")).to_have_text("Line 150: waiting for it to arrive")
    await store(pool, job_id, b"".join(b"line %d\n" % n for n in range(2, 300)), first=1)
    await expect(page.locator(".row.selected .text")).to_have_text("line 150")
    await expect(page.locator("#range")).to_have_text("Line 150")


async def test_late_part_is_inserted_in_order(visits, pool, job_id):
    await store(pool, job_id, b"one\n")
    page = await visits.open(f"/jobs/{job_id}")
    await store(pool, job_id, b"three\n", first=2)
    assert await line_texts(page, 2) == ["one", "three"]
    await store(pool, job_id, b"two\n", first=1)
    assert await line_texts(page, 3) == ["one", "two", "three"]
    await store(pool, job_id, b"four\n", first=3)
    assert await line_texts(page, 4) == ["one", "two", "three", "four"]


async def test_replaced_content_is_reloaded(visits, pool, job_id):
    await store(pool, job_id, b"".join(b"old %d\n" % n for n in range(50)))
    page = await visits.open(f"/jobs/{job_id}")
    await expect(page.locator("#state")).to_have_text("live")
    async with pool.acquire() as connection:
        await logs.replace_contents(connection, [logs.WholeContent(job_id, b"")])
    await store(pool, job_id, b"new run\n", attempt="b")
    await expect(page.locator(".row .text")).to_have_text(["new run"])


async def test_search_counts_new_matches(visits, pool, job_id):
    await store(pool, job_id, b"needle\n")
    page = await visits.open(f"/jobs/{job_id}")
    await page.locator("[name=q]").fill("needle")
    await expect(page.locator("#search output")).to_have_text("1 of 1")
    await store(pool, job_id, b"a\nneedle\n", first=1)
    await expect(page.locator("#search output")).to_have_text("1 of 2")


async def test_page_recovers_after_a_restart_of_the_service(visits, site, pool, job_id):
    await store(pool, job_id, b"0\n")
    page = await visits.open(f"/jobs/{job_id}")
    await expect(page.locator("#state")).to_have_text("live")
    await store(pool, job_id, b"1\n", first=1)
    assert await line_texts(page, 2) == ["0", "1"]
    await site.stop()
    await expect(page.locator("#state")).to_have_text("reconnecting\u2026")
    await store(pool, job_id, b"2\n", b"3\n4", first=2)  # while the page is disconnected
    await site.start()
    await expect(page.locator("#state")).to_have_text("live")
    await store(pool, job_id, b"4\n", b"5\n", first=4)
    assert await line_texts(page, 6) == ["0", "1", "2", "3", "44", "5"]
    await store(pool, job_id, b"6\n", first=6, final=True)
    assert await line_texts(page, 7) == ["0", "1", "2", "3", "44", "5", "6"]


@pytest.mark.parametrize(
    "event", ["new Event('online')", "new PageTransitionEvent('pageshow', { persisted: true })"]
)
async def test_page_reconnects_at_once_when_the_network_or_the_page_returns(
    visits, pool, job_id, event
):
    await store(pool, job_id, b"0\n")
    page = await visits.open(f"/jobs/{job_id}")
    await expect(page.locator("#state")).to_have_text("live")
    async with page.expect_request(lambda request: "/stream" in request.url):
        await page.evaluate(f"dispatchEvent({event})")
    await expect(page.locator("#state")).to_have_text("live")
    await store(pool, job_id, b"1\n", first=1, final=True)
    assert await line_texts(page, 2) == ["0", "1"]


async def test_fetched_and_live_bytes_join_without_gap_or_repeat(visits, pool, job_id):
    await store(pool, job_id, b"line 0\n")
    page = await visits.open(f"/jobs/{job_id}")
    lines = 20_000
    pieces = [b"".join(b"line %d\n" % n for n in range(a, a + 100)) for a in range(1, lines, 100)]
    for number, piece in enumerate(pieces, start=1):
        await store(pool, job_id, piece, first=number)
        await asyncio.sleep(0)
    await expect(page.locator("#facts")).to_contain_text(f"{lines + 1:,} lines")
    for line in (0, 7_000, 14_321, lines):
        await page.evaluate("line => { location.hash = `#L${line + 1}` }", line)
        await expect(page.locator(".row.selected .text")).to_have_text(f"line {line}")
