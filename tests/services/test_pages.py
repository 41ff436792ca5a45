"""The pages and their static files over HTTP: access and headers."""

import re

import pytest

from tests.support.services import TOKEN


@pytest.fixture
async def web(web):
    del web.headers["Authorization"]
    return web


FILES = {
    "/": "text/html",
    "/static/page.js": "text/javascript",
    "/static/base.css": "text/css",
    "/static/icon.svg": "image/svg+xml",
}


@pytest.mark.parametrize("path", [*FILES, "/jobs/1"])
async def test_pages_may_run_only_their_own_files(web, path):
    response = await web.get(path)
    policy = dict(
        rule.strip().split(" ", 1)
        for rule in response.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["form-action"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cross-origin-opener-policy"] == "same-origin"
    assert response.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(("path", "kind"), FILES.items())
async def test_files_are_revalidated_and_sent_once(web, path, kind):
    response = await web.get(path)
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-cache")
    assert response.headers["content-type"].split(";")[0] == kind
    again = await web.get(path, headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/", "/jobs/1"])
async def test_what_a_page_loads_is_compressed_and_stored_forever(web, path):
    page = await web.get(path)
    assert (page.headers["content-encoding"], page.headers["vary"]) == (
        "gzip",
        "Accept, Accept-Encoding",
    )
    addresses = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
    assert len(addresses) == len(set(addresses)) == 4
    for address in addresses:
        response = await web.get(address)
        assert response.status_code == 200
        assert response.headers["content-encoding"] == "gzip"
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        plain = await web.get(address, headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == response.content
        assert plain.headers["etag"] != response.headers["etag"]


async def test_the_page_of_an_unreadable_log_asks_for_the_token(web):
    response = await web.get("/jobs/1")
    assert response.status_code == 403
    assert 'id="token-form"' in response.text
    response = await web.get("/jobs/1", headers={"Authorization": f"token {TOKEN}"})
    assert response.status_code == 200


@pytest.mark.parametrize("job", ["abc", "-1", "1.5", "9" * 30, "%3Cscript%3E"])
async def test_invalid_job_ids_are_rejected_as_json_or_for_browsers_as_a_page(web, job):
    response = await web.get(f"/jobs/{job}")
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/json"
    assert "must be an integer" in response.json()["error"]
    page = await web.get(f"/jobs/{job}", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (page.status_code, page.headers["content-type"].split(";")[0]) == (400, "text/html")


@pytest.mark.parametrize("file", ["nope.js", "..%2Fapp.py", "..%2f..%2fpyproject.toml", ".js"])
async def test_other_files_are_not_served(web, file):
    assert (await web.get(f"/static/{file}")).status_code == 404
