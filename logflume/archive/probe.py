"""Tries each operation that logflume needs on the bucket, for `logflume doctor`."""

import hashlib
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

from logflume.archive.reader import metadata_of
from logflume.archive.store import Archive
from logflume.archive.writer import PROBE_PREFIX
from logflume.errors import ArchiveRefused, ComponentError, LogflumeError, NotArchived

BODY = b"0123456789"
SHA256 = hashlib.sha256(BODY).hexdigest()
PERMISSIONS = "Grant s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket."


class Finding(NamedTuple):
    """What an operation found out; `problem` is empty if logflume can work with it."""

    operation: str
    result: str = ""
    problem: str = ""
    fix: str = ""


class Probe(Archive):
    """Writes, reads, lists and deletes probe objects outside `jobs/`."""

    async def findings(self) -> list[Finding]:
        """Try each operation; the probe objects are deleted in any case."""
        name = f"{PROBE_PREFIX}{uuid.uuid4()}"
        self._small, self._sliced, self._absent = (f"{name}-{n}" for n in range(3))
        steps: list[tuple[str, Callable[[], Awaitable[str]], str]] = [
            ("conditional upload", self._conditional, PERMISSIONS),
            ("upload", self._upload_small, PERMISSIONS),
            ("upload in slices", self._upload_sliced, PERMISSIONS),
            ("read", self._read, PERMISSIONS),
            ("ranged read", self._read_range, PERMISSIONS),
            ("read of a missing object", self._read_absent, "Grant s3:ListBucket."),
            ("list", self._list, "Grant s3:ListBucket."),
            ("delete", self._delete_small, "Grant s3:DeleteObject."),
            ("delete many", self._delete_many, "Grant s3:DeleteObject."),
            ("versions", self._versions, ""),
        ]
        found = list[Finding]()
        try:
            for step in steps:
                found.append(await self._try(*step))
                if step[0] == "upload" and found[-1].problem:
                    break  # the others would only repeat it
            return found
        finally:
            for key in (self._small, self._sliced):
                with suppress(LogflumeError):
                    await self._delete(key)

    async def _try(self, operation: str, step: Callable[[], Awaitable[str]], fix: str) -> Finding:
        try:
            return Finding(operation, await step())
        except (ArchiveRefused, ComponentError, NotArchived) as error:
            if operation == "versions":
                return Finding(operation, "unknown: the store does not answer")
            return Finding(operation, problem=f"{error}.", fix=fix)

    def _target(self, key: str) -> dict[str, Any]:
        return self._request(key, {"sha256": SHA256})

    async def _conditional(self) -> str:
        found = await self.probe_conditions()
        if found.are_enforced:
            return "enforced, also in slices"
        return (
            f"{found.put}, in slices {found.multipart}: objects are checked before each purge "
            "instead, and a late upload may delay it"
        )

    async def _upload_small(self) -> str:
        await self._put(self._target(self._small) | {"Body": BODY}, SHA256)
        return "done"

    async def _upload_sliced(self) -> str:
        async def read(start: int, size: int) -> bytes:
            return BODY[start : start + size]

        await self._upload_slices(self._target(self._sliced), read, len(BODY), {})
        return "done"

    async def _read(self) -> str:
        response = await self._get(self._s3.get_object, self._small)
        if await self._call(response["Body"].read) != BODY:
            raise ComponentError("the store returned other bytes than it was sent")
        if metadata_of(response).get("sha256") != SHA256:
            return "without metadata: each process reads every object completely before use"
        return "same bytes and metadata"

    async def _read_range(self) -> str:
        response = await self._get(self._s3.get_object, self._small, Range="bytes=2-3")
        body = await self._call(response["Body"].read)
        if body == BODY[2:4]:
            return "done"
        if body == BODY:
            return "ignored: each read of a part transfers the whole object"
        raise ComponentError("the store returned other bytes than the requested range")

    async def _read_absent(self) -> str:
        with suppress(NotArchived):
            await self._get(self._s3.get_object, self._absent)
            raise ComponentError("the store returned an object that was never written")
        return "reported as missing"

    async def _list(self) -> str:
        listed = await self._call(self._s3.list_objects_v2, Bucket=self._bucket, Prefix=self._small)
        if [item["Key"] for item in listed.get("Contents", ())] != [self._small]:
            raise ComponentError("the list lacks an object that was uploaded")
        return "done"

    async def _delete_small(self) -> str:
        await self._delete(self._small)
        # Without s3:ListBucket the store refuses to say that it is missing.
        with suppress(NotArchived, ArchiveRefused):
            await self._get(self._s3.get_object, self._small)
            raise ComponentError("the object still exists after its deletion")
        return "done"

    async def _delete_many(self) -> str:
        is_done = await self._delete_batch([self._sliced, self._absent])
        return "done" if is_done else "refused: objects are deleted one by one instead"

    async def _versions(self) -> str:
        answer = await self._call(self._s3.get_bucket_versioning, Bucket=self._bucket)
        if "Status" not in answer:
            return "off"
        return (
            f"{answer['Status'].lower()}: removed text stays in older versions until a rule "
            "deletes them (docs/security.md)"
        )

    async def _delete(self, key: str) -> None:
        await self._call(self._writes.delete_object, Bucket=self._bucket, Key=key)
