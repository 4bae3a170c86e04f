"""What cells of a worker ask of the host: calls of its functions, and steps with what these have
returned. Owns each request on its way, and its answer.

A request is written by the thread that makes it, whatever keeps the loop busy; the answer comes in
on the loop, and the caller waits for it as for any other future.

Refuses to know: capabilities, colours, what the host does.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from isthmus.errors import IsthmusError, LoopError, RemoteError
from isthmus.jobs import outside_cells
from isthmus.prompt_future import PromptFuture
from isthmus.remote_failures import same_error
from isthmus.values import PackedValue, pack
from isthmus.wire import callbacks, replies
from isthmus.wire.frames import Buffer, Received
from isthmus.wire.parts import Failure, Value
from isthmus.worker.link import Link

Home = Callable[[], asyncio.AbstractEventLoop | None]
"""Gives the loop of the session."""

Make = Callable[[int, Value | None], Any]
"""Makes a request of its id and a packed value."""


class Handle:
    """What a cell has of an object of the host, which may drop that one when this is gone.

    Arguments:
        calls: Where steps with it are asked for.
        handed: What the host says of it.
    """

    def __init__(self, calls: Calls, handed: replies.Handed) -> None:
        self.calls = calls
        self.handed = handed
        weakref.finalize(self, calls.release, handed.object).atexit = False


class Answer(NamedTuple):
    """What the host has answered.

    Attributes:
        message: As it has come.
        buffers: Those of its frame.
        handle: Of the object that the host has handed out, if it has.
    """

    message: Any
    buffers: list[Buffer]
    handle: Handle | None

    @property
    def value(self) -> Any:
        """The object itself."""
        if self.message.value is None:
            return None
        return PackedValue(self.message.value, self.buffers).load(trusted=True)


class Call:
    """One request, which may be interrupted at any moment: what has to be taken back is in here.

    Attributes:
        number: Its id; 0 as long as it was not sent.
        future: Gets the answer.
    """

    __slots__ = ("future", "number")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.number = 0
        self.future = PromptFuture[Answer](loop=loop)


class Calls:
    """Requests to the host that have no answer yet.

    Arguments:
        link: The connection.
        home: The session's loop.

    Threads: any, where a method does not say otherwise. A single operation of the dict is atomic,
    and each call is put there before it is sent.
    """

    def __init__(self, link: Link, home: Home) -> None:
        self._link = link
        self._home = home
        self._waiting: dict[int, PromptFuture[Answer]] = {}
        self._loop = asyncio.get_running_loop()
        self._answered: asyncio.Future[None] | None = None

    def new(self, what: str) -> Call:
        """A call that is not sent yet.

        Arguments:
            what: What an error calls it.

        Raises:
            LoopError: The session has no loop.
        """
        loop = self._home()
        if loop is None:
            raise LoopError(f"the session of {what} has no event loop")
        return Call(loop)

    def send(self, call: Call, make: Make, value: object, what: str) -> None:
        """Send *call*.

        Arguments:
            call: Gets its number, and the answer.
            make: Makes the request.
            value: What to pack and send with it; None needs no packing.
            what: What an error calls the value.

        Raises:
            TypeError: The value can be sent in no form but its ``repr``. Nothing was sent.
        """
        # Pickling runs code of the value, and an interrupt must not arrive in half a message.
        outside_cells(self._send, call, make, value, what)

    def _send(self, call: Call, make: Make, value: object, what: str) -> None:
        buffers: list[Buffer] = []
        packed = None if value is None else pack(value, buffers, trusted=True)
        if packed is not None and packed.kind == "repr":
            raise TypeError(f"{what} cannot be sent to the host: {packed.problem}")

        def request(number: int) -> Any:
            self._waiting[number] = call.future
            call.number = number
            return make(number, packed)

        self._link.ask(request, buffers)

    def leave(self, call: Call) -> None:
        """Nobody waits for *call* any more: have the host cancel it, unless it has answered."""
        if call.number in self._waiting:
            outside_cells(self._leave, call)

    def _leave(self, call: Call) -> None:
        if self._waiting.pop(call.number, None) is not None:
            self._link.send(callbacks.Cancel(call.number))

    async def ask(self, make: Make, value: object, what: str) -> Answer:
        """Send a request when this is awaited, and wait for the answer. For the rest see above."""
        call = self.new(what)
        try:
            self.send(call, make, value, what)
            return await call.future
        finally:
            self.leave(call)

    def release(self, number: int) -> None:
        """A cell has dropped the object *number* of the host. In finalizers too."""
        if not self._loop.is_closed():
            # Not from here: a finalizer may run in the middle of another message.
            self._loop.call_soon_threadsafe(self._link.send, callbacks.Release(number))

    async def settle(self, seconds: float) -> None:
        """Wait until the host has answered all, and for *seconds* at most.

        Also what nobody waits for any more.
        """
        latest = self._loop.time() + seconds
        while self._link.is_owed and (left := latest - self._loop.time()) > 0:
            self._answered = self._loop.create_future()
            await asyncio.wait({self._answered}, timeout=left)

    def answer(self, received: Received[Any]) -> None:
        """Take the host's answer. On the loop."""
        message = received.message
        # In any case: where nobody waits for it any more it is released at once.
        handle = Handle(self, message) if isinstance(message, replies.Handed) else None
        future = self._waiting.pop(message.id, None)
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)
        if future is None or future.done():
            return
        if isinstance(message, replies.Failed):
            future.fail(_raised(message.error, received.buffers))
        else:
            future.resolve(Answer(message, received.buffers, handle))


def _raised(failure: Failure, buffers: list[Buffer]) -> BaseException:
    """The exception to raise in the cell: the host's own, where it can be loaded here."""
    same = same_error(failure)
    if isinstance(same, IsthmusError) and not isinstance(same, RemoteError):
        return same
    try:
        error = PackedValue(failure.exception, buffers).load(trusted=True)
    except Exception:  # a boundary: loading runs code of the exception's class
        error = None
    if not isinstance(error, BaseException):
        error = same
    if isinstance(error, StopIteration):  # which a future does not take
        return RemoteError(failure.type_name, failure.message, failure.traceback)
    if error is not same:
        error.__cause__ = same  # its text shows where in the host it was raised
    return error
