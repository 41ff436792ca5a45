"""Classifies errors of Postgres and its client: about a value, or about the service."""

import asyncpg

# Postgres cannot be reached, or cannot do this now: every caller may retry.
UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TransactionRollbackError,
    asyncpg.InsufficientResourcesError,
    # Of a session that began on a standby, or is limited by the settings of its role or database.
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.LockNotAvailableError,
    # Passwords, roles and databases are replaced while processes run.
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
# Everything that a statement, or a connection to make one, can raise. `ValueError`: the client
# raises it for files and addresses that it cannot use, e.g. a CA file that is being replaced.
FAILURES = (*UNREACHABLE, asyncpg.PostgresError, ValueError)
_ABOUT_A_VALUE = (
    asyncpg.CharacterNotInRepertoireError,
    asyncpg.UntranslatableCharacterError,
    asyncpg.StringDataRightTruncationError,
    asyncpg.NumericValueOutOfRangeError,
    asyncpg.DatetimeFieldOverflowError,
    asyncpg.InvalidDatetimeFormatError,
    asyncpg.InvalidTextRepresentationError,
    asyncpg.InvalidBinaryRepresentationError,
)


def is_about_a_value(error: BaseException) -> bool:
    """Whether Postgres reports that a value is invalid, so that a retry is useless.

    Other errors of the same classes are about the schema or its state: a retry may succeed. A
    violated check without a name is that of a partition: another one is being created.
    """
    if isinstance(error, asyncpg.CheckViolationError):
        return error.constraint_name is not None
    return isinstance(error, _ABOUT_A_VALUE)


def is_unavailability(error: BaseException) -> bool:
    """Whether the same call may succeed later; for callers that have something else to report."""
    is_misrouted = isinstance(error, asyncpg.CheckViolationError) and not is_about_a_value(error)
    return is_misrouted or isinstance(error, UNREACHABLE)
