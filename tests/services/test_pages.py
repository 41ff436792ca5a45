"""The pages' shells and files over HTTP: who gets what, and with which headers."""

import pytest

from tests.support.services import TOKEN, serving


@pytest.fixture
async def web(settings, pool):
    async with serving(settings, pool) as client:
        client.headers.pop("Authorization")
        yield client


FILES = {
    "/": "text/html",
    "/static/page.js": "text/javascript",
    "/static/base.css": "text/css",
    "/static/icon.svg": "image/svg+xml",
}


@pytest.mark.parametrize("path", [*FILES, "/jobs/1"])
async def test_pages_run_nothing_but_their_own_files(web, path):
    answer = await web.get(path)
    policy = dict(
        rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["form-action"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(("path", "kind"), FILES.items())
async def test_files_are_checked_anew_and_sent_once(web, path, kind):
    answer = await web.get(path)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")
    assert answer.headers["content-type"].split(";")[0] == kind
    again = await web.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_a_log_nobody_may_read_has_a_page_that_asks_for_the_token(web):
    answer = await web.get("/jobs/1")
    assert answer.status_code == 403
    assert 'id="token-form"' in answer.text
    answer = await web.get("/jobs/1", headers={"Authorization": f"token {TOKEN}"})
    assert answer.status_code == 200


@pytest.mark.parametrize("job", ["abc", "-1", "1.5", "9" * 30, "%3Cscript%3E"])
async def test_what_is_no_job_id_is_refused_in_json(web, job):
    answer = await web.get(f"/jobs/{job}")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert "must be an integer" in answer.json()["error"]


@pytest.mark.parametrize("file", ["nope.js", "..%2Fapp.py", "..%2f..%2fpyproject.toml", ".js"])
async def test_no_other_file_is_served(web, file):
    assert (await web.get(f"/static/{file}")).status_code == 404
