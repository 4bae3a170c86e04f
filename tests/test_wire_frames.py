"""Frames: their layout, limits, buffers; what is malformed ends in ProtocolError."""

from __future__ import annotations

import struct
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from isthmus import MessageTooLargeError, ProtocolError
from isthmus.wire.codec import Encoder, message_decoder
from isthmus.wire.frames import (
    GROWTH_BYTES,
    READ_BYTES,
    Bytes,
    FrameDecoder,
    Received,
    SharedBuffer,
    frame_with_buffers,
    small_frame,
)
from isthmus.wire.limits import BUFFERS, SHARED_BUFFERS, Limits
from isthmus.wire.replies import Done

requirement = pytest.mark.requirement

NO_LIMITS = Limits()
DATA = Path(__file__).parent / "data"
MALFORMED = tomllib.loads((DATA / "malformed_frames.toml").read_text())["frame"]


def a_decoder(limits: Limits = NO_LIMITS) -> FrameDecoder[tuple[int, bytes]]:
    """A decoder that makes nothing of bodies."""
    return FrameDecoder(lambda flags, body: (flags, body), limits)


def all_frames(
    decoder: FrameDecoder[tuple[int, bytes]], data: Iterable[Bytes]
) -> list[Received[tuple[int, bytes]]]:
    found = []
    for piece in data:
        decoder.feed(piece)
        while (frame := decoder.next_frame()) is not None:
            found.append(frame)
    return found


def joined(parts: Iterable[Bytes]) -> bytes:
    return b"".join(bytes(part) for part in parts)


@requirement("7.3-frames")
def test_the_layout_is_the_one_that_is_documented() -> None:
    assert small_frame(b"body", 1, NO_LIMITS) == b"\xc1\x01\x00\x00\x00\x00\x00\x04body"
    frame = frame_with_buffers(b"body", [b"ab", bytearray(b"cde")], 0, NO_LIMITS)
    assert joined(frame) == (
        b"\xc1\x00\x00\x02\x00\x00\x00\x04"
        b"\x00\x00\x00\x00\x00\x00\x00\x02\x40\x00\x00\x00\x00\x00\x00\x03"
        b"bodyabcde"
    )


@requirement("7.3-frames")
def test_a_frame_that_comes_byte_by_byte_is_given_once() -> None:
    data = small_frame(b"one", 0, NO_LIMITS) + small_frame(b"", 0, NO_LIMITS)
    decoder = a_decoder()
    found = all_frames(decoder, (bytes([byte]) for byte in data))
    assert [it.message for it in found] == [(0, b"one"), (0, b"")]
    decoder.feed_end()


@requirement("7.4-buffers")
def test_buffers_come_back_as_bytes_or_as_memory_that_can_be_written_to() -> None:
    fixed, changing = bytes(range(256)) * 20, bytearray(b"x" * 100)
    sent = frame_with_buffers(b"body", [fixed, changing, b""], 0, NO_LIMITS)
    for size in (1, 7, 4096, 1 << 20):
        data = joined(sent)
        pieces = (data[at : at + size] for at in range(0, len(data), size))
        (frame,) = all_frames(a_decoder(), pieces)
        first, second, third = frame.buffers
        assert first == fixed and type(first) is bytes
        assert isinstance(second, memoryview) and not second.readonly and second == changing
        assert third == b"" and type(third) is bytes


@requirement("7.4-buffers")
def test_what_is_sent_is_the_memory_of_the_object_itself() -> None:
    memory = bytearray(b"before")
    sent = frame_with_buffers(b"", [memory], 0, NO_LIMITS)
    memory[:] = b"after!"
    assert bytes(sent[1]) == b"after!"


@requirement("7.4-buffers")
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_large_buffer_is_read_into_its_own_memory(kind: type[bytes] | type[bytearray]) -> None:
    size = 3 * GROWTH_BYTES + 5
    large = kind((bytes(range(251)) * (size // 251 + 1))[:size])
    data = memoryview(joined(frame_with_buffers(b"body", [large], 0, NO_LIMITS)))
    decoder, at, own_memory = a_decoder(), 0, 0
    held = memoryview(b"")
    while (frame := decoder.next_frame()) is None:
        held.release()
        held = memoryview(decoder.get_buffer())  # held until the next one, as uvloop does
        count = min(len(held), len(data) - at, 300_000)
        own_memory += count if len(held) != READ_BYTES else 0
        held[:count] = data[at : at + count]
        decoder.buffer_updated(count)
        at += count
    assert frame.buffers == [large]
    assert at == len(data)
    assert own_memory >= size - READ_BYTES


@requirement("7.3-limits")
def test_memory_grows_with_what_has_come_and_not_with_what_is_announced() -> None:
    head = b"\xc1\x00\x00\x01\x00\x00\x00\x04" + struct.pack(">Q", 1 << 31) + b"body"
    decoder = a_decoder()
    decoder.feed(head)
    assert decoder.next_frame() is None
    assert len(decoder.get_buffer()) <= 2 * GROWTH_BYTES


def test_messages_after_a_frame_with_buffers_are_read_by_either_way() -> None:
    first = joined(frame_with_buffers(b"first", [b"x" * 100], 0, NO_LIMITS))
    data = first + small_frame(b"second", 0, NO_LIMITS)
    decoder = a_decoder()
    for at in range(0, len(data), 50):
        piece = data[at : at + 50]
        window = decoder.get_buffer()
        count = min(len(window), len(piece))
        window[:count] = piece[:count]
        decoder.buffer_updated(count)
        decoder.feed(piece[count:])
    assert [it.message for it in all_frames(decoder, [b""])] == [(0, b"first"), (0, b"second")]


# -- shared memory ---------------------------------------------------------------------------------


@requirement("7.4-shared")
def test_a_shared_buffer_has_its_size_in_the_table_and_no_bytes_in_the_stream() -> None:
    buffers = [b"inline", SharedBuffer(1 << 20), SharedBuffer(8, writable=True)]
    data = joined(frame_with_buffers(b"body", buffers, 0, NO_LIMITS))
    assert len(data) == 8 + 3 * 8 + len(b"body") + len(b"inline")
    (frame,) = all_frames(a_decoder(), [data[:1], data[1:]])
    assert frame.buffers == buffers


# -- limits ----------------------------------------------------------------------------------------

LIMITS = Limits(body_bytes=10, buffer_bytes=20)

TOO_LARGE = {
    "body": (b"x" * 11, []),
    "body with a buffer": (b"x" * 11, [b""]),
    "buffers' bytes": (b"", [b"x" * 10, b"y" * 11]),
    "shared bytes": (b"", [SharedBuffer(21)]),
    "number of buffers": (b"", [b""] * (BUFFERS + 1)),
    "number of shared buffers": (b"", [SharedBuffer(0)] * (SHARED_BUFFERS + 1)),
}


@requirement("7.3-limits")
@pytest.mark.parametrize("what", TOO_LARGE)
def test_what_the_other_side_does_not_take_is_not_sent(what: str) -> None:
    body, buffers = TOO_LARGE[what]
    with pytest.raises(MessageTooLargeError, match="more than the"):
        if buffers:
            frame_with_buffers(body, buffers, 0, LIMITS)
        else:
            small_frame(body, 0, LIMITS)


@requirement("7.3-limits")
def test_what_is_within_the_limits_passes() -> None:
    sent = frame_with_buffers(b"x" * 10, [b"y" * 10, b"z" * 10], 0, LIMITS)
    (frame,) = all_frames(a_decoder(LIMITS), sent)
    assert frame.buffers == [b"y" * 10, b"z" * 10]


@requirement("7.3-limits")
def test_a_frame_that_is_too_large_is_refused_by_its_head() -> None:
    with pytest.raises(ProtocolError, match="11 bytes; the limit is 10"):
        all_frames(a_decoder(LIMITS), [small_frame(b"x" * 11, 0, NO_LIMITS)[:8]])
    announced = frame_with_buffers(b"", [b"x" * 21], 0, NO_LIMITS)[0]
    with pytest.raises(ProtocolError, match="21 bytes of buffers; the limit is 20"):
        all_frames(a_decoder(LIMITS), [announced])


# -- what is malformed -----------------------------------------------------------------------------


@requirement("7.3-malformed")
@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_a_malformed_frame_ends_in_protocol_error_for_good(name: str, size: int) -> None:
    case = MALFORMED[name]
    data, decoder = bytes.fromhex(case["hex"]), message_decoder(case["receiver"])
    for at in range(0, len(data), size):
        decoder.feed(data[at : at + size])
    for _ in range(2):
        with pytest.raises(ProtocolError, match=case["error"]):
            if decoder.next_frame() is None:
                decoder.feed_end()
    decoder.feed(Encoder().encode(Done(1)))
    with pytest.raises(ProtocolError, match=case["error"]):
        decoder.next_frame()


@requirement("7.3-malformed")
def test_frames_before_a_malformed_one_are_given() -> None:
    decoder = a_decoder()
    decoder.feed(small_frame(b"good", 0, NO_LIMITS) + b"bad bytes")
    frame = decoder.next_frame()
    assert frame is not None and frame.message == (0, b"good")
    with pytest.raises(ProtocolError, match="no frame begins with 0x62"):
        decoder.next_frame()


@requirement("7.3-malformed")
def test_the_end_between_two_frames_is_a_good_one() -> None:
    decoder = a_decoder()
    decoder.feed_end()
    assert len(all_frames(decoder, [small_frame(b"good", 0, NO_LIMITS)])) == 1
    decoder.feed_end()
