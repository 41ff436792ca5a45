"""What the handlers work with, injected as `services`: typed, so mypy checks every use."""

import time
from dataclasses import dataclass, field
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolAcquireContext
from litestar import Request
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from logflume.amqp import Publisher
from logflume.archive.store import Archive
from logflume.settings import Settings
from web.auth import Access
from web.outline import Outlines
from web.scans import Scans
from web.streams.hub import Hub
from web.streams.poller import ACQUIRE_SECONDS
from workflows.client.logs import LogWorkflows
from workflows.client.signaller import Signaller


@dataclass(frozen=True)
class Services:
    """The state of one web process; its creator closes the connections."""

    settings: Settings
    access: Access
    pool: asyncpg.Pool
    archive: Archive
    workflows: LogWorkflows
    publisher: Publisher
    hub: Hub
    signaller: Signaller
    outlines: Outlines = field(default_factory=Outlines)
    # Separate, because a page needs its outline, also while many search.
    outline_scans: Scans = field(default_factory=Scans)
    searches: Scans = field(default_factory=Scans)
    started_at: float = field(default_factory=time.monotonic)

    def connection(self) -> "PoolAcquireContext[asyncpg.Record]":
        """A connection to Postgres, as a context manager that waits at most 5 s for one."""
        return self.pool.acquire(timeout=ACQUIRE_SECONDS)


Injected: TypeAlias = NamedDependency[SkipValidation[Services]]
HttpRequest: TypeAlias = Request[object, object, State]
