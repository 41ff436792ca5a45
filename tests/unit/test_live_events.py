"""Parts as Pusher events: any text fits the limits and can be reassembled."""

import json
import sys
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from drain.live.events import BATCH_EVENTS, EVENT, NUMBERS, TEXT_BYTES, Outbox, events, weight
from logflume.domain import LAST, MAX_JOB_ID
from logflume.settings.servers import PusherSettings
from logflume_cli.drain import _forwarder
from tests.support.parts import part

# Pusher's limit on the data of an event; its client applies it to the size of the Python object.
LIMIT = 10 * 1024
# Runs of characters that take 1, 2, 6 and 12 bytes as JSON, and of invalid UTF-8.
RUNS = st.tuples(
    st.sampled_from(
        [b"a", b'"', b"\0", "é".encode(), "€".encode(), "🎉".encode(), b"\xff", b"\xc3"]
    ),
    st.integers(0, 12_000),
)
HOSTILE = st.lists(RUNS, max_size=4).map(lambda them: b"".join(b * n for b, n in them))
NUMBER = st.one_of(st.integers(0, 2_000_000), st.just(LAST))


def bodies(events) -> list[dict]:
    return [json.loads(event["data"]) for event in events]


@given(HOSTILE, NUMBER, st.booleans())
def test_every_event_fits_and_together_they_are_the_text(content, number, final):
    one = part(MAX_JOB_ID, number, content, final=final)
    sent = list(events(one, secure=True))
    for event in sent:
        assert event["data"].isascii()
        assert len(event["data"]) <= LIMIT and sys.getsizeof(event["data"]) <= LIMIT
        assert (event["channel"], event["name"]) == (f"private-job-{MAX_JOB_ID}", EVENT)
    received = bodies(sent)
    assert "".join(body["_log"] for body in received) == content.decode("utf-8", "replace")
    assert [body["number"] for body in received] == [
        number + k * NUMBERS for k in range(len(received))
    ]
    assert {body["number"] % 1_000_000 for body in received} == {number % 1_000_000}
    assert [body["final"] for body in received] == [False] * (len(received) - 1) + [final]
    assert {body["id"] for body in received} == {MAX_JOB_ID}


def test_a_typical_part_is_one_event_in_the_contracts_form():
    (event,) = events(part(42, 7, "caf\u00e9\n".encode(), final=True), secure=False)
    assert event == {
        "channel": "job-42",
        "name": "job:log",
        "data": '{"id":42,"_log":"caf\\u00e9\\n","number":7,"final":true}',
    }


def test_plain_text_fills_events():
    assert len(list(events(part(1, 0, b"x" * 100_000), secure=False))) == 11


@given(st.lists(st.tuples(st.integers(1, 3), HOSTILE), max_size=12))
def test_batches_are_full_and_keep_the_order_of_each_job(drawn):
    parts = [part(job, number, text) for number, (job, text) in enumerate(drawn)]
    outbox = Outbox(10**9, secure=False)
    assert all(outbox.add(one) for one in parts)
    batches = list(iter(outbox.take, []))
    assert all(len(batch) == BATCH_EVENTS for batch in batches[:-1])
    assert all(len(batch) <= BATCH_EVENTS for batch in batches)
    taken = [event for batch in batches for event in batch]
    assert taken == [event for one in parts for event in events(one, secure=False)]
    # The events of a part are consecutive.
    assert len(list(groupby(body["number"] % NUMBERS for body in bodies(taken)))) == len(parts)
    assert outbox.weight == 0


@pytest.mark.parametrize("size", [0, 1653, 25_000])
def test_a_full_outbox_accepts_nothing_until_events_are_taken(size):
    one = part(1, 0, b"x" * size)
    outbox = Outbox(30, secure=False)
    taken = 0
    while outbox.add(one):
        taken += 1
    assert taken == -(-30 // weight(one))
    assert outbox.weight < 30 + weight(one)
    outbox.take()
    assert outbox.add(one)


def test_a_part_larger_than_the_outbox_is_accepted():
    outbox = Outbox(2, secure=False)
    assert outbox.add(part(1, 0, b"x" * 20 * TEXT_BYTES))
    assert not outbox.add(part(1, 1))


@pytest.mark.parametrize("secure", [False, True])
async def test_a_drain_says_at_startup_that_channels_are_public(secure):
    app = {"app_id": "1", "key": "k", "secret": "s"}
    with capture_logs() as lines:
        forwarder = _forwarder(PusherSettings(**app, secure=secure))
        assert forwarder and not _forwarder(PusherSettings())
    await forwarder.close(1)
    assert [line["event"] for line in lines] == ([] if secure else ["pusher_channels_public"])
