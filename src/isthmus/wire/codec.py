"""Messages and bytes. Owns what the body of a frame is.

A body is one message in MessagePack: a map with the fields by name, and the message's name as
``"type"``. Fields that have their default are left out, and unknown ones are skipped.

Text is UTF-8, which has no lone surrogates. Where a text of the message holds some, all texts of
the body are escaped, and the frame says so: a backslash is doubled, a lone surrogate becomes
``\\udc80``.

Whole numbers of more than 64 bits, which a display may hold, are sent as doubles.

Refuses to know: which message is in turn.
"""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from isthmus.errors import ProtocolError
from isthmus.wire.catalogue import SENT_BY, Side, other_side
from isthmus.wire.frames import (
    Buffer,
    Bytes,
    FrameDecoder,
    frame_with_buffers,
    small_frame,
)
from isthmus.wire.limits import Limits
from isthmus.wire.plain import INT64

ESCAPED = 0x01
"""Flag of a frame: the texts of its message are escaped."""

_ENCODE = msgspec.msgpack.Encoder().encode
_SURROGATE_OR_BACKSLASH = "[\ud800-\udfff\\\\]"  # compiled when it is needed, which is seldom
_ESCAPE = r"\\(\\|u[0-9a-f]{4})"

_MALFORMED = (msgspec.MsgspecError, UnicodeError, RecursionError, MemoryError)
"""What msgspec raises when it is given something else than a message."""


class Encoder:
    """Messages to bytes.

    Arguments:
        limits: What the other side takes; to be set when it has said so.

    Threads: any.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()

    def encode(self, message: msgspec.Struct) -> bytes:
        """The frame of a message without buffers.

        Raises:
            MessageTooLargeError: It is more than the other side takes.
        """
        try:
            return small_frame(_ENCODE(message), 0, self.limits)
        except (UnicodeEncodeError, OverflowError):
            return small_frame(_escaped_body(message), ESCAPED, self.limits)

    def encode_with_buffers(
        self, message: msgspec.Struct, buffers: Sequence[Buffer]
    ) -> list[Bytes]:
        """The frame of a message whose values refer to *buffers*, which are not copied: its parts.

        Raises:
            MessageTooLargeError: It is more than the other side takes.
        """
        try:
            body, flags = _ENCODE(message), 0
        except (UnicodeEncodeError, OverflowError):
            body, flags = _escaped_body(message), ESCAPED
        return frame_with_buffers(body, buffers, flags, self.limits)


def message_decoder(receiver: Side, limits: Limits | None = None) -> FrameDecoder[Any]:
    """What turns bytes into the messages of the other side.

    Arguments:
        receiver: Who receives: messages that the other side never sends are refused.
        limits: What is taken in a single frame.
    """
    return FrameDecoder(_reader_of(other_side(receiver)), limits)


@functools.cache
def _reader_of(sender: Side) -> Callable[[int, bytes], Any]:
    """What makes a message of a body, for those that *sender* sends."""
    union = functools.reduce(operator.or_, sorted(SENT_BY[sender], key=lambda it: it.__name__))
    decode = msgspec.msgpack.Decoder(union).decode

    def read(flags: int, body: bytes) -> Any:
        try:
            if not flags & ESCAPED:
                return decode(body)
            plain = _each_text(msgspec.msgpack.decode(body), _unescaped)
            return msgspec.convert(plain, union, builtin_types=(bytes,))
        except _MALFORMED as error:
            raise ProtocolError(f"this is no message of a {sender}: {error}") from error

    return read


def _escaped_body(message: msgspec.Struct) -> bytes:
    return _ENCODE(_each_text(msgspec.to_builtins(message, builtin_types=(bytes,)), _escaped))


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """*value*, which is plain, with all its texts changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_each_text(key, change): _each_text(it, change) for key, it in value.items()}
    if isinstance(value, list | tuple):  # a key of a map that is an array comes as a tuple
        return type(value)(_each_text(it, change) for it in value)
    return _double(value) if type(value) is int and value not in INT64 else value


def _double(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value > 0 or -1)


def _escaped(text: str) -> str:
    return re.sub(
        _SURROGATE_OR_BACKSLASH,
        lambda found: "\\\\" if found[0] == "\\" else f"\\u{ord(found[0]):04x}",
        text,
    )


def _unescaped(text: str) -> str:
    return re.sub(
        _ESCAPE, lambda found: "\\" if found[1] == "\\" else chr(int(found[1][1:], 16)), text
    )
