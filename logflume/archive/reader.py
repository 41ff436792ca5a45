"""Reads archived logs from the bucket."""

import hashlib
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import closing
from datetime import datetime
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from logflume.archive.bucket import Bucket, error_status, hold_key, key
from logflume.errors import ComponentError, ContentReplaced, NotArchived


class Digest(NamedTuple):
    """SHA-256 (hex) and size of an object that was read completely."""

    sha256: str
    bytes: int


class ObjectInfo(NamedTuple):
    """Metadata of an object, read without its body.

    `sha256`, `parts` and `origin` are the arguments of `upload`; None if another program or an
    earlier release uploaded the object.
    """

    bytes: int
    etag: str
    changed_at: datetime
    sha256: str | None
    parts: int | None
    origin: str | None


class Reader(Bucket):
    """Reads archived logs."""

    async def digest(self, job_id: int, on_slice: Callable[[bytes], object]) -> Digest | None:
        """Read the whole object and hash it; None if there is no object.

        `on_slice` gets each slice, in the reading thread: handing slices over to another one takes
        longer than hashing them.
        """
        is_cancelled = threading.Event()

        def get_object(**request: Any) -> Digest:
            sha256, size = hashlib.sha256(), 0
            with closing(self._s3.get_object(**request)["Body"]) as body:
                while (data := body.read(self._slice)) and not is_cancelled.is_set():
                    sha256.update(data)
                    on_slice(data)
                    size += len(data)
            return Digest(sha256.hexdigest(), size)

        try:
            digest: Digest = await self._get(get_object, key(job_id))
        except NotArchived:
            return None
        finally:
            is_cancelled.set()
        return digest

    async def head(self, job_id: int) -> ObjectInfo:
        """Read the object's metadata.

        Raises:
            NotArchived: there is no object under the job's key.
        """
        response = await self._get(self._s3.head_object, key(job_id))
        metadata = response["Metadata"]
        return ObjectInfo(
            bytes=response["ContentLength"],
            etag=response["ETag"],
            changed_at=response["LastModified"],
            sha256=metadata.get("sha256"),
            parts=int(metadata["parts"]) if "parts" in metadata else None,
            origin=metadata.get("origin"),
        )

    async def stream(
        self,
        job_id: int,
        *,
        start: int = 0,
        stop: int | None = None,
        sha256: str | None = None,
        etag: str | None = None,
    ) -> AsyncGenerator[bytes]:
        """Read the object in slices, from byte `start` up to but not including `stop`.

        If there is no object, the hold copy with this `sha256` is read.

        Raises:
            NotArchived: there is no object under the job's key.
            ContentReplaced: the object's SHA-256 (hex) or ETag differs.
        """
        part = f"bytes={start}-{'' if stop is None else stop - 1}"
        request = {"Range": part} if part != "bytes=0-" else {}
        if etag:
            request["IfMatch"] = etag
        try:
            response = await self._get(self._s3.get_object, key(job_id), **request)
        except NotArchived:
            if sha256 is None:
                raise
            response = await self._get(self._s3.get_object, hold_key(job_id, sha256), **request)
        except ComponentError as error:
            cause = error.__cause__
            if etag and isinstance(cause, ClientError) and error_status(cause) == 412:
                raise ContentReplaced(f"{key(job_id)} was replaced; read it again") from error
            raise
        if sha256 and response["Metadata"].get("sha256") != sha256:
            raise ContentReplaced(f"{key(job_id)} was replaced; read it again")
        body = response["Body"]
        try:
            while data := await self._call(body.read, self._slice):
                yield data
        finally:
            body.close()
