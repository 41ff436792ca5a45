"""TLS to every component and from the web: trusted, with client certificates, and refused."""

import asyncio
import shutil
import socket
import ssl
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import asyncpg
import httpx
import pytest
import trustme
from prometheus_client import REGISTRY
from pydantic import SecretStr

from db import migrate
from db.connect import connect_directly, open_pool
from logflume import amqp, contract
from logflume.amqp import Publisher
from logflume.archive.store import Archive
from logflume.errors import ComponentError, SettingsError
from logflume_cli.devstack import rabbitmq
from logflume_cli.devstack.home import HOST
from logflume_cli.devstack.stack import LocalStack
from logflume_cli.doctor import _rabbitmq
from tests.support.broker import message, publish
from tests.support.parts import count_parts, stored_content
from tests.support.processes import LOGFLUME, environment, running
from tests.support.services import draining
from tests.support.stacks import discard
from tests.support.waiting import until
from workflows.client.connection import connect_temporal


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Certificate files: a CA, a server, a client, another CA and a client of it."""
    folder = tmp_path_factory.mktemp("tls")
    ca, other = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca")
    other.cert_pem.write_to_path(folder / "other_ca")
    for name, issuer, host in (
        ("server", ca, HOST),
        ("client", ca, "logflume"),
        ("stranger", other, "logflume"),
    ):
        issued = issuer.issue_cert(host)
        issued.private_key_pem.write_to_path(folder / f"{name}_key")
        (folder / f"{name}_key").chmod(0o600)
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}_cert")
    return SimpleNamespace(**{path.name: path for path in folder.iterdir()})


def changed(settings, group, **fields):
    return settings.model_copy(update={group: getattr(settings, group).model_copy(update=fields)})


def free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        return probe.getsockname()[1]


def is_one_line(caught) -> bool:
    return "\n" not in str(caught.value)


# Postgres


@pytest.fixture
async def tls_database(servers, files, name, database_url):
    """The test's database, which requires TLS and a client certificate of the CA."""
    data = servers.folder("postgres") / "data"
    hba = data / "pg_hba.conf"
    before = hba.read_text()
    for path in (files.server_cert, files.server_key, files.ca):
        shutil.copy2(path, data / path.name)
        shutil.chown(data / path.name, data.owner(), data.group())
    hba.write_text(
        f"hostnossl {name} all all reject\n"
        f"hostssl {name} all all scram-sha-256 clientcert=verify-ca\n" + before
    )
    admin = await asyncpg.connect(servers.database_url("postgres"))
    options = {"ssl_cert_file": "server_cert", "ssl_key_file": "server_key", "ssl_ca_file": "ca"}
    for option, value in options.items():
        await admin.execute(f"ALTER SYSTEM SET {option} = '{value}'")
    await _reload(admin, ssl="on")
    yield database_url
    hba.write_text(before)
    await _reload(admin, ssl="off")
    await admin.close()


async def _reload(admin, *, ssl: str) -> None:
    await admin.execute(f"ALTER SYSTEM SET ssl = {ssl}")
    await admin.execute("SELECT pg_reload_conf()")

    async def is_so() -> bool:
        return await admin.fetchval("SHOW ssl") == ssl

    await until(is_so)


async def test_postgres_with_mutual_tls(settings, tls_database, files):
    trusted = f"{tls_database}?sslmode=verify-full&sslrootcert={files.ca}"
    mutual = f"{trusted}&sslcert={files.client_cert}&sslkey={files.client_key}"
    database = settings.database.model_copy(update={"url": SecretStr(mutual)})
    uses_tls = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    async with await open_pool(database, 1) as pool:
        assert await pool.fetchval(uses_tls)
    listener = await connect_directly(database, "test")
    assert await listener.fetchval(uses_tls)
    await listener.close()
    assert "Nothing to deploy" in await asyncio.to_thread(migrate.run, "status", mutual)
    refused = {
        "certificate verify failed": mutual.replace(str(files.ca), str(files.other_ca)),
        "client certificate|reset|closed": trusted,  # the server closes without waiting for us
        "rejects connection": f"{tls_database}?sslmode=disable",
        "No such file": trusted.replace(str(files.ca), "/nowhere.pem"),
    }
    for why, url in refused.items():
        wrong = database.model_copy(update={"url": SecretStr(url)})
        with pytest.raises(ComponentError, match=f"Postgres at {HOST}.*({why})") as caught:
            await open_pool(wrong, 1)
        assert is_one_line(caught)


async def test_a_missing_ca_file_rejects_no_part(
    amqp_settings, tls_database, files, name, channel, tmp_path, job_id, monkeypatch
):
    """No connection can be made while the file is being replaced: the parts are valid."""
    ca = tmp_path / ".postgresql" / "root.crt"
    ca.parent.mkdir()
    shutil.copy2(files.ca, ca)
    monkeypatch.setenv("HOME", str(tmp_path))  # where the client expects the file by default
    keys = f"sslcert={files.client_cert}&sslkey={files.client_key}"
    url = SecretStr(f"{tls_database}?sslmode=verify-full&{keys}")
    drained = changed(amqp_settings, "database", url=url)
    async with await open_pool(drained.database, 1) as pool, draining(drained) as drain:
        ca.unlink()
        await pool.fetch(END_OTHERS, name)
        before = flush_failures()
        await publish(channel, *(message(job_id, n, f"{n},") for n in range(10)))

        async def has_failed() -> bool:
            return flush_failures() > before + 2

        await until(has_failed)
        assert drain._held.messages == 10
        shutil.copy2(files.ca, ca)

        async def is_stored() -> bool:
            return await count_parts(pool) == 10

        await until(is_stored)
        assert await stored_content(pool, job_id) == b"0,1,2,3,4,5,6,7,8,9,"
    dead = await channel.declare_queue(contract.DEAD_LETTER_QUEUE, durable=True)
    assert dead.declaration_result.message_count == 0


def flush_failures() -> float:
    return REGISTRY.get_sample_value("logflume_drain_flush_failures_total") or 0


END_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = $1 AND pid <> pg_backend_pid()
"""


async def test_a_postgres_without_tls_is_refused_if_the_url_requires_tls(settings, database_url):
    for mode, why in (("require", "SSL"), ("verify-full", "root certificate")):
        url = SecretStr(f"{database_url}?sslmode={mode}")
        with pytest.raises(ComponentError, match=why) as caught:
            await open_pool(settings.database.model_copy(update={"url": url}), 1)
        assert is_one_line(caught)


# RabbitMQ


@pytest.fixture(scope="module")
def broker(tmp_path_factory, files):
    """The URL of a RabbitMQ that requires TLS and client certificates."""
    stack = LocalStack(tmp_path_factory.mktemp("broker"))
    plain = rabbitmq._config
    port = free_port()
    options = f"""\
listeners.ssl.1 = {HOST}:{port}
ssl_options.cacertfile = {files.ca}
ssl_options.certfile = {files.server_cert}
ssl_options.keyfile = {files.server_key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rabbitmq, "_config", lambda home: plain(home) + options)
        asyncio.run(stack.up(["rabbitmq"]))
    yield f"amqps://logflume:{stack.home.secrets['password']}@{HOST}:{port}/"
    asyncio.run(discard(stack))


async def test_rabbitmq_with_mutual_tls(settings, broker, files, pool, job_id):
    url = f"{broker}?cafile={files.ca}&certfile={files.client_cert}&keyfile={files.client_key}"
    publisher = Publisher(url, "test", amqp.declare)
    part = amqp.part_message(contract.PartMessage.of(job_id, 0, b"by TLS"))
    async with draining(changed(settings, "amqp", url=SecretStr(url))):
        await publisher.publish(part, contract.ROUTING_KEY)

        async def is_stored() -> bool:
            return await pool.fetchval("SELECT content FROM log_parts") == b"by TLS"

        await until(is_stored)
    await publisher.close()
    refused = {
        "certificate verify failed": url.replace(str(files.ca), str(files.other_ca)),
        "": f"{broker}?cafile={files.ca}",  # Erlang closes with or without an alert
        "No such file": f"{broker}?cafile=/nowhere.pem",
        " ": broker.replace("amqps", "amqp"),
    }
    for why, wrong in refused.items():
        with pytest.raises(ComponentError, match=f"RabbitMQ at {HOST}.*{why}") as caught:
            await _rabbitmq(changed(settings, "amqp", url=SecretStr(wrong)))
        assert is_one_line(caught)


# Temporal and the archive, behind a TLS proxy, as their local servers have no TLS


@asynccontextmanager
async def behind_tls(port: int, files, *, alpn: str | None = None, mutual: bool = False):
    """A TLS proxy in front of a plain server; `mutual`: it requires a certificate of the CA."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.server_cert, files.server_key)
    if alpn:
        context.set_alpn_protocols([alpn])
    if mutual:
        context.load_verify_locations(files.ca)
        context.verify_mode = ssl.CERT_REQUIRED

    async def pump(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    opened: set[asyncio.StreamWriter] = set()
    tasks: set[asyncio.Task[None] | None] = set()

    async def forward(reader, writer):
        tasks.add(asyncio.current_task())
        to_server, from_server = await asyncio.open_connection(HOST, port)
        opened.update((writer, from_server))
        await asyncio.gather(pump(reader, from_server), pump(to_server, writer))

    server = await asyncio.start_server(forward, HOST, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in opened:
            writer.transport.abort()
        await asyncio.gather(*filter(None, tasks))


async def test_temporal_with_mutual_tls_and_an_api_key(settings, servers, files):
    async with behind_tls(servers.ports["temporal"], files, alpn="h2", mutual=True) as port:
        fields = {
            "address": f"{HOST}:{port}",
            "tls": True,
            "ca_file": files.ca,
            "cert_file": files.client_cert,
            "key_file": files.client_key,
            "api_key": SecretStr("hush-hush"),
        }
        secure = settings.temporal.model_copy(update=fields)
        wrong = [
            {"ca_file": files.other_ca},
            {"cert_file": files.stranger_cert, "key_file": files.stranger_key},
            {"cert_file": None, "key_file": None},
            {"tls": False, "api_key": None},
        ]
        for update in wrong:
            with pytest.raises(ComponentError, match=f"Temporal at {HOST}:{port}") as caught:
                await connect_temporal(secure.model_copy(update=update))
            assert is_one_line(caught) and "hush" not in str(caught.value)
        client = await connect_temporal(secure)
        assert client.service_client.config.api_key == "hush-hush"
    with pytest.raises(SettingsError, match=r"TEMPORAL__\*_FILE: cannot read /nowhere"):
        await connect_temporal(secure.model_copy(update={"ca_file": Path("/nowhere")}))


async def test_the_archive_with_https_and_a_private_ca(settings, servers, files):
    async with behind_tls(servers.ports["s3"], files) as port:
        fields = {"endpoint": f"https://{HOST}:{port}", "ca_file": files.ca}
        secure = settings.s3.model_copy(update=fields)
        for ca_file in (files.other_ca, None, Path("/nowhere")):
            wrong = secure.model_copy(update={"ca_file": ca_file})
            with pytest.raises(ComponentError, match="S3") as caught:
                await Archive(wrong, 1).check()
            assert is_one_line(caught)
        # Last, when the server has noticed that the others disconnected.
        await Archive(secure, 1).check()


# The web


async def test_the_web_serves_https(settings, files, tmp_path):
    port = free_port()
    fields = {"port": port, "tls_cert_file": files.server_cert, "tls_key_file": files.server_key}
    secure = changed(settings, "web", **fields)
    async with running(secure, tmp_path / "web", LOGFLUME, "web", started="web_started"):
        trusting = ssl.create_default_context(cafile=files.ca)
        async with httpx.AsyncClient(verify=trusting) as client:
            answer = await client.get(f"https://{HOST}:{port}/health/live")
            assert answer.json()["status"] == "ok"
            with pytest.raises(httpx.TransportError):
                await client.get(f"http://{HOST}:{port}/health/live")
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get(f"https://{HOST}:{port}/health/live")


async def test_the_web_exits_with_one_line_if_certificate_and_key_do_not_match(
    settings, files, tmp_path
):
    fields = {"tls_cert_file": files.server_cert, "tls_key_file": files.client_key}
    process = await asyncio.create_subprocess_exec(
        LOGFLUME,
        "web",
        env=environment(changed(settings, "web", **fields), tmp_path / "web"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await process.communicate()
    assert process.returncode == 1
    assert b"LOGFLUME_WEB__TLS_CERT_FILE and TLS_KEY_FILE" in stderr.splitlines()[-1]
