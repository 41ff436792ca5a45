"""Stores archived logs in an S3 bucket; the wire contract fixes the keys and the metadata.

boto3 blocks, so its calls run in a thread pool.
"""

import asyncio
import base64
import functools
import hashlib
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from logflume.errors import (
    ArchiveRefused,
    ComponentError,
    ContentReplaced,
    LogflumeError,
    NotArchived,
)
from logflume.observability import spans
from logflume.settings.groups import S3Settings

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import CompletedPartTypeDef

CONTENT_TYPE = "text/plain"
LOGS_PREFIX = "jobs/"
# Client errors that are worth a retry; all others are permanent.
RETRYABLE_STATUSES = {408, 409, 412, 429}
RETRYABLE_CODES = {"BadDigest", "RequestTimeout", "IncompleteBody", "XAmzContentChecksumMismatch"}
PERMANENT_CODES = {"AccessDenied", "AllAccessDisabled", "InvalidRequest"}
# S3's limit of keys per request.
DELETE_BATCH = 1000

ReadSlice = Callable[[int, int], Awaitable[bytes]]


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


def key(job_id: int) -> str:
    """The key of a job's log."""
    return f"{LOGS_PREFIX}{job_id}/log.txt"


def hold_prefix(job_id: int) -> str:
    """The key prefix of a log's copies under legal hold.

    Not under LOGS_PREFIX, so bucket rules that expire logs do not match it.
    """
    return f"holds/{job_id}/"


def hold_key(job_id: int, sha256: str) -> str:
    """The key of the hold copy of content with this SHA-256 (hex)."""
    return f"{hold_prefix(job_id)}{sha256}.txt"


class Archive:
    """Uploads, reads and deletes archived logs.

    Every method raises ComponentError if the store is unreachable or fails (retry) and
    ArchiveRefused if it refuses the request (permanent).
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
            verify=str(settings.ca_file) if settings.ca_file else None,
            region_name=settings.region,
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=secret_key,
            config=Config(
                connect_timeout=5,
                read_timeout=60,
                max_pool_connections=threads,
                # Temporal retries too, and its retries are visible.
                retries={"total_max_attempts": 2, "mode": "standard"},
                s3={"addressing_style": "path" if settings.endpoint else "auto"},
            ),
        )

    async def check(self) -> None:
        """Check that the bucket exists and is accessible."""
        await self._call(self._s3.head_bucket, Bucket=self._bucket)

    async def upload(  # noqa: PLR0913
        self,
        job_id: int,
        read: ReadSlice,
        size: int,
        *,
        sha256: str,
        parts: int,
        origin: str | None = None,
    ) -> None:
        """Upload `size` bytes to the job's key, one slice at a time.

        If the log fits into one slice, the store verifies `sha256` (hex). `origin` is stored in
        the metadata.
        """
        metadata = {"sha256": sha256, "parts": str(parts)}
        target: dict[str, Any] = {
            "Bucket": self._bucket,
            "Key": key(job_id),
            "ContentType": CONTENT_TYPE,
            "ACL": self._acl,
            "Metadata": metadata if origin is None else metadata | {"origin": origin},
        }
        if size > self._slice:
            await self._upload_slices(target, read, size)
            return
        body = await read(0, size)
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        await self._call(self._s3.put_object, **target, Body=body, ChecksumSHA256=checksum)

    async def _upload_slices(self, target: dict[str, Any], read: ReadSlice, size: int) -> None:
        created = await self._call(self._s3.create_multipart_upload, **target)
        upload: dict[str, Any] = {
            "Bucket": target["Bucket"],
            "Key": target["Key"],
            "UploadId": created["UploadId"],
        }
        try:
            done: list[CompletedPartTypeDef] = []
            for number, start in enumerate(range(0, size, self._slice), 1):
                body = await read(start, self._slice)
                sent = await self._call(
                    self._s3.upload_part, **upload, PartNumber=number, Body=body
                )
                done.append({"ETag": sent["ETag"], "PartNumber": number})
            await self._call(
                self._s3.complete_multipart_upload, **upload, MultipartUpload={"Parts": done}
            )
        except BaseException:
            # S3 bills an incomplete upload until it is aborted.
            with suppress(LogflumeError):
                await self._call(self._s3.abort_multipart_upload, **upload)
            raise

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
            if etag and isinstance(cause, ClientError) and _status(cause) == 412:
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

    async def delete(self, job_id: int) -> None:
        """Delete the job's object; idempotent."""
        await self._call(self._s3.delete_object, Bucket=self._bucket, Key=key(job_id))

    async def delete_many(self, job_ids: Sequence[int]) -> None:
        """Delete the objects of many jobs; idempotent."""
        await self._delete_keys([key(job_id) for job_id in job_ids])

    async def copy_to_hold(self, job_id: int) -> str | None:
        """Copy the object to the log's hold prefix; returns the copy's key, None without an object.

        The copy of an object without SHA-256, uploaded by another program, is named by its ETag.
        An existing copy is overwritten.
        """
        try:
            response = await self._get(self._s3.head_object, key(job_id))
        except NotArchived:
            return None
        copy = hold_key(job_id, response["Metadata"].get("sha256") or response["ETag"].strip('"'))
        await self._call(
            self._s3.copy_object,
            Bucket=self._bucket,
            Key=copy,
            CopySource={"Bucket": self._bucket, "Key": key(job_id)},
            CopySourceIfMatch=response["ETag"],
        )
        return copy

    async def hold_copies(self, job_id: int) -> list[str]:
        """List the keys of a log's hold copies."""
        response = await self._call(
            self._s3.list_objects_v2, Bucket=self._bucket, Prefix=hold_prefix(job_id)
        )
        return [item["Key"] for item in response.get("Contents", ())]

    async def delete_hold_copies(self, job_id: int) -> None:
        """Delete a log's hold copies; idempotent."""
        while keys := await self.hold_copies(job_id):
            await self._delete_keys(keys)

    async def _delete_keys(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), DELETE_BATCH):
            objects = [{"Key": key} for key in keys[start : start + DELETE_BATCH]]
            response = await self._call(
                self._s3.delete_objects,
                Bucket=self._bucket,
                Delete={"Objects": objects, "Quiet": True},
            )
            if errors := response.get("Errors"):
                code = errors[0].get("Code")
                is_permanent = code in PERMANENT_CODES
                raise (ArchiveRefused if is_permanent else ComponentError)(
                    f"{self._name}: cannot delete {len(errors)} objects, the first is "
                    f"{errors[0].get('Key')}: {code}"
                )

    async def _get(self, function: Callable[..., Any], key: str, **more: Any) -> Any:
        """Call `function` for an object; raises NotArchived, outside the span, if it is missing."""

        @functools.wraps(function)
        def get(**request: Any) -> Any:
            try:
                return function(**request)
            except ClientError as error:
                if _code(error) in {"NoSuchKey", "404"}:
                    return None
                raise

        response = await self._call(get, Bucket=self._bucket, Key=key, **more)
        if response is None:
            raise NotArchived(f"the archive has no object {key}")
        return response

    async def _call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            with spans.span(f"S3 {function.__name__}"):
                return await self._run(function, *arguments, **named)
        except ClientError as error:
            status = _status(error)
            text = f"{self._name}: {error}"
            if status >= 500 or status in RETRYABLE_STATUSES or _code(error) in RETRYABLE_CODES:
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
