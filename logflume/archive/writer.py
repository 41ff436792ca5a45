"""Uploads, copies and deletes archived logs; the wire contract fixes the keys and the metadata."""

import base64
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from logflume.archive.bucket import hold_key, key
from logflume.archive.reader import Reader
from logflume.errors import ArchiveRefused, ComponentError, LogflumeError, NotArchived

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import CompletedPartTypeDef

CONTENT_TYPE = "text/plain"
PERMANENT_CODES = {"AccessDenied", "AllAccessDisabled", "InvalidRequest"}
# S3's limit of keys per request.
DELETE_BATCH = 1000

ReadSlice = Callable[[int, int], Awaitable[bytes]]


class Writer(Reader):
    """Uploads, copies and deletes archived logs."""

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

    async def delete(self, job_id: int) -> None:
        """Delete the job's object; idempotent."""
        await self._call(self._s3.delete_object, Bucket=self._bucket, Key=key(job_id))

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
            self._s3.copy_object,
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
