"""The S3 client of the archive: keys, calls in threads, and the meaning of S3's errors.

boto3 blocks, so its calls run in a thread pool.
"""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from logflume.errors import ArchiveRefused, ColdStorage, ComponentError, NotArchived
from logflume.observability import spans
from logflume.settings.servers import S3Settings

LOGS_PREFIX = "jobs/"
# The value of the ACL setting with which none is sent.
NO_ACL = "none"
# Client errors that are worth a retry; all others are permanent.
RETRYABLE_STATUSES = {408, 409, 412, 429}
RETRYABLE_CODES = {"BadDigest", "RequestTimeout", "IncompleteBody", "XAmzContentChecksumMismatch"}


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


class Bucket:
    """Calls the S3 bucket of the archive.

    Every method raises ComponentError if the store is unreachable or fails (retry) and
    ArchiveRefused if it refuses the request (permanent).
    """

    def __init__(self, settings: S3Settings, threads: int) -> None:
        self._bucket = settings.bucket
        self._acl: dict[str, Any] = {} if settings.acl == NO_ACL else {"ACL": settings.acl}
        self._slice = settings.slice_bytes
        self._name = f"S3 bucket {settings.bucket} at {settings.endpoint or 'AWS'}"
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="archive")
        self.longest_request = settings.longest_request_seconds
        # Temporal retries too, and its retries are visible.
        self._s3 = self._client(settings, threads, attempts=2)
        # The store may execute a request long after its client gave up. Each write is therefore
        # sent once; the activity inspects the object before it tries again.
        self._writes = self._client(settings, threads, attempts=1)

    def _client(self, settings: S3Settings, threads: int, attempts: int) -> Any:
        secret_key = settings.secret_key.get_secret_value() if settings.secret_key else None
        return boto3.client(
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
                retries={"total_max_attempts": attempts, "mode": "standard"},
                # Not every store knows the SDK's own checksums, which may follow the body as a
                # trailer: uploads send a SHA-256 or MD5 as a header instead.
                request_checksum_calculation="when_required",
                s3={"addressing_style": "path" if settings.endpoint else "auto"},
            ),
        )

    async def check(self) -> None:
        """Check that the bucket exists and is accessible."""
        await self._call(self._s3.head_bucket, Bucket=self._bucket)

    async def hold_copies(self, job_id: int) -> list[str]:
        """List the keys of a log's hold copies."""
        response = await self._call(
            self._s3.list_objects_v2, Bucket=self._bucket, Prefix=hold_prefix(job_id)
        )
        return [item["Key"] for item in response.get("Contents", ())]

    async def _get(self, function: Callable[..., Any], key: str, **more: Any) -> Any:
        """Call `function` for an object; raises NotArchived, outside the span, if it is missing."""

        @functools.wraps(function)
        def get(**request: Any) -> Any:
            try:
                return function(**request)
            except ClientError as error:
                if error_code(error) in {"NoSuchKey", "404"}:
                    return None
                if function.__name__ == "head_object" and error_status(error) < 500:
                    self._explain(**request)
                raise

        response = await self._call(get, Bucket=self._bucket, Key=key, **more)
        if response is None:
            raise NotArchived(f"the archive has no object {key}")
        return response

    def _explain(self, **request: Any) -> None:
        """Raise the error of a HEAD with the store's own code, which only a GET's body has."""
        try:
            self._s3.get_object(**request)["Body"].close()
        except ClientError as error:
            if error_code(error) != "NoSuchKey":
                raise

    async def _call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            with spans.span(f"S3 {function.__name__}"):
                return await self._run(function, *arguments, **named)
        except ClientError as error:
            status = error_status(error)
            text = f"{self._name}: {error}{_hint(error)}"
            if (
                status >= 500
                or status in RETRYABLE_STATUSES
                or error_code(error) in RETRYABLE_CODES
            ):
                raise ComponentError(text) from error
            if error_code(error) == "InvalidObjectState":
                raise ColdStorage(
                    f"the archived object {named.get('Key')} is in a cold storage class; restore "
                    "it in the store, then read it again"
                ) from error
            raise ArchiveRefused(text) from error
        except (BotoCoreError, OSError) as error:
            raise ComponentError(f"{self._name}: {error}") from error

    async def _run(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        call = functools.partial(function, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _hint(error: ClientError) -> str:
    if error_code(error) == "AccessControlListNotSupported":
        return "; set LOGFLUME_S3__ACL to `none`"
    # `403` is the code of a HEAD whose GET was not refused.
    if error_code(error) in {"AccessDenied", "403"} and error.operation_name in {
        "HeadObject",
        "GetObject",
    }:
        return "; without the permission s3:ListBucket a missing object is refused like this too"
    return ""


def error_code(error: ClientError) -> str:
    """The store's error code; for a HEAD, the HTTP status."""
    return error.response["Error"]["Code"]


def error_status(error: ClientError) -> int:
    """The HTTP status of the store's error response."""
    return error.response["ResponseMetadata"]["HTTPStatusCode"]
