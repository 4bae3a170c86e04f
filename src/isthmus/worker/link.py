"""The worker's end of the socket. Owns what is read and written there, and by whom.

Whoever has something to say writes it, in its own thread: a thread cell's output does not wait for
a loop that another cell keeps busy. A host that does not read makes the writer wait: nothing is
lost. The loop's thread alone reads; where a cell keeps that busy, the host sends a signal, whose
handler reads in the middle of the cell.

Refuses to know: what messages ask for.

Guarantees: each message is written whole, in the order in which the conversation was told of it.
Nothing of user code runs in here but finalizers, so that no interrupt arrives in the middle of a
message: the handlers leave code of this package alone.

Locks: ``_sending`` guards the stream of bytes that go out, and is held while the socket takes them;
``_telling`` guards the conversation, and is held inside the other one. Messages are received under
the second alone: a writer that waits for its host does not keep the loop from reading.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from types import FrameType
from typing import Any, Protocol

from isthmus.errors import ProtocolError
from isthmus.home import HOGGED_SECONDS
from isthmus.interrupts import SIGNAL
from isthmus.wire.codec import Encoder, message_decoder
from isthmus.wire.conversation import Conversation, Phase
from isthmus.wire.frames import Buffer, Bytes, Received
from isthmus.wire.handshake import FEATURES
from isthmus.worker.companions import adopt
from isthmus.worker.descriptors import receive_along
from isthmus.worker.leaving import leave
from isthmus.worker.shared_memory import MemoryChannel, Parcel, fill
from isthmus.worker.slate import Slate

_FOLDER = os.path.dirname(__file__)

PARTING_SECONDS = 1.0
"""How long the host may take to close its end of the connection; from the air."""

_SCRATCH_BYTES = 1 << 16


class Receiver(Protocol):
    """Who takes what has come."""

    def take(self, received: Received[Any]) -> None:
        """Take a message. On the loop, in order."""

    def hurry(self, message: Any) -> bool:
        """Whether *message* could be done before all others, in the middle of a cell."""

    def catch_up(self) -> None:
        """Do in the same way what was taken, and waits for the loop."""


class Link:
    """The worker's end of the connection.

    Arguments:
        connection: The socket, in blocking mode. It is closed with the process.

    Attributes:
        encoder: Makes bytes of messages.
        slate: Where what is held back is shown, if there is one.
        forked: This is a child process of the worker, which must not write to the host.

    Threads: any, where a method does not say otherwise.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.encoder = Encoder()
        self.forked = False
        self.slate: Slate | None = None
        self._socket = connection
        self._decoder = message_decoder("worker")
        self._conversation = Conversation("worker")
        self._sending = threading.Lock()
        self._telling = threading.Lock()
        self._memory: MemoryChannel | None = None
        self._given: list[int] = []  # descriptors that came with the first byte
        self._inbox: deque[Received[Any]] = deque()
        self._receiver: Receiver | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled = False
        self.ended: asyncio.Future[None] | None = None
        os.register_at_fork(after_in_child=self._after_fork)

    # -- writing -----------------------------------------------------------------------------

    def send(self, message: Any, buffers: Sequence[Buffer] = ()) -> None:
        """Write *message*. In a child process of the worker, and after the end, nothing is.

        Raises:
            MessageTooLargeError: It is more than the host takes. Nothing was written.
        """
        if buffers and self._memory is not None:
            with Parcel(buffers) as parcel, self._sending:
                self._send_parcel(message, buffers, parcel, self._memory)
            return
        parts = self._encoded(message, buffers)
        with self._sending:
            if self._tell(message):
                self._write(parts)

    def _send_parcel(
        self, message: Any, buffers: Sequence[Buffer], parcel: Parcel, memory: MemoryChannel
    ) -> None:
        """Write *message* with the buffers of *parcel*, or if need be with its own *buffers*."""
        parts = self._encoded(message, parcel.buffers)
        if self._tell(message):
            self._write(parts if memory.send(parcel) else self._encoded(message, buffers))

    def ask(self, make: Callable[[int], Any], buffers: Sequence[Buffer] = ()) -> int:
        """Write the request that *make* makes of an id, which is returned.

        Raises:
            MessageTooLargeError: It is more than the host takes. Nothing was written.
        """
        if buffers and self._memory is not None:
            with Parcel(buffers) as parcel, self._sending:
                number = self._conversation.next_id()
                self._send_parcel(make(number), buffers, parcel, self._memory)
            return number
        with self._sending:
            number = self._conversation.next_id()
            message = make(number)
            parts = self._encoded(message, buffers)
            if self._tell(message):
                self._write(parts)
        return number

    def _encoded(self, message: Any, buffers: Sequence[Buffer]) -> Sequence[Bytes]:
        if not buffers:
            return (self.encoder.encode(message),)
        return self.encoder.encode_with_buffers(message, buffers)

    def _tell(self, message: Any) -> bool:
        """Tell the conversation of *message*; whether anybody listens."""
        with self._telling:
            if self.forked or self._conversation.phase is Phase.CLOSED:
                return False
            self._conversation.send(message)
            return True

    def _write(self, parts: Sequence[Bytes]) -> None:
        """Write all of *parts*, however long it takes. That a host has gone is seen elsewhere."""
        try:
            if len(parts) == 1:
                self._socket.sendall(parts[0])
                return
            waiting = deque(memoryview(part).cast("B") for part in parts)
            while waiting:
                sent = self._socket.sendmsg(waiting)
                while waiting and sent >= len(waiting[0]):
                    sent -= len(waiting.popleft())
                if sent:
                    waiting[0] = waiting[0][sent:]
        except (BrokenPipeError, ConnectionResetError):
            return

    # -- reading -----------------------------------------------------------------------------

    def open(self, receiver: Receiver) -> asyncio.Future[None]:
        """Begin to read for *receiver*, in the loop that runs here, on the main thread.

        Returns:
            A future that is set when the host has gone.
        """
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self.ended = self._loop.create_future()
        self._loop.add_reader(self._socket.fileno(), self._begin)
        if SIGNAL is not None:
            signal.signal(SIGNAL, self._on_signal)
        return self.ended

    def _begin(self) -> None:
        """Read the first bytes, and the descriptors that come with them."""
        assert self._loop is not None
        self._loop.add_reader(self._socket.fileno(), self._readable)
        window = self._decoder.get_buffer()
        try:
            count, self._given, _ = receive_along(self._socket, window, len(FEATURES))
        except OSError:  # what there is to say is said again
            return
        self._arrived(count)
        self._deliver()

    def adopt(self, features: Sequence[str]) -> tuple[str, ...]:
        """Take what came with ``Hello``; those of its *features* that are in force."""
        in_force, self._memory = adopt(features, self._given)
        return in_force

    def _readable(self) -> None:
        try:
            self._pull()
        except Exception as error:  # a boundary: bytes are lost, and with them all that follow
            leave(error)
        self._deliver()

    def _deliver(self) -> None:
        """Hand out what has come, but let the loop go round now and then. On the loop."""
        self._scheduled = False
        inbox, receiver, began = self._inbox, self._receiver, time.monotonic()
        assert receiver is not None
        try:
            while inbox:
                receiver.take(inbox.popleft())
                if inbox and time.monotonic() - began > HOGGED_SECONDS:
                    self._deliver_soon()
                    return
        except Exception as error:  # a boundary: a message is lost, and somebody waits for its
            leave(error)  # answer; memory may have run out

    def _deliver_soon(self) -> None:
        """Go on later; without the context variables of the cell in whose middle this may be."""
        if self._inbox and not self._scheduled and self._loop is not None:
            self._scheduled = True
            self._loop.call_soon_threadsafe(self._deliver, context=Context())

    def _pull(self) -> None:
        """Read what is there, without waiting. On the main thread."""
        try:
            count = self._socket.recv_into(self._decoder.get_buffer(), 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionResetError:
            count = 0
        self._arrived(count)

    def _arrived(self, count: int) -> None:
        """Take *count* bytes that were read into the decoder's buffer; none: the host has gone."""
        if not count:
            self._end()
            return
        decoder = self._decoder
        decoder.buffer_updated(count)
        try:
            while (received := decoder.next_frame()) is not None:
                with self._telling:
                    self._conversation.receive(received.message)
                if received.buffers:
                    fill(received.buffers, self._memory)
                self._inbox.append(received)
                if not decoder.available:
                    return
        except ProtocolError as error:
            sys.__stderr__ and sys.__stderr__.write(f"the host breaks the protocol: {error}\n")
            self._end()

    def _end(self) -> None:
        """The host has gone, or cannot be understood."""
        assert self._loop is not None
        self._loop.remove_reader(self._socket.fileno())
        if self.ended is not None and not self.ended.done():
            self.ended.get_loop().call_soon_threadsafe(self._set_ended)

    def _set_ended(self) -> None:
        if self.ended is not None and not self.ended.done():
            self.ended.set_result(None)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """The host wants its messages read, whatever the loop's thread does.

        Not where that is in here already: then it will get to them, or the host signals again.
        """
        if frame is not None and frame.f_code.co_filename.startswith(_FOLDER):
            return
        while frame is not None:
            if frame.f_code.co_filename == __file__:
                return
            frame = frame.f_back
        self._pull()
        assert self._receiver is not None
        waiting = list(self._inbox)
        self._inbox.clear()
        self._inbox += [it for it in waiting if not self._receiver.hurry(it.message)]
        self._receiver.catch_up()
        self._deliver_soon()

    # -- the end -----------------------------------------------------------------------------

    @property
    def unsettled(self) -> str:
        """What keeps the host from having this worker vacated: see :class:`Conversation`."""
        return self._conversation.unsettled

    @property
    def is_owed(self) -> bool:
        """Whether the host has requests of this end to answer."""
        return bool(self._conversation.asked)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def part(self) -> None:
        """Say no more, and wait until the host has heard all, and has closed its end.

        A socket that is closed while something in it is unread takes back, on Linux, what the other
        end has not read yet; and the host may just have answered something.
        """
        if SIGNAL is not None:
            signal.signal(SIGNAL, signal.SIG_IGN)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            self._socket.settimeout(PARTING_SECONDS)
            while self._socket.recv(_SCRATCH_BYTES):
                pass

    def _after_fork(self) -> None:
        """In a child process of the worker: the connection is the parent's.

        It is replaced and not closed, as its number would go to the next file that is opened, and
        with it would go what is written here. Locks may be held by threads that are not here.
        """
        self.forked = True
        if self.slate is not None:
            self.slate.leave()
        self._sending, self._telling = threading.Lock(), threading.Lock()
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(nowhere, self._socket.fileno(), inheritable=False)
        os.close(nowhere)
