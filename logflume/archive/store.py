"""The archive's S3 bucket; the key and its metadata are the wire contract's.

boto3 blocks, so its calls run in threads of their own.
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
# Answers that the same call may not meet again; every other refusal is for good.
PASSING = {408, 409, 412, 429}
REFUSALS = {"AccessDenied", "AllAccessDisabled", "InvalidRequest"}
# As many as S3 takes in one call.
DELETED_AT_ONCE = 1000
PASSING_CODES = {"BadDigest", "RequestTimeout", "IncompleteBody", "XAmzContentChecksumMismatch"}

ReadSlice = Callable[[int, int], Awaitable[bytes]]


class Digest(NamedTuple):
    """What reading an object to its end showed; SHA-256 in hex."""

    sha256: str
    bytes: int


class Stored(NamedTuple):
    """What the store says of an object that it holds, without reading it.

    `sha256`, `parts` and `origin` are what `upload` was given; None where others put it there, or
    an earlier release of ours.
    """

    bytes: int
    etag: str
    changed_at: datetime
    sha256: str | None
    parts: int | None
    origin: str | None


def key(job_id: int) -> str:
    """The key under which every reader looks for a job's log."""
    return f"{LOGS_PREFIX}{job_id}/log.txt"


def held_prefix(job_id: int) -> str:
    """What the keys of copies begin with that are kept of a log under legal hold.

    Apart from the logs: rules that delete those by age leave these alone.
    """
    return f"holds/{job_id}/"


def held_key(job_id: int, sha256: str) -> str:
    """The key of the copy of what was archived with this SHA-256."""
    return f"{held_prefix(job_id)}{sha256}.txt"


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
            verify=str(settings.ca_file) if settings.ca_file else None,
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
        """Put `size` bytes under the job's key, read and sent a slice at a time.

        The store checks a log of one slice against `sha256` (hex) itself. `origin`: what else the
        object shall carry.
        """
        metadata = {"sha256": sha256, "parts": str(parts)}
        about: dict[str, Any] = {
            "Bucket": self._bucket,
            "Key": key(job_id),
            "ContentType": CONTENT_TYPE,
            "ACL": self._acl,
            "Metadata": metadata if origin is None else metadata | {"origin": origin},
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

    async def digest(self, job_id: int, see: Callable[[bytes], object]) -> Digest | None:
        """Read the object to its end and hash it; None where there is none.

        `see` is shown every piece, in a thread: the one that reads, for to hand a piece over takes
        longer than to hash it.
        """
        given_up = threading.Event()

        def get_object(**about: Any) -> Digest:
            sha256, size = hashlib.sha256(), 0
            with closing(self._s3.get_object(**about)["Body"]) as body:
                while (piece := body.read(self._slice)) and not given_up.is_set():
                    sha256.update(piece)
                    see(piece)
                    size += len(piece)
            return Digest(sha256.hexdigest(), size)

        try:
            found: Digest = await self._find(get_object, key(job_id))
        except NotArchived:
            return None
        finally:
            given_up.set()
        return found

    async def look(self, job_id: int) -> Stored:
        """Ask what the object is like.

        Raises:
            NotArchived: nothing is archived under the job's key.
        """
        found = await self._find(self._s3.head_object, key(job_id))
        carried = found["Metadata"]
        return Stored(
            bytes=found["ContentLength"],
            etag=found["ETag"],
            changed_at=found["LastModified"],
            sha256=carried.get("sha256"),
            parts=int(carried["parts"]) if "parts" in carried else None,
            origin=carried.get("origin"),
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
        """Read the object piece by piece, from byte `start` to before `stop`.

        With `sha256`, where there is no object, the copy that a legal hold keeps.

        Raises:
            NotArchived: nothing is archived under the job's key.
            ContentReplaced: the object was not made of content with this SHA-256 (hex), or is no
                longer the one that the store gave this tag.
        """
        part = f"bytes={start}-{'' if stop is None else stop - 1}"
        about = {"Range": part} if part != "bytes=0-" else {}
        if etag:
            about["IfMatch"] = etag
        try:
            found = await self._find(self._s3.get_object, key(job_id), **about)
        except NotArchived:
            if sha256 is None:
                raise
            found = await self._find(self._s3.get_object, held_key(job_id, sha256), **about)
        except ComponentError as error:
            cause = error.__cause__
            if etag and isinstance(cause, ClientError) and _status(cause) == 412:
                raise ContentReplaced(f"{key(job_id)} holds other content by now") from error
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

    async def delete_many(self, job_ids: Sequence[int]) -> None:
        """Delete the objects of many jobs; those that are not there are fine."""
        await self._delete_keys([key(job_id) for job_id in job_ids])

    async def keep(self, job_id: int) -> str | None:
        """Copy what is archived to where nothing deletes it; returns the key of the copy.

        An object that others put there, without its SHA-256, is named by its ETag. None where
        nothing is archived. A copy that is there is made again.
        """
        try:
            found = await self._find(self._s3.head_object, key(job_id))
        except NotArchived:
            return None
        copy = held_key(job_id, found["Metadata"].get("sha256") or found["ETag"].strip('"'))
        await self._call(
            self._s3.copy_object,
            Bucket=self._bucket,
            Key=copy,
            CopySource={"Bucket": self._bucket, "Key": key(job_id)},
            CopySourceIfMatch=found["ETag"],
        )
        return copy

    async def kept(self, job_id: int) -> list[str]:
        """List the keys of the copies that are kept of a log."""
        found = await self._call(
            self._s3.list_objects_v2, Bucket=self._bucket, Prefix=held_prefix(job_id)
        )
        return [one["Key"] for one in found.get("Contents", ())]

    async def let_go(self, job_id: int) -> None:
        """Delete the copies that are kept of a log."""
        while keys := await self.kept(job_id):
            await self._delete_keys(keys)

    async def _delete_keys(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), DELETED_AT_ONCE):
            objects = [{"Key": key} for key in keys[start : start + DELETED_AT_ONCE]]
            answer = await self._call(
                self._s3.delete_objects,
                Bucket=self._bucket,
                Delete={"Objects": objects, "Quiet": True},
            )
            if wrong := answer.get("Errors"):
                first = f"{wrong[0].get('Key')}: {wrong[0].get('Code')}"
                text = f"{self._name}: {len(wrong)} objects were not deleted, as {first}"
                raise (ArchiveRefused if wrong[0].get("Code") in REFUSALS else ComponentError)(text)

    async def _find(self, function: Callable[..., Any], key: str, **more: Any) -> Any:
        """Call for an object that may not be there, which is no error of the call."""

        @functools.wraps(function)
        def find(**about: Any) -> Any:
            try:
                return function(**about)
            except ClientError as error:
                if _code(error) in {"NoSuchKey", "404"}:
                    return None
                raise

        found = await self._call(find, Bucket=self._bucket, Key=key, **more)
        if found is None:
            raise NotArchived(f"nothing is archived as {key}")
        return found

    async def _call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            with spans.span(f"S3 {function.__name__}"):
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
