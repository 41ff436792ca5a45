"""Every error logflume raises on purpose, and what a caller may do about it.

LogflumeError            its text is one clear line for a person
├── SettingsError        a setting is unreadable or contradicts another
├── ComponentError       a component is missing, unreachable or refuses us
├── ArchiveRefused       the archive says no, and will say it again
├── NotArchived          nothing lies in the archive under the job's key
├── ArchiveAhead         the archive holds a later state of a log than its row
├── RejectedPart         a message breaks the wire contract; its text is the reason
├── UnknownLog           no log has this id
├── LogExpired           the text of a log was deleted when its time was over
├── UnderHold            a log is under legal hold: its text stays
├── ContentReplaced      the content changed while it was being read
├── PartitionError       a partition of parts cannot be made, moved to or dropped
├── PartsGone            parts a log was made of are no longer there, nor what was made of them
└── UnderMaintenance     an operator keeps everyone away from parts for a while
"""


class LogflumeError(Exception):
    """Root of all; the text says what is wrong and what to do."""


class SettingsError(LogflumeError):
    """A setting is unreadable or contradicts another."""


class ComponentError(LogflumeError):
    """A component is missing, unreachable or refuses us."""


class ArchiveRefused(LogflumeError):
    """The archive says no, and will say it again: a wrong bucket, key or permission."""


class NotArchived(LogflumeError):
    """Nothing lies in the archive under the job's key."""


class ArchiveAhead(LogflumeError):
    """The archive holds a later state of a log than its row: the database is an older copy."""


class RejectedPart(LogflumeError):
    """A message breaks the wire contract; the text is the reason kept with it."""


class UnknownLog(LogflumeError):
    """No log has this id."""


class LogExpired(LogflumeError):
    """Retention deleted the text of a log; its row is still there."""


class UnderHold(LogflumeError):
    """A log is under legal hold: nobody writes, clears or removes its text."""


class ContentReplaced(LogflumeError):
    """The content changed while it was being read: start again from the row."""


class PartitionError(LogflumeError):
    """A partition of parts cannot be made, moved to or dropped as things are."""


class PartsGone(LogflumeError):
    """Parts that a log was made of went with their partition, and new ones cannot be added."""


class UnderMaintenance(LogflumeError):
    """An operator keeps everyone away from parts for a while: `seconds` from now."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"maintenance: parts can be had again in {seconds:.0f} s")
        self.seconds = seconds
