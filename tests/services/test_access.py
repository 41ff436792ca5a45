"""Read access: the token, signed links to one log, and public reads."""

from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from logflume.errors import SettingsError
from tests.support.services import serving
from tests.support.sse import reading
from web.auth import Access, sign_link
from web.streams import feed


@pytest.fixture
async def web(web):
    del web.headers["Authorization"]
    return web


@pytest.fixture
async def stored(store, job_id):
    await store((0, b"text", {"final": True}))
    return job_id


def reads(job_id: int) -> list[str]:
    calls = ("", "/raw", "/id", "/lifecycle", "/outline", "/search?q=x", "/stream", "/timings")
    return [*(f"/logs/{job_id}{call}" for call in calls), f"/log-parts/{job_id}"]


def with_link(path: str, link: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}share={link}"


async def test_a_signed_link_opens_one_log_for_reading(web, settings, stored):
    link = sign_link(settings.web, stored, timedelta(hours=1))
    for path in reads(stored):
        assert (await web.get(path)).status_code == 403, path
        assert (await web.get(with_link(path, link))).status_code == 200, path
    own = [f"/logs/{stored}?by={by}" for by in ("id", "job_id&by=id", "&by=id", "id&by=job_id")]
    for path in [*reads(stored + 1), *own, "/logs", "/logs?job_id=1"]:
        assert (await web.get(with_link(path, link))).status_code == 403, path
    for method, path in (("PUT", f"/logs/{stored}"), ("POST", f"/logs/{stored}/archive")):
        assert (await web.request(method, with_link(path, link))).status_code == 403


@pytest.mark.filterwarnings("ignore:The HMAC key is")
async def test_invalid_links_are_rejected(web, settings, servers, stored):
    secret = settings.web.link_secret.get_secret_value()
    soon = datetime.now(UTC) + timedelta(hours=1)
    good = {"sub": str(stored), "scope": "read", "exp": soon}
    private_key = (servers.data_dir / "jwt_private.pem").read_text()
    wrong = {
        "expired": sign_link(settings.web, stored, -timedelta(seconds=1)),
        "without an expiry": jwt.encode({"sub": str(stored), "scope": "read"}, secret, "HS256"),
        "for another scope": jwt.encode(good | {"scope": "write"}, secret, "HS256"),
        "without a scope": jwt.encode({"sub": str(stored), "exp": soon}, secret, "HS256"),
        "another secret": jwt.encode(good, "x" * 64, "HS256"),
        "not signed": jwt.encode(good, "", "none"),
        "another algorithm": jwt.encode(good, secret, "HS512"),
        "a runner's token": jwt.encode(good, private_key, "RS512"),
        "empty": "",
        "not a JWT": "x.y.z",
    }
    for why, link in wrong.items():
        assert (await web.get(with_link(f"/logs/{stored}/raw", link))).status_code == 403, why


async def test_a_stream_ends_when_its_link_expires(settings, pool, store, job_id, monkeypatch):
    monkeypatch.setattr(feed, "HEARTBEAT_SECONDS", 0.05)
    await store((0, b"text"))
    link = sign_link(settings.web, job_id, timedelta(seconds=3))
    async with serving(settings, pool) as web:
        del web.headers["Authorization"]
        async with reading(web, job_id, query=f"?share={link}") as reader:
            assert [(await reader.next()).name for _ in range(2)] == ["part", "reconnect"]
        assert (await web.get(f"/logs/{job_id}/stream?share={link}")).status_code == 403


async def test_without_a_secret_links_are_rejected(settings, pool, stored):
    bare = settings.web.model_copy(update={"link_secret": None})
    with pytest.raises(SettingsError, match="LINK_SECRET"):
        sign_link(bare, stored, timedelta(hours=1))
    link = sign_link(settings.web, stored, timedelta(hours=1))
    forged = jwt.encode({"sub": str(stored), "scope": "read", "exp": 9e9}, "", "none")
    async with serving(settings, pool, link_secret=None) as web:
        for each in (link, forged):
            path = with_link(f"/logs/{stored}/raw", each)
            assert (await web.get(path, headers={"Authorization": ""})).status_code == 403


async def test_public_reads_open_every_log_and_the_list(settings, pool, stored):
    async with serving(settings, pool, public_reads=True, auth_token=None) as web:
        del web.headers["Authorization"]
        for path in [*reads(stored), "/logs"]:
            assert (await web.get(path)).status_code == 200, path


async def test_only_configured_origins_may_call_the_api(settings, pool, stored):
    origin = {"Origin": "https://ci.example"}
    async with serving(settings, pool) as web:
        response = await web.get(f"/logs/{stored}", headers=origin)
        assert "access-control-allow-origin" not in response.headers
    async with serving(settings, pool, cors_origins=("https://ci.example",)) as web:
        response = await web.get(f"/logs/{stored}", headers=origin)
        assert response.headers["access-control-allow-origin"] == "https://ci.example"
        preflight_headers = origin | {
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization",
        }
        preflight = await web.options(f"/logs/{stored}", headers=preflight_headers)
        assert preflight.status_code == 204
        other = await web.get(f"/logs/{stored}", headers={"Origin": "https://evil.example"})
        assert other.headers.get("access-control-allow-origin") != "https://evil.example"


def test_an_invalid_public_key_is_a_settings_error(settings):
    for pem in ("nope", "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----"):
        with pytest.raises(SettingsError, match="LOGFLUME_WEB__JWT_PUBLIC_KEY is not an RSA"):
            Access(settings.web.model_copy(update={"jwt_public_key": pem}))
    weak = rsa.generate_private_key(65537, 1024).public_key()
    pem = weak.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    with pytest.raises(SettingsError, match="has 1024 bits"):
        Access(settings.web.model_copy(update={"jwt_public_key": pem}))
    escaped = settings.web.jwt_public_key.replace("\n", "\\n")
    Access(settings.web.model_copy(update={"jwt_public_key": escaped}))
