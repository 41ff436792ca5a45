"""Settings of the shipper; `logflume/ship/settings.py` reads them without these libraries."""

from pathlib import Path

from pydantic import Field, SecretStr

from logflume.settings.group import MIB, Group


class ShipSettings(Group):
    """The shipper, `logflume run` and `logflume ship`, which also read the two URLs named below."""

    token: SecretStr | None = Field(
        None,
        description="the job's own token (`logflume token JOB_ID`), with which its log is sent to "
        "`LOGFLUME_WEB__URL`; unset: the log is published to `LOGFLUME_AMQP__URL`",
    )
    spool_dir: Path | None = Field(
        None,
        description="folder on a local disk for output that is not yet confirmed; unset: "
        "`~/.local/state/logflume`",
    )
    spool_bytes: int = Field(
        256 * MIB,
        ge=MIB,
        description="maximum size of a job's spool, in bytes; once it is full of output that "
        "cannot be sent, output is missing in the log, which says so",
    )
    flush_seconds: float = Field(
        1, ge=0, description="seconds after which output is sent, until the server sets the pace"
    )
    give_up_seconds: float = Field(
        300,
        ge=0,
        description="seconds after the end of the output in which the rest of the log must be "
        "delivered; what remains stays in the spool",
    )
