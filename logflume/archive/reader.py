"""Reads archived logs from the bucket."""

import asyncio
import hashlib
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, closing
from datetime import datetime
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import structlog
from botocore.exceptions import ClientError

from logflume.archive.bucket import Bucket, error_status, hold_key, key
from logflume.errors import (
    ArchiveDiffers,
    ArchiveRefused,
    ComponentError,
    ContentReplaced,
    NotArchived,
)
from logflume.settings.servers import S3Settings

log = structlog.get_logger()

# How many SHA-256s of objects without that metadata are remembered.
DIGESTS = 10_000
# How often an object is read completely if it is replaced each time.
DIGEST_TRIES = 3


class Digest(NamedTuple):
    """SHA-256 (hex) and size of an object that was read completely."""

    sha256: str
    bytes: int


class ObjectInfo(NamedTuple):
    """Metadata of an object, read without its body.

    `sha256`, `parts` and `origin` are the arguments of `upload`; None if another program or an
    earlier release uploaded the object, or a copy or a proxy dropped its metadata.
    """

    bytes: int
    etag: str
    changed_at: datetime
    sha256: str | None
    parts: int | None
    origin: str | None


# Identifies one version of an object: its key, ETag and time.
Version = tuple[str, str, datetime]


class Reader(Bucket):
    """Reads archived logs.

    An object is the log if its bytes have the log's SHA-256. Its metadata states it; copies and
    proxies may drop or rename metadata, and such an object is read completely once per version and
    process.
    """

    def __init__(self, settings: S3Settings, threads: int) -> None:
        super().__init__(settings, threads)
        self._digests = OrderedDict[Version, str]()
        self._locks = WeakValueDictionary[str, asyncio.Lock]()

    async def digest(self, job_id: int, on_slice: Callable[[bytes], object]) -> Digest | None:
        """Read the whole object and hash it; None if there is no object.

        `on_slice` gets each slice, in the reading thread: handing slices over to another one takes
        longer than hashing them.
        """
        try:
            return await self._digest(key(job_id), on_slice)
        except NotArchived:
            return None

    async def _digest(self, key: str, on_slice: Callable[[bytes], object] | None = None) -> Digest:
        is_cancelled = threading.Event()

        def get_object(**request: Any) -> tuple[Version, Digest]:
            sha256, size = hashlib.sha256(), 0
            response = self._s3.get_object(**request)
            with closing(response["Body"]) as body:
                while (data := body.read(self._slice)) and not is_cancelled.is_set():
                    sha256.update(data)
                    if on_slice:
                        on_slice(data)
                    size += len(data)
            return _version(key, response), Digest(sha256.hexdigest(), size)

        try:
            found: tuple[Version, Digest] = await self._get(get_object, key)
        finally:
            is_cancelled.set()
        version, digest = found
        self._digests[version] = digest.sha256
        while len(self._digests) > DIGESTS:
            self._digests.popitem(last=False)
        return digest

    async def head(self, job_id: int) -> ObjectInfo:
        """Read the object's metadata.

        Raises:
            NotArchived: there is no object under the job's key.
        """
        response = await self._get(self._s3.head_object, key(job_id))
        metadata = metadata_of(response)
        parts = metadata.get("parts", "")
        return ObjectInfo(
            bytes=response["ContentLength"],
            etag=response["ETag"],
            changed_at=response["LastModified"],
            sha256=metadata.get("sha256"),
            parts=int(parts) if parts.isdecimal() else None,
            origin=metadata.get("origin"),
        )

    async def stream(  # noqa: PLR0913
        self,
        job_id: int,
        *,
        start: int = 0,
        stop: int | None = None,
        sha256: str | None = None,
        size: int | None = None,
        etag: str | None = None,
    ) -> AsyncGenerator[bytes]:
        """Read the object in slices, from byte `start` up to but not including `stop`.

        If there is no object, the hold copy with this `sha256` is read.

        Raises:
            NotArchived: there is no object under the job's key.
            ArchiveDiffers: the object's SHA-256 (hex) or size differs.
            ContentReplaced: its ETag differs, or it was replaced repeatedly while it was read.
        """
        part = f"bytes={start}-{'' if stop is None else stop - 1}"
        request = {"Range": part} if part != "bytes=0-" else {}
        if etag:
            request["IfMatch"] = etag
        try:
            response = await self._find(key(job_id), sha256, size, request)
        except NotArchived as missing:
            if sha256 is None:
                raise
            try:
                response = await self._find(hold_key(job_id, sha256), sha256, size, request)
            except NotArchived:
                raise missing from None
        # A store or a cache may ignore the range and send everything.
        begin = 0 if "Range" in request and "ContentRange" not in response else start
        async with aclosing(self._slices(response["Body"])) as slices:
            async for data in slices:
                if piece := data[max(start - begin, 0) : None if stop is None else stop - begin]:
                    yield piece
                begin += len(data)
                if stop is not None and begin >= stop:
                    return

    async def _slices(self, body: Any) -> AsyncGenerator[bytes]:
        try:
            while data := await self._call(body.read, self._slice):
                yield data
        finally:
            body.close()

    async def _find(
        self, key: str, sha256: str | None, size: int | None, request: dict[str, str]
    ) -> Any:
        """Start to read an object if it has this SHA-256 and size."""
        for _ in range(DIGEST_TRIES):
            response = await self._start(key, request)
            if sha256 is None:
                return response
            if size in (None, total := _total(response)):
                if metadata_of(response).get("sha256") == sha256:
                    return response
                found = self._digests.get(_version(key, response))
                if found == sha256:
                    return response
            else:
                found = f"{total} bytes"
            # Not held while all of it is read: the store might close an idle connection.
            response["Body"].close()
            if found:
                raise ArchiveDiffers(
                    f"the archived object {key} is not the log: expected {_text(size, sha256)}, "
                    f"found {found}"
                )
            async with self._locks.setdefault(key, asyncio.Lock()):
                if _version(key, response) not in self._digests:
                    log.warning(
                        "archive_metadata_missing",
                        key=key,
                        reason="the object has no SHA-256 of this log; reading it completely",
                        hint="run `logflume reconcile --read --repair`",
                    )
                    await self._digest(key)
        raise ContentReplaced(f"{key} was replaced; read it again")

    async def _start(self, key: str, request: dict[str, str]) -> Any:
        try:
            return await self._get(self._s3.get_object, key, **request)
        except (ComponentError, ArchiveRefused) as error:
            cause = error.__cause__
            status = error_status(cause) if isinstance(cause, ClientError) else None
            if status == 412 and "IfMatch" in request:
                raise ContentReplaced(f"{key} was replaced; read it again") from error
            if status == 416:
                raise ArchiveDiffers(
                    f"the archived object {key} is not the log: it ends before the requested range"
                ) from error
            raise


def metadata_of(response: Any) -> dict[str, str]:
    """The user metadata; stores and proxies may change the case of its names."""
    return {name.lower(): value for name, value in response["Metadata"].items()}


def _version(key: str, response: Any) -> Version:
    return key, response["ETag"], response["LastModified"]


def _total(response: Any) -> int:
    """The size of an object, from the response to a read of a range or of all of it."""
    _, _, total = response.get("ContentRange", "").rpartition("/")
    return int(total) if total.isdecimal() else response["ContentLength"]


def _text(size: int | None, sha256: str) -> str:
    return f"SHA-256 {sha256}" if size is None else f"{size} bytes with SHA-256 {sha256}"
