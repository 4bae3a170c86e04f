"""The host's end of the socket. Owns bytes ↔ messages there, and which request an answer is for.

Refuses to know: what messages ask for, processes.

Threads: the loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from isthmus.errors import ProtocolError, ValueLoadError
from isthmus.wire.catalogue import ALL_REPLIES, INTERIM
from isthmus.wire.codec import Encoder, message_decoder
from isthmus.wire.conversation import Conversation
from isthmus.wire.frames import Buffer, Bytes, Received

Convert = Callable[[Received[Any]], Any]
"""Makes of an answer what its request was made for."""


def _harmless(error: BaseException, message: Any) -> Exception:
    """*error*, or what says the same where it would end a loop or pass for a cancellation."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    what = f"{type(error).__name__}: {error}"
    made = ValueLoadError(f"the {type(message).__name__} of the worker cannot be read: {what}")
    made.__cause__ = error
    return made


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
        self._waiting: dict[int, tuple[asyncio.Future[Any], Convert]] = {}
        self._on_message = on_message
        self._on_lost = on_lost
        self._fault: ProtocolError | None = None
        self._transport: asyncio.Transport | None = None

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
            while self._fault is None and (received := self._decoder.next_frame()) is not None:
                self._conversation.receive(received.message)
                self._take(received)
        except ProtocolError as error:
            self._fault = error
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that nothing more will come."""
        self._on_lost(self._fault)

    # -- messages ----------------------------------------------------------------------------

    def _take(self, received: Received[Any]) -> None:
        message = received.message
        kind = type(message)
        if kind not in ALL_REPLIES or kind in INTERIM:
            self._on_message(received)
            return
        future, convert = self._waiting.pop(message.id)
        try:
            value = convert(received)
        except BaseException as error:  # a boundary: who waits is told, whatever happens
            if not future.done():
                future.set_exception(_harmless(error, message))
            return
        if not future.done():
            future.set_result(value)

    def send(self, message: Any, buffers: Sequence[Buffer] = ()) -> None:
        """Send *message*.

        Raises:
            MessageTooLargeError: It is more than the worker takes. Nothing was sent.
        """
        parts = self._encoded(message, buffers)
        self._conversation.send(message)
        assert self._transport is not None
        if len(parts) == 1:
            self._transport.write(parts[0])
        else:
            self._transport.writelines(parts)

    def _encoded(self, message: Any, buffers: Sequence[Buffer]) -> list[Bytes]:
        if not buffers:
            return [self.encoder.encode(message)]
        parts = self.encoder.encode_with_buffers(message, buffers).parts
        # The transport may keep them, and their objects may change before it has written them.
        return [bytes(it) if isinstance(it, memoryview) and not it.readonly else it for it in parts]

    def ask(
        self,
        kind: Callable[..., Any],
        convert: Convert,
        buffers: Sequence[Buffer] = (),
        **fields: Any,
    ) -> tuple[int, asyncio.Future[Any]]:
        """Send a request; its id, and a future of what becomes of the last answer.

        Arguments:
            kind: Of the request.
            convert: Makes of an answer what the future gets, before the next message is looked at.
                What it raises the future gets as well.
            buffers: What goes with the request.
            fields: The request's.

        Raises:
            MessageTooLargeError: It is more than the worker takes. Nothing was sent.
        """
        number = self._conversation.next_id()
        self.send(kind(id=number, **fields), buffers)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future, convert
        return number, future

    def fail_all(self, error: Callable[[], Exception]) -> None:
        """Let all who wait have an error of their own."""
        waiting, self._waiting = self._waiting, {}
        for future, _ in waiting.values():
            if not future.done():
                future.set_exception(error())

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    def abort(self) -> None:
        """End the connection now. Idempotent."""
        if self._transport is not None:
            self._transport.abort()
