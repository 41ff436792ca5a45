"""The timed steps of a log, from its markers to their rows and the API."""

from datetime import timedelta

from db import timings
from tests.support.markers import AT, end, start
from tests.support.parts import part
from tests.support.services import serving
from web.auth import sign_link


def markers(timer: str) -> bytes:
    return b"travis_fold:start:script\r" + start(timer) + b"make\n" + end(timer, AT, AT + 1_500_000)


async def rows(driver) -> list[str]:
    async with driver.pool.acquire() as connection:
        row = await driver.row()
        return [step.id for step in await timings.steps_of(connection, row.id)]


async def test_steps_are_served_once_the_log_is_verified(driver, settings):
    link = sign_link(settings.web, driver.job_id, timedelta(hours=1))
    path = f"/logs/{driver.job_id}/timings"
    async with serving(settings, driver.pool) as web:
        assert (await web.get(path)).status_code == 404
        await driver.store(part(driver.job_id, 0, markers("a")), begun=True)
        await driver.until_phase("receiving")
        assert (await web.get(path)).json() == {
            "@type": "timings", "job_id": driver.job_id, "ready": False, "steps": [],
        }  # fmt: skip
        await driver.store(part(driver.job_id, 1, final=True), final=True)
        await driver.verified()
        response = await web.get(f"{path}?share={link}", headers={"Authorization": ""})
        assert response.json()["ready"]
        assert response.json()["steps"] == [
            {
                "id": "a", "event": "", "fold": "script", "line": 0,
                "started_at": "2020-01-21T12:44:27.347005Z",
                "finished_at": "2020-01-21T12:44:27.348505Z", "duration_ns": 1_500_000,
            }
        ]  # fmt: skip
        assert (await web.get(path, headers={"Authorization": ""})).status_code == 403


async def test_steps_follow_late_parts_and_removed_text(driver, settings):
    path = f"/logs/{driver.job_id}/timings"
    await driver.whole_log(markers("a"))
    await driver.verified()
    async with serving(settings, driver.pool) as web:
        await driver.store(part(driver.job_id, 2, markers("b")))
        assert not (await web.get(path)).json()["ready"]
        await driver.verified()
        assert await rows(driver) == ["a", "b"]
        await driver.replace(b"removed")
        assert await rows(driver) == []
        assert not (await web.get(path)).json()["ready"]
        await driver.verified()
        assert (await web.get(path)).json()["steps"] == []
        assert (await web.get(path)).json()["ready"]


async def test_the_history_contains_no_log_text(driver):
    await driver.whole_log(markers("a-secret-name"))
    await driver.result()
    history = (await driver.handle.fetch_history()).to_json()
    assert "secret-name" not in history
