"""Whatever is sent arrives, however the stream is split; whatever else arrives is refused."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus import InternalError, ProtocolError
from isthmus.values import PackedValue, pack
from isthmus.wire.callbacks import CallCapability, Cancel
from isthmus.wire.catalogue import SENT_BY, SIDES, Side, other_side
from isthmus.wire.codec import Encoder, message_decoder
from isthmus.wire.conversation import LEGAL, Conversation, Phase
from isthmus.wire.frames import Buffer, FrameDecoder
from isthmus.wire.handshake import Hello, Welcome
from isthmus.wire.plain import decode_plain, encode_plain
from isthmus.wire.replies import Done, Pong, Returned, Vacated
from isthmus.wire.requests import Open, Ping, Vacate
from wire_messages import KINDS, TEXTS, messages_of, required

requirement = pytest.mark.requirement

BUFFERS = st.lists(st.binary(max_size=300) | st.binary(max_size=300).map(bytearray), max_size=3)


def drained(decoder: FrameDecoder[Any]) -> list[tuple[Any, list[bytes]]]:
    found = []
    while (received := decoder.next_frame()) is not None:
        found.append((received.message, [bytes(it) for it in received.buffers]))
    return found


def given_piece(decoder: FrameDecoder[Any], piece: bytes, reads: bool) -> None:
    """Give *piece* in one of the two ways."""
    while reads and piece:
        window = decoder.get_buffer()
        count = min(len(window), len(piece))
        window[:count] = piece[:count]
        decoder.buffer_updated(count)
        piece = piece[count:]
    if piece:
        decoder.feed(piece)


@requirement("7.3-frames")
@pytest.mark.parametrize("side", SIDES)
@given(data=st.data())
def test_any_split_of_the_stream_gives_the_same_messages(side: Side, data: st.DataObject) -> None:
    sent = data.draw(st.lists(st.tuples(messages_of(side), BUFFERS), min_size=1, max_size=4))
    stream = b""
    for message, buffers in sent:
        if buffers:
            parts = Encoder().encode_with_buffers(message, buffers)
            stream += b"".join(bytes(part) for part in parts)
        else:
            stream += Encoder().encode(message)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    asks = data.draw(st.sampled_from(["each time", "at the end"]))
    decoder, found = message_decoder(other_side(side)), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        given_piece(decoder, stream[start:end], reads=data.draw(st.booleans()))
        if asks == "each time":
            found += drained(decoder)
    found += drained(decoder)
    decoder.feed_end()
    assert found == [(message, [bytes(it) for it in buffers]) for message, buffers in sent]


# -- what nobody has sent --------------------------------------------------------------------------

_SMALL = (
    st.none() | st.booleans() | st.integers(-2, 1 << 40) | st.floats() | st.text() | st.binary()
)
_ALL = messages_of("host") | messages_of("worker")


@st.composite
def wild_streams(draw: st.DrawFn) -> bytes:
    """Bytes that look like frames, more or less."""
    kind = draw(st.sampled_from(["bytes", "body", "fields", "damaged"]))
    if kind == "bytes":
        return draw(st.binary(max_size=100))
    if kind == "damaged":
        messages = draw(st.lists(_ALL, min_size=1, max_size=3))
        stream = bytearray(b"".join(Encoder().encode(it) for it in messages))
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, len(stream) - 1))
            stream[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
            stream = stream or bytearray(b"\xc1")
        return bytes(stream)
    body = draw(st.binary(max_size=60))
    if kind == "fields":
        message = required(
            draw(st.sampled_from(sorted(SENT_BY["host"] | SENT_BY["worker"], key=str)))
        )
        fields = msgspec.to_builtins(message, builtin_types=(bytes,))
        changed = draw(
            st.dictionaries(st.sampled_from([*fields, "id", "value"]), _SMALL, max_size=2)
        )
        body = msgspec.msgpack.encode(fields | changed)
    head = (
        b"\xc1"
        + draw(st.sampled_from([b"\0", b"\1"]))
        + b"\0"
        + draw(st.sampled_from([b"\0", b"\1"]))
    )
    return head + len(body).to_bytes(4, "big") + body


@requirement("7.3-malformed")
@pytest.mark.parametrize("receiver", SIDES)
@given(stream=wild_streams())
def test_anything_gives_messages_or_a_protocol_error(receiver: Side, stream: bytes) -> None:
    decoder = message_decoder(receiver)
    decoder.feed(stream)
    try:
        found = drained(decoder)
        decoder.feed_end()
    except ProtocolError:
        with pytest.raises(ProtocolError):
            decoder.next_frame()
    else:
        assert all(type(message) in SENT_BY[other_side(receiver)] for message, _ in found)


# -- who may send what when ------------------------------------------------------------------------


class Talk:
    """Two ends between which messages take their time."""

    def __init__(self) -> None:
        self.ends = {side: Conversation(side) for side in SIDES}
        self.under_way: dict[Side, deque[Any]] = {side: deque() for side in SIDES}
        self.said = 0

    def open(self) -> None:
        """Say all that leads to a session, and let it arrive."""
        for side, message in (
            ("host", Hello((1,), reuse=True)),
            ("worker", Welcome(1)),
            ("host", Open(1)),
            ("worker", Done(1)),
        ):
            self.ends[side].send(message)  # type: ignore[index]
            self.ends[other_side(side)].receive(message)  # type: ignore[arg-type,index]

    def try_to_send(self, side: Side, kind: type[Any], draw: Any) -> None:
        """Send a message of *kind*, unless this end knows that it is out of turn."""
        end, message = self.ends[side], required(kind)
        if kind is Hello:
            message = Hello((1,), reuse=True)
        elif kind is Welcome:
            message = Welcome(1)
        elif "id" in kind.__struct_fields__:
            ids = [*end.owed, end.next_id()]
            message = msgspec.structs.replace(message, id=draw(st.sampled_from(ids)))
        if kind is Cancel:
            message = Cancel(draw(st.integers(1, end.next_id())))
        if "object" in kind.__struct_fields__:
            numbers = [*end.objects, max(end.objects, default=0) + 1]
            message = msgspec.structs.replace(message, object=draw(st.sampled_from(numbers)))
        try:
            end.send(message)
        except InternalError:
            return
        self.under_way[side].append(message)
        self.said += 1

    def deliver(self, sender: Side) -> None:
        """Let one message arrive. A worker that has said its last word reads no more."""
        receiver = self.ends[other_side(sender)]
        gone = sender == "host" and receiver.phase is Phase.CLOSED
        if self.under_way[sender] and not gone:
            receiver.receive(self.under_way[sender].popleft())


@requirement("7.3-turns")
@given(data=st.data())
def test_messages_that_cross_on_their_way_are_never_out_of_turn(data: st.DataObject) -> None:
    talk, mentioned = Talk(), set(KINDS.values())
    if data.draw(st.booleans()):  # over several sessions, which else come too seldom
        talk.open()
        mentioned = {Vacate, Vacated, Open, Done, Ping, Pong, Cancel, CallCapability, Returned}
    for _ in range(data.draw(st.integers(5, 40))):
        side = data.draw(st.sampled_from(SIDES))
        legal = sorted(LEGAL[talk.ends[side].phase][side] & mentioned, key=str)
        if legal and data.draw(st.booleans()):
            talk.try_to_send(side, data.draw(st.sampled_from(legal)), data.draw)
        else:
            talk.deliver(side)
    for side in SIDES:
        while talk.under_way[side] and talk.ends[other_side(side)].phase is not Phase.CLOSED:
            talk.deliver(side)
    host, worker = talk.ends["host"], talk.ends["worker"]
    if Phase.CLOSED not in (host.phase, worker.phase):
        assert host.phase is worker.phase
        assert (host.asked, host.owed, host.objects) == (worker.owed, worker.asked, worker.objects)


# -- values ----------------------------------------------------------------------------------------

_KEYS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
PLAIN = st.recursive(
    _KEYS | st.complex_numbers() | st.binary(max_size=5).map(bytearray) | st.just(b"x" * 40_000),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.sets(_KEYS, max_size=4)
        | st.frozensets(_KEYS, max_size=4)
        | st.dictionaries(_KEYS, inner, max_size=4)
        | st.dictionaries(TEXTS, inner, max_size=4)
    ),
    max_leaves=20,
)


def alike(one: Any, two: Any) -> bool:
    """Whether both are equal down to the types and the signs of zeros; NaN is like NaN."""
    if type(one) is not type(two):
        return False
    if isinstance(one, float):
        return repr(one) == repr(two) and math.copysign(1, one) == math.copysign(1, two)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(alike, one, two))
    if isinstance(one, dict):
        return alike(list(one.items()), list(two.items()))
    if isinstance(one, set | frozenset):
        return sorted(map(described, one)) == sorted(map(described, two))
    return repr(one) == repr(two)


def described(value: Any) -> str:
    """A ``repr`` that does not depend on the order in sets."""
    if isinstance(value, frozenset):
        return f"frozenset{sorted(map(described, value))}"
    if isinstance(value, tuple):
        return f"tuple{list(map(described, value))}"
    return repr(value)


@requirement("7.4-plain")
@given(value=PLAIN, trusted=st.booleans())
def test_plain_values_come_back_as_they_were(value: Any, trusted: bool) -> None:
    buffers: list[Buffer] = []
    packed = pack(value, buffers, trusted=trusted)
    assert packed.kind == "plain"
    assert alike(PackedValue(packed, buffers).load(trusted=False), value)


@requirement("7.3-malformed")
@given(
    data=st.binary(max_size=60), flips=st.lists(st.integers(0, 1 << 16), max_size=3), value=PLAIN
)
def test_what_is_no_plain_value_is_refused(data: bytes, flips: list[int], value: Any) -> None:
    encoded, buffers = encode_plain(value, exactly=False, room=100)
    damaged = bytearray(encoded)
    for flip in flips:
        damaged[(flip >> 8) % len(damaged)] ^= flip & 0xFF
    for each in (data, bytes(damaged)):
        with contextlib.suppress(ProtocolError):
            decode_plain(each, buffers)
