"""Calls of the host's functions by a worker. Owns the functions, and the task of each call.

Every call goes through the interceptors, as in a session in this process; the function runs on the
loop on which it was registered, or on the session's own.

Refuses to know: processes, cells.

Threads: the loop's, but for :meth:`HostFunctions.add` and :meth:`HostFunctions.revoke`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from isthmus.capabilities import Capability, mark_of
from isthmus.delegates import awaiting, on_loop
from isthmus.errors import CapabilityRevoked, MessageTooLargeError
from isthmus.interceptors import CapabilityCall, Interceptor, checked_chain, intercepted
from isthmus.namespace import NamespaceManager
from isthmus.remote_failures import failure_of
from isthmus.values import PackedValue, pack
from isthmus.wire import callbacks, replies
from isthmus.wire.frames import Buffer, Received
from isthmus.wire.parts import CapabilityDescription


class Sender(Protocol):
    """Where answers go."""

    def send(self, message: Any, buffers: Sequence[Buffer] = ()) -> None:
        """Send *message*."""


class HostFunctions:
    """What cells of a worker may call of the host.

    Arguments:
        session: The session's name, for interceptors.
        loop: Says on which loop functions run that were registered in none.
        interceptors: What every call passes.
        unpickle: Load arguments that come as pickles.
    """

    def __init__(
        self,
        session: str,
        loop: Callable[[], asyncio.AbstractEventLoop | None],
        interceptors: tuple[Interceptor, ...],
        unpickle: bool,
    ) -> None:
        self._session = session
        self._loop = loop
        self._interceptors = interceptors
        self._unpickle = unpickle
        self._functions: dict[str, _HostFunction] = {}
        self._capabilities: dict[str, Capability] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.by_name = MappingProxyType(self._capabilities)

    # -- what there is -----------------------------------------------------------------------

    def add(
        self,
        name: str,
        fn: Callable[..., Any],
        on: asyncio.AbstractEventLoop | None = None,
        interceptors: Iterable[Interceptor] = (),
    ) -> CapabilityDescription:
        """Let cells call *fn* as *name*; what the worker has to know of it.

        Raises:
            ReservedNameError: A name that cells cannot use for it. Nothing was added.
            TypeError: *fn* cannot be called. Nothing was added.
        """
        given = fn.__wrapped__ if isinstance(fn, Capability) else fn
        chain = (*self._interceptors, *checked_chain(interceptors))
        _check(name, given)
        pinned = on if on is not None else mark_of(given).on_loop
        loop = pinned if pinned is not None else asyncio._get_running_loop()
        replaced = self._capabilities.get(name)
        self._capabilities[name] = Capability(name, given, pinned, chain)
        self._functions[name] = _HostFunction(given, loop, chain)
        if replaced is not None:
            replaced.revoke()
        return self.describe(name)

    def revoke(self, name: str) -> None:
        """Take *name* back: a call that comes from now on is refused.

        Raises:
            KeyError: There is no such function.
        """
        if name not in self._capabilities:
            raise KeyError(f"there is no capability {name!r}")
        del self._functions[name]
        self._capabilities.pop(name).revoke()

    def describe(self, name: str) -> CapabilityDescription:
        """What a worker has to know of the function *name*."""
        made = self._capabilities[name]
        return CapabilityDescription(name, made.is_async, made._parameters(), made.__doc__)

    def describe_all(self) -> tuple[CapabilityDescription, ...]:
        """The same of all functions."""
        return tuple(self.describe(name) for name in self._capabilities)

    # -- calls -------------------------------------------------------------------------------

    def call(self, received: Received[callbacks.CallCapability], sender: Sender) -> None:
        """Begin a call; its answer goes to *sender*."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._answer(received, sender))
        if not task.done():  # by an eager task factory
            self._tasks[received.message.id] = task

    def cancel(self, number: int) -> None:
        """Nobody waits for the call *number* any more. Once it has begun: it is to be answered."""
        if (task := self._tasks.get(number)) is not None:
            asyncio.get_running_loop().call_soon(task.cancel)

    def cancel_all(self) -> None:
        """The worker has gone: cancel what it has called, and do not wait for that to end."""
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            task.cancel()

    async def _answer(self, received: Received[callbacks.CallCapability], sender: Sender) -> None:
        """Make a call and send its answer."""
        number, buffers = received.message.id, list[Buffer]()
        try:
            value = await self._perform(received)
            packed = None if value is None else pack(value, buffers, trusted=True)
            sender.send(replies.Returned(number, packed), buffers)
        except MessageTooLargeError as error:
            sender.send(replies.Failed(number, failure_of(error)))
        except (Exception, asyncio.CancelledError) as error:  # a boundary: the function is the
            buffers.clear()  # host's, and what it raises is for the cell
            sender.send(replies.Failed(number, failure_of(error, buffers)), buffers)
        finally:  # a callback of the task would cost a turn of the loop
            if self._tasks.get(number) is asyncio.current_task():
                del self._tasks[number]

    async def _perform(self, received: Received[callbacks.CallCapability]) -> Any:
        message = received.message
        function = self._functions.get(message.name)
        if function is None:
            raise CapabilityRevoked(f"the host has taken back {message.name}(); it was not called")
        args, kwargs = (), {}
        if message.arguments is not None:
            packed = PackedValue(message.arguments, received.buffers)
            args, kwargs = packed.load(trusted=self._unpickle)
        call = CapabilityCall(
            message.name,
            args,
            kwargs,
            session=self._session,
            cell=message.cell,
            context=message.context,
            colour=message.colour,
        )
        return await function.perform(call, self._loop())


class _HostFunction:
    """A function of the host, with what stands before it and where it runs."""

    def __init__(
        self,
        fn: Callable[..., Any],
        loop: asyncio.AbstractEventLoop | None,
        chain: tuple[Interceptor, ...],
    ) -> None:
        self._fn = fn
        self._loop = loop
        self._perform = intercepted(chain, self._call)

    def perform(
        self, call: CapabilityCall, own: asyncio.AbstractEventLoop | None
    ) -> Awaitable[Any]:
        """What to await, on the loop *own*, for *call* to be made."""
        loop = self._loop
        if loop is None or loop is own or loop.is_closed():
            return self._perform(call)
        return on_loop(loop, awaiting(self._perform, call))

    async def _call(self, call: CapabilityCall) -> Any:
        result = self._fn(*call.args, **call.kwargs)
        return await result if inspect.isawaitable(result) else result


def _check(name: str, fn: Callable[..., Any]) -> None:
    """Refuse what a namespace would refuse, by the same words."""
    namespace = NamespaceManager("check")
    try:
        namespace.inject_capability(name, fn)
    finally:
        namespace.close()
