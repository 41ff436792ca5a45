"""Which logs a backfill finds in real Postgres, and the cost of a page."""

from activities.types import BACKFILL_KINDS as KINDS
from db import aggregation, logs
from db.backfill import IN_RANGE, OF_KIND, SCAN, SCANNED, Kind, find_in_ranges, find_of_kind
from db.parts import store_batch
from tests.support.parts import part

DAY = 24 * 3600


async def found(connection, kind: str) -> list[int]:
    stretch = await find_of_kind(connection, Kind(kind, 0, DAY), 0, 100)
    return [one.job_id for one in stretch.logs]


async def test_each_kind_includes_the_one_before_it(connection, job_id):
    async def kinds() -> list[str]:
        return [kind for kind in KINDS if await found(connection, kind)]

    await store_batch(connection, [part(job_id, 0, b"a", final=True)])
    assert await kinds() == ["not_archived", "not_verified", "not_purged"]
    made = await aggregation.aggregate(connection, job_id, force=False, restore=False)
    assert await kinds() == ["not_archived", "not_verified", "not_purged"]
    await logs.mark_archiving(connection, job_id, made.sha256)
    assert await kinds() == ["not_verified", "not_purged"]
    await logs.mark_verified(connection, job_id, made.sha256)
    assert await kinds() == []  # it waits for its purge
    await connection.execute("UPDATE logs SET archived_at = archived_at - interval '2 days'")
    assert await kinds() == ["not_purged"]
    await logs.purge(connection, job_id, made.sha256)
    assert await kinds() == []
    await store_batch(connection, [part(job_id, 1, b"late")])
    assert await kinds() == ["not_archived", "not_verified", "not_purged"]


async def test_ranges_are_paged_in_order_and_unknown_jobs_reported(connection):
    await store_batch(connection, [part(job, 0, b"a") for job in (1, 2, 5, 6, 9)])
    ranges, after, pages = [(2, 5), (7, 7), (8, 20), (21, 21)], -1, []
    for _ in range(4):
        stretch = await find_in_ranges(connection, ranges, after, 2)
        pages.append(([one.job_id for one in stretch.logs], stretch.unknown, stretch.more))
        after = stretch.after
        if not stretch.more:
            break
    assert pages == [([2, 5], [], True), ([9], [7], True), ([], [21], False)]


async def test_a_log_that_only_the_archive_has_is_recognized(connection, job_id):
    await store_batch(connection, [part(job_id, 0, b"a"), part(job_id, 1, final=True)])
    made = await aggregation.aggregate(connection, job_id, force=False, restore=False)
    await logs.mark_archiving(connection, job_id, made.sha256)
    await logs.mark_verified(connection, job_id, made.sha256)

    async def gone() -> bool:
        [one] = (await find_in_ranges(connection, [(job_id, job_id)], -1, 1)).logs
        return one.gone

    await logs.purge(connection, job_id, made.sha256)
    assert not await gone()
    first = "created_at = (SELECT min(created_at) FROM log_parts)"
    await connection.execute(f"DELETE FROM log_parts WHERE {first}")
    assert await gone()
    await connection.execute("DELETE FROM log_parts")
    assert await gone()
    await store_batch(connection, [part(job_id, 2, b"late")])
    assert not await gone()  # they must be merged


async def test_the_cost_of_a_page_does_not_depend_on_the_number_of_logs(connection, job_id):
    """Finished logs are not in the indexes used; unfinished ones are skipped in steps."""
    first, waiting = job_id * 1_000_000, 2 * SCANNED + 10
    await connection.execute(
        "INSERT INTO logs (job_id, updated_at, aggregated_at, archived_at, archive_verified,"
        " purged_at) SELECT j, t, t, t, true, CASE WHEN j - $1 >= $2 THEN t END"
        " FROM generate_series($1::bigint, $1 + $2 + 20000) j,"
        " (SELECT now() - interval '1 hour') p (t)",
        first,
        waiting,
    )
    await store_batch(connection, [part(first + 900_000, 0, b"a", final=True)])
    await connection.execute("VACUUM ANALYZE logs")
    kind, stretches, after = Kind("not_verified", 0, DAY), [], 0
    while (stretch := await find_of_kind(connection, kind, after, 10)).more:
        stretches.append([one.job_id for one in stretch.logs])
        after = stretch.after
    assert stretches == [[], [], [first + 900_000]]
    plans = [
        ("logs_pending", await connection.fetch("EXPLAIN " + SCAN, 0, SCANNED)),
        (
            "using logs_pending",
            await connection.fetch("EXPLAIN " + OF_KIND, 0, 0, DAY, SCANNED, "not_verified", 10),
        ),
        ("logs_job_id_key", await connection.fetch("EXPLAIN " + IN_RANGE, first, 2 * first, 10)),
    ]
    for index, plan in plans:
        text = "\n".join(row[0] for row in plan)
        assert index in text
        assert "Seq Scan on logs" not in text
