"""Going through all that the bucket holds, and putting back what is held of lost logs."""

import re
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from logflume.archive.store import LOGS_PREFIX, Archive, held_key, key
from logflume.errors import NotArchived

HOLDS_PREFIX = "holds/"
# As the store lists them at once.
PAGE_KEYS = 1000
LOG_KEY = re.compile(r"jobs/(0|[1-9][0-9]{0,18})/log\.txt")
HELD_KEY = re.compile(r"holds/(0|[1-9][0-9]{0,18})/")


class Listed(NamedTuple):
    """An archived log as the list of the bucket has it."""

    job_id: int
    bytes: int
    changed_at: datetime


class Inventory(Archive):
    """The archive, for who goes through all of it."""

    async def logs(self, from_job: int | None = None) -> AsyncIterator[Sequence[Listed]]:
        """List all archived logs, page by page, in the order of their keys: 10 before 9.

        `from_job`: only from this job on.
        """
        after = "" if from_job is None else f"{LOGS_PREFIX}{from_job}/"
        async for page in self._pages(LOGS_PREFIX, after):
            found = [(LOG_KEY.fullmatch(one["Key"]), one) for one in page]
            yield [
                Listed(int(name[1]), one["Size"], one["LastModified"])
                for name, one in found
                if name is not None
            ]

    async def held(self) -> AsyncIterator[set[int]]:
        """List the jobs of which legal holds keep copies, page by page."""
        async for page in self._pages(HOLDS_PREFIX, ""):
            found = [HELD_KEY.match(one["Key"]) for one in page]
            yield {int(name[1]) for name in found if name is not None}

    async def has_copy(self, job_id: int, sha256: str) -> bool:
        """Whether a legal hold keeps a copy of what was archived with this SHA-256."""
        try:
            await self._find(self._s3.head_object, held_key(job_id, sha256))
        except NotArchived:
            return False
        return True

    async def put_back(self, job_id: int, sha256: str) -> None:
        """Put the copy that a legal hold keeps where the log was."""
        await self._call(
            self._s3.copy_object,
            Bucket=self._bucket,
            Key=key(job_id),
            CopySource={"Bucket": self._bucket, "Key": held_key(job_id, sha256)},
            ACL=self._acl,
        )

    async def _pages(self, prefix: str, after: str) -> AsyncIterator[Sequence[Any]]:
        while True:
            found = await self._call(
                self._s3.list_objects_v2,
                Bucket=self._bucket,
                Prefix=prefix,
                StartAfter=after,
                MaxKeys=PAGE_KEYS,
            )
            page = found.get("Contents", ())
            yield page
            if not found["IsTruncated"]:
                return
            after = page[-1]["Key"]
