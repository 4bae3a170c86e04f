"""Tasks that session code starts. Owns the wrapper around a loop's task factory.

Refuses to know: cells, namespaces.

``asyncio.create_task(coroutine)`` in session code gives a task with a portal of its own, so that
sync code below it can wait too; given a task (a coroutine left behind by an earlier cell has become
one) it gives that task. For code of the host the wrapper does what was there before: its own
factory, or a plain task.

What a task of session code raises never ends the host's loop. asyncio lets ``SystemExit`` and
``KeyboardInterrupt`` of a task out of ``run_forever`` as well, so such a task fails with another
error instead, which whoever awaits it gets; the run that it began in, if any, raises the original.

The wrapper goes in with the first session of a loop and out with the last. A factory that somebody
has set since stays in place.
"""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Callable, Coroutine
from contextvars import Context
from types import CoroutineType
from typing import Any, cast

from isthmus.errors import CellAborted, CellError, CellExit
from isthmus.hooks import LoopHook
from isthmus.jobs import current_job
from isthmus.portal import await_for, crossing_here, in_portal
from isthmus.run_scope import current_scope

_owned: weakref.WeakSet[Coroutine[Any, Any, Any]] = weakref.WeakSet()


def belongs_to_task(coroutine: Coroutine[Any, Any, Any]) -> bool:
    """Whether a task of session code steps *coroutine*, or will."""
    return coroutine in _owned


def _contained(error: SystemExit | KeyboardInterrupt) -> CellError:
    """What a task ends with instead of *error*, which would leave the event loop."""
    task = asyncio.current_task()
    assert task is not None
    name = f"task {task.get_name()!r}"
    if isinstance(error, SystemExit):
        return CellExit(f"{name} called sys.exit({error.code!r})", error.code)
    return CellAborted(f"{name} ended with {type(error).__name__}: {error}")


async def with_portal(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Await *coroutine* such that sync code below it can use ``run_sync``.

    Raises:
        CellExit: *coroutine* raised ``SystemExit``, which is the cause.
        CellAborted: It raised ``KeyboardInterrupt``, which is the cause.
    """
    try:
        return await in_portal(functools.partial(await_for, current_job.get(), coroutine))
    except (SystemExit, KeyboardInterrupt) as error:
        scope = current_scope.get()
        if scope is not None:
            scope.leave(error)
        raise _contained(error) from error


def own(coroutine: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
    """Mark *coroutine* as one of a task, and give what the task shall step.

    That has the name of *coroutine*, by which asyncio shows the task.
    """
    if not asyncio.iscoroutine(coroutine):
        return coroutine
    stepped = cast("CoroutineType[Any, Any, Any]", with_portal(coroutine))
    if isinstance(coroutine, CoroutineType):  # not the aclose() of an async generator, say
        _owned.add(coroutine)
        stepped.__name__, stepped.__qualname__ = coroutine.__name__, coroutine.__qualname__
    return stepped


def end_with(
    task: asyncio.Task[Any],
    coroutine: Coroutine[Any, Any, Any],
    ended: Callable[[asyncio.Task[Any]], None],
) -> None:
    """Close *coroutine* when *task* is done, and have *ended* called with that.

    A task that is cancelled at once has never started its coroutine.
    """

    def end(task: asyncio.Task[Any]) -> None:
        coroutine.close()
        ended(task)

    task.add_done_callback(end)


_EAGER_CODE = getattr(getattr(asyncio, "eager_task_factory", None), "__code__", None)
"""What every eager factory of Python 3.12+ shares; its first closure cell is the task's class."""


def _without_eagerness(factory: Any) -> Any:
    """The class whose tasks *factory* would start eagerly, or *factory* itself, or None for None.

    Tasks that session code starts begin when it awaits, in every context alike.
    """
    if _EAGER_CODE is not None and getattr(factory, "__code__", None) is _EAGER_CODE:
        return factory.__closure__[0].cell_contents
    return factory


class _Factory:
    """A task factory that looks whose code asks."""

    def __init__(self, previous: Any) -> None:
        self.previous = previous

    def __getattr__(self, name: str) -> Any:
        """To code of the host, look like its own factory: anyio asks whether that is eager."""
        if current_job.get() is not None:
            raise AttributeError(name)
        return getattr(self.previous, name)

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> Any:
        job = current_job.get()
        if job is None:
            return _make(self.previous, loop, coro, kwargs)
        if isinstance(coro, asyncio.Task):
            return coro
        # A thread makes a plain task: a factory of the host is not to be called there.
        factory = None if crossing_here() is not None else _without_eagerness(self.previous)
        task = _make(factory, loop, own(coro), kwargs)
        if isinstance(task, asyncio.Task):
            ownership = job.owner.ownership
            ownership.note_task(task)
            end_with(task, coro, ownership.task_ended)
            scope = current_scope.get()
            if scope is not None:
                scope.note_task(task)
        return task


def start_task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Any,
    *,
    name: str | None = None,
    context: Context | None = None,
) -> asyncio.Task[Any]:
    """A task of *loop* for *coroutine*, as ``create_task`` gives it in session code.

    Also in a session without hooks, or where somebody has set another factory since. A task that is
    given stays as it is.

    Raises:
        TypeError: *coroutine* is none.

    Threads: the loop's; in the context of a job.
    """
    factory = loop.get_task_factory()
    if not isinstance(factory, _Factory):
        factory = _Factory(factory)
    options = {} if context is None else {"context": context}
    task: asyncio.Task[Any] = factory(loop, coroutine, **options)
    if name is not None and task is not coroutine:
        task.set_name(name)
    return task


def _make(factory: Any, loop: asyncio.AbstractEventLoop, coro: Any, kwargs: dict[str, Any]) -> Any:
    """What a loop with this factory makes of *coro*."""
    if factory is None or isinstance(factory, type):
        return (factory or asyncio.Task)(coro, loop=loop, **kwargs)
    return factory(loop, coro, **kwargs)


class TaskFactoryHooks(LoopHook):
    """Wraps the task factory of loops. Threads: any, while the loop creates no task."""

    def _put_in(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.set_task_factory(_Factory(loop.get_task_factory()))

    def _take_out(self, loop: asyncio.AbstractEventLoop) -> None:
        factory = loop.get_task_factory()
        if isinstance(factory, _Factory):
            loop.set_task_factory(factory.previous)


task_factory_hooks = TaskFactoryHooks()
"""A loop has one task factory, whatever the number of sessions on it."""
