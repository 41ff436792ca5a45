"""The timed steps of a log, from its `travis_time` markers."""

from datetime import UTC, datetime, timedelta

from litestar.params import FromPath

from db import timings
from logflume.markers import Step
from web.content import check_not_expired
from web.logs import get_of_log
from web.lookup import find_log
from web.models import StepBody, TimingsBody
from web.services import Injected

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@get_of_log("/timings", "Get the timed steps of a job", 410)
async def get_timings(services: Injected, job_id: FromPath[str]) -> TimingsBody:
    """List the timed steps of a log by end time.

    They are read once the log is archived and verified; before that, `ready` is false.
    """
    log = await find_log(services, job_id)
    check_not_expired(log)
    ready = log.step_count is not None and log.archive_verified and not log.late_parts
    steps: list[Step] = []
    if ready:
        async with services.connection() as connection:
            steps = await timings.steps_of(connection, log.id)
    return TimingsBody(job_id=log.job_id, ready=ready, steps=[_body(step) for step in steps])


def _body(step: Step) -> StepBody:
    return StepBody(
        id=step.id,
        event=step.event,
        fold=step.fold,
        line=step.line,
        started_at=_time(step.start_ns),
        finished_at=_time(step.finish_ns),
        duration_ns=step.finish_ns - step.start_ns,
    )


def _time(nanoseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=nanoseconds // 1000)


ROUTES = [get_timings]
