"""The host's end of the socket. Owns bytes ↔ messages there, and which request an answer is for.

Refuses to know: what messages ask for, processes.

Threads: the loop's.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from isthmus.errors import ProtocolError, RemoteError, ValueLoadError
from isthmus.prompt_future import PromptFuture
from isthmus.remote_failures import error_of
from isthmus.wire import handshake
from isthmus.wire.catalogue import ALL_REPLIES, INTERIM
from isthmus.wire.codec import Encoder, message_decoder
from isthmus.wire.conversation import Conversation, Phase
from isthmus.wire.frames import Buffer, Bytes, Received
from isthmus.wire.replies import Failed
from isthmus.worker.companions import HostCompanions
from isthmus.worker.descriptors import send_along
from isthmus.worker.shared_memory import MemoryChannel, Parcel, fill

Convert = Callable[[Received[Any]], Any]
"""Makes of an answer what its request was made for."""


class Answer(PromptFuture[Any]):
    """What becomes of the answer to a request.

    Attributes:
        leave: Called instead, where the task that waits is cancelled: the wait goes on, and the
            cancellation arrives at its end. Once; the next cancellation ends the wait, as any does
            where this is None.
    """

    leave: Callable[[], object] | None = None

    def cancel(self, msg: Any = None) -> bool:
        """Say that nobody wants the answer; false where the wait for it goes on."""
        leave, self.leave = self.leave, None
        if leave is None or self.done():
            return super().cancel(msg)
        leave()
        return False


class HostConnection(asyncio.BufferedProtocol):
    """A connection to a worker, as asyncio's transport drives it.

    Arguments:
        on_message: Called with all that is no last answer to a request.
        on_lost: Called when the connection has ended, with what was wrong with it, if anything.

    Attributes:
        encoder: Makes bytes of messages.
    """

    def __init__(
        self,
        on_message: Callable[[Received[Any]], object],
        on_lost: Callable[[ProtocolError | None], object],
    ) -> None:
        self.encoder = Encoder()
        self._decoder = message_decoder("host")
        self._conversation = Conversation("host")
        self._waiting: dict[int, tuple[Answer, Convert | None]] = {}
        self._on_message = on_message
        self._on_lost = on_lost
        self._fault: ProtocolError | None = None
        self._transport: asyncio.Transport | None = None
        self._companions: HostCompanions | None = None

    def serve(
        self,
        on_message: Callable[[Received[Any]], object],
        on_lost: Callable[[ProtocolError | None], object],
    ) -> None:
        """Call others from now on."""
        self._on_message, self._on_lost = on_message, on_lost

    # -- asyncio's side ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's derives from nothing

    def get_buffer(self, sizehint: int) -> Any:
        """Where to read to."""
        return self._decoder.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Take the messages that are complete."""
        self._decoder.buffer_updated(nbytes)
        try:
            while self._fault is None and self._take_next() and self._decoder.available:
                pass
        except ProtocolError as error:
            self._fault = error
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that nothing more will come."""
        if exc is not None and self._fault is None:
            self._read_rest()
        self._on_lost(self._fault)

    def _read_rest(self) -> None:
        """Take what the worker has said before it went, where it was a write that has found out.

        asyncio's transports close their socket after this; uvloop's have done so.
        """
        assert self._transport is not None
        wire = self._transport.get_extra_info("socket")
        with suppress(OSError):
            while self._fault is None and (count := os.readv(wire.fileno(), [self.get_buffer(-1)])):
                self.buffer_updated(count)

    # -- the beginning, and memory -----------------------------------------------------------

    def greet(self, wire: socket.socket, software: str, *, reuse: bool) -> None:
        """Say ``Hello`` on *wire*, before a transport has it: descriptors go with the first byte.

        Arguments:
            wire: The socket.
            software: What this is, for people.
            reuse: The worker may have another session when one has ended.

        Raises:
            OSError: There are no descriptors left.
        """
        companions = self._companions = HostCompanions()
        features = companions.features
        hello = handshake.Hello(handshake.VERSIONS, features, software=software, reuse=reuse)
        self._conversation.send(hello)
        send_along(wire, self.encoder.encode(hello), companions.theirs)
        companions.sent()

    def agree(self, welcome: handshake.Welcome) -> None:
        """The worker has said what it takes."""
        self.encoder.limits = welcome.limits
        if self._companions is not None:
            self._companions.agree(welcome.features)

    @property
    def _memory(self) -> MemoryChannel | None:
        return None if self._companions is None else self._companions.memory

    def close(self) -> None:
        """Close what goes with the connection, which ends a worker that is left. Idempotent."""
        if self._companions is not None:
            self._companions.close()

    # -- messages ----------------------------------------------------------------------------

    def _take_next(self) -> bool:
        """Take the next message, and hold nothing of it: who waits for it goes on in here.

        Returns:
            Whether there was one.
        """
        received = self._decoder.next_frame()
        if received is None:
            return False
        message = received.message
        self._conversation.receive(message)
        if received.buffers:
            fill(received.buffers, self._memory)
        kind = type(message)
        if kind not in ALL_REPLIES or kind in INTERIM:
            self._on_message(received)
            return True
        answer, convert = self._waiting.pop(message.id)
        if answer.done():  # who wanted it has left
            return True
        answer.leave = None
        value, error = _converted(received, convert)
        del received, message
        if error is None:
            answer.resolve(value)
        else:
            answer.fail(error)
        return True

    def send(self, message: Any, buffers: Sequence[Buffer] = ()) -> None:
        """Send *message*.

        Raises:
            MessageTooLargeError: It is more than the worker takes. Nothing was sent.
        """
        if buffers and self._memory is not None:
            with Parcel(buffers) as parcel:
                self._send_parcel(message, buffers, parcel, self._memory)
            return
        parts = self._encoded(message, buffers)
        self._conversation.send(message)
        self._write(parts)

    def _send_parcel(
        self, message: Any, buffers: Sequence[Buffer], parcel: Parcel, memory: MemoryChannel
    ) -> None:
        """Send *message* with the buffers of *parcel*, or if need be with its own *buffers*."""
        parts = self._encoded(message, parcel.buffers)
        self._conversation.send(message)
        self._write(parts if memory.send(parcel) else self._encoded(message, buffers))

    def _write(self, parts: Sequence[Bytes]) -> None:
        assert self._transport is not None
        if len(parts) == 1:
            self._transport.write(parts[0])
        else:
            self._transport.writelines(parts)

    def _encoded(self, message: Any, buffers: Sequence[Buffer]) -> list[Bytes]:
        if not buffers:
            return [self.encoder.encode(message)]
        parts = self.encoder.encode_with_buffers(message, buffers)
        # The transport may keep them, and their objects may change before it has written them.
        return [bytes(it) if isinstance(it, memoryview) and not it.readonly else it for it in parts]

    def ask(
        self, make: Callable[[int], Any], convert: Convert | None, buffers: Sequence[Buffer] = ()
    ) -> tuple[int, Answer]:
        """Send a request; its id, and a future of what becomes of the last answer.

        Arguments:
            make: Makes the request of its id.
            convert: Makes of an answer what the future gets, before the next message is looked at.
                What it raises the future gets as well. None leaves the message.
            buffers: What goes with the request.

        Raises:
            MessageTooLargeError: It is more than the worker takes. Nothing was sent.
        """
        number = self._conversation.next_id()
        self.send(make(number), buffers)
        answer = Answer(loop=asyncio.get_running_loop())
        self._waiting[number] = answer, convert
        return number, answer

    def fail_all(self, error: Callable[[], Exception]) -> None:
        """Let all who wait have an error of their own."""
        waiting, self._waiting = self._waiting, {}
        for answer, _ in waiting.values():
            answer.leave = None
            if not answer.done():
                answer.fail(error())

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    @property
    def is_over(self) -> bool:
        """Whether the worker has said its last, and wants to hear no more."""
        return self._conversation.phase is Phase.CLOSED

    def abort(self) -> None:
        """End the connection now. Idempotent."""
        if self._transport is not None:
            self._transport.abort()


def _converted(received: Received[Any], convert: Convert | None) -> tuple[Any, Exception | None]:
    """What an answer means to who has asked: a value, or an error."""
    message = received.message
    if type(message) is Failed:
        error = error_of(message.error)
        return None, error if isinstance(error, Exception) else RemoteError(str(error))
    if convert is None:
        return message, None
    try:
        return convert(received), None
    except BaseException as error:  # a boundary: loading a pickle runs code of the worker's
        return None, _harmless(error, message)


def _harmless(error: BaseException, message: Any) -> Exception:
    """*error*, or what says the same where it would end a loop or pass for a cancellation."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    what = f"{type(error).__name__}: {error}"
    made = ValueLoadError(f"the {type(message).__name__} of the worker cannot be read: {what}")
    made.__cause__ = error
    return made
