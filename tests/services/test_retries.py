"""The reason of a pending retry is visible at once."""

from datetime import timedelta

import pytest

from activities.logs import ArchiveActivities, DatabaseActivities
from db.connect import open_pool
from logflume.archive.store import Archive
from logflume_cli.services import make_workflows
from logflume_cli.show import _read
from tests.support.parts import part, store_parts
from tests.support.services import serving
from tests.support.waiting import until
from tests.support.workers import lifecycle_workers
from web.auth import sign_link
from workflows.client.connection import connect_temporal, ensure_search_attributes
from workflows.lifecycle_types import PartsStored, workflow_id


@pytest.fixture
async def client(settings):
    client = await connect_temporal(settings.temporal)
    await ensure_search_attributes(client)
    return client


async def test_the_reason_of_a_pending_retry_is_shown_to_operators(
    settings, client, pool, name, job_id
):
    await pool.execute(f"ALTER DATABASE {name} SET statement_timeout = '200ms'")
    workflows = make_workflows(client, settings)
    handle = client.get_workflow_handle(workflow_id(job_id))
    await store_parts(pool, [part(job_id, 0, b"text", final=True)])
    gone = settings.s3.model_copy(update={"endpoint": "http://127.0.0.1:1"})
    store = Archive(gone, 1)
    async with (
        await open_pool(settings.database) as limited,
        serving(settings, pool, public_reads=True) as web,
        lifecycle_workers(
            client, name, DatabaseActivities(limited), ArchiveActivities(pool, store)
        ),
    ):

        async def last_error() -> str:
            return (await web.get(f"/logs/{job_id}/lifecycle")).json()["last_error"]

        async def has_failed(step: str, text: str) -> bool:
            error = await last_error()
            return error.startswith(f"{step}: ") and text in error

        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT FROM logs WHERE job_id = $1 FOR UPDATE", job_id)
            await workflows.parts_stored(job_id, PartsStored(1, 4, final=True, begun=True))
            await until(lambda: has_failed("aggregate", "statement timeout"))
        await until(lambda: has_failed("archive", "127.0.0.1:1"))
        assert (await last_error()).endswith(" times, will be retried)")
        _, _, shown = await _read(settings, job_id)
        assert shown.state and shown.state.last_error.startswith("archive: ")
        del web.headers["Authorization"]
        for query in ("", f"?share={sign_link(settings.web, job_id, timedelta(hours=1))}"):
            body = (await web.get(f"/logs/{job_id}/lifecycle{query}")).json()
            assert body["phase"] == "archiving"
            hidden = (body["last_error"], body["run_id"], body["temporal_ui_url"])
            assert hidden == ("", None, None)
        details = await (await handle.describe()).static_details()
        assert details == f"[Log page]({settings.web.url}/jobs/{job_id})"
        await handle.terminate()
