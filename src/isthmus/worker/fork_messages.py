"""What a host and its fork server say to each other. Owns the messages and their bytes; no I/O.

The host asks on one stream, with the descriptors for the child beside each request. The first of
these is the child's leash: a stream between the host and the server for this child alone, on which
the server tells what becomes of it, and whose end, at the host's side, means that the child is no
longer wanted.

    host ──Fork, 6 descriptors──▸ server
    host ◂──Started | Unborn─── server       on the leash, as all that follows
    host ◂──Exited──────────── server        the process has ended; its number is still its own
    host ──end of the stream──▸ server       the number may be given away
    host ◂──Status──────────── server        how it has ended

Both sides are of one installation, and the stream never leaves the machine: no versions.

Refuses to know: processes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgspec

DESCRIPTORS = 6
"""Beside each ``Fork``: the leash, the child's end of its connection, where it writes stdout and
stderr, and where it reads these back."""

_HEAD = struct.Struct(">I")


class Fork(msgspec.Struct, frozen=True, tag=True):
    """Make a child.

    Attributes:
        cwd: Its working directory.
        env: Its whole environment; None for the server's.
        limits: What :meth:`WorkerLimits.to_argument` has written.
    """

    cwd: bytes
    env: dict[bytes, bytes] | None
    limits: str


class Started(msgspec.Struct, frozen=True, tag=True):
    """There is a child. *pid* is its number until the host ends the leash."""

    pid: int


class Unborn(msgspec.Struct, frozen=True, tag=True):
    """There is no child, and *reason* says why."""

    reason: str


class Exited(msgspec.Struct, frozen=True, tag=True):
    """The process has ended; how is told once the host has ended the leash."""


class Status(msgspec.Struct, frozen=True, tag=True):
    """How the process has ended.

    Attributes:
        code: Its exit code, or the number of the signal that ended it, negative.
        peak_memory_bytes: The most memory that it has held.
    """

    code: int
    peak_memory_bytes: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Fork | Started | Unborn | Exited | Status)


def encoded(message: Any) -> bytes:
    """The bytes of *message*."""
    body = _encoder.encode(message)
    return _HEAD.pack(len(body)) + body


class Messages:
    """Bytes, however they were split, to messages."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take *data*; the messages that are complete now."""
        self._bytes += data
        while len(self._bytes) >= _HEAD.size:
            end = _HEAD.size + _HEAD.unpack_from(self._bytes)[0]
            if len(self._bytes) < end:
                return
            body = bytes(self._bytes[_HEAD.size : end])
            del self._bytes[:end]
            yield _decoder.decode(body)
