"""A plain boto3 client of the test's object store."""

import functools
from typing import Any

import boto3

from logflume.archive.store import key
from logflume.settings import Settings


def s3(settings: Settings) -> Any:
    """A client that does not share our code; one for all tests of a process."""
    store = settings.s3
    assert store.access_key and store.secret_key
    return _client(
        store.endpoint, store.region, store.access_key, store.secret_key.get_secret_value()
    )


def archived(settings: Settings, job_id: int) -> bytes | None:
    """The archived object of a log; None if there is none."""
    store = s3(settings)
    try:
        body: bytes = store.get_object(Bucket=settings.s3.bucket, Key=key(job_id))["Body"].read()
    except store.exceptions.NoSuchKey:
        return None
    return body


@functools.cache  # making one takes 20 ms of CPU
def _client(endpoint: str | None, region: str, access_key: str, secret_key: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
    )
