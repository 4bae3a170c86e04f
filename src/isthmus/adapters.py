"""Objects for ``async for`` and ``async with`` that sync code can use too. Owns the adapters.

An adapter stands for an object of the host: it has the sync form of the protocol beside the async
one, and is the object itself in all else. Where the object lives on another loop, every step of
either protocol is taken there, in one task, so that a scope that is entered can be left.

Refuses to know: colours, calls.
"""

from __future__ import annotations

import asyncio
import weakref
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from isthmus.blocking import ACM, AITER, blocking_names
from isthmus.delegates import Delegate, awaiting
from isthmus.portal import run_sync

_blocking = blocking_names(run_sync)


def two_coloured(result: Any, loop: asyncio.AbstractEventLoop | None = None) -> Any:
    """Give *result*, or an object for sync code as well where it is for async code only.

    Arguments:
        loop: Where its steps have to run; None for wherever they are awaited.
    """
    kind = _adapter_of(type(result))
    return result if kind is None else kind(result, None if loop is None else Delegate(loop))


def _adapted(entered: Any, delegate: Delegate | None) -> Any:
    """The same for what entering a manager gives, which lives in the same task as the manager."""
    kind = _adapter_of(type(entered))
    return entered if kind is None else kind(entered, delegate)


def _adapter_of(kind: type) -> type[_Adapter] | None:
    """What to put around an object of *kind*, if it needs anything."""
    iterates = hasattr(kind, "__aiter__") and not hasattr(kind, "__iter__")
    manages = hasattr(kind, "__aenter__") and not hasattr(kind, "__enter__")
    if iterates:
        return _IterableManager if manages else _Iterable
    return _Manager if manages else None


class _Adapter:
    """Stands for an object of the host; all but the two protocols is the object's own."""

    __slots__ = ("__weakref__", "_delegate", "_wrapped")

    def __init__(self, wrapped: Any, delegate: Delegate | None) -> None:
        self._wrapped = wrapped
        self._delegate = delegate
        if delegate is not None:
            weakref.finalize(self, delegate.dismiss).atexit = False

    @property  # type: ignore[misc]  # (object's own can be set)
    def __class__(self) -> Any:
        """The object's own class, so that ``isinstance`` holds."""
        return type(self._wrapped)

    def __getattr__(self, name: str) -> Any:
        """The object's own attribute."""
        if name in _Adapter.__slots__:  # not set yet, while one is copied
            raise AttributeError(name)
        return getattr(self._wrapped, name)

    def __repr__(self) -> str:
        """The object's own."""
        return repr(self._wrapped)

    async def _step(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Call *function* and await what it returns, where the object lives."""
        delegate = self._delegate
        if delegate is None or delegate.loop is _get_running_loop():
            return await function(*args)
        return await delegate.perform(awaiting(function, *args))


class _Iterable(_Adapter):
    """For ``async for`` and for ``for``."""

    __slots__ = ()

    def __aiter__(self) -> Any:
        wrapped = self._wrapped
        iterator = type(wrapped).__aiter__(wrapped)
        return self if iterator is wrapped else _Iterable(iterator, self._delegate)

    async def __anext__(self) -> Any:
        return await self._step(self._wrapped.__anext__)

    def __iter__(self) -> Any:
        return _blocking[AITER](self)

    def __next__(self) -> Any:
        return next(_blocking[AITER](self))

    async def aclose(self) -> None:
        """End it."""
        await self._step(self._wrapped.aclose)

    def close(self) -> None:
        """End it, from sync code."""
        run_sync(self.aclose())


class _Manager(_Adapter):
    """For ``async with`` and for ``with``."""

    __slots__ = ()

    async def __aenter__(self) -> Any:
        entered = await self._step(self._wrapped.__aenter__)
        return self if entered is self._wrapped else _adapted(entered, self._delegate)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Any:
        return await self._step(self._wrapped.__aexit__, kind, error, traceback)

    def __enter__(self) -> Any:
        return _blocking[ACM](self).__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Any:
        return _blocking[ACM](self).__exit__(kind, error, traceback)


class _IterableManager(_Iterable, _Manager):
    """Both."""

    __slots__ = ()
