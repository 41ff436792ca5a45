"""Stores and buckets that answer otherwise than the stack's own store."""

import pytest

from logflume.archive.store import key
from tests.support import other_stores
from tests.support.s3 import s3
from tests.support.s3_proxy import s3_proxy
from tests.support.services import serving

PIECES = [b"precious ", b"0123456789\n"]


@pytest.fixture
async def proxy(settings):
    async with s3_proxy(settings.s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
async def web(settings, pool, proxy):
    """A client of a web service whose store is the proxy."""
    changed = settings.s3.model_copy(update={"endpoint": proxy.url})
    async with serving(settings.model_copy(update={"s3": changed}), pool) as client:
        yield client


@pytest.fixture
def replace_object(settings, job_id):
    """Writes another object to the key of the test's job."""

    def replace(body, **fields):
        s3(settings).put_object(Bucket=settings.s3.bucket, Key=key(job_id), Body=body, **fields)

    return replace


async def assert_readable(web, job_id, content):
    for _ in range(2):  # the second read uses what the first one found out
        assert (await web.get(f"/logs/{job_id}/raw")).content == content
        part = await web.get(f"/logs/{job_id}/raw", headers={"Range": "bytes=9-12"})
        assert (part.status_code, part.content) == (206, content[9:13])
    assert (await web.get(f"/logs/{job_id}")).json()["content"] == content.decode()


@pytest.mark.parametrize(
    "answer",
    [other_stores.no_metadata, other_stores.titled_metadata, other_stores.no_checksums],
    ids=["no metadata", "renamed", "no checksums"],
)
async def test_logs_are_readable_without_headers(web, proxy, move_to, job_id, answer):
    content = await move_to("parts dropped", PIECES)
    proxy.every = answer
    await assert_readable(web, job_id, content)


async def test_a_store_that_ignores_ranges_is_readable(web, proxy, move_to, job_id, settings):
    content = await move_to("parts dropped", PIECES)
    proxy.every = other_stores.range_ignored(settings)
    await assert_readable(web, job_id, content)


@pytest.mark.parametrize("metadata", [{}, {"sha256": "0" * 64}])
async def test_a_copied_object_is_the_log_by_its_bytes_and_read_whole_once(
    web, proxy, move_to, job_id, replace_object, metadata
):
    content = await move_to("parts dropped", PIECES)
    replace_object(content, Metadata=metadata)
    ranges = []

    async def count(request, forward):
        ranges.append(request.headers.get("Range"))
        return (await forward()).again(request)

    proxy.every = count
    await assert_readable(web, job_id, content)
    assert ranges.count(None) == 1


@pytest.mark.parametrize("body", [b"of another program\n", b"PRECIOUS 0123456789\n", b"", b"p"])
@pytest.mark.parametrize("metadata", [{}, {"sha256": "0" * 64}])
async def test_a_foreign_object_answers_502_with_the_condition(
    web, move_to, job_id, replace_object, body, metadata
):
    await move_to("parts dropped", PIECES)
    replace_object(body, Metadata=metadata)
    for headers in ({}, {"Range": "bytes=9-12"}):
        response = await web.get(f"/logs/{job_id}/raw", headers=headers)
        assert response.status_code == 502
        assert f"the archived object {key(job_id)} is not the log" in response.json()["error"]
    assert (await web.get(f"/logs/{job_id}")).status_code == 502


async def test_a_cold_object_answers_409_with_the_reason(web, proxy, move_to, job_id):
    await move_to("parts dropped", PIECES)
    proxy.every = other_stores.cold
    for path in ("raw", ""):
        response = await web.get(f"/logs/{job_id}/{path}")
        assert response.status_code == 409
        assert "is in a cold storage class; restore it" in response.json()["error"]


async def test_a_lost_object_answers_410(web, move_to, job_id, settings):
    await move_to("parts dropped", PIECES)
    s3(settings).delete_object(Bucket=settings.s3.bucket, Key=key(job_id))
    response = await web.get(f"/logs/{job_id}/raw")
    assert (response.status_code, key(job_id) in response.json()["error"]) == (410, True)


async def test_a_lost_object_without_permission_to_list_answers_502(
    web, proxy, move_to, job_id, settings
):
    """The store does not say whether it exists."""
    await move_to("parts dropped", PIECES)
    s3(settings).delete_object(Bucket=settings.s3.bucket, Key=key(job_id))
    proxy.every = other_stores.no_list_bucket
    response = await web.get(f"/logs/{job_id}/raw")
    assert response.status_code == 502
    assert "the archive refuses" in response.json()["error"]
