"""Live parts in pusher-js through a real Pusher server, as in travis-web."""

from pathlib import Path

import pytest

from logflume.settings import load_settings
from tests.support import broker
from tests.support.pages import until
from tests.support.services import TOKEN, draining
from tests.support.waiting import until as until_true

PUSHER_JS = Path(__file__).parents[2] / ".npm/node_modules/pusher-js/dist/web/pusher.min.js"

SUBSCRIBE = """
([key, port, channel, token]) => {
  window.events = [];
  const pusher = new Pusher(key, {
    cluster: "none", wsHost: "127.0.0.1", wsPort: port, forceTLS: false,
    enabledTransports: ["ws"], disableStats: true,
    channelAuthorization: {
      endpoint: "/pusher/auth", transport: "ajax", headers: { Authorization: `token ${token}` },
    },
  });
  const subscription = pusher.subscribe(channel);
  subscription.bind("pusher:subscription_succeeded", () => { window.subscribed = true; });
  subscription.bind("job:log", (data) => window.events.push(data));
}
"""


@pytest.fixture(params=[False, True], ids=["public", "private"])
def secure(request) -> bool:
    return request.param


@pytest.fixture
def settings(amqp_settings, pusher, secure):
    live = load_settings(stack={"data_dir": pusher.home.data_dir}).pusher
    return amqp_settings.model_copy(update={"pusher": live.model_copy(update={"secure": secure})})


@pytest.fixture
def site_port(pusher) -> int:
    """The port to which the Pusher server sends its webhooks."""
    return pusher.home.ports["web"]


async def test_live_parts_reach_pusher_js_and_the_page(
    visits, settings, channel, pool, job_id, secure
):

    async def publish(number: int, text: str, **fields) -> None:
        await broker.publish(channel, broker.message(job_id, number, text, **fields))

    async def occupied() -> bool:
        query = "SELECT count(*) FROM watched_logs WHERE job_id = $1 AND way = 'pusher'"
        return bool(await pool.fetchval(query, job_id))

    async def stored() -> bool:
        return bool(await pool.fetchval("SELECT count(*) FROM log_parts"))

    async with draining(settings):
        await publish(0, "before the first subscriber\n")
        await until_true(stored)
        page = await visits.open(f"/jobs/{job_id}")
        # pusher-js runs in a page of its own, without the policy that forbids foreign scripts.
        other = await visits.open("/", rows=False, bypass_csp=True)
        await other.add_script_tag(path=PUSHER_JS)
        name = f"private-job-{job_id}" if secure else f"job-{job_id}"
        live = settings.pusher
        await other.evaluate(SUBSCRIBE, [live.key, live.port, name, TOKEN])
        await until(other, "() => window.subscribed")
        await until_true(occupied)
        await publish(1, "caf\u00e9 <script>\n")
        await publish(2, "x" * 25_000)
        await publish(3, "", final=True)
        await until(other, "() => window.events.some((event) => event.final)")
        events = await other.evaluate("window.events")
        await until(page, "() => document.body.innerText.includes('café <script>')")
    ordered = sorted(events, key=lambda event: event["number"] % 10**6)
    assert "".join(event["_log"] for event in ordered) == "café <script>\n" + "x" * 25_000
    assert {event["id"] for event in events} == {job_id}
    assert [event["final"] for event in ordered] == [False] * (len(events) - 1) + [True]
