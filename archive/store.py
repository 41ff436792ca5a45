"""The archive's S3 bucket; the key and its metadata are the wire contract's.

boto3 blocks, so its calls run in threads of their own.
"""

import asyncio
import base64
import functools
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from errors import (
    ArchiveRefused,
    ComponentError,
    ContentReplaced,
    LogflumeError,
    NotArchived,
)
from settings.groups import S3Settings

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import CompletedPartTypeDef

CONTENT_TYPE = "text/plain"
# Answers that the same call may not meet again; every other refusal is for good.
PASSING = {408, 409, 412, 429}
PASSING_CODES = {"BadDigest", "RequestTimeout", "IncompleteBody", "XAmzContentChecksumMismatch"}

ReadSlice = Callable[[int, int], Awaitable[bytes]]


class Digest(NamedTuple):
    """What reading an object to its end showed; SHA-256 in hex."""

    sha256: str
    bytes: int


class Held(NamedTuple):
    """What the store says of an object that it holds, without reading it."""

    bytes: int
    etag: str


def key(job_id: int) -> str:
    """The key under which every reader looks for a job's log."""
    return f"jobs/{job_id}/log.txt"


class Archive:
    """Uploads, reads and deletes archived logs.

    Every method raises ComponentError where the store is out of reach or has trouble (another try
    may help) and ArchiveRefused where it says no (it will not).
    """

    def __init__(self, settings: S3Settings, threads: int) -> None:
        self._bucket = settings.bucket
        self._acl: Any = settings.acl
        self._slice = settings.slice_bytes
        self._name = f"S3 bucket {settings.bucket} at {settings.endpoint or 'AWS'}"
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="archive")
        secret_key = settings.secret_key.get_secret_value() if settings.secret_key else None
        self._s3 = boto3.client(
            "s3",
            endpoint_url=settings.endpoint,
            region_name=settings.region,
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=secret_key,
            config=Config(
                connect_timeout=5,
                read_timeout=60,
                max_pool_connections=threads,
                # Temporal tries again, where it can be seen.
                retries={"total_max_attempts": 2, "mode": "standard"},
                s3={"addressing_style": "path" if settings.endpoint else "auto"},
            ),
        )

    async def check(self) -> None:
        """Find out whether the bucket is there and ours."""
        await self._call(self._s3.head_bucket, Bucket=self._bucket)

    async def upload(
        self, job_id: int, read: ReadSlice, size: int, *, sha256: str, parts: int
    ) -> None:
        """Put `size` bytes under the job's key, read and sent a slice at a time.

        The store checks a log of one slice against `sha256` (hex) itself.
        """
        about: dict[str, Any] = {
            "Bucket": self._bucket,
            "Key": key(job_id),
            "ContentType": CONTENT_TYPE,
            "ACL": self._acl,
            "Metadata": {"sha256": sha256, "parts": str(parts)},
        }
        if size > self._slice:
            await self._upload_slices(about, read, size)
            return
        body = await read(0, size)
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        await self._call(self._s3.put_object, **about, Body=body, ChecksumSHA256=checksum)

    async def _upload_slices(self, about: dict[str, Any], read: ReadSlice, size: int) -> None:
        begun = await self._call(self._s3.create_multipart_upload, **about)
        place: dict[str, Any] = {
            "Bucket": about["Bucket"],
            "Key": about["Key"],
            "UploadId": begun["UploadId"],
        }
        try:
            done: list[CompletedPartTypeDef] = []
            for number, start in enumerate(range(0, size, self._slice), 1):
                body = await read(start, self._slice)
                sent = await self._call(self._s3.upload_part, **place, PartNumber=number, Body=body)
                done.append({"ETag": sent["ETag"], "PartNumber": number})
            await self._call(
                self._s3.complete_multipart_upload, **place, MultipartUpload={"Parts": done}
            )
        except BaseException:
            # Half an upload is paid for until someone removes it.
            with suppress(LogflumeError):
                await self._call(self._s3.abort_multipart_upload, **place)
            raise

    async def digest(self, job_id: int) -> Digest | None:
        """Read the object to its end and hash it; None where there is none."""
        sha256, size = hashlib.sha256(), 0
        try:
            async for piece in self.stream(job_id):
                await self._run(sha256.update, piece)
                size += len(piece)
        except NotArchived:
            return None
        return Digest(sha256.hexdigest(), size)

    async def look(self, job_id: int) -> Held:
        """Ask how long the object is, and for the store's own tag of its bytes.

        Raises:
            NotArchived: nothing is archived under the job's key.
        """
        try:
            found = await self._call(self._s3.head_object, Bucket=self._bucket, Key=key(job_id))
        except ArchiveRefused as error:
            if isinstance(error.__cause__, ClientError) and _code(error.__cause__) == "404":
                raise NotArchived(f"nothing is archived as {key(job_id)}") from None
            raise
        return Held(found["ContentLength"], found["ETag"])

    async def stream(
        self,
        job_id: int,
        *,
        start: int = 0,
        stop: int | None = None,
        sha256: str | None = None,
        etag: str | None = None,
    ) -> AsyncGenerator[bytes]:
        """Read the object piece by piece, from byte `start` to before `stop`.

        Raises:
            NotArchived: nothing is archived under the job's key.
            ContentReplaced: the object was not made of content with this SHA-256 (hex), or is no
                longer the one that the store gave this tag.
        """
        part = f"bytes={start}-{'' if stop is None else stop - 1}"
        try:
            found = await self._call(
                self._s3.get_object,
                Bucket=self._bucket,
                Key=key(job_id),
                **({"Range": part} if part != "bytes=0-" else {}),
                **({"IfMatch": etag} if etag else {}),
            )
        except ComponentError as error:
            if (
                etag
                and isinstance(error.__cause__, ClientError)
                and _status(error.__cause__) == 412
            ):
                raise ContentReplaced(f"{key(job_id)} holds other content by now") from error
            raise
        except ArchiveRefused as error:
            if isinstance(error.__cause__, ClientError) and _code(error.__cause__) == "NoSuchKey":
                raise NotArchived(f"nothing is archived as {key(job_id)}") from None
            raise
        if sha256 and found["Metadata"].get("sha256") != sha256:
            raise ContentReplaced(f"{key(job_id)} holds other content by now")
        body = found["Body"]
        try:
            while piece := await self._call(body.read, self._slice):
                yield piece
        finally:
            body.close()

    async def delete(self, job_id: int) -> None:
        """Delete the job's object; one that is not there is fine."""
        await self._call(self._s3.delete_object, Bucket=self._bucket, Key=key(job_id))

    async def _call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            return await self._run(function, *arguments, **named)
        except ClientError as error:
            status = _status(error)
            text = f"{self._name}: {error}"
            if status >= 500 or status in PASSING or _code(error) in PASSING_CODES:
                raise ComponentError(text) from error
            raise ArchiveRefused(text) from error
        except (BotoCoreError, OSError) as error:
            raise ComponentError(f"{self._name}: {error}") from error

    async def _run(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        call = functools.partial(function, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _code(error: ClientError) -> str:
    return error.response["Error"]["Code"]


def _status(error: ClientError) -> int:
    return error.response["ResponseMetadata"]["HTTPStatusCode"]
