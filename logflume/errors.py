"""The errors that logflume raises deliberately, and how a caller can react.

LogflumeError            its text is one line: what is wrong, then what to do
├── SettingsError        a setting is unreadable or contradicts another
├── ComponentError       a component is missing, unreachable or refuses the request; retry
│   └── ArchiveChanged   another request changed the archived object; inspect it, then retry
├── PermanentError       the same call would fail again; workflows do not retry it
│   ├── ArchiveRefused   the store refuses: wrong bucket, key or permission; only backoff may help
│   │   └── ColdStorage  the object is in a storage class that cannot be read directly
│   ├── ArchiveAhead     the archive holds a later state of a log than its row
│   ├── ContentTooLarge  Postgres cannot hold the content of a log in one value
│   ├── PartsGone        parts that a log was made of no longer exist, and neither does its content
│   └── PartitionError   a partition cannot be created, drained or dropped
├── NotArchived          the archive has no object under the job's key
├── InvalidMessage       a message violates the wire contract; the text is the reason
├── UnknownLog           there is no log with this id
├── LogExpired           retention deleted the text of the log
├── UnderHold            the log is under legal hold: its text must not change
├── ContentReplaced      the content changed while it was being read
│   └── ArchiveDiffers   the archived object is not the content that the row describes
└── UnderMaintenance     the maintenance switch is on
"""


class LogflumeError(Exception):
    """Root of all; the text says what is wrong and what to do."""


class SettingsError(LogflumeError):
    """A setting is unreadable or contradicts another."""


class ComponentError(LogflumeError):
    """A component is missing, unreachable or refuses the request."""


class ArchiveChanged(ComponentError):
    """Another request changed the archived object since it was inspected."""


class PermanentError(LogflumeError):
    """The same call would fail again: retry policies list the subclasses as non-retryable."""


class ArchiveRefused(PermanentError):
    """The store refuses, and will refuse again: a wrong bucket, key or permission."""


class ColdStorage(ArchiveRefused):
    """The archived object is in a storage class from which it must be restored first."""


class ArchiveAhead(PermanentError):
    """The archive holds a later state of a log than its row: the database is an older copy."""


class ContentTooLarge(PermanentError):
    """Postgres cannot hold the content of a log in one value."""


class PartsGone(PermanentError):
    """Parts that a log was made of were dropped with their partition; new ones have no position."""


class PartitionError(PermanentError):
    """A partition of parts cannot be created, drained or dropped in the current state."""


class NotArchived(LogflumeError):
    """The archive has no object under the job's key."""


class InvalidMessage(LogflumeError):
    """A message violates the wire contract; the text is the reason stored with it."""


class UnknownLog(LogflumeError):
    """There is no log with this id."""


class LogExpired(LogflumeError):
    """Retention deleted the text of the log; its row still exists."""


class UnderHold(LogflumeError):
    """The log is under legal hold: its text must not be written, cleared or removed."""


class ContentReplaced(LogflumeError):
    """The content changed while it was being read: start again from the row."""


class ArchiveDiffers(ContentReplaced):
    """The archived object was read, and it is not the content that the row describes."""


class UnderMaintenance(LogflumeError):
    """The maintenance switch is on for another `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"maintenance in progress; retry in {seconds:.0f} s")
        self.seconds = seconds
