"""Capabilities: functions of the host that cells of every context can call. Owns the object that a
cell sees, and on which loop the host's function runs.

Called from an async function, or at the top level of a cell that awaits, an async capability gives
an awaitable; called from sync code it gives the result (:mod:`isthmus.colours` says which it is).
Whether a function is async is seen by what it returns. What it returns for use in ``async for`` or
``async with`` can be used in ``for`` and ``with`` too.

Where the host's function runs:

- registered without a loop, or inside the session's home loop: in the caller's own task; from a
  thread cell the home task awaits what it returns. A sync function runs in the calling thread.
- registered with ``on_loop``, or inside another loop: always on that loop, in a task of its own
  where that is not the home loop, with a copy of the caller's context variables. A cancelled caller
  cancels it and does not wait for its end.
- with interceptors: on a loop in every case, as their chain is async.

Refuses to know: namespaces but for their mapping, how a session starts and ends.

Guarantees: a call that has begun when its capability is revoked ends as if it were not.
Assumes: ``inject_capability`` puts the object into the prelude, ``revoke_capability`` takes it out.

Threads: any, for calls. Cancel: a cancelled caller cancels the call.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import weakref
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from sys import _getframe
from threading import get_ident
from types import CoroutineType, FrameType
from typing import Any, NoReturn, Protocol, TypeVar, overload

from isthmus.adapters import two_coloured
from isthmus.colours import stands_in_async
from isthmus.delegates import awaiting, on_loop
from isthmus.errors import CapabilityRevoked, CrossingError, LoopError, NoInputError
from isthmus.interceptors import CapabilityCall, Interceptor, intercepted
from isthmus.jobs import current_job
from isthmus.portal import can_run_sync, crossing_here, run_sync
from isthmus.stacks import passes_on

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__isthmus_capability__"


class CapabilityHost(Protocol):
    """The session that a capability belongs to: its namespace manager."""

    name: str
    namespace: dict[str, Any]

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The home loop, or None before the first use."""


class Capability:
    """A function of the host, as cells see it. Made by ``inject_capability``.

    ``capability(...)`` has the colour of the code in which it stands, ``capability.aio(...)``
    always gives an awaitable and ``capability.now(...)`` always the result.

    It is no coroutine function for :func:`inspect.iscoroutinefunction`, as calling it does not
    always give an awaitable; ``capability.aio`` is one. As an attribute of a class it binds no
    instance, like a builtin function.

    Arguments:
        name: What cells call it.
        fn: The host's function, or anything else that can be called.
        on_loop: The loop on which to run it; None for the one that runs now, if any, unless that
            turns out to be the session's own.
        interceptors: What stands between the cell and *fn*, the first one outermost.
        host: The session; held weakly.

    Attributes:
        name: What cells call it.
        revoked: The host has taken it back.
    """

    def __init__(
        self,
        name: str,
        fn: Callable[..., Any],
        on_loop: asyncio.AbstractEventLoop | None = None,
        interceptors: Iterable[Interceptor] = (),
        *,
        host: CapabilityHost | None = None,
    ) -> None:
        self.name = name
        self.revoked = False
        self._fn = fn
        self._pinned = on_loop is not None
        self._loop = _get_running_loop() if on_loop is None else on_loop
        # Of the loop that runs here: in this thread no other one runs unless that has ended. Asking
        # for the running loop costs several times as much on Python 3.11.
        self._thread = get_ident()
        self._interceptors = tuple(interceptors)
        # Neither holds the session: a reference that the host keeps must not.
        self._host = weakref.ref(host) if host is not None else None
        self._namespace_id = id(host.namespace) if host is not None else 0
        self._awaits = _looks_async(fn)
        self._unusual = self._pinned or bool(self._interceptors)
        self._describe(fn)

    def _describe(self, fn: Callable[..., Any]) -> None:
        """Take over what ``help`` and ``inspect.signature`` look at."""
        source = _described(fn)
        mark = getattr(fn, _MARK, None)
        self.__wrapped__ = fn
        self.__name__ = self.name
        self.__qualname__ = self.name
        self.__module__ = getattr(source, "__module__", None) or __name__
        self.__doc__ = (mark.doc if mark is not None else None) or source.__doc__

    def __repr__(self) -> str:
        """As ``<capability fetch(url)>``."""
        state = "revoked capability" if self.revoked else "capability"
        return f"<{state} {self.name}{self._parameters()}>"

    def _parameters(self) -> str:
        try:
            return str(inspect.signature(self._fn))
        except (ValueError, TypeError):  # some functions made in C do not tell
            return "(...)"

    @property
    def is_async(self) -> bool:
        """Whether it gives an awaitable in async code.

        What the host's function looks like, or, once it was called, what it has returned.
        """
        return self._awaits

    def describe(self) -> str:
        """What who writes cells has to know: ``async def fetch(url)``, and the docstring."""
        keyword = "async def" if self.is_async else "def"
        lines = [f"{keyword} {self.name}{self._parameters()}"]
        lines += [f"    {line}".rstrip() for line in (inspect.getdoc(self) or "").splitlines()]
        return "\n".join(lines)

    def __get__(self, instance: object, owner: type | None = None) -> Capability:
        """Bind nothing. That there is this method makes ``help`` show a function."""
        return self

    # -- calling -----------------------------------------------------------------------------

    @passes_on
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the host's function in the colour of the code in which the call stands.

        Returns:
            In async code what the function returns, to be awaited if it is async; in sync code its
            result.

        Raises:
            CapabilityRevoked: The host has taken it back.
            CrossingError: It is async, and sync code here has no way to wait for it.
            LoopError: The loop on which it lives does not run.
            Exception: What the function or an interceptor raises.
        """
        loop = self._loop
        if self._unusual or (
            loop is not None and get_ident() != self._thread and self._lives_elsewhere()
        ):
            return self._send(_getframe(1), args, kwargs)
        result = self._fn(*args, **kwargs)
        if type(result) is not CoroutineType and not inspect.isawaitable(result):
            return two_coloured(result)
        self._awaits = True
        if stands_in_async(_getframe(1), self._namespace_id):
            return result
        try:
            return run_sync(result)
        except CrossingError as error:
            self._explain(error)

    async def aio(self, /, *args: Any, **kwargs: Any) -> Any:
        """Give an awaitable of the result, wherever the call stands. Raises as a call does.

        The host's function is called once it is awaited.
        """
        self._check()
        return await _Visit(self, args, kwargs, is_async=True).perform()

    @passes_on
    def now(self, /, *args: Any, **kwargs: Any) -> Any:
        """Give the result, wherever the call stands. Raises as a call does."""
        self._check()
        if self._interceptors or self._lives_elsewhere():
            return self._wait(_Visit(self, args, kwargs, is_async=False).perform())
        result = self._fn(*args, **kwargs)
        return self._wait(result) if inspect.isawaitable(result) else two_coloured(result)

    def _send(self, caller: FrameType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call where a coroutine is needed: through interceptors, or on another loop.

        Only what the function returns says whether it is async, and in async code it must be known
        before. So one that does not look async is waited for, the first time; when it turns out to
        be async its result comes as an awaitable that has ended.
        """
        self._check()
        is_async = stands_in_async(caller, self._namespace_id)
        visit = _Visit(self, args, kwargs, is_async=is_async)
        if is_async and self._awaits:
            return self._named(visit.perform())
        result = self._wait(visit.perform())
        return _ended(result) if is_async and visit.awaited else result

    def _named(self, coroutine: Any) -> Any:
        """Let *coroutine* be called as the cell calls it, in warnings and where it is shown."""
        coroutine.__name__ = coroutine.__qualname__ = self.name
        return coroutine

    def _wait(self, awaitable: Awaitable[Any]) -> Any:
        """Wait for *awaitable* from sync code."""
        try:
            return run_sync(awaitable)
        except CrossingError as error:
            self._explain(error)

    def _explain(self, error: CrossingError) -> NoReturn:
        """Raise *error* again, with the way out if the call itself could not cross."""
        if can_run_sync():  # it is the host's function that could not
            raise error
        raise type(error)(
            f"{self.name}() was called in sync code that has no way to wait for it; await "
            f"{self.name}.aio() in an async function instead ({error})"
        ) from error

    # -- where it runs -------------------------------------------------------------------------

    def _lives_elsewhere(self) -> bool:
        """Whether the function must not be called here and now."""
        loop, running = self._loop, _get_running_loop()
        if loop is None:
            return False
        if running is loop:  # in a thread cell that awaits, a view of it
            return self._pinned and crossing_here() is not None
        return self._pinned or running is not None or loop is not self._home_loop()

    def _loop_to_visit(self) -> asyncio.AbstractEventLoop | None:
        """The loop on which a coroutine that runs now has to call the function; None for its own.

        Raises:
            LoopError: That loop does not run.
        """
        loop = self._loop
        if loop is None or loop is _get_running_loop():
            return None
        if loop.is_closed() and not self._pinned:  # the one that ran when it was registered
            self._loop = None
            return None
        if not loop.is_running():
            raise LoopError(f"{self.name}() lives on {loop!r}, which does not run")
        return loop

    def _home_loop(self) -> asyncio.AbstractEventLoop | None:
        host = self._host() if self._host is not None else None
        return host.loop if host is not None else None

    # -- the end -----------------------------------------------------------------------------

    def revoke(self) -> None:
        """Refuse every further call. Idempotent. Threads: any."""
        self.revoked = self._unusual = True

    def _check(self) -> None:
        """Refuse a call that has begun after the capability was revoked."""
        if self.revoked:
            message = f"the host has taken back {self.name}(); it was not called"
            raise CapabilityRevoked(message)


def _looks_async(fn: Callable[..., Any]) -> bool:
    """A first guess, where one is needed before the first call."""
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
        getattr(fn, "__call__", None)  # noqa: B004 (the method itself is wanted)
    )


def _described(fn: Any) -> Any:
    """What tells of *fn*: the function itself below partials, the method below an instance."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if inspect.isroutine(fn) or inspect.isclass(fn) or isinstance(fn, Capability):
        return fn
    return fn if getattr(fn, "__dict__", {}).get("__doc__") else type(fn).__call__


async def _ended(result: Any) -> Any:
    return result


class _Visit:
    """One call on its way through the interceptors to the host's function, and its loop.

    Attributes:
        awaited: What the function returned was an awaitable.
    """

    __slots__ = ("_call", "_capability", "awaited")

    def __init__(
        self,
        capability: Capability,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        is_async: bool,
    ) -> None:
        job = current_job.get()
        host = capability._host() if capability._host is not None else None
        self.awaited = False
        self._capability = capability
        self._call = CapabilityCall(
            capability.name,
            args,
            kwargs,
            session=host.name if host is not None else "",
            cell=job.number if job is not None else 0,
            context=job.context if job is not None else None,
            colour="async" if is_async else "sync",
        )

    async def perform(self) -> Any:
        """Make the call, on the loop where it belongs, and give its result."""
        loop = self._capability._loop_to_visit()
        chain = intercepted(self._capability._interceptors, self._call_function)
        if loop is None:
            return two_coloured(await chain(self._call))
        return two_coloured(await on_loop(loop, awaiting(chain, self._call)), loop)

    @passes_on
    async def _call_function(self, call: CapabilityCall) -> Any:
        capability = self._capability
        result = capability._fn(*call.args, **call.kwargs)
        if inspect.isawaitable(result):
            self.awaited = capability._awaits = True
            return await result
        return result


# -- giving capabilities to a session ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CapabilityMark:
    """How a function wants to be injected. None means: as the function itself says.

    Attributes:
        name: What cells call it.
        doc: What ``help`` says in a cell.
        on_loop: The loop on which to run it.
    """

    name: str | None = None
    doc: str | None = None
    on_loop: asyncio.AbstractEventLoop | None = None


@overload
def capability(fn: F, /) -> F: ...


@overload
def capability(
    *,
    name: str | None = None,
    doc: str | None = None,
    on_loop: asyncio.AbstractEventLoop | None = None,
) -> Callable[[F], F]: ...


def capability(
    fn: F | None = None,
    /,
    *,
    name: str | None = None,
    doc: str | None = None,
    on_loop: asyncio.AbstractEventLoop | None = None,
) -> F | Callable[[F], F]:
    """Mark a function, or a method, for ``Session(capabilities=[...])``. It stays as it is.

    Arguments:
        name: What cells call it; None for the function's own name.
        doc: What ``help`` says in a cell; None for the function's docstring.
        on_loop: The loop on which to run it; see :class:`Capability`.
    """

    def mark(function: F) -> F:
        setattr(function, _MARK, CapabilityMark(name, doc, on_loop))
        return function

    return mark if fn is None else mark(fn)


def mark_of(fn: Callable[..., Any]) -> CapabilityMark:
    """How *fn* wants to be injected."""
    mark = getattr(fn, _MARK, None)
    return mark if isinstance(mark, CapabilityMark) else CapabilityMark()


CapabilitySource = Mapping[str, Callable[..., Any]] | Iterable[Callable[..., Any]]
"""Capabilities by name, or functions that know their names."""


def by_name(given: CapabilitySource) -> dict[str, Callable[..., Any]]:
    """The functions in *given* by the name that each shall have.

    Raises:
        TypeError: *given* is one function alone, or one without a name is given without one.
        ValueError: Two have the same name.
    """
    if isinstance(given, Mapping):
        return dict(given)
    if callable(given):
        raise TypeError(f"capabilities are given as a list or by name, such as [{given!r}]")
    found: dict[str, Callable[..., Any]] = {}
    for fn in given:
        name = _own_name(fn)
        if name in found:
            raise ValueError(f"two capabilities are called {name!r}: give them as {{name: fn}}")
        found[name] = fn
    return found


def _own_name(fn: Callable[..., Any]) -> str:
    name = mark_of(fn).name or getattr(fn, "__name__", None)
    if not isinstance(name, str) or name == "<lambda>":
        raise TypeError(f"{fn!r} has no name of its own: give capabilities as {{name: function}}")
    return name


def no_input(prompt: object = "", /) -> str:
    """Stand for ``input`` where the host supplies none.

    Raises:
        NoInputError: Always.
    """
    raise NoInputError(
        f"input({prompt!r}) was called, and the host of this session supplies no input; "
        "open it with Session(input=function), whose function may be async"
    )
