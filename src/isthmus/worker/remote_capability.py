"""Functions of the host, as cells of a worker see them. Owns the call on its way to the host.

A call is written by the thread that makes it, whatever keeps the loop busy; the answer comes in on
the loop, and the caller waits for it as for any other future.

Refuses to know: what the host does with a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from sys import _getframe
from typing import Any

from isthmus.capabilities import Capability, CapabilityHost
from isthmus.colours import Colour, stands_in_async
from isthmus.errors import LoopError, RemoteError
from isthmus.jobs import current_job, outside_cells
from isthmus.portal import can_run_sync
from isthmus.prompt_future import PromptFuture
from isthmus.remote_failures import error_of
from isthmus.values import PackedValue, pack
from isthmus.wire import callbacks, replies
from isthmus.wire.frames import Buffer, Received
from isthmus.wire.parts import CapabilityDescription, Failure
from isthmus.worker.link import Link


class Call:
    """One call, which may be interrupted at any moment: what has to be taken back is in here.

    Attributes:
        number: Its id; 0 as long as it was not sent.
        future: Gets the answer.
    """

    __slots__ = ("future", "number")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.number = 0
        self.future = PromptFuture[Any](loop=loop)


class Calls:
    """Calls of the host's functions that have no answer yet.

    Arguments:
        link: The connection.

    Threads: any, for :meth:`begin` and :meth:`leave`; the loop's for the rest. A single operation
    of the dict is atomic, and each call is put there before it is sent.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: dict[int, PromptFuture[Any]] = {}

    def begin(
        self,
        call: Call,
        message: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Send *call*.

        Arguments:
            call: Gets its number, and the answer.
            message: Makes the request, given ``id`` and ``arguments``.
            args: What to pack and send with it.
            kwargs: The same.
        """
        buffers: list[Buffer] = []
        packed = pack((args, kwargs), buffers, trusted=True) if args or kwargs else None

        def make(number: int) -> Any:
            self._waiting[number] = call.future
            call.number = number
            return message(id=number, arguments=packed)

        self._link.ask(make, buffers)

    def leave(self, call: Call) -> None:
        """Nobody waits for *call* any more: have the host cancel it, unless it has answered."""
        if self._waiting.pop(call.number, None) is not None:
            self._link.send(callbacks.Cancel(call.number))

    def answer(self, received: Received[Any]) -> None:
        """Take the host's answer."""
        message = received.message
        future = self._waiting.pop(message.id, None)
        if future is None or future.done():
            return
        if isinstance(message, replies.Failed):
            future.fail(_raised(message.error, received.buffers))
        else:
            future.resolve(received)


def _raised(failure: Failure, buffers: list[Buffer]) -> BaseException:
    """The exception to raise in the cell: the host's own, where it can be loaded here."""
    described = error_of(failure)
    if not isinstance(described, RemoteError):
        return described
    if failure.type_name == "asyncio.exceptions.CancelledError":
        return asyncio.CancelledError(failure.message)
    try:
        error = PackedValue(failure.exception, buffers).load(trusted=True)
    except Exception:  # a boundary: loading runs code of the exception's class
        return described
    if not isinstance(error, Exception) or isinstance(error, StopIteration):
        return described
    error.__cause__ = described  # its text shows where in the host it was raised
    return error


class RemoteCapability(Capability):
    """A function of the host, for cells of a worker.

    Arguments:
        description: What the host says of it.
        calls: Where calls are made.
        host: The session; held weakly.
    """

    def __init__(
        self, description: CapabilityDescription, calls: Calls, host: CapabilityHost
    ) -> None:
        self._calls = calls
        self._signature = description.signature
        super().__init__(description.name, self._stand_in(description), host=host)
        self.__doc__ = description.doc
        self._awaits = description.is_async

    def _stand_in(self, description: CapabilityDescription) -> Callable[..., Any]:
        """What ``inspect`` sees in place of the host's function."""

        def function(*args: Any, **kwargs: Any) -> Any:
            return self.now(*args, **kwargs)

        function.__doc__ = description.doc
        return function

    def _parameters(self) -> str:
        return self._signature

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the host's function in the colour of the code in which the call stands."""
        self._check()
        is_async = stands_in_async(_getframe(1), self._namespace_id)
        if is_async and self._awaits:
            return self._named(self._call_later(args, kwargs))
        return self._call_now(args, kwargs, "async" if is_async else "sync")

    async def aio(self, /, *args: Any, **kwargs: Any) -> Any:
        """Give an awaitable of the result, wherever the call stands."""
        self._check()
        return await self._call_later(args, kwargs)

    def now(self, /, *args: Any, **kwargs: Any) -> Any:
        """Give the result, wherever the call stands."""
        self._check()
        return self._call_now(args, kwargs, "sync")

    # -- the call ----------------------------------------------------------------------------

    async def _call_later(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Send the call when this is awaited, and wait for the answer."""
        call = self._new_call()
        try:
            self._send_call(call, args, kwargs, "async")
            return await _answer(call)
        finally:
            outside_cells(self._calls.leave, call)

    def _call_now(self, args: tuple[Any, ...], kwargs: dict[str, Any], colour: Colour) -> Any:
        """Send the call from this thread, and wait for the answer."""
        if not can_run_sync():  # the error says why not, and nothing is sent
            return self._wait(self._call_later(args, kwargs))
        call = self._new_call()
        try:
            self._send_call(call, args, kwargs, colour)
            return self._wait(_answer(call))
        finally:
            outside_cells(self._calls.leave, call)

    def _new_call(self) -> Call:
        loop = self._home_loop()
        if loop is None:
            raise LoopError(f"the session of {self.name}() has no event loop")
        return Call(loop)

    def _send_call(
        self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], colour: Colour
    ) -> None:
        job = current_job.get()
        message = partial(
            callbacks.CallCapability,
            name=self.name,
            cell=job.number if job is not None else 0,
            context=job.context if job is not None else None,
            colour=colour,
        )
        # Pickling runs code of the arguments, and an interrupt must not arrive in half a message.
        outside_cells(self._calls.begin, call, message, args, kwargs)


async def _answer(call: Call) -> Any:
    """What the host has answered."""
    received = await call.future
    value = received.message.value
    return None if value is None else PackedValue(value, received.buffers).load(trusted=True)
