"""Statements that make Postgres fail in each way a client can see."""

RAISES = "RAISE EXCEPTION 'injected' USING ERRCODE = '{}'"
ENDS_THE_SESSION = "PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(1)"
SAYS = {
    "serialization": RAISES.format("40001"),
    "deadlock": RAISES.format("40P01"),
    "cancelled": RAISES.format("57014"),
    "read-only": RAISES.format("25006"),
    "out of disk": RAISES.format("53100"),
    "out of memory": RAISES.format("53200"),
    "between two partitions": RAISES.format("23514"),
    "not unique": RAISES.format("23505"),
    "broken": RAISES.format("XX001"),
    "ended by an administrator": ENDS_THE_SESSION,
}
