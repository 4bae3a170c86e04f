"""Large buffers in memory that both processes map. Owns that memory, and its way to the other side.

The sender copies a buffer once, into a file that is nothing but memory (``memfd_create``), seals it
and passes its descriptor over a channel of its own, before it sends the frame that refers to it.
The receiver maps the file and closes the descriptor: nothing is copied, and the memory is freed
when the last view of it has gone, on whichever side, also when either process dies.

A mapping is the receiver's own. Nobody can change or shrink what it shows: the seals are looked at
before it is made. What belongs to an object that can be changed is mapped so that it can be written
to, and what is written is copied then, page by page (``MAP_PRIVATE``).

Where there is no memory or no descriptor left, or the channel is full, a buffer goes with its frame
instead.

Refuses to know: frames, what buffers hold.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

from isthmus.errors import ProtocolError
from isthmus.wire.frames import Buffer, SharedBuffer
from isthmus.wire.limits import SHARED_BUFFERS
from isthmus.worker.descriptors import close_all, receive_along, send_along

SHARED_BYTES = 4 << 20
"""From which size on a buffer is shared. Below, while caches hold it, having the kernel copy it
twice costs less than making and mapping a file; at four times this it costs twice as much."""

IS_SUPPORTED = hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS")
"""Whether this system has memory of that kind: Linux has."""

_SEALS = (
    fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
    if IS_SUPPORTED
    else 0
)
_UNTRACKED = {"trackfd": False} if sys.version_info >= (3, 13) else {}
"""A mapping needs no descriptor; before 3.13 Python keeps one as long as there is the mapping."""


class Parcel:
    """The buffers of one frame, the large ones among them in memory that can be shared.

    Use it in a ``with`` block, at whose end the sender's descriptors are closed.

    Arguments:
        buffers: Those of the frame.

    Attributes:
        buffers: The same, with a :class:`SharedBuffer` in the place of each one that is shared.
        descriptors: Of those, in their order.
    """

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self.buffers = list(buffers)
        self.descriptors: list[int] = []
        for place, buffer in enumerate(buffers):
            if not isinstance(buffer, SharedBuffer) and len(self.descriptors) < SHARED_BUFFERS:
                self._share(place, memoryview(buffer).cast("B"))

    def _share(self, place: int, memory: memoryview) -> None:
        if memory.nbytes < SHARED_BYTES:
            return
        try:
            self.descriptors.append(_filled(memory))
        except OSError:  # no memory, or no descriptor
            return
        self.buffers[place] = SharedBuffer(memory.nbytes, not memory.readonly)

    def __enter__(self) -> Parcel:
        """It is to be sent in the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Close what the receiver has by now, if it was sent."""
        close_all(self.descriptors)
        self.descriptors.clear()


def _filled(memory: memoryview) -> int:
    """The descriptor of a file that holds what *memory* does, and never anything else."""
    descriptor = os.memfd_create("isthmus", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with ExitStack() as undo:
        undo.callback(os.close, descriptor)
        while memory:
            memory = memory[os.write(descriptor, memory) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        undo.pop_all()
    return descriptor


class MemoryChannel:
    """One end of the channel on which descriptors go.

    Arguments:
        channel: The socket, which keeps messages apart (``SOCK_SEQPACKET``). It becomes its own.

    Threads: one sends, and one receives, at a time. Close: :meth:`close`, idempotent.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def send(self, parcel: Parcel) -> bool:
        """Pass on the descriptors of *parcel*, before its frame is sent; False where they cannot.

        Never waits.
        """
        if not parcel.descriptors:
            return True
        try:
            send_along(self._channel, b"m", parcel.descriptors, socket.MSG_DONTWAIT)
        except OSError:  # it is full, or closed, or too many are under way
            return False
        return True

    def fill(self, buffers: list[Buffer]) -> None:
        """Put memory that has come in the place of each :class:`SharedBuffer` of a frame.

        One that cannot be mapped, as there is no descriptor or address space left, stays.

        Raises:
            ProtocolError: The memory that has come is not what the frame says.
        """
        places = [it for it, buffer in enumerate(buffers) if isinstance(buffer, SharedBuffer)]
        if not places:
            return
        descriptors = self._receive(len(places))
        try:
            for place, descriptor in zip(places, descriptors, strict=False):
                buffers[place] = _mapped(descriptor, buffers[place])
        finally:
            close_all(descriptors)

    def _receive(self, count: int) -> list[int]:
        try:
            _, found, some_lost = receive_along(self._channel, memoryview(bytearray(1)), count)
        except OSError as error:
            raise ProtocolError(f"a frame refers to memory that has not come: {error}") from error
        if some_lost or len(found) == count:
            return found if len(found) == count else _refused(found)
        close_all(found)
        raise ProtocolError(f"a frame refers to {count} files of memory, and {len(found)} came")

    def close(self) -> None:
        """Send and receive no more. What was mapped stays."""
        self._channel.close()


def fill(buffers: list[Buffer], channel: MemoryChannel | None) -> None:
    """Put memory that has come by *channel* in the place of the *buffers* of a frame that are so.

    Raises:
        ProtocolError: There is no channel, or the memory is not what the frame says.
    """
    if channel is not None:
        channel.fill(buffers)
    elif any(isinstance(it, SharedBuffer) for it in buffers):
        raise ProtocolError("a frame refers to memory, and there is no channel for it")


def _refused(found: list[int]) -> list[int]:
    """None of those that have come: which ones were lost cannot be told."""
    close_all(found)
    return []


def _mapped(descriptor: int, buffer: Buffer) -> Buffer:
    """What *descriptor* is of, mapped; *buffer* itself where there is no room for that."""
    assert isinstance(buffer, SharedBuffer)
    _check(descriptor, buffer.size)
    if not buffer.size:
        return bytearray() if buffer.writable else b""
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if buffer.writable else 0)
    try:
        made = mmap.mmap(descriptor, buffer.size, mmap.MAP_PRIVATE, protection, **_UNTRACKED)
    except OSError:
        return buffer
    return memoryview(made)


def _check(descriptor: int, size: int) -> None:
    """Refuse what its sender can still change: who reads memory that was cut off is ended."""
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError as error:
        raise ProtocolError(f"what has come as memory is something else: {error}") from error
    if seals & _SEALS != _SEALS:
        raise ProtocolError("memory has come that is not sealed")
    if os.fstat(descriptor).st_size < size:
        raise ProtocolError(f"memory has come that is smaller than {size} bytes")
