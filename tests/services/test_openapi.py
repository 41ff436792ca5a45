"""The OpenAPI document, and that the API conforms to it."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from db.parts import store_batch
from logflume.settings.servers import PusherSettings
from tests.support.parts import part
from tests.support.services import TOKEN

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


@pytest.fixture
def settings(amqp_settings, channel):
    pusher = PusherSettings(app_id="1", key="key", secret=SecretStr("secret"))
    return amqp_settings.model_copy(update={"pusher": pusher})


async def test_every_route_documents_its_access_and_errors(web):
    document = (await web.get("/schema")).json()
    assert document == (await web.get("/schema/openapi.json")).json()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            name = f"{method} {path}"
            assert operation["summary"] and operation["description"], name
            if path.startswith(("/logs", "/log-parts")):
                assert operation["security"], name
                assert {"400", "403", "503"} <= operation["responses"].keys(), name
    assert {"/logs/{job_id}", "/log-parts/multi", "/metrics"} <= document["paths"].keys()


@pytest.mark.timeout(280)
async def test_responses_conform_to_the_document(web, pool, aggregate, tmp_path):
    async with pool.acquire() as connection:
        for job in range(4):
            await store_batch(connection, [part(job, 0, b"text\xff"), part(job, 1, final=True)])
    await aggregate(0)
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        f"{web.base_url}/schema/openapi.json",
        f"--header=Authorization: token {TOKEN}",
        f"--checks={','.join(CHECKS)}",
        # The stream of an open log does not end.
        "--exclude-path-regex=/stream$",
        "--phases=coverage,fuzzing",
        "--max-examples=10",
        "--seed=1",
        "--request-timeout=10",
        "--generation-deterministic",
        "--no-color",
    ]
    # In its own process, because the server runs in this one.
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output[-6000:]
