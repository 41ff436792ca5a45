"""How other stores, and buckets that are set up otherwise, answer; for the proxy."""

import asyncio
from collections.abc import Callable

from aiohttp import web
from multidict import CIMultiDict

from logflume.settings import Settings
from tests.support.s3 import s3
from tests.support.s3_proxy import CHECKSUMS, Answer, Forward, Trouble, error_response

META = "x-amz-meta-"


def _headers(change: Callable[[CIMultiDict[str]], CIMultiDict[str]]) -> Trouble:
    async def answer(request: web.Request, forward: Forward) -> web.StreamResponse:
        said = await forward()
        said.headers = change(said.headers)
        return said.again(request)

    return answer


def _without(*prefixes: str) -> Trouble:
    def change(headers: CIMultiDict[str]) -> CIMultiDict[str]:
        rest = [(n, v) for n, v in headers.items() if not n.lower().startswith(prefixes)]
        return CIMultiDict(rest)

    return _headers(change)


def _titled(headers: CIMultiDict[str]) -> CIMultiDict[str]:
    return CIMultiDict(
        (name.title() if name.lower().startswith(META) else name, value)
        for name, value in headers.items()
    )


# Objects were copied by a tool that carries no user metadata.
no_metadata = _without(META)
# Names of user metadata are written as Go and many proxies do: X-Amz-Meta-Sha256.
titled_metadata = _headers(_titled)
no_checksums = _without(*CHECKSUMS)


async def cold(request: web.Request, forward: Forward) -> web.StreamResponse:
    """A lifecycle rule moved the objects to a cold storage class."""
    if request.method != "GET" or "list-type" in request.query:
        return (await forward()).again(request)
    return await error_response(403, "InvalidObjectState")(request, forward)


async def no_list_bucket(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The key may read, write and delete objects, not list the bucket: a missing one is a 403."""
    is_bucket = request.path.strip("/").count("/") == 0
    said = await forward()
    if request.method in {"GET", "HEAD"} and (is_bucket or said.status == 404):
        return await error_response(403, "AccessDenied")(request, forward)
    return said.again(request)


def range_ignored(settings: Settings) -> Trouble:
    """The store, or a cache before it, sends whole objects."""

    async def answer(request: web.Request, forward: Forward) -> web.StreamResponse:
        said = await forward()
        if said.status == 206:
            bucket, key = request.path.strip("/").split("/", 1)
            whole = await asyncio.to_thread(s3(settings).get_object, Bucket=bucket, Key=key)
            said = Answer(200, said.headers, whole["Body"].read())
            for name in ("Content-Range", *CHECKSUMS):
                said.headers.pop(name, None)
        return said.again(request)

    return answer


def _refusing(status: int, code: str, does_refuse: Callable[[web.Request], bool]) -> Trouble:
    async def answer(request: web.Request, forward: Forward) -> web.StreamResponse:
        if does_refuse(request):
            return await error_response(status, code)(request, forward)
        return (await forward()).again(request)

    return answer


# Bodies are neither chunked nor followed by a checksum, and no checksum header is known.
no_new_checksums = _refusing(
    501,
    "NotImplemented",
    lambda request: any(
        name.lower().startswith(("x-amz-checksum-", "x-amz-trailer", "x-amz-sdk-checksum"))
        and name.lower() != "x-amz-checksum-mode"
        for name in request.headers
    ),
)
deletions_need_md5 = _refusing(
    400,
    "MissingContentMD5",
    lambda request: "delete" in request.query and "Content-MD5" not in request.headers,
)
no_acls = _refusing(400, "AccessControlListNotSupported", lambda r: "x-amz-acl" in r.headers)
no_versioning_query = _refusing(403, "AccessDenied", lambda r: "versioning" in r.query)


async def versioned(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The bucket has versions."""
    if "versioning" not in request.query:
        return (await forward()).again(request)
    body = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    return web.Response(text=body, content_type="application/xml")


async def conditions_ignored(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The store executes a write whatever its condition."""
    if request.method in {"PUT", "POST"} and {"If-Match", "If-None-Match"} & set(request.headers):
        await request.read()
        body = "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
        return web.Response(text=body if request.method == "POST" else "", headers={"ETag": "e"})
    return (await forward()).again(request)
