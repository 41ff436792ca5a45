"""Deliveries cut out of a stream of frames: as pamqp reads them, however the stream is cut."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands as spec
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from drain.deliveries import Delivery, Frames, Protocol

short = st.text("aé\0🎉", max_size=20)
times = st.integers(0, 2**32 - 1).map(lambda s: datetime.fromtimestamp(s, UTC))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | short | times,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(short, inside, max_size=3),
    max_leaves=6,
)
properties = st.fixed_dictionaries(
    {},
    optional={
        "content_type": short,
        "content_encoding": short,
        "headers": st.dictionaries(short, values, max_size=3),
        "delivery_mode": st.sampled_from([1, 2]),
        "priority": st.integers(0, 255),
        "correlation_id": short,
        "reply_to": short,
        "expiration": short,
        "message_id": short,
        "timestamp": times,
        "message_type": short,
        "user_id": short,
        "app_id": short,
    },
)


def content(method: Any, about: dict[str, Any], pieces: list[bytes]) -> list[Any]:
    size = sum(map(len, pieces))
    header = ContentHeader(body_size=size, properties=spec.Basic.Properties(**about))
    return [method, header, *map(ContentBody, pieces)]


def deliver(tag: int = 1) -> spec.Basic.Deliver:
    return spec.Basic.Deliver("ctag", tag, exchange="reporting", routing_key="key")


def get_ok() -> spec.Basic.GetOk:
    return spec.Basic.GetOk(1, exchange="", routing_key="key", message_count=0)


methods = st.one_of(
    st.builds(deliver, st.integers(1, 2**63 - 1)),
    st.builds(get_ok),
    st.just(spec.Basic.Return(312, "NO_ROUTE", "", "key")),
)
contents = st.builds(content, methods, properties, st.lists(st.binary(min_size=1), max_size=3))
others = st.sampled_from(
    [
        spec.Basic.Ack(7),
        spec.Basic.Cancel("ctag", nowait=True),
        spec.Basic.CancelOk("ctag"),
        spec.Channel.CloseOk(),
        spec.Channel.OpenOk(),
    ]
).map(lambda one: [one])
# What a broker sends on each channel; between these frames may stand others', and heartbeats.
channels = st.lists(st.lists(contents | others, max_size=4), min_size=1, max_size=3)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Frames in an order in which a broker may send them."""
    lines = {
        number: [one for some in sent for one in some]
        for number, sent in enumerate(draw(channels), 1)
    }
    lines[0] = [Heartbeat()] * draw(st.integers(0, 2))
    found = []
    while left := [number for number, line in lines.items() if line]:
        number = draw(st.sampled_from(left))
        found.append(frame.marshal(lines[number].pop(0), number))
    return found


def read(sent: list[bytes]) -> tuple[list[Any], list[bytes]]:
    """The deliveries and the other frames, as pamqp reads them."""
    found, rest = [], []
    under_way: dict[int, list[Any]] = {}
    for data in sent:
        _, channel, one = frame.unmarshal(data)
        if isinstance(one, spec.Basic.Deliver):
            under_way[channel] = [one.delivery_tag]
        elif channel in under_way and isinstance(one, ContentHeader):
            under_way[channel] += [one, b""]
        elif channel in under_way:
            under_way[channel][2] += one.value
        else:
            rest.append(data)
            continue
        tag, header, body = (*under_way[channel], None, None)[:3]
        if header and len(body) == header.body_size:
            about = header.properties
            found.append(
                (tag, body, about.content_type, about.headers or {}, about.timestamp,
                 about.message_type)
            )  # fmt: skip
            del under_way[channel]
    return found, rest


def told(one: Delivery) -> tuple[Any, ...]:
    about = one.read()
    assert one.published_at == about.timestamp
    return (one.tag, one.body, *about)


def feed(pieces: Iterator[bytes] | list[bytes]) -> tuple[list[Delivery], bytes]:
    found: list[Delivery] = []
    frames = Frames()
    frames.receive = found.append
    return found, b"".join(map(frames.feed, pieces))


@given(streams(), st.data())
def test_however_the_stream_is_cut_the_deliveries_are_as_pamqp_reads_them(sent, data):
    stream = b"".join(sent)
    places = st.lists(st.integers(0, len(stream)), max_size=20).map(sorted)
    cuts = [0, *data.draw(places), len(stream)]
    found, rest = feed(stream[a:b] for a, b in pairwise(cuts))
    deliveries, others = read(sent)
    assert [told(one) for one in found] == deliveries
    assert rest == b"".join(others)


def marshal(frames: list[Any], channel: int = 1) -> bytes:
    return b"".join(frame.marshal(one, channel) for one in frames)


def test_every_byte_may_come_alone():
    sent = marshal([*content(deliver(), {"message_type": "t"}, [b"a", b"bc"]), spec.Basic.Ack(7)])
    found, rest = feed([sent[at : at + 1] for at in range(len(sent))])
    assert [told(one) for one in found] == [(1, b"abc", None, {}, None, "t")]
    assert rest == marshal([spec.Basic.Ack(7)])


def test_what_is_half_read_when_a_channel_closes_is_no_delivery_of_the_next_that_has_its_number():
    half = content(deliver(), {}, [b"half", b"lost"])[:-1]
    whole = content(deliver(), {}, [b"whole"])
    closed = [spec.Channel.Close(406, "gone", 0, 0)]
    asked_for = content(get_ok(), {}, [b"else"])
    found, rest = feed([marshal([*half, *closed, *asked_for, *whole])])
    assert [one.body for one in found] == [b"whole"]
    assert rest == marshal([*closed, *asked_for])


@pytest.mark.parametrize(
    "spoilt",
    [b"AMQP\0\0\x09\x01", b"\0\0\0\0", b"\x01\0\0\0\0\0\1xx" + b"more"],
    ids=["another protocol", "another frame", "no end"],
)
def test_what_are_no_frames_aiormq_gets_as_they_came(spoilt):
    sent = marshal(content(deliver(), {}, [b"a"]))
    found, rest = feed([sent, spoilt + bytes(8), sent])
    assert [one.body for one in found] == [b"a"]
    assert rest == spoilt + bytes(8) + sent


@given(st.binary(max_size=80))
def test_properties_are_read_as_far_as_they_can_be(properties):
    one = Delivery(1)
    one.begin(bytes(12) + properties, lambda _: True)
    about = one.read()
    assert one.published_at == about.timestamp
    for text in (about.content_type, about.type):
        assert text is None or len(text.encode()) <= 255


async def test_a_connection_with_nothing_but_deliveries_is_no_silent_one():
    """RabbitMQ sends no heartbeats beside them, and aiormq would give the connection up."""
    reader = asyncio.StreamReader()
    protocol = Protocol(reader, Frames())
    sent = marshal(content(deliver(), {}, [b"a"]))
    handshake = marshal([spec.Connection.OpenOk()], 0)
    protocol.data_received(handshake[:9])
    protocol.data_received(handshake[9:])
    protocol.data_received(sent)
    reader.feed_eof()
    assert await reader.read() == handshake  # heard of this very second
    reader = asyncio.StreamReader()
    protocol = Protocol(reader, Frames())
    protocol.data_received(sent + sent[:20])
    protocol.data_received(sent[20:])
    reader.feed_eof()
    assert await reader.read() == frame.marshal(Heartbeat(), 0)


@given(st.data())
def test_of_what_is_refused_the_body_is_not_kept_and_the_next_is_whole(data):
    sent = marshal([*content(deliver(1), {}, [b"large", b"r"]), *content(deliver(2), {}, [b"a"])])
    places = st.lists(st.integers(0, len(sent)), max_size=9).map(sorted)
    cuts = [0, *data.draw(places), len(sent)]
    found: list[Delivery] = []
    frames = Frames()
    frames.receive, frames.accepts = found.append, lambda size: size < 6
    assert not b"".join(frames.feed(sent[a:b]) for a, b in pairwise(cuts))
    assert [(one.tag, one.body, one.is_refused) for one in found] == [
        (1, b"", True),
        (2, b"a", False),
    ]
