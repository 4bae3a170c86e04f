"""The functions of the host that cells of a worker may call. Owns them, and where each runs.

Every call goes through the interceptors, as in a session in this process; the function runs on the
loop on which it was registered, or on the session's own.

Refuses to know: processes, messages.

Threads: the loop's, but for :meth:`HostFunctions.add` and :meth:`HostFunctions.revoke`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from types import MappingProxyType
from typing import Any

from isthmus.async_namespace import runtime_names
from isthmus.capabilities import Capability, mark_of
from isthmus.delegates import awaiting, on_loop
from isthmus.errors import CapabilityRevoked, LoopError
from isthmus.interceptors import CapabilityCall, Interceptor, checked_chain, intercepted
from isthmus.namespace import NamespaceManager
from isthmus.wire.parts import CapabilityDescription


class HostFunctions:
    """What cells of a worker may call of the host.

    Arguments:
        session: The session's name, for interceptors.
        interceptors: What every call passes.
        trusted: Load arguments that come as pickles.

    Attributes:
        by_name: The functions, as a session shows them. A live, read-only view.
        session, trusted: As they were given.
    """

    def __init__(self, session: str, interceptors: tuple[Interceptor, ...], trusted: bool) -> None:
        self.session = session
        self.trusted = trusted
        self._interceptors = interceptors
        self._functions: dict[str, HostFunction] = {}
        self._capabilities: dict[str, Capability] = {}
        self.by_name = MappingProxyType(self._capabilities)

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
        made = self._capabilities[name] = Capability(name, given, pinned, chain)
        self._functions[name] = HostFunction(made, loop, pinned is not None, chain)
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

    def get(self, name: str) -> HostFunction:
        """The function *name*.

        Raises:
            CapabilityRevoked: There is none any more.
        """
        function = self._functions.get(name)
        if function is None:
            raise CapabilityRevoked(f"the host has taken back {name}(); it was not called")
        return function


class HostFunction:
    """A function of the host, with what stands before it and where it runs.

    Arguments:
        capability: What a session shows of it.
        loop: The loop on which it runs; None for the session's own.
        is_pinned: It must not run on any other one, whatever becomes of that.
        chain: What each call passes.
    """

    def __init__(
        self,
        capability: Capability,
        loop: asyncio.AbstractEventLoop | None,
        is_pinned: bool,
        chain: tuple[Interceptor, ...],
    ) -> None:
        self._capability = capability
        self._loop = loop
        self._is_pinned = is_pinned
        self._perform = intercepted(chain, self._call)

    @property
    def is_async(self) -> bool:
        """Whether it gives an awaitable: what it looks like, or has turned out to be."""
        return self._capability.is_async

    def home(self) -> asyncio.AbstractEventLoop:
        """Where it runs, and what it returns lives. Asked on the session's own loop.

        Raises:
            LoopError: That loop does not run.
        """
        own, loop = asyncio.get_running_loop(), self._loop
        if loop is None or (loop.is_closed() and not self._is_pinned):
            return own
        if not loop.is_running():
            raise LoopError(f"{self._capability.name}() lives on {loop!r}, which does not run")
        return loop

    def perform(self, call: CapabilityCall) -> Awaitable[Any]:
        """What to await, on the session's own loop, for *call* to be made.

        Raises:
            LoopError: The loop of the function does not run.
        """
        loop = self.home()
        if loop is asyncio.get_running_loop():
            return self._perform(call)
        return on_loop(loop, awaiting(self._perform, call))

    async def _call(self, call: CapabilityCall) -> Any:
        result = self._capability.__wrapped__(*call.args, **call.kwargs)
        if not inspect.isawaitable(result):
            return result
        self._capability._awaits = True
        return await result


def _check(name: str, fn: Callable[..., Any]) -> None:
    """Refuse what a namespace would refuse, by the same words."""
    namespace = NamespaceManager("check")
    namespace.add_prelude(runtime_names())
    try:
        namespace.inject_capability(name, fn)
    finally:
        namespace.close()
