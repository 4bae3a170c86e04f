"""Stepping an awaitable by hand, as ``await`` would. Owns what it needs of all that can be awaited.

Refuses to know: greenlets, tasks, who waits.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable, Generator
from types import CoroutineType
from typing import Any, NoReturn

from isthmus.errors import AlreadyAwaitedError, ForeignLoopError


def stepper_of(awaitable: Awaitable[Any]) -> Generator[Any, Any, Any]:
    """The coroutine or iterator that steps *awaitable*, as ``await`` would get it.

    Raises:
        AlreadyAwaitedError: It is a coroutine that somebody else is stepping.
        ForeignLoopError: It is a future of another loop that is not done.
        TypeError: *awaitable* cannot be awaited; with the words of CPython.
    """
    if isinstance(awaitable, CoroutineType):
        if awaitable.cr_suspended:
            raise AlreadyAwaitedError(f"{awaitable!r} is being awaited already: {_ONE_AWAIT}")
        return awaitable  # type: ignore[return-value]
    if asyncio.isfuture(awaitable):
        _check_loop(awaitable)
    method = getattr(type(awaitable), "__await__", None)
    if method is not None:
        iterator = method(awaitable)
        whole = hasattr(iterator, "send") and hasattr(iterator, "throw")
        return iterator if whole else _Steps(iterator)  # type: ignore[return-value]
    if inspect.isawaitable(awaitable):  # a generator made by types.coroutine
        return awaitable  # type: ignore[return-value]
    refusal = TypeError(f"object {type(awaitable).__name__} can't be used in 'await' expression")
    refusal.add_note(
        "A capability that is sync, or that is called in sync code, gives its result at once: it "
        "needs neither await nor run_sync()."
    )
    raise refusal


_ONE_AWAIT = "a coroutine is awaited once; make a task of it, which any number of waits may share"


def _check_loop(future: asyncio.Future[Any]) -> None:
    """Refuse to wait for a future that the running loop cannot wait for."""
    if not future.done() and future.get_loop() is not _get_running_loop():
        raise ForeignLoopError(
            f"{future!r} belongs to another event loop: wait for it there, with "
            "asyncio.run_coroutine_threadsafe() and asyncio.wrap_future()"
        )


class _Steps:
    """``send`` and ``throw`` for an iterator that does not have both."""

    __slots__ = ("send", "throw")

    def __init__(self, iterator: Any) -> None:
        self.send: Callable[[object], Any] = getattr(iterator, "send", lambda _: next(iterator))
        self.throw: Callable[[BaseException], Any] = getattr(iterator, "throw", raise_here)


def raise_here(error: BaseException) -> NoReturn:
    """Raise *error*, which came from another thread, as if its code had run below this one.

    What is handled here then is the context of its first context; ``raise`` alone would put it in
    that one's place.
    """
    handled, last = sys.exc_info()[1], error
    while last.__context__ is not None and last is not handled:
        last = last.__context__
    if last is not handled:
        last.__context__ = handled
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context


def check_returned(stepper: object, stop: StopIteration) -> None:
    """Not let out a ``StopIteration`` that the code of a coroutine has raised.

    From 3.12 on, CPython turns that into a RuntimeError (PEP 479) in functions only, not in code
    compiled with a top-level ``await``.

    Raises:
        RuntimeError: *stepper* is a coroutine, so that its code has raised *stop*.
    """
    if isinstance(stepper, CoroutineType):
        raise RuntimeError("coroutine raised StopIteration") from stop


def check_begun(stepper: object, error: Exception) -> None:
    """Say by name that a coroutine could not be begun, where that is what *error* says.

    CPython raises it in ``send`` itself, so that its traceback ends with our frame.

    Raises:
        AlreadyAwaitedError: The coroutine has ended, or is running now.
    """
    tb, native = error.__traceback__, isinstance(stepper, CoroutineType)
    if native and error.__cause__ is None and tb is not None and tb.tb_next is None:
        raise AlreadyAwaitedError(f"{stepper!r}: {error}; {_ONE_AWAIT}") from error
