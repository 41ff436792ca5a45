"""Stores and buckets that answer otherwise than the stack's own store."""

import hashlib

import pytest

from logflume.archive.probe import Finding, Probe
from logflume.archive.store import Archive, key
from logflume.errors import ArchiveRefused, NotArchived
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


async def whole_reads(web, proxy, job_id, content, answer):
    """How many requests without a range the store gets while the log is read."""
    ranges = []

    async def count(request, forward):
        ranges.append(request.headers.get("Range"))
        return await answer(request, forward)

    proxy.every = count
    await assert_readable(web, job_id, content)
    return ranges.count(None)


@pytest.mark.parametrize(
    ("answer", "reads"),
    [
        (other_stores.no_metadata, 1),
        (other_stores.titled_metadata, 0),
        (other_stores.no_checksums, 0),
    ],
    ids=["no metadata", "renamed", "no checksums"],
)
async def test_logs_are_readable_without_headers(web, proxy, move_to, job_id, answer, reads):
    content = await move_to("parts dropped", PIECES)
    assert await whole_reads(web, proxy, job_id, content, answer) == reads


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

    async def unchanged(request, forward):
        return (await forward()).again(request)

    assert await whole_reads(web, proxy, job_id, content, unchanged) == 1


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
    with pytest.raises(ArchiveRefused, match="without the permission s3:ListBucket a missing"):
        await proxied(settings, proxy).head(job_id)


def proxied(settings, proxy, **fields):
    """An archive whose store is the proxy."""
    return Archive(settings.s3.model_copy(update={"endpoint": proxy.url, **fields}), 2)


async def upload(archive, job_id, content):
    async def read(start: int, size: int) -> bytes:
        return content[start : start + size]

    sha256 = hashlib.sha256(content).hexdigest()
    await archive.upload(job_id, read, len(content), sha256=sha256, parts=1)


SLICE = 5 * 1024 * 1024


@pytest.mark.parametrize("content", [b"small", bytes(SLICE) + b"in slices"], ids=["small", "large"])
async def test_a_store_that_knows_no_new_checksums_is_uploaded_to(settings, proxy, job_id, content):
    proxy.every = other_stores.no_new_checksums
    archive = proxied(settings, proxy, slice_bytes=SLICE)
    await upload(archive, job_id, content)
    stored = s3(settings).get_object(Bucket=settings.s3.bucket, Key=key(job_id))
    assert stored["Body"].read() == content


async def test_objects_are_deleted_one_by_one_where_a_list_needs_an_md5(settings, proxy, numbers):
    archive, jobs = proxied(settings, proxy), [next(numbers) for _ in range(3)]
    for job_id in jobs:
        await upload(archive, job_id, b"text")
    proxy.every = other_stores.deletions_need_md5
    await archive.delete_many(jobs)
    for job_id in jobs:
        with pytest.raises(NotArchived):
            await archive.head(job_id)


async def test_a_bucket_that_refuses_acls_is_used_without(settings, proxy, job_id):
    proxy.every = other_stores.no_acls
    with pytest.raises(ArchiveRefused, match=r"NotSupported.*; set LOGFLUME_S3__ACL to `none`"):
        await upload(proxied(settings, proxy), job_id, b"text")
    archive = proxied(settings, proxy, acl="none")
    await upload(archive, job_id, b"text")
    assert (await archive.head(job_id)).bytes == 4


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/logs/{}"), ("PUT", "/log-parts/{}/0"), ("POST", "/log-parts/multi")],
    ids=["log", "part", "parts"],
)
async def test_an_encoded_body_is_refused(web, job_id, method, path):
    headers = {"Content-Encoding": "gzip"}
    if path == "/log-parts/multi":
        headers["Authorization"] = "token sig:00"
    response = await web.request(method, path.format(job_id), content=b"x", headers=headers)
    assert response.status_code == 415
    assert response.json() == {"error": "send the body without Content-Encoding"}
    assert (await web.get(f"/logs/{job_id}")).status_code == 404


async def probed(settings, proxy) -> dict[str, Finding]:
    """The findings of a probe, which leaves nothing behind."""
    probe = Probe(settings.s3.model_copy(update={"endpoint": proxy.url}), 2)
    findings = {found.operation: found for found in await probe.findings()}
    assert "Contents" not in s3(settings).list_objects_v2(Bucket=settings.s3.bucket)
    return findings


async def test_a_probe_tries_each_operation_and_leaves_nothing(settings, proxy):
    findings = await probed(settings, proxy)
    assert [found for found in findings.values() if found.problem] == []
    assert {name: found.result for name, found in findings.items()} == {
        "conditional upload": "enforced, also in slices",
        "upload": "done",
        "upload in slices": "done",
        "read": "same bytes and metadata",
        "ranged read": "done",
        "read of a missing object": "reported as missing",
        "list": "done",
        "delete": "done",
        "delete many": "done",
        "versions": "off",
    }


@pytest.mark.parametrize(
    ("answer", "operation", "result"),
    [
        (other_stores.no_metadata, "read", "without metadata"),
        (other_stores.no_new_checksums, "upload", "done"),
        (other_stores.deletions_need_md5, "delete many", "refused: objects are deleted one by one"),
        (other_stores.conditions_ignored, "conditional upload", "ignored, in slices ignored"),
        (other_stores.versioned, "versions", "enabled: removed text stays in older versions"),
        (other_stores.no_versioning_query, "versions", "unknown"),
    ],
    ids=["metadata", "checksums", "md5", "conditions", "versioned", "unknown"],
)
async def test_a_probe_names_what_a_store_lacks(settings, proxy, answer, operation, result):
    proxy.every = answer
    findings = await probed(settings, proxy)
    assert findings[operation].result.startswith(result)
    assert not findings[operation].problem


async def test_a_probe_notices_ignored_ranges(settings, proxy):
    proxy.every = other_stores.range_ignored(settings)
    assert (await probed(settings, proxy))["ranged read"].result.startswith("ignored")


@pytest.mark.parametrize(
    ("answer", "failing", "fix"),
    [
        (other_stores.no_list_bucket, {"read of a missing object", "list"}, "ListBucket"),
        (other_stores.no_acls, {"upload"}, "ACL"),
        (other_stores.cold, {"read", "ranged read"}, "cold"),
    ],
    ids=["list", "acl", "cold"],
)
async def test_a_probe_reports_refused_operations(settings, proxy, answer, failing, fix):
    proxy.every = answer
    findings = await probed(settings, proxy)
    failed = {name for name, found in findings.items() if found.problem}
    assert failing <= failed
    assert all(fix in f"{findings[name].problem} {findings[name].fix}" for name in failing)
