"""The archive: reads and writes archived logs in an S3 bucket."""

from logflume.archive.bucket import LOGS_PREFIX, hold_key, hold_prefix, key
from logflume.archive.reader import Digest, ObjectInfo
from logflume.archive.writer import Conditions, Writer

__all__ = [
    "LOGS_PREFIX",
    "Archive",
    "Conditions",
    "Digest",
    "ObjectInfo",
    "hold_key",
    "hold_prefix",
    "key",
]


class Archive(Writer):
    """Uploads, reads and deletes archived logs.

    Every method raises ComponentError if the store is unreachable or fails (retry) and
    ArchiveRefused if it refuses the request (permanent).
    """
