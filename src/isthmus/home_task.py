"""The home task: the one long-lived task in which a session's ordered async and sync cells run.

Owns the task, its waiting between cells, and what becomes of cancellations. Refuses to know: order
(it performs what it is given), threads, namespaces.

Because it is one task, a context variable set in a cell is set in the next, and a task group or a
timeout entered in one cell can be left in another.

A cancellation of it has three sources:

- *ours*, on behalf of one job: taken back (``uncancel``) at that job's end;
- *the shutdown of the loop*, made while the loop is not running: ends the task;
- *session code or a scope* (``asyncio.timeout``, a task group, an anyio scope): does what it does
  in one long coroutine. It reaches the next ``await``, in a later job too if it came while the task
  was idle. One that no scope made is taken back at the end of the job.

Assumes: every method is called on the loop's thread.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from asyncio import sleep
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from types import FrameType
from typing import Any, TypeVar

from isthmus.jobs import Job, current_job
from isthmus.mailbox import Mailbox
from isthmus.portal import Portal, drive_portal, open_portal

T = TypeVar("T")


async def absorb_cancellation() -> None:
    """Swallow a cancellation that is pending in the current task with all requests taken back.

    ``uncancel`` down to zero forgets a pending one on 3.13+ only; before, it has to be let out.
    """
    task = asyncio.current_task()
    if task is not None and task._must_cancel and not task.cancelling():  # type: ignore[attr-defined]
        with suppress(asyncio.CancelledError):
            await sleep(0)


def made_by_scope(caller: FrameType) -> bool:
    """Whether the function that calls ``cancel`` is a method of something to be left again.

    True for ``asyncio.timeout``, task groups, anyio's and async_timeout's scopes: each takes its
    own request back when it is left.
    """
    kind = type(caller.f_locals.get("self"))
    return hasattr(kind, "__exit__") or hasattr(kind, "__aexit__")


def _left_by_sync_code(caller: FrameType) -> bool:
    """Whether that something can be left in a thread, while the loop's thread is at its cancel."""
    kind = type(caller.f_locals.get("self"))
    return hasattr(kind, "__exit__") and not hasattr(kind, "__aexit__")


class Turn:
    """An ordered loop job whose turn has come after it had to wait for others."""

    __slots__ = ("job",)

    def __init__(self, job: Job) -> None:
        self.job = job

    async def perform(self) -> None:
        """Run the job, unless it was cancelled since. In the home task."""
        task = self.job.task
        assert isinstance(task, HomeTask)
        if not self.job.cancel_requested:
            current_job.set(self.job)
            portal, trap = open_portal(self.job.evaluate, task)
            if not portal.finished:
                await drive_portal(portal, task, trap)
        await task.end(self.job)


class Parked:
    """An ordered loop job that waits for something, on its way to the home task."""

    __slots__ = ("job", "portal", "trap")

    def __init__(self, job: Job, portal: Portal, trap: Any) -> None:
        self.job = job
        self.portal = portal
        self.trap = trap

    async def perform(self) -> None:
        """Go on with the job until it ends. In the home task."""
        task = self.job.task
        assert isinstance(task, HomeTask)
        await drive_portal(self.portal, task, self.trap)
        await task.end(self.job)


class Settlement:
    """The end of a job, where the home task has a cancellation to swallow first."""

    __slots__ = ("job",)

    def __init__(self, job: Job) -> None:
        self.job = job

    async def perform(self) -> None:
        """Take the job's cancellations back and end it. In the home task."""
        task = self.job.task
        assert isinstance(task, HomeTask)
        await task.end(self.job)


class HomeTask(asyncio.Task[None]):
    """The task itself. Made directly, so that no task factory of the host has a say in it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        name: str,
        context: Context,
        ended: Callable[[asyncio.Task[None]], None],
    ) -> None:
        self.mailbox = Mailbox(loop)
        self.started = False
        self.shutting_down = False
        self.stray_cancels = 0
        self._cancels_of_sync_scopes = 0
        super().__init__(_read(self.mailbox), loop=loop, name=name, context=context)
        self.add_done_callback(ended)
        self._log_destroy_pending = False  # a session dropped without close() says so itself

    def cancel(self, msg: Any = None) -> bool:
        """Cancel as any task, and note where it came from."""
        if not self.get_loop().is_running():
            self.shutting_down = True
        elif not has_begun(self):
            return False  # it has nothing to cancel yet
        elif not made_by_scope(sys._getframe(1)):
            self.stray_cancels += 1
        elif _left_by_sync_code(sys._getframe(1)):
            self._cancels_of_sync_scopes += 1
        return super().cancel(msg)

    def forget_left_scopes(self) -> None:
        """Take back what scopes have asked for that a thread has left meanwhile.

        anyio's cancels, and then notes that it did; between the two a thread can leave the scope,
        which takes back what was noted. A scope that is still open asks again by itself.
        """
        for _ in range(min(self._cancels_of_sync_scopes, self.cancelling())):
            self.uncancel()
        self._cancels_of_sync_scopes = 0

    def run(self, job: Job) -> None:
        """Run *job* as a step of this task, though another one runs now; in the home's context.

        For as long as the job computes, this task is the current one, as for an eagerly started
        task of Python 3.12. When it has to wait, the rest of it is handed to this task itself.
        """
        current_job.set(job)
        portal, trap = open_portal(job.evaluate, self)
        if not portal.finished:
            self.mailbox.put_first(Parked(job, portal, trap))
        elif self.has_cancels(job):
            self.mailbox.put(Settlement(job))
        else:
            job.owner.ended(job)

    def has_cancels(self, job: Job) -> bool:
        """Whether there are cancellations to be taken back at the end of *job*."""
        return bool(job.cancels or self.stray_cancels or self._must_cancel)  # type: ignore[attr-defined]

    async def end(self, job: Job) -> None:
        """In this task itself: take back the cancellations meant for *job*, and end it."""
        if self.has_cancels(job):
            count = job.cancels + self.stray_cancels
            job.cancels = self.stray_cancels = 0
            await take_back(count)
        job.owner.ended(job)


def run_as_current(
    task: HomeTask, context: Context, step: Callable[[T], object], subject: T
) -> None:
    """Call *step* with *task*, whose context is *context*, as the current one, whatever runs now.

    By the functions that asyncio documents for third-party tasks ("Extending: task lifetime
    support").
    """
    loop = task.get_loop()
    outer = asyncio.current_task(loop)
    if outer is not None:
        asyncio._leave_task(loop, outer)
    asyncio._enter_task(loop, task)
    try:
        context.run(step, subject)
    finally:
        asyncio._leave_task(loop, task)
        if outer is not None:
            asyncio._enter_task(loop, outer)


async def _read(mailbox: Mailbox) -> None:
    """Perform what comes until told to leave. Its frame holds nothing of the session meanwhile."""
    task = asyncio.current_task()
    assert isinstance(task, HomeTask)
    task.started = True
    with suppress(asyncio.CancelledError):  # the loop is shutting down
        while not task.shutting_down and (item := await mailbox.get()) is not None:
            if mailbox.pending is not None:
                mailbox.redeliver()
            await item.perform()
            item = None


async def take_back(count: int) -> None:
    """Take back *count* requests to cancel the current task, and what is pending of them."""
    task = asyncio.current_task()
    assert task is not None
    for _ in range(min(count, task.cancelling())):
        task.uncancel()
    await absorb_cancellation()


def has_begun(task: asyncio.Task[Any]) -> bool:
    """Whether *task* has had its first step; cancelled before, it would end without a word."""
    coroutine = task.get_coro()
    if not inspect.iscoroutine(coroutine):
        return True
    return inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED


def cancel_for(job: Job) -> None:
    """Cancel the task that runs *job*, to be taken back at the job's end.

    One that has not begun looks itself whether the job was cancelled. A job whose code has ended is
    left alone: what came while its cancellations are taken back would hit the next one.
    """
    if job.left:
        return
    if job.task is not None and has_begun(job.task):
        job.cancels += 1
        job.cancel_delivered = True
        if job.pursuit is not None:
            job.pursuit.tell()
        asyncio.Task.cancel(job.task, f"cell {job.number} was cancelled")


def drive_in_task(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, None],
    *,
    name: str,
    context: Context,
) -> asyncio.Task[None]:
    """A task of ours for *work*, out of reach of the host's task factory."""
    return asyncio.Task(work, loop=loop, name=name, context=context)
