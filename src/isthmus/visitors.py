"""Threads that session code has started. Owns their way to the home loop.

Refuses to know: how such a thread comes to be (:mod:`isthmus.thread_hooks`), cells.

What one thread awaits is awaited by one task of its own on the home loop: so a timeout or a task
group that the thread enters by one call of ``run_sync`` can be left by the next. Context variables
are carried over at each crossing, in both directions.

Guarantees: the task ends with the visit, or with the session.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import sys
import threading
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from contextvars import Context
from types import CoroutineType, TracebackType
from typing import Any

from isthmus.cell_thread import PRIVATE_VARIABLES
from isthmus.context_variables import ContextMirror
from isthmus.deadlocks import loop_waiting_for_this_thread
from isthmus.delegates import Delegate, DelegateTask, Order
from isthmus.errors import CrossingError, DeadlockError, ForeignThreadError, SessionClosedError
from isthmus.jobs import JobOwner, current_job
from isthmus.portal import (
    ORIGIN_DEPTH,
    crossing_here,
    run_sync,
    set_crossing,
)
from isthmus.steppers import raise_here

LOOK_SECONDS = 0.1
"""How often a thread that waits looks whether the loop could ever answer: rare beside a wait's
own cost, and soon enough for somebody who sits before a program that stands still; from the air."""


class Visitor:
    """The way to the home loop of one thread. A context manager: the visit.

    Arguments:
        owner: The home.
        once: The visit ends with its first wait.

    Threads: the one that visits, for every method.
    """

    def __init__(self, owner: JobOwner, *, once: bool = False) -> None:
        self._owner = owner
        self._once = once
        self._visiting = threading.current_thread()
        self._thread = self._visiting.name
        self._delegate: Delegate | None = None
        self._variables: Context | None = None
        self._thread_side = ContextMirror(PRIVATE_VARIABLES)
        self._loop_side = ContextMirror(PRIVATE_VARIABLES)

    def __enter__(self) -> Visitor:
        """Begin; nothing is made before the first wait."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""
        self.leave()

    def leave(self) -> None:
        """End the task on the loop, if there is one. Idempotent."""
        delegate, self._delegate = self._delegate, None
        if delegate is not None:
            delegate.dismiss()

    def can_wait(self) -> bool:
        """Whether the loop is there to wait."""
        return self._owner.loop.is_running() and not self._owner.closed

    def hold(self, handle: asyncio.Handle) -> None:
        """Have the loop run *handle*: at once, as this thread may compute for long."""
        self._owner.loop.call_soon_threadsafe(_run, handle)

    def wait_in_loop(self, awaitable: Awaitable[Any]) -> Any:
        """Have the loop await *awaitable*.

        Raises:
            SessionClosedError: The session has ended; a coroutine is closed.
            DeadlockError: The loop's thread waits for this thread.
            BaseException: What the awaitable raises.
        """
        job = current_job.get()
        if job is None or job.owner is not self._owner:
            return self._wait_for_another(awaitable)
        try:
            return self._wait(awaitable)
        finally:
            if self._once:
                self.leave()

    def _wait_for_another(self, awaitable: Awaitable[Any]) -> Any:
        """The thread works for somebody else now: a pool that was filled by session code."""
        job = current_job.get()
        if job is not None:
            return job.owner.crossing().wait_in_loop(awaitable)
        _close(awaitable)
        raise ForeignThreadError(
            "run_sync() needs the event loop of a session, and this thread does not work for one "
            "now: use asyncio.run() here"
        )

    def _wait(self, awaitable: Awaitable[Any]) -> Any:
        if not self.can_wait():
            _close(awaitable)
            raise SessionClosedError("run_sync() cannot wait: the session has ended")
        if self._delegate is None:
            self._delegate = Delegate(self._owner.loop, self._began)
        work = self._await_in_loop(awaitable, contextvars.copy_context())
        order = self._delegate.begin(work, awaitable)
        try:
            value, error = self._outcome(self._delegate, order), None
        except BaseException as raised:  # a boundary: raised again, below
            value, error = None, raised
        if self._variables is not None:
            self._thread_side.reflect(self._variables)
        if error is not None:
            raise_here(error)
        return value

    def _began(self, task: DelegateTask) -> None:
        """The task is the session's."""
        task.set_name(f"isthmus {self._thread}")
        task.thread = self._visiting
        self._owner.note_visit(task)

    async def _await_in_loop(self, awaitable: Awaitable[Any], variables: Context) -> Any:
        """In the task on the loop, which has a portal."""
        self._loop_side.reflect(variables)
        try:
            return run_sync(awaitable)
        finally:
            self._variables = contextvars.copy_context()

    def _outcome(self, delegate: Delegate, order: Order) -> Any:
        """Wait for *order*, and look now and then whether it can ever end."""
        try:
            while not _has_ended(order.outcome):
                self._look(delegate, order)
            return order.outcome.result()
        except concurrent.futures.CancelledError:
            raise asyncio.CancelledError("the task of this thread was cancelled") from None
        except BaseException:
            if not order.outcome.done():  # this thread was interrupted
                delegate.cancel(order)
            raise

    def _look(self, delegate: Delegate, order: Order) -> None:
        """Give up a wait that cannot end."""
        if self._owner.loop.is_closed():
            order.refuse()
            raise CrossingError("run_sync() cannot wait: the session's loop is closed")
        where = loop_waiting_for_this_thread(self._owner.loop_thread)
        if where is not None:
            delegate.cancel(order)
            raise DeadlockError(
                f"thread {self._thread!r} waits for the event loop, whose "
                f"thread waits for this one at {where}: await asyncio.to_thread(...) there, or run "
                "that cell in a thread"
            )


def _has_ended(outcome: concurrent.futures.Future[Any]) -> bool:
    """Wait for *outcome*, for a while."""
    try:
        outcome.exception(LOOK_SECONDS)
    except TimeoutError:
        return False
    return True


def _run(handle: asyncio.Handle) -> None:
    if not handle.cancelled():
        handle._run()


def _close(awaitable: object) -> None:
    if isinstance(awaitable, CoroutineType):
        awaitable.close()


@contextmanager
def visiting(owner: JobOwner) -> Iterator[None]:
    """Let the calling thread wait for the loop of *owner*."""
    outer, tracked = crossing_here(), sys.get_coroutine_origin_tracking_depth()
    with Visitor(owner) as visitor:
        set_crossing(visitor)
        sys.set_coroutine_origin_tracking_depth(tracked or ORIGIN_DEPTH)
        try:
            yield
        finally:
            sys.set_coroutine_origin_tracking_depth(tracked)
            set_crossing(outer)
