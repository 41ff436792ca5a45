"""A log is untrusted: its content stays text, stays in its row and does not block the page."""

from playwright.async_api import expect

from tests.support.pages import finish, settled, texts, until

SCRIPT = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"
HEBREW = "\u05e9\u05dc\u05d5\u05dd"
MARKUP = "</span></div><style>*{display:none}</style><iframe src=//evil.example></iframe>&lt;"


async def open_log(visits, pool, job_id, content: bytes):
    await finish(pool, job_id, content)
    return await visits.open(f"/jobs/{job_id}")


async def test_markup_stays_text(visits, pool, job_id):
    page = await open_log(
        visits, pool, job_id,
        f"{SCRIPT}\n{MARKUP}\n\x1b[31m{SCRIPT}\x1b[0m\n{SCRIPT}\0{SCRIPT}\n"
        f"travis_fold:start:{SCRIPT}\r\x1b[0Kx\ny\ntravis_fold:end:{SCRIPT}\r\x1b[0K\n"
        "\x1b]8;;javascript:alert(1)\x07click\x1b]8;;\x07\n".encode(),
    )  # fmt: skip
    shown = await texts(page)
    assert shown[:4] == [SCRIPT, MARKUP, SCRIPT, f"{SCRIPT}^@{SCRIPT}"]
    assert shown[-1] == "click"
    assert await page.evaluate("window.ran") is None
    assert await page.locator("#log :is(script, img, iframe, style)").count() == 0
    assert await page.locator("#log a:not(.number)").count() == 0
    # Search highlights must not turn it into markup either.
    await page.locator("[name=q]").fill(SCRIPT[:40])
    await expect(page.locator("#search output")).to_contain_text("of")
    assert await page.evaluate("window.ran") is None


async def test_bidi_and_invisible_characters_become_symbols(visits, pool, job_id):
    page = await open_log(
        visits,
        pool,
        job_id,
        f"if (admin\u202e \u2066)) {{\u2069 \u2066\nnext\u200bline\0end\n{HEBREW} abc\n".encode(),
    )
    shown = await texts(page)
    assert shown[0] == "if (adminU+202E U+2066)) {U+2069 U+2066"
    assert shown[1] == "nextU+200Bline^@end"
    assert shown[2] == f"{HEBREW} abc"
    raw = await page.locator("#log").inner_text()
    assert not any(char in raw for char in "\u202e\u2066\u2069\u200b\0")
    number, text = page.locator(".row .number").nth(2), page.locator(".row .text").nth(2)
    boxes = [await number.bounding_box(), await text.bounding_box()]
    assert boxes[0]["x"] < boxes[1]["x"]


ABUSE = [
    "\x1b[" + "1;" * 10_000 + "31mx",
    "\x1b[31ma\x1b[0m" * 1500,
    "\x1b]0;" + "t" * 15_000,
    "\x1b" * 10_000,
    "\x1b[" * 5_000,
    "\x1b]" * 5_000,
    "\x1b[99999999C!\x1b[99999999D?\x1b[99999999G.",
    "\b" * 10_000 + "x",
    "\r".join(str(n) for n in range(3000)),
    "travis_fold:start:" * 900,
    "\u202e" * 5_000,
    "e" + "\u0301" * 8_000,
    "\0" * 1_980,
    "\0\1" * 990,
    "".join(f"\x1b[38;5;{16 + n % 240}m{n % 10}" for n in range(1_900)),
]


async def test_abusive_sequences_stay_in_their_line(visits, pool, job_id):
    content = "".join(f"before {n}\n{line}\nafter \x1b[0m{n}\n" for n, line in enumerate(ABUSE))
    page = await open_log(visits, pool, job_id, content.encode())
    shown = await texts(page)
    assert len(shown) == 3 * len(ABUSE)
    assert shown[0::3] == [f"before {n}" for n in range(len(ABUSE))]
    assert shown[2::3] == [f"after {n}" for n in range(len(ABUSE))]
    counts = "rows => rows.map(row => [row.offsetHeight, row.querySelectorAll('*').length])"
    for height, elements in await page.eval_on_selector_all(".row", counts):
        assert height == 20
        assert elements < 300
    assert shown[3 * 12 + 1] == "^@\u00d71980"
    tall = page.locator(".row").nth(3 * 11 + 1)
    await expect(tall).to_have_css("overflow-y", "clip")


async def test_thousands_of_hostile_markers(visits, pool, job_id):
    content = b"".join(
        b"travis_fold:start:f%d\r\x1b[0Kfold %d\ntravis_time:start:t\r\x1b[0K\n" % (n, n)
        for n in range(15_000)
    )
    page = await open_log(visits, pool, job_id, content + b"the end\n")
    await expect(page.locator(".row .text").last).to_have_text("the end")
    await page.keyboard.press("c")
    await page.keyboard.press("g")
    await expect(page.locator(".row .text").first).to_have_text("fold 0")


async def test_line_of_a_megabyte_is_shown_in_pieces(visits, pool, job_id):
    content = b"before\n" + b"0123456789" * 105_000 + b"LAST\nafter\n"
    page = await open_log(visits, pool, job_id, content)
    row = page.locator(".row").nth(1)
    assert len(await row.locator(".text").text_content()) <= 2_000
    await expect(page.locator(".row .text").last).to_have_text("after")
    await row.get_by_role("button", name="show the whole line").click()
    panel = page.get_by_role("dialog")
    await expect(panel.locator("pre")).to_contain_text("0123456789")
    assert len(await panel.locator("pre").text_content()) <= 32 * 1024
    more = panel.get_by_role("button", name="show more")
    await more.click()
    # The other pieces: clicked in the page, because each click of Playwright takes 0.3 s.
    await until(
        page,
        """() => {
          const more = document.querySelector("#line .more");
          if (!more.hidden && !more.disabled) more.click();
          return more.hidden;
        }""",
    )
    assert await panel.locator("pre > span").count() >= 33
    await expect(more).to_be_hidden()
    assert await panel.locator("pre").text_content() == "0123456789" * 105_000 + "LAST"


async def test_long_progress_bar_shows_its_last_state(visits, pool, job_id):
    bar = b"".join(b"progress %d%%\r" % n for n in range(20_000))
    page = await open_log(visits, pool, job_id, b"before\n" + bar + b"all done now   \nafter\n")
    assert [text.rstrip() for text in await texts(page)] == ["before", "all done now", "after"]


async def test_bytes_that_are_not_text(visits, pool, job_id):
    page = await open_log(visits, pool, job_id, bytes(range(256)) * 300)
    await settled(page)
    assert "\ufffd" in "".join(await texts(page))
