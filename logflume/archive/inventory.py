"""Lists the whole bucket and restores logs from their hold copies, for `logflume reconcile`."""

import re
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from logflume.archive.bucket import error_status
from logflume.archive.reader import ObjectInfo
from logflume.archive.store import LOGS_PREFIX, Archive, hold_key, key
from logflume.archive.writer import CONTENT_TYPE
from logflume.domain import Origin
from logflume.errors import ComponentError, NotArchived

HOLDS_PREFIX = "holds/"
# S3's limit of keys per listing.
PAGE_KEYS = 1000
LOG_KEY = re.compile(r"jobs/(0|[1-9][0-9]{0,18})/log\.txt")
HOLD_KEY = re.compile(r"holds/(0|[1-9][0-9]{0,18})/")


class ListedLog(NamedTuple):
    """An archived log in a listing of the bucket."""

    job_id: int
    bytes: int
    changed_at: datetime


class Inventory(Archive):
    """The archive with operations over the whole bucket."""

    async def logs(self, from_job: int | None = None) -> AsyncIterator[Sequence[ListedLog]]:
        """List all archived logs in pages, in key order: 10 before 9.

        `from_job`: start at this job.
        """
        after = "" if from_job is None else f"{LOGS_PREFIX}{from_job}/"
        async for page in self._pages(LOGS_PREFIX, after):
            yield [
                ListedLog(int(match[1]), item["Size"], item["LastModified"])
                for item in page
                if (match := LOG_KEY.fullmatch(item["Key"]))
            ]

    async def held_jobs(self) -> AsyncIterator[set[int]]:
        """List the jobs that have hold copies, in pages."""
        async for page in self._pages(HOLDS_PREFIX, ""):
            matches = [HOLD_KEY.match(item["Key"]) for item in page]
            yield {int(match[1]) for match in matches if match}

    async def has_hold_copy(self, job_id: int, sha256: str) -> bool:
        """Whether there is a hold copy with this SHA-256 (hex)."""
        try:
            await self._get(self._s3.head_object, hold_key(job_id, sha256))
        except NotArchived:
            return False
        return True

    async def restore_hold_copy(self, job_id: int, sha256: str) -> None:
        """Copy a hold copy to the job's key."""
        await self._call(
            self._writes.copy_object,
            Bucket=self._bucket,
            Key=key(job_id),
            CopySource={"Bucket": self._bucket, "Key": hold_key(job_id, sha256)},
            **self._acl,
        )

    async def label(
        self, job_id: int, info: ObjectInfo, sha256: str, parts: int, origin: Origin
    ) -> bool:
        """Write an object's metadata again; False if the object changed since `info` was read."""
        metadata = {"sha256": sha256, "parts": str(parts), "origin": origin.text}
        try:
            await self._call(
                self._writes.copy_object,
                Bucket=self._bucket,
                Key=key(job_id),
                CopySource={"Bucket": self._bucket, "Key": key(job_id)},
                CopySourceIfMatch=info.etag,
                MetadataDirective="REPLACE",
                Metadata=metadata,
                ContentType=CONTENT_TYPE,
                **self._acl,
            )
        except ComponentError as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and error_status(cause) == 412:
                return False
            raise
        return True

    async def _pages(self, prefix: str, after: str) -> AsyncIterator[Sequence[Any]]:
        while True:
            response = await self._call(
                self._s3.list_objects_v2,
                Bucket=self._bucket,
                Prefix=prefix,
                StartAfter=after,
                MaxKeys=PAGE_KEYS,
            )
            page = response.get("Contents", ())
            yield page
            if not response["IsTruncated"]:
                return
            after = page[-1]["Key"]
