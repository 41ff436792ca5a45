"""Legal holds on running logs: every archived version is copied."""

import hashlib

from db import holds
from logflume.archive.store import hold_key
from tests.support.parts import part
from tests.support.s3 import s3


def hold_copies(driver) -> dict[str, bytes]:
    store, bucket = s3(driver.settings), driver.settings.s3.bucket
    found = store.list_objects_v2(Bucket=bucket, Prefix="holds/").get("Contents", ())
    return {
        one["Key"]: store.get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in found
    }


async def test_every_archived_version_of_a_held_log_is_copied(driver):
    await driver.store(part(driver.job_id, 0, b"early"), begun=True)
    async with driver.pool.acquire() as connection:
        log = await holds.put_on(connection, driver.job_id, "case 7")
        assert not log.archive_verified
    await driver.store(part(driver.job_id, 1, final=True), final=True)
    await driver.verified()
    await driver.store(part(driver.job_id, 0, b"another run", attempt="b"), begun=True)
    await driver.store(part(driver.job_id, 1, attempt="b", final=True), final=True)
    await driver.result()
    assert driver.archived() == b"another run"
    assert hold_copies(driver) == {
        hold_key(driver.job_id, hashlib.sha256(text).hexdigest()): text
        for text in (b"early", b"another run")
    }
