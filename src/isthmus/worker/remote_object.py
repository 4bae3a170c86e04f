"""Generators, context managers and their like that stay with the host, as cells see them. Owns what
stands for them.

Each has the protocols of the host's object: ``async for`` and ``async with``, which sync code can
use too, or ``for`` and ``with`` alone. Nothing else of the object is here: what cells may do with
their host is what that has named.

Refuses to know: how a step gets to the host.
"""

from __future__ import annotations

import functools
from types import TracebackType
from typing import Any

from isthmus.adapters import two_coloured
from isthmus.portal import run_sync
from isthmus.remote_failures import failure_of
from isthmus.wire import callbacks, replies
from isthmus.wire.parts import Failure, Value
from isthmus.worker.calls import Answer, Handle


def result_of(answer: Answer) -> Any:
    """What an answer gives to a cell: a value, or what stands for an object of the host."""
    if answer.handle is None:
        return answer.value
    handed = answer.handle.handed
    kind = _kind(handed.iterates, handed.is_iterator, handed.manages)
    return two_coloured(kind(answer.handle))


class HostObject:
    """An object of the host.

    Arguments:
        handle: Keeps it there.
    """

    __slots__ = ("__weakref__", "_handle")

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def __repr__(self) -> str:
        """That of the host's object."""
        return self._handle.handed.text

    async def _step(
        self, step: Any, value: object = None, error: BaseException | None = None
    ) -> Answer:
        """Have the host take a step."""
        handed = self._handle.handed
        failure = None if error is None else failure_of(error, exactly=True)
        make = functools.partial(_step_of, handed.object, step, failure)
        return await self._handle.calls.ask(make, value, f"what is sent to {handed.text}")


def _step_of(
    object_: int, step: Any, error: Failure | None, number: int, value: Value | None
) -> callbacks.Step:
    return callbacks.Step(number, object_, step, value, error)


# -- for `async for` and `async with` --------------------------------------------------------------


class AsyncIteratorOfHost(HostObject):
    """An async iterator or generator."""

    __slots__ = ()

    def __aiter__(self) -> AsyncIteratorOfHost:
        """It is its own."""
        return self

    async def __anext__(self) -> Any:
        """The next item."""
        return _item(await self._step("next"))

    async def asend(self, value: Any) -> Any:
        """Send *value* to a generator; its next item."""
        return _item(await self._step("send", value))

    async def athrow(self, error: BaseException | type[BaseException]) -> Any:
        """Raise *error* in a generator; its next item."""
        return _item(await self._step("throw", error=_raisable(error)))

    async def aclose(self) -> None:
        """End a generator."""
        await self._step("close")


class AsyncIterableOfHost(HostObject):
    """What gives async iterators."""

    __slots__ = ()

    def __aiter__(self) -> _LateIterator:
        """One that the host makes when it is asked for its first item."""
        return _LateIterator(self)


class _LateIterator:
    """An async iterator that the host has yet to make, as ``__aiter__`` cannot wait for it."""

    def __init__(self, source: AsyncIterableOfHost) -> None:
        self._source = source
        self._made: Any = None

    def __aiter__(self) -> _LateIterator:
        return self

    async def __anext__(self) -> Any:
        if self._made is None:
            self._made = result_of(await self._source._step("iter"))
        return await anext(self._made)


class AsyncManagerOfHost(HostObject):
    """An async context manager."""

    __slots__ = ()

    async def __aenter__(self) -> Any:
        """Enter; what it gives."""
        return result_of(await self._step("enter"))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Leave; whether the exception is swallowed."""
        return bool(result_of(await self._step("exit", error=error)))


# -- for `for` and `with` --------------------------------------------------------------------------


class IteratorOfHost(HostObject):
    """An iterator or generator."""

    __slots__ = ()

    def __iter__(self) -> IteratorOfHost:
        """It is its own."""
        return self

    def __next__(self) -> Any:
        """The next item."""
        return self._stepped("next")

    def send(self, value: Any) -> Any:
        """Send *value* to a generator; its next item."""
        return self._stepped("send", value)

    def throw(self, error: BaseException | type[BaseException]) -> Any:
        """Raise *error* in a generator; its next item."""
        return self._stepped("throw", error=_raisable(error))

    def close(self) -> None:
        """End a generator."""
        run_sync(self._step("close"))

    def _stepped(self, step: str, value: object = None, error: BaseException | None = None) -> Any:
        answer = run_sync(self._step(step, value, error))
        if isinstance(answer.message, replies.Exhausted):
            raise StopIteration(answer.value)
        return result_of(answer)


class IterableOfHost(HostObject):
    """What gives iterators."""

    __slots__ = ()

    def __iter__(self) -> Any:
        """A new one."""
        return result_of(run_sync(self._step("iter")))


class ManagerOfHost(HostObject):
    """A context manager."""

    __slots__ = ()

    def __enter__(self) -> Any:
        """Enter; what it gives."""
        return result_of(run_sync(self._step("enter")))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Leave; whether the exception is swallowed."""
        return bool(result_of(run_sync(self._step("exit", error=error))))


# -- which of them ---------------------------------------------------------------------------------


def _item(answer: Answer) -> Any:
    """The item that an answer gives.

    Raises:
        StopAsyncIteration: There is none.
    """
    if isinstance(answer.message, replies.Exhausted):
        raise StopAsyncIteration
    return result_of(answer)


def _raisable(error: BaseException | type[BaseException]) -> BaseException:
    return error() if isinstance(error, type) else error


_ITERATING: dict[tuple[str, bool], type[HostObject]] = {
    ("async", True): AsyncIteratorOfHost,
    ("async", False): AsyncIterableOfHost,
    ("sync", True): IteratorOfHost,
    ("sync", False): IterableOfHost,
}

_MANAGING: dict[str, type[HostObject]] = {"async": AsyncManagerOfHost, "sync": ManagerOfHost}


@functools.cache
def _kind(iterates: str, is_iterator: bool, manages: str) -> type[HostObject]:
    """The class for objects with these protocols."""
    found = (_ITERATING.get((iterates, is_iterator)), _MANAGING.get(manages))
    bases = tuple(it for it in found if it is not None)
    return bases[0] if len(bases) == 1 else type("HostObject", bases, {"__slots__": ()})
