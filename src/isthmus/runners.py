"""``asyncio.run``, ``asyncio.Runner`` and ``run_until_complete`` as code of a session means them.

Owns what they mean there. Refuses to know: who is code of a session, cells, contexts.

In Python each of them is an error where an event loop runs already, and under a cell one does. What
their caller means is "run this to its end, here": a task of the home loop, and ``run_sync`` until
it has ended. No loop is made, since that would touch the host's policy, and none is run twice.
"""

from __future__ import annotations

import asyncio
import contextvars
import warnings
from asyncio import ensure_future
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any, NoReturn, Self, TypeVar

from isthmus.errors import CrossingError, ForeignLoopError
from isthmus.jobs import current_job
from isthmus.ledger import close_untouched
from isthmus.portal import run_sync
from isthmus.run_scope import RunScope
from isthmus.task_factory import start_task

T = TypeVar("T")

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def _check_coroutine(given: object) -> None:
    """Let coroutines pass, and the tasks that those left behind by an earlier cell have become.

    Raises:
        ValueError: *given* is neither; with the words of CPython.
    """
    if not asyncio.iscoroutine(given) and not isinstance(given, asyncio.Task):
        raise ValueError(f"a coroutine was expected, got {given!r}")


async def _home_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def _makes_such(loop_factory: LoopFactory, loop: asyncio.AbstractEventLoop) -> bool:
    """Whether *loop* is of the class that is asked for, or of the library of the function.

    One of ours counts as what it builds on.
    """
    if isinstance(loop_factory, type):
        return isinstance(loop, loop_factory)
    kinds = (_library(it) for it in type(loop).__mro__)
    return _library(loop_factory) == next(it for it in kinds if it != _library(_makes_such))


def _library(kind: object) -> str:
    """The package that a class or a function comes from."""
    return str(getattr(kind, "__module__", "")).partition(".")[0]


def _warn_of_options(debug: bool | None, loop_factory: LoopFactory | None) -> None:
    """Say which options cannot be done, because the loop is there already and is the host's.

    Warns:
        RuntimeWarning: The loop is not in the debug mode that is asked for, or of another kind.
    """
    if debug is None and loop_factory is None:
        return
    loop = run_sync(_home_loop())
    where = f"code of a session runs on the session's event loop, {loop!r}"
    if debug is not None and debug != loop.get_debug():
        what = f"debug={debug} is not done: {where}, whose debug mode is the host's to set"
        warnings.warn(what, RuntimeWarning, stacklevel=4)
    if loop_factory is not None and not _makes_such(loop_factory, loop):
        what = f"loop_factory={loop_factory!r} is not called: {where}"
        warnings.warn(what, RuntimeWarning, stacklevel=4)


async def _run_inside(scope: RunScope, main: Coroutine[Any, Any, T], context: Context) -> T:
    """Run *main* in a task of its own, on the home loop."""
    job = current_job.get()
    name = f"asyncio.run of cell {job.number}" if job is not None else "asyncio.run"
    with scope.inside(context):
        task = start_task(asyncio.get_running_loop(), main, name=name, context=context)
        return await scope.wait(task)


async def _run_to_its_end(main: Coroutine[Any, Any, T], context: Context) -> T:
    """The same, and end what has begun inside."""
    scope = RunScope()
    try:
        return await _run_inside(scope, main, context)
    finally:
        await scope.end()


def run_in_session(
    main: Coroutine[Any, Any, T],
    *,
    debug: bool | None = None,
    loop_factory: LoopFactory | None = None,
) -> T:
    """What ``asyncio.run`` means in code of a session.

    *main* is a task of the home loop with a copy of the caller's context variables. At its end the
    tasks that have begun inside are cancelled, and async generators closed; the default executor
    is the host's and goes on. ``SystemExit`` and ``KeyboardInterrupt`` of a task inside end it.

    Arguments:
        debug: What the loop is set to anyhow; nothing else can be done.
        loop_factory: What would make such a loop; it is not called.

    Raises:
        ValueError: *main* is no coroutine.
        CrossingError: Nobody can wait here. *main* is closed.
        BaseException: What *main* raises.

    Warns:
        RuntimeWarning: What cannot be done.

    Threads: those of :func:`run_sync`. Cancel: cancels *main*, and waits for its end.
    """
    _check_coroutine(main)
    try:
        _warn_of_options(debug, loop_factory)
        return run_sync(_run_to_its_end(main, contextvars.copy_context()))
    finally:
        close_untouched(main)


class SessionRunner(asyncio.Runner):  # type: ignore[misc]  # final to typeshed, not to Python
    """``asyncio.Runner`` as code of a session makes it: its runs are tasks of the home loop.

    Its runs share one context, as they do in Python. :meth:`close` cancels what they have started.
    """

    def __init__(
        self, *, debug: bool | None = None, loop_factory: LoopFactory | None = None
    ) -> None:
        _warn_of_options(debug, loop_factory)
        self._scope: RunScope | None = None
        self._closed = False

    def _opened(self) -> RunScope:
        """The scope of its runs, made at the first use.

        Raises:
            RuntimeError: It is closed; with the words of CPython.
        """
        if self._closed:
            raise RuntimeError("Runner is closed")
        if self._scope is None:
            self._scope = RunScope()
            self._context = contextvars.copy_context()
        return self._scope

    def __enter__(self) -> Self:
        self._opened()
        return self

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The home loop.

        Raises:
            RuntimeError: The runner is closed.
            CrossingError: The loop cannot be reached from here.
        """
        self._opened()
        return run_sync(_home_loop())

    def run(self, coro: Coroutine[Any, Any, T], *, context: Context | None = None) -> T:
        """Run *coro* as a task of the home loop, in *context* or the one of all runs.

        Raises:
            ValueError: *coro* is no coroutine.
            RuntimeError: The runner is closed, or runs something already.
            CrossingError: Nobody can wait here. *coro* is closed.
            BaseException: What *coro* raises.

        Cancel: cancels *coro*, and waits for its end.
        """
        _check_coroutine(coro)
        try:
            scope = self._opened()
            self._check_idle("run")
            return run_sync(_run_inside(scope, coro, self._context if context is None else context))
        finally:
            close_untouched(coro)

    def close(self) -> None:
        """Cancel what its runs have started and wait for it. Idempotent; the loop goes on.

        Raises:
            RuntimeError: It runs something.
            CrossingError: Nobody can wait here. Nothing was done.
        """
        if self._scope is not None:
            self._check_idle("close")
            run_sync(self._end(self._scope))

    async def _end(self, scope: RunScope) -> None:
        self._closed, self._scope = True, None
        await scope.end()

    def _check_idle(self, call: str) -> None:
        if self._scope is not None and self._scope.running:
            raise RuntimeError(f"Runner.{call}() cannot be called while the runner runs something")


async def _complete(loop: asyncio.AbstractEventLoop, awaitable: Awaitable[T]) -> T:
    """Await *awaitable*; one that is no future yet in a task of its own, as asyncio does."""
    running = asyncio.get_running_loop()
    if running is not loop:
        raise ForeignLoopError(
            f"run_until_complete() of {loop!r} cannot wait in a session that lives on {running!r}: "
            "use asyncio.run_coroutine_threadsafe(coroutine, loop) and asyncio.wrap_future()"
        )
    if asyncio.isfuture(awaitable):
        return await ensure_future(awaitable, loop=loop)  # type: ignore[no-any-return]
    scope, context = RunScope(), contextvars.copy_context()
    with scope.inside(context):
        return await scope.wait(context.run(asyncio.ensure_future, awaitable, loop=loop))


def complete_in_session(loop: asyncio.AbstractEventLoop, future: Awaitable[T]) -> T:
    """What ``loop.run_until_complete(future)`` means in code of a session, while *loop* runs.

    What *future* has started goes on, as it would when the loop runs again.

    Raises:
        TypeError: *future* cannot be awaited.
        ValueError: It belongs to another loop.
        CrossingError: Nobody can wait here, or *loop* is not the session's. A coroutine is closed.
        BaseException: What *future* raises.

    Cancel: cancels *future*, and waits for its end.
    """
    try:
        return run_sync(_complete(loop, future))
    finally:
        close_untouched(future)


def refuse_to_run_forever(loop: asyncio.AbstractEventLoop) -> NoReturn:
    """Answer ``loop.run_forever()`` in code of a session, while *loop* runs.

    Raises:
        CrossingError: Always: it would never return, and would keep every other cell waiting.
    """
    raise CrossingError(
        f"run_forever() cannot be called in a session: {loop!r} runs already, and goes on when the "
        "cell has ended; start what has to go on with asyncio.create_task() or spawn()"
    )
