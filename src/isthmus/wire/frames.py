"""Frames: one message's bytes, and the buffers that go with it. Owns the layout, and both ways.

    head     magic (1 byte, 0xC1)  flags (1)  number of buffers (2)  bytes of the body (4)
    table    8 bytes for each buffer: its size, with two flags in the highest bits
    body     one message in MessagePack
    buffers  one after the other, but for those that are shared

Numbers are unsigned, the most significant byte first.

Refuses to know: messages, and what buffers hold. Of a shared buffer a frame says no more than its
size: passing its memory, mapping and freeing it is for whoever does I/O.

Guarantees: any split of the stream gives the same frames; what is received is copied once at most,
and a buffer not at all when it is read into :meth:`FrameDecoder.get_buffer` (by uvloop once, if it
is for ``bytes``); memory grows with what has arrived, not with what a head announces.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import BytesIO
from typing import Generic, NoReturn, TypeVar

import msgspec

from isthmus.errors import MessageTooLargeError, ProtocolError
from isthmus.wire.limits import BUFFERS, SHARED_BUFFERS, Limits

T = TypeVar("T")

Bytes = bytes | bytearray | memoryview

MAGIC = 0xC1
"""The one byte that MessagePack never uses: a stream that is out of step is noticed soon."""

FLAGS = 0x01
"""All flags that a head may have. Their meaning is the codec's."""

SHARED = 1 << 63
"""In the table: the buffer does not follow; its memory is passed beside the stream."""

WRITABLE = 1 << 62
"""In the table: the buffer belongs to an object that can be changed."""

_SIZE = WRITABLE - 1

_HEAD = struct.Struct(">II")  # magic, flags and buffers as one number, which is quicker
_HEAD_BYTES = _HEAD.size
_ENTRY_BYTES = 8
_unpack_head = _HEAD.unpack_from
_pack_head = _HEAD.pack

_PLAIN_HEAD = MAGIC << 24
"""Of a frame without flags and buffers, as most are."""

_NEVER = 1 << 62
"""More bytes than ever come: no frame begins now."""

READ_BYTES = 1 << 16
"""How much to read at once where no buffer is under way: a socket's default, or so."""

GROWTH_BYTES = 1 << 20
"""By how much a buffer under way grows at least. It stays in a cache until it is overwritten."""


class SharedBuffer(msgspec.Struct, frozen=True):
    """A buffer in memory that both sides can map.

    Attributes:
        size: Its bytes.
        writable: Whether the object that it belongs to can be changed.
    """

    size: int
    writable: bool = False


Buffer = Bytes | SharedBuffer


class Received(msgspec.Struct, Generic[T], frozen=True):
    """What a frame held.

    Attributes:
        message: What was made of its body.
        buffers: What goes with it: ``bytes``, or a writable ``memoryview`` where the table says
            so; or a :class:`SharedBuffer`, in the place of memory that has come beside the stream.
    """

    message: T
    buffers: list[Buffer]


# -- sending ---------------------------------------------------------------------------------------


def small_frame(body: bytes, flags: int, limits: Limits) -> bytes:
    """A frame without buffers.

    Raises:
        MessageTooLargeError: *body* is more than *limits* allow.
    """
    size = len(body)
    if size > limits.body_bytes:
        _refuse(f"a message of {size} bytes", limits.body_bytes)
    return _pack_head(_PLAIN_HEAD | flags << 16, size) + body


def frame_with_buffers(
    body: bytes, buffers: Sequence[Buffer], flags: int, limits: Limits
) -> list[Bytes]:
    """A frame with *buffers*.

    Returns:
        What to write, in this order, without a copy: ``sendmsg`` or ``writelines``. Buffers in it
        are the objects' own memory: it is to be written before they may change.

    Raises:
        MessageTooLargeError: It is more than *limits* allow.
    """
    if len(body) > limits.body_bytes:
        _refuse(f"a message of {len(body)} bytes", limits.body_bytes)
    if len(buffers) > BUFFERS:
        _refuse(f"a message with {len(buffers)} buffers", BUFFERS)
    parts: list[Bytes] = []
    table: list[int] = []
    shared = total = 0
    for buffer in buffers:
        if isinstance(buffer, SharedBuffer):
            shared += 1
            size, flag = buffer.size, SHARED | (WRITABLE if buffer.writable else 0)
        else:
            view = memoryview(buffer).cast("B")
            parts.append(view)
            size, flag = view.nbytes, 0 if view.readonly else WRITABLE
        total += size
        table.append(size | flag)
    if total > limits.buffer_bytes:
        _refuse(f"a message with {total} bytes of buffers", limits.buffer_bytes)
    if shared > SHARED_BUFFERS:
        _refuse(f"a message with {shared} shared buffers", SHARED_BUFFERS)
    head = _pack_head(_PLAIN_HEAD | flags << 16 | len(table), len(body))
    return [head + struct.pack(f">{len(table)}Q", *table) + body, *parts]


def _refuse(what: str, limit: int) -> NoReturn:
    raise MessageTooLargeError(f"{what} is more than the {limit} that the other process takes")


# -- receiving -------------------------------------------------------------------------------------


class _BufferUnderWay:
    """A buffer that is being received.

    It is kept in a ``BytesIO``, whose memory can be read into, grows by ``realloc`` (which moves
    pages, not bytes, where they are many), and becomes ``bytes`` without a copy.
    """

    __slots__ = ("_filled", "_size", "_store", "_window", "_writable")

    def __init__(self, size: int, writable: bool) -> None:
        self._store = BytesIO()
        self._size = size
        self._writable = writable
        self._filled = 0
        self._window: memoryview | None = None

    @property
    def missing(self) -> int:
        """Bytes that have not arrived."""
        return self._size - self._filled

    def window(self) -> memoryview:
        """Where to put the bytes that come next; not empty as long as some are missing."""
        if self._window is not None:
            self._window.release()  # or else nothing can grow
        store, filled = self._store, self._filled
        if store.seek(0, 2) == filled:
            end = min(self._size, filled + max(GROWTH_BYTES, filled >> 3))
            store.seek(end - 1)
            store.write(b"\0")
            if end == self._size:
                store.getvalue()  # gives back what was reserved beyond the end
        self._window = store.getbuffer()[filled:]
        return self._window

    def advance(self, count: int) -> None:
        """*count* bytes have been put into the window."""
        self._filled += count

    def fill(self, data: memoryview) -> int:
        """Copy as much of *data* as belongs here; how much that is."""
        wanted = min(len(data), self.missing)
        done = 0
        while done < wanted:
            window = self.window()
            count = min(len(window), wanted - done)
            window[:count] = data[done : done + count]
            self.advance(count)
            done += count
        return done

    def take(self) -> Bytes:
        """The whole buffer."""
        with suppress(BufferError):  # uvloop holds the window still; then bytes are a copy
            if self._window is not None:
                self._window.release()
        return self._store.getbuffer() if self._writable else self._store.getvalue()


class _FrameUnderWay(Generic[T]):
    """A frame whose buffers are being received."""

    __slots__ = ("received", "waiting")

    def __init__(self, received: Received[T]) -> None:
        self.received = received
        self.waiting: deque[tuple[int, _BufferUnderWay]] = deque()  # with their places in it

    def fill(self, data: memoryview) -> int:
        """Hand *data* to the buffers that wait; how much of it was theirs."""
        done = 0
        self.settle()
        while self.waiting and done < len(data):
            done += self.waiting[0][1].fill(data[done:])
            self.settle()
        return done

    def settle(self) -> None:
        """Put buffers that are complete in their places."""
        while self.waiting and not self.waiting[0][1].missing:
            place, buffer = self.waiting.popleft()
            self.received.buffers[place] = buffer.take()


class FrameDecoder(Generic[T]):
    """Bytes to what frames hold.

    Give it bytes by :meth:`feed`, or have them read into :meth:`get_buffer` and say so by
    :meth:`buffer_updated`; then ask :meth:`next_frame` until there is none.

    Arguments:
        read: Makes a message of a body, given the frame's flags as well. It raises
            :class:`ProtocolError` where it cannot.
        limits: What is taken in a single frame.

    Attributes:
        available: How many bytes have come and are in no frame yet: while there are none,
            there is no further frame.

    Threads: one at a time.
    """

    def __init__(self, read: Callable[[int, bytes], T], limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._read = read
        self._data = b""
        self._at = 0  # what of _data has been used
        self._more: list[bytes] = []  # what has come since, joined only when it is enough
        self.available = 0  # bytes in both
        self._needed = _HEAD_BYTES  # how many of them the next frame takes, as far as is known
        self._partial: _FrameUnderWay[T] | None = None
        self._scratch = memoryview(b"")
        self._reads_buffer = False
        self._broken: str | None = None

    # -- bytes in ----------------------------------------------------------------------------

    def feed(self, data: Bytes) -> None:
        """Take bytes that have arrived."""
        if self.available:
            self._more.append(bytes(data))
        else:  # most of the time
            if self._partial is not None:
                data = memoryview(data)
                data = data[self._partial.fill(data) :]
            self._data, self._at = bytes(data), 0
        self.available += len(data)

    def get_buffer(self) -> memoryview:
        """Where to read the bytes that come next, as in :class:`asyncio.BufferedProtocol`.

        The memory of a buffer that is under way, or else some of the decoder's own. It is good
        until the next call of any method, and must not be kept.
        """
        partial = self._partial
        self._reads_buffer = bool(partial is not None and partial.waiting and not self.available)
        if self._reads_buffer and partial is not None:
            return partial.waiting[0][1].window()
        if not self._scratch:
            self._scratch = memoryview(bytearray(READ_BYTES))
        return self._scratch

    def buffer_updated(self, count: int) -> None:
        """*count* bytes have been read into what :meth:`get_buffer` gave."""
        if self._reads_buffer and self._partial is not None:
            self._reads_buffer = False
            self._partial.waiting[0][1].advance(count)
            self._partial.settle()
        elif self.available or self._partial is not None:
            self.feed(bytes(self._scratch[:count]))
        else:  # most of the time, and what feed() would do
            self._data, self._at, self.available = bytes(self._scratch[:count]), 0, count

    def feed_end(self) -> None:
        """The stream has ended, and every frame has been asked for.

        Raises:
            ProtocolError: It ended in the middle of a frame, or was refused before.
        """
        if self._broken is None and (self.available or self._partial is not None):
            self._refuse_all("the connection ended in the middle of a frame")
        if self._broken is not None:
            raise ProtocolError(self._broken)

    # -- frames out --------------------------------------------------------------------------

    def next_frame(self) -> Received[T] | None:
        """What the next frame that is complete holds, or None.

        Raises:
            ProtocolError: What came is no frame, no message, or larger than the limits. So does
                every call from then on. Frames before it have been given.
        """
        if self.available < self._needed:
            return self._unfinished()
        if self._more:
            self._join()
        try:
            return self._begin()
        except ProtocolError as error:
            self._refuse_all(str(error))
            raise

    def _begin(self) -> Received[T] | None:
        """Read head, table and body, if they are there. Every message comes along here."""
        data, at = self._data, self._at
        first, size = _unpack_head(data, at)
        count = 0 if first == _PLAIN_HEAD else self._checked(first)
        if size > self.limits.body_bytes:
            _break(f"a message of {size} bytes; the limit is {self.limits.body_bytes}")
        body = at + _HEAD_BYTES + count * _ENTRY_BYTES
        end = body + size
        if self.available < end - at:
            self._needed = end - at
            return None
        flags = first >> 16 & 0xFF
        received = Received(self._read(flags, data[body:end]), [])
        if count:
            self._make_places(received, data, at + _HEAD_BYTES, count)
        self._use(end - at)
        self._needed = _HEAD_BYTES
        return self._fill(self._partial) if self._partial is not None else received

    def _checked(self, first: int) -> int:
        """How many buffers a head announces that has flags or buffers, or is none."""
        count = first & 0xFFFF
        if first >> 24 != MAGIC or first >> 16 & ~FLAGS & 0xFF:
            _break(f"no frame begins with {first >> 24:#x} {first >> 16 & 0xFF:#x}")
        if count > BUFFERS:
            _break(f"a message with {count} buffers; the limit is {BUFFERS}")
        return count

    def _make_places(self, received: Received[T], data: bytes, table: int, count: int) -> None:
        """Make places for the buffers that go with a message."""
        entries: tuple[int, ...] = struct.unpack_from(f">{count}Q", data, table)
        total = sum(entry & _SIZE for entry in entries)
        if total > self.limits.buffer_bytes:
            limit = self.limits.buffer_bytes
            _break(f"a message with {total} bytes of buffers; the limit is {limit}")
        shared = sum(entry >= SHARED for entry in entries)
        if shared > SHARED_BUFFERS:
            _break(f"a message with {shared} shared buffers; the limit is {SHARED_BUFFERS}")
        self._partial = partial = _FrameUnderWay(received)
        for place, entry in enumerate(entries):
            size, writable = entry & _SIZE, bool(entry & WRITABLE)
            if entry & SHARED:
                received.buffers.append(SharedBuffer(size, writable))
            else:
                received.buffers.append(b"")
                partial.waiting.append((place, _BufferUnderWay(size, writable)))

    def _unfinished(self) -> Received[T] | None:
        """Too little has come to begin with a frame; one that has begun may be complete by now."""
        if self._broken is not None:
            raise ProtocolError(self._broken)
        return None if self._partial is None else self._fill(self._partial)

    def _fill(self, partial: _FrameUnderWay[T]) -> Received[T] | None:
        """What *partial* holds, if what came suffices for its buffers."""
        used = partial.fill(memoryview(self._data)[self._at :])
        self._use(used)
        if partial.waiting:
            self._needed = _NEVER
            return None
        self._partial, self._needed = None, _HEAD_BYTES
        return partial.received

    def _use(self, count: int) -> None:
        """*count* of the bytes that are there are in a frame now."""
        self._at += count
        self.available -= count
        if not self.available:
            self._data, self._at = b"", 0  # it may be large

    def _refuse_all(self, why: str) -> None:
        self._broken, self._needed = why, _NEVER

    def _join(self) -> None:
        """Have all that is there in one piece."""
        self._data = b"".join([self._data[self._at :], *self._more])
        self._more.clear()
        self._at = 0


def _break(what: str) -> NoReturn:
    raise ProtocolError(what)
