"""A plain boto3 client of the test's object store."""

from typing import Any

import boto3

from logflume.settings import Settings


def s3(settings: Settings) -> Any:
    """A plain boto3 client of the test's store, beside ours."""
    store = settings.s3
    assert store.secret_key is not None
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        region_name=store.region,
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key.get_secret_value(),
    )
