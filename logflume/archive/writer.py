"""Uploads, copies and deletes archived logs; the wire contract fixes the keys and the metadata."""

import base64
import hashlib
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from botocore.exceptions import ClientError

from logflume.archive.bucket import RETRYABLE_CODES, error_code, error_status, hold_key, key
from logflume.archive.reader import Reader
from logflume.errors import (
    ArchiveChanged,
    ArchiveRefused,
    ComponentError,
    LogflumeError,
    NotArchived,
)

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import CompletedPartTypeDef

CONTENT_TYPE = "text/plain"
# Not under LOGS_PREFIX: never taken for a log.
PROBE_PREFIX = "logflume-probe/"
NO_SUCH_ETAG = '"00000000000000000000000000000000"'
PERMANENT_CODES = {"AccessDenied", "AllAccessDisabled", "InvalidRequest"}
# S3's limit of keys per request.
DELETE_BATCH = 1000
# Statuses of requests that a store does not implement, or not in this form.
UNSUPPORTED = {400, 405, 411, 501}

ReadSlice = Callable[[int, int], Awaitable[bytes]]
Support = Literal["unknown", "enforced", "ignored", "refused"]


class Conditions(NamedTuple):
    """How the store handles conditional writes (If-None-Match, If-Match)."""

    put: Support
    multipart: Support

    @property
    def are_enforced(self) -> bool:
        """Whether a late upload can never overwrite a newer object."""
        return self.put == self.multipart == "enforced"


class Writer(Reader):
    """Uploads, copies and deletes archived logs.

    `conditions` is assumed until `probe_conditions` finds out.
    """

    conditions = Conditions("enforced", "enforced")

    async def probe_conditions(self) -> Conditions:
        """Find out how the store handles conditional writes, with a probe object."""
        self.conditions = Conditions("unknown", "unknown")
        target = {"Bucket": self._bucket, "Key": f"{PROBE_PREFIX}{uuid.uuid4()}"}
        put = self._writes.put_object
        await self._call(put, **target, Body=b"probe")
        try:
            first = await self._support(put, **target, Body=b"first", IfNoneMatch="*")
            later = await self._support(put, **target, Body=b"later", IfMatch=NO_SUCH_ETAG)
            multipart = await self._probe_multipart(target)
        finally:
            await self._call(self._writes.delete_object, **target)
        self.conditions = Conditions(first if first != "enforced" else later, multipart)
        return self.conditions

    async def _probe_multipart(self, target: dict[str, Any]) -> Support:
        created = await self._call(self._writes.create_multipart_upload, **target)
        upload = target | {"UploadId": created["UploadId"]}
        sent = await self._call(self._writes.upload_part, **upload, PartNumber=1, Body=b"multipart")
        support = await self._support(
            self._writes.complete_multipart_upload,
            **upload,
            MultipartUpload={"Parts": [{"ETag": sent["ETag"], "PartNumber": 1}]},
            IfNoneMatch="*",
        )
        if support != "ignored":
            with suppress(LogflumeError):
                await self._call(self._writes.abort_multipart_upload, **upload)
        return support

    async def _support(self, write: Callable[..., Any], **request: Any) -> Support:
        """Send a write whose condition is not met."""
        try:
            await self._call(write, **request)
        except (ComponentError, ArchiveRefused) as error:
            cause = error.__cause__
            if isinstance(cause, ClientError):
                if error_status(cause) == 412:
                    return "enforced"
                if error_status(cause) in (400, 501):
                    return "refused"
            raise
        return "ignored"

    async def upload(  # noqa: PLR0913
        self,
        job_id: int,
        read: ReadSlice,
        size: int,
        *,
        sha256: str,
        parts: int,
        origin: str | None = None,
        etag: str | None = None,
    ) -> None:
        """Upload `size` bytes to the job's key, one slice at a time.

        If the log fits into one slice, the store verifies `sha256` (hex). `origin` is stored in
        the metadata. `etag`: of the object to overwrite; None: there must not be one.

        Raises:
            ArchiveChanged: there is another object than expected.
        """
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        metadata = {"sha256": sha256, "parts": str(parts)}
        target = self._request(
            key(job_id), metadata if origin is None else metadata | {"origin": origin}
        )
        if size > self._slice:
            await self._upload_slices(target, read, size, condition)
            return
        if self.conditions.put != "refused":
            target |= condition
        await self._put(target | {"Body": await read(0, size)}, sha256)

    def _request(self, key: str, metadata: dict[str, str]) -> dict[str, Any]:
        """The arguments of an upload to this key, except for its body."""
        return {
            "Bucket": self._bucket,
            "Key": key,
            "ContentType": CONTENT_TYPE,
            "Metadata": metadata,
            **self._acl,
        }

    async def _put(self, request: dict[str, Any], sha256: str) -> None:
        """Upload a small object with its SHA-256, or its MD5 if the store refuses that header."""
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        try:
            await self._write(self._writes.put_object, **request, ChecksumSHA256=checksum)
        except (ComponentError, ArchiveRefused) as error:
            if not _is_unsupported(error):
                raise
            await self._write(self._writes.put_object, **request, ContentMD5=_md5(request["Body"]))

    async def _upload_slices(
        self, target: dict[str, Any], read: ReadSlice, size: int, condition: dict[str, str]
    ) -> None:
        created = await self._call(self._writes.create_multipart_upload, **target)
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
                    self._writes.upload_part,
                    **upload,
                    PartNumber=number,
                    Body=body,
                    ContentMD5=await self._run(_md5, body),
                )
                done.append({"ETag": sent["ETag"], "PartNumber": number})
            await self._write(
                self._writes.complete_multipart_upload,
                **upload,
                **condition if self.conditions.multipart != "refused" else {},
                MultipartUpload={"Parts": done},
            )
        except BaseException:
            # S3 bills an incomplete upload until it is aborted.
            with suppress(LogflumeError):
                await self._call(self._writes.abort_multipart_upload, **upload)
            raise

    async def _write(self, write: Callable[..., Any], **request: Any) -> None:
        """Send a conditional write; raises ArchiveChanged if its condition is not met."""
        try:
            await self._call(write, **request)
        except (ComponentError, ArchiveRefused) as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and (
                error_status(cause) == 412 or error_code(cause) == "NoSuchKey"
            ):
                raise ArchiveChanged(
                    f"{self._name}: another request changed {request['Key']} meanwhile"
                ) from error
            raise

    async def delete(self, job_id: int, etag: str | None = None) -> None:
        """Delete the job's object; with `etag`, only if that is still its ETag.

        Raises:
            ArchiveChanged: it has another one; stores that ignore this condition delete it.
        """
        condition = {"IfMatch": etag} if etag and self.conditions.are_enforced else {}
        await self._write(
            self._writes.delete_object, Bucket=self._bucket, Key=key(job_id), **condition
        )

    async def delete_many(self, job_ids: Sequence[int]) -> None:
        """Delete the objects of many jobs; idempotent."""
        await self._delete_keys([key(job_id) for job_id in job_ids])

    async def copy_to_hold(self, job_id: int) -> str | None:
        """Copy the object to the log's hold prefix; returns the copy's key, None without an object.

        The copy is named by the object's SHA-256; an object without that metadata is read. An
        existing copy is overwritten.
        """
        try:
            info = await self.head(job_id)
            sha256 = info.sha256 or (await self._digest(key(job_id))).sha256
        except NotArchived:
            return None
        copy = hold_key(job_id, sha256)
        await self._call(
            self._writes.copy_object,
            Bucket=self._bucket,
            Key=copy,
            CopySource={"Bucket": self._bucket, "Key": key(job_id)},
            CopySourceIfMatch=info.etag,
        )
        return copy

    async def delete_hold_copies(self, job_id: int) -> None:
        """Delete a log's hold copies; idempotent."""
        while keys := await self.hold_copies(job_id):
            await self._delete_keys(keys)

    async def _delete_keys(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), DELETE_BATCH):
            batch = keys[start : start + DELETE_BATCH]
            if not await self._delete_batch(batch):
                for one in batch:
                    await self._call(self._writes.delete_object, Bucket=self._bucket, Key=one)

    async def _delete_batch(self, keys: Sequence[str]) -> bool:
        """Delete objects by one request; False if the store refuses requests of this kind.

        Some stores demand a Content-MD5 that the SDK does not send, others do not know it at all.
        """
        try:
            response = await self._call(
                self._writes.delete_objects,
                Bucket=self._bucket,
                Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True},
            )
        except (ComponentError, ArchiveRefused) as error:
            if not _is_unsupported(error):
                raise
            return False
        if errors := response.get("Errors"):
            code = errors[0].get("Code")
            is_permanent = code in PERMANENT_CODES
            raise (ArchiveRefused if is_permanent else ComponentError)(
                f"{self._name}: cannot delete {len(errors)} objects, the first is "
                f"{errors[0].get('Key')}: {code}"
            )
        return True


def _is_unsupported(error: Exception) -> bool:
    """Whether the store may accept the request in another form."""
    cause = error.__cause__
    return (
        isinstance(cause, ClientError)
        and error_status(cause) in UNSUPPORTED
        and error_code(cause) not in RETRYABLE_CODES
    )


def _md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
