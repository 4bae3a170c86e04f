"""Descriptors on their way between two processes, and in this one. Owns the calls for that.

Refuses to know: what they are of.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress

FIRST_DESCRIPTOR = 100
"""The lowest number that a descriptor of ours may get; from the air."""

_NUMBER = array.array("i").itemsize
_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def moved(descriptor: int) -> int:
    """*descriptor*, moved to where programs that number theirs by hand do not find it."""
    try:
        made = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_DESCRIPTOR)
    except OSError:  # there may be fewer
        os.set_inheritable(descriptor, False)
        return descriptor
    os.close(descriptor)
    return made


def send_along(wire: socket.socket, data: bytes, descriptors: Sequence[int], flags: int = 0) -> int:
    """Send *data*, and beside its first byte the *descriptors*, which stay the sender's as well.

    Returns:
        How much of *data* was taken.

    Raises:
        OSError: Nothing was sent.
    """
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    return wire.sendmsg([data], [rights] if descriptors else [], flags)


def receive_along(
    wire: socket.socket, window: memoryview, count: int
) -> tuple[int, list[int], bool]:
    """Read into *window* without waiting, and up to *count* descriptors that come along.

    Returns:
        How many bytes have come, the descriptors, and whether some were lost: this process may have
        no more of them.

    Raises:
        OSError: Nothing was read; nothing may be there.
    """
    space = socket.CMSG_SPACE(count * _NUMBER)
    size, ancillary, flags, _ = wire.recvmsg_into([window], space, socket.MSG_DONTWAIT | _FLAGS)
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % _NUMBER])
    return size, list(found), bool(flags & socket.MSG_CTRUNC)


def close_all(descriptors: Iterable[int]) -> None:
    """Close *descriptors*, whatever others have done to them."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
