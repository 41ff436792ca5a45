"""Deliveries parsed from a stream of frames equal pamqp's, however the stream is split."""

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
# What a broker sends on each channel; frames of channels and heartbeats are interleaved.
channels = st.lists(st.lists(contents | others, max_size=4), min_size=1, max_size=3)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Frames in a valid order."""
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
    """The deliveries and the other frames, as parsed by pamqp."""
    found, rest = [], []
    open_: dict[int, list[Any]] = {}
    for data in sent:
        _, channel, one = frame.unmarshal(data)
        if isinstance(one, spec.Basic.Deliver):
            open_[channel] = [(one.delivery_tag, one.routing_key)]
        elif channel in open_ and isinstance(one, ContentHeader):
            open_[channel] += [one, b""]
        elif channel in open_:
            open_[channel][2] += one.value
        else:
            rest.append(data)
            continue
        (tag, key), header, body = (*open_[channel], None, None)[:3]
        if header and len(body) == header.body_size:
            about = header.properties
            found.append(
                (tag, key, body, about.content_type, about.headers or {}, about.timestamp,
                 about.message_type, about.user_id, about.app_id)
            )  # fmt: skip
            del open_[channel]
    return found, rest


def fields(one: Delivery) -> tuple[Any, ...]:
    properties = one.read()
    assert one.published_at == properties.timestamp
    return (one.tag, one.routing_key, one.body, *properties)


def feed(pieces: Iterator[bytes] | list[bytes]) -> tuple[list[Delivery], bytes]:
    found: list[Delivery] = []
    frames = Frames()
    frames.receive = found.append
    return found, b"".join(map(frames.feed, pieces))


@given(streams(), st.data())
def test_deliveries_equal_pamqps_however_the_stream_is_split(sent, data):
    stream = b"".join(sent)
    places = st.lists(st.integers(0, len(stream)), max_size=20).map(sorted)
    cuts = [0, *data.draw(places), len(stream)]
    found, rest = feed(stream[a:b] for a, b in pairwise(cuts))
    deliveries, others = read(sent)
    assert [fields(one) for one in found] == deliveries
    assert rest == b"".join(others)


def marshal(frames: list[Any], channel: int = 1) -> bytes:
    return b"".join(frame.marshal(one, channel) for one in frames)


def test_a_stream_of_single_bytes():
    sent = marshal([*content(deliver(), {"message_type": "t"}, [b"a", b"bc"]), spec.Basic.Ack(7)])
    found, rest = feed([sent[at : at + 1] for at in range(len(sent))])
    assert [fields(one) for one in found] == [(1, "key", b"abc", None, {}, None, "t", None, None)]
    assert rest == marshal([spec.Basic.Ack(7)])


def test_closing_a_channel_discards_its_unfinished_delivery():
    half = content(deliver(), {}, [b"half", b"lost"])[:-1]
    whole = content(deliver(), {}, [b"whole"])
    closed = [spec.Channel.Close(406, "gone", 0, 0)]
    requested = content(get_ok(), {}, [b"else"])
    found, rest = feed([marshal([*half, *closed, *requested, *whole])])
    assert [one.body for one in found] == [b"whole"]
    assert rest == marshal([*closed, *requested])


@pytest.mark.parametrize(
    "garbage",
    [b"AMQP\0\0\x09\x01", b"\0\0\0\0", b"\x01\0\0\0\0\0\1xx" + b"more"],
    ids=["another protocol", "another frame", "no end"],
)
def test_bytes_that_are_not_frames_reach_aiormq_unchanged(garbage):
    sent = marshal(content(deliver(), {}, [b"a"]))
    found, rest = feed([sent, garbage + bytes(8), sent])
    assert [one.body for one in found] == [b"a"]
    assert rest == garbage + bytes(8) + sent


@given(st.binary(max_size=80))
def test_any_property_bytes_can_be_read(properties):
    one = Delivery(1)
    one.begin(bytes(12) + properties, lambda _: True)
    about = one.read()
    assert one.published_at == about.timestamp
    for text in (about.content_type, about.type, about.user_id, about.app_id):
        assert text is None or len(text.encode()) <= 255


async def test_deliveries_alone_pass_heartbeats_on_to_aiormq():
    """RabbitMQ sends no heartbeats while it delivers; aiormq would close the silent connection."""
    reader = asyncio.StreamReader()
    protocol = Protocol(reader, Frames())
    sent = marshal(content(deliver(), {}, [b"a"]))
    handshake = marshal([spec.Connection.OpenOk()], 0)
    protocol.data_received(handshake[:9])
    protocol.data_received(handshake[9:])
    protocol.data_received(sent)
    reader.feed_eof()
    assert await reader.read() == handshake  # there were other frames within this second
    reader = asyncio.StreamReader()
    protocol = Protocol(reader, Frames())
    protocol.data_received(sent + sent[:20])
    protocol.data_received(sent[20:])
    reader.feed_eof()
    assert await reader.read() == frame.marshal(Heartbeat(), 0)


@given(st.data())
def test_a_refused_delivery_has_no_body_and_the_next_one_is_complete(data):
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
