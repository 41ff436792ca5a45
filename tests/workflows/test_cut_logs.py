"""The lifecycle of a log that exceeds the maximum size."""

from dataclasses import replace

import pytest

from tests.support.driver import OPTIONS
from tests.support.parts import part


@pytest.fixture
def options():
    return replace(OPTIONS, max_log_bytes=1000)


async def test_an_oversized_log_is_archived_cut_with_a_notice(driver):
    parts = [part(driver.job_id, number, b"%3d," % number * 100) for number in range(5)]
    await driver.store(*parts, part(driver.job_id, 5, final=True), final=True, begun=True)
    await driver.verified()
    outcome = await driver.result()
    text = b"".join(one.content for one in parts)
    archived = driver.archived()
    assert archived.startswith(text[:1000] + b"\n")
    assert b"cut after 1,000 bytes" in archived and b" 1,000 more bytes were left out" in archived
    row = await driver.row()
    assert row.purged_at and (row.left_out_bytes, row.content_bytes) == (1000, len(archived))
    assert (outcome.bytes, outcome.parts) == (len(archived), 6)
