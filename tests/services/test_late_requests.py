"""PUTs and DELETEs that the store executes late, again or in another order."""

from contextlib import suppress

import pytest

from activities.types import ARCHIVE, CHECK_ARCHIVE, DELETE_ARCHIVE, PURGE
from db import reading
from db.pending import find_pending, mark_empty
from logflume.archive.store import Archive, key
from logflume.errors import ArchiveAhead, ComponentError
from tests.support.lifecycle import LifecycleSteps
from tests.support.parts import write_whole
from tests.support.s3_proxy import Held, error_response, s3_proxy

SLICE = 5 * 1024 * 1024
SMALL = "PutObject", b"old"
LARGE = "CompleteMultipartUpload", bytes(SLICE) + b"old"
UPLOADS = pytest.mark.parametrize(("upload", "old"), [SMALL, LARGE], ids=["small", "multipart"])


@pytest.fixture
async def proxy(settings):
    async with s3_proxy(settings.s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
def archive(settings, proxy):
    fields = {"endpoint": proxy.url, "slice_bytes": SLICE}
    return Archive(settings.s3.model_copy(update=fields), 4)


@pytest.fixture
def life(pool, archive, job_id):
    return LifecycleSteps(pool, archive, job_id)


@pytest.fixture
def hold(proxy, job_id):
    """Hold the next request of this operation."""

    def hold(operation, *, done=False):
        held = Held(done=done)
        proxy.trouble(key(job_id), operation, held, 1)
        return held

    return hold


@pytest.fixture
def write(pool, job_id, life):
    async def write(content):
        async with pool.acquire() as connection:
            await write_whole(connection, job_id, content)
        life.restart()

    return write


async def ignore_conditions(archive):
    """Make the store ignore the conditions of writes, as some stores do."""

    def drop(params, **_):
        for name in ("If-Match", "If-None-Match"):
            params["headers"].pop(name, None)

    archive._writes.meta.events.register("before-call.s3", drop)
    assert not (await archive.probe_conditions()).are_enforced


async def row(pool, job_id):
    async with pool.acquire() as connection:
        return await reading.find(connection, job_id)


async def settle(pool):
    """Let the longest time of a request pass."""
    await pool.execute("UPDATE logs SET archive_settles_at = now()")


async def pending(pool):
    async with pool.acquire() as connection:
        return [(one.outdated, one.bare) for one in await find_pending(connection, 0, 0, 3600, 10)]


async def test_the_store_enforces_conditions(archive):
    assert (await archive.probe_conditions()).are_enforced


async def test_a_store_that_refuses_conditions_is_sent_none(proxy, archive, life, write):
    refusal = error_response(501, "NotImplemented")

    async def refuse(request, forward):
        if {"If-Match", "If-None-Match"} & set(request.headers):
            return await refusal(request, forward)
        return (await forward()).again(request)

    proxy.every = refuse
    found = await archive.probe_conditions()
    assert (found.put, found.multipart) == ("refused", "refused")
    for content in (b"small", bytes(SLICE + 1)):
        await write(content)
        await life.finish()
        assert await life.archived() == content


@UPLOADS
async def test_a_hung_first_upload_never_replaces_newer_content(
    pool, job_id, life, hold, store, upload, old
):
    await store((0, old))
    await life.until(ARCHIVE)
    held = hold(upload)
    with pytest.raises(ComponentError):
        await life.step()
    await store((1, b", new"), (2, b"", {"final": True}))
    life.restart()
    await life.finish()
    assert await held.release() == [412]
    assert await life.archived() == old + b", new"
    assert (await row(pool, job_id)).purged_at


@UPLOADS
async def test_a_hung_later_upload_never_replaces_newer_content(life, hold, write, upload, old):
    await write(b"first")
    await life.finish()
    await write(old)
    await life.until(ARCHIVE)
    held = hold(upload)
    with pytest.raises(ComponentError):
        await life.step()
    await write(b"new")
    await life.finish()
    assert await held.release() == [412]
    assert await life.archived() == b"new"


async def test_a_repeated_upload_never_replaces_newer_content(life, hold, write):
    await write(b"old")
    held = hold("PutObject", done=True)
    await life.finish()
    await write(b"new")
    await life.finish()
    assert await held.release() == [412]
    assert await life.archived() == b"new"


async def test_uploads_are_not_repeated_below_the_activity(life, proxy, job_id, write):
    await write(b"content")
    await life.until(ARCHIVE)
    proxy.trouble(key(job_id), "PutObject", error_response(500, "InternalError"), 100)
    with pytest.raises(ComponentError):
        await life.step()
    assert proxy.left[key(job_id)] == 99


async def test_a_first_upload_needs_no_inspection(life, proxy, job_id, write):
    proxy.trouble(key(job_id), "HeadObject", error_response(500, "InternalError"), 100)
    await write(b"content")
    with suppress(ComponentError):  # deletes nothing, but asks
        await life.until(ARCHIVE)
    proxy.calm()
    await life.until(ARCHIVE)
    proxy.trouble(key(job_id), "HeadObject", error_response(500, "InternalError"), 100)
    await life.step()
    assert proxy.left[key(job_id)] == 100


async def test_an_upload_that_ended_late_is_not_sent_again(life, hold, proxy, job_id, write):
    await write(b"content")
    await life.until(ARCHIVE)
    held = hold("PutObject")
    with pytest.raises(ComponentError):
        await life.step()

    async def too_late(request, forward):
        assert await held.release() == [200]
        return (await forward()).again(request)

    proxy.trouble(key(job_id), "PutObject", too_late, 1)
    await life.finish()
    assert await life.archived() == b"content"


async def test_an_object_of_a_later_state_of_the_database_is_not_overwritten(
    pool, job_id, life, write
):
    await write(b"later")
    await life.finish()
    await pool.execute("UPDATE logs SET uploads = 0, generation = 0")
    await write(b"earlier")
    await pool.execute("UPDATE logs SET archive_outdated = false")
    await life.until(ARCHIVE)
    for _ in range(2):
        with pytest.raises(ArchiveAhead):
            await life.step()
    assert await life.archived() == b"later"


async def test_an_upload_that_lands_after_the_removal_is_deleted(
    pool, job_id, life, hold, write, settings
):
    await write(b"secret")
    await life.until(ARCHIVE)
    held = hold("PutObject")
    with pytest.raises(ComponentError):
        await life.step()
    await write(b"")
    await life.finish()
    assert await held.release() == [200]
    for _ in range(2):  # what is found is deleted, and checked again
        assert await pending(pool) == []
        await settle(pool)
        assert await pending(pool) == [(True, False)]
        life.restart()
        await life.until(DELETE_ARCHIVE)
        await life.step()
        assert await life.archived() is None
    assert await pending(pool) == [(False, True)]
    async with pool.acquire() as connection:
        assert await mark_empty(connection, job_id)


async def test_a_late_deletion_never_removes_newer_content(life, hold, write):
    await write(b"old")
    await life.finish()
    await write(b"new")
    await life.until(DELETE_ARCHIVE)
    held = hold("DeleteObject", done=True)
    await life.until(PURGE)
    assert await held.release() == [412]
    assert await life.archived() == b"new"


async def test_content_is_not_purged_while_a_deletion_may_be_late(pool, job_id, life, write):
    await write(b"old")
    await life.finish()
    await write(b"new")
    await life.until(CHECK_ARCHIVE)
    life.next = PURGE
    await life.step()
    assert not (await row(pool, job_id)).purged_at
    await life.finish()
    assert (await row(pool, job_id)).purged_at


@pytest.mark.parametrize("late", ["PutObject", "DeleteObject"])
async def test_without_conditions_the_object_is_checked_before_the_purge(
    pool, job_id, archive, life, hold, write, late
):
    await ignore_conditions(archive)
    await write(b"old")
    if late == "PutObject":
        await life.until(ARCHIVE)
        held = hold(late)
        with pytest.raises(ComponentError):
            await life.step()
    else:
        await life.finish()
    await write(b"new")
    if late == "DeleteObject":
        await life.until(DELETE_ARCHIVE)
        held = hold(late, done=True)
    await life.until(CHECK_ARCHIVE)
    assert (await row(pool, job_id)).archive_verified
    assert await held.release() in ([200], [204])
    await life.step()
    assert not (await row(pool, job_id)).archive_verified
    await life.finish()
    assert await life.archived() == b"new"
    assert (await row(pool, job_id)).purged_at
