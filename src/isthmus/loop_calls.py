"""Starting a task and calling a function on the home loop. Owns doing so from any thread.

Refuses to know: namespaces, cells, how a thread reaches the loop (``run_sync`` does).

``asyncio.create_task`` in a thread cell that awaits begins when the thread awaits next, as in an
async cell, and in other threads there is none. :func:`spawn` begins at once, while the thread
computes on. Sync methods of loop-bound objects (``event.set()``, ``queue.put_nowait()``) are not
safe to call from a thread; :func:`call_on_loop` calls them where they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple

from isthmus.errors import CrossingError
from isthmus.jobs import Job, current_job
from isthmus.ledger import close_untouched
from isthmus.portal import crossing_here, run_sync
from isthmus.task_factory import start_task

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def _job_of_caller(call: str) -> Job:
    """The job whose code calls.

    Raises:
        CrossingError: There is none.
    """
    job = current_job.get()
    if job is None:
        raise CrossingError(
            f"{call} needs the event loop of a session, and no code of a session calls it here: "
            "use the loop's own create_task() or call_soon_threadsafe()"
        )
    return job


def _is_on_loop_of(job: Job) -> bool:
    """Whether this is the thread of the loop of *job*; a cell's thread only sees that loop."""
    return crossing_here() is None and asyncio._get_running_loop() is job.owner.loop


async def _started(coroutine: Any, name: str | None) -> asyncio.Task[Any]:
    return start_task(asyncio.get_running_loop(), coroutine, name=name)


def spawn(coroutine: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
    """Start a task for *coroutine* on the home loop, from any context and any thread of a session.

    From a thread, the task begins while the thread computes on; from the loop's own thread, when
    its code waits next, like any task. It is the session's: it can use ``run_sync``, and the end of
    the session cancels it. It has a copy of the caller's context variables.

    Arguments:
        coroutine: What to run. One that an earlier cell has left behind is a task already, and is
            given back.
        name: The task's name; None makes one.

    Returns:
        The task. From a thread, await it or give it to ``run_sync``; its own methods
        (``task.cancel()``) are for the loop's thread, which :func:`call_on_loop` reaches.

    Raises:
        TypeError: *coroutine* is none.
        CrossingError: The caller is not code of a session, or its loop cannot be reached from here.
            A coroutine that was given is closed.
        SessionClosedError: The session has ended while its thread goes on. The coroutine is closed.

    Threads: any of a session. Cancel: in a thread, the cancellation of a cell that computes arrives
    here, as at any crossing; nothing was started then.
    """
    try:
        job = _job_of_caller("spawn()")
        if _is_on_loop_of(job):
            return start_task(job.owner.loop, coroutine, name=name)
        return run_sync(_started(coroutine, name))
    finally:
        close_untouched(coroutine)


async def _called(fn: Callable[[*Ts], T], args: tuple[*Ts]) -> tuple[Any, StopIteration | None]:
    """Call *fn*. A ``StopIteration`` is a value: no coroutine lets it out (PEP 479)."""
    try:
        return fn(*args), None
    except StopIteration as stop:
        return None, stop


def call_on_loop(fn: Callable[[*Ts], T], *args: *Ts) -> T:
    """Call ``fn(*args)`` on the thread of the home loop, and return what it returns.

    On that thread it is a plain call. From another one the call is made there, with the caller's
    context variables, while the caller waits: so sync methods of what belongs to the loop
    (``event.set``, ``queue.put_nowait``, ``task.cancel``) can be called from a thread.

    Returns:
        What *fn* returns: from an async function, its coroutine (see :func:`spawn`).

    Raises:
        Exception: What *fn* raises.
        CrossingError: The caller is not code of a session, or its loop cannot be reached from here.
            *fn* was not called.
        SessionClosedError: The session has ended while its thread goes on. *fn* was not called.

    Threads: any of a session. Cancel: as :func:`spawn`; *fn* was not called then.
    """
    if _is_on_loop_of(_job_of_caller("call_on_loop()")):
        return fn(*args)
    value, stop = run_sync(_called(fn, args))
    if stop is not None:
        raise stop
    return value  # type: ignore[no-any-return]
