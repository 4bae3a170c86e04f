"""A thread in which cells run, and its traffic with the loop. Owns one thread and its two queues.

Refuses to know: order among cells, namespaces, what a cell is.

What a cell awaits in the thread is handed to the loop as a :class:`Request` and performed there by
the task that serves the cell: the home task for ordered cells. So timeouts, task groups and context
variables mean in the thread what they mean in a task.

Guarantees:
- Messages to the loop arrive in the order in which the thread sent them.
- While a cell waits for an answer the thread runs nested jobs (started by what it waits for), and
  keeps jobs that are merely next in order for later.
- The thread holds no reference to a session between jobs.

Locks: ``_claim`` guards ``current``, ``_retired`` and ``_withdrawn``, so that a job is either run
by this thread or given to another one. Innermost; nothing is called inside. Both queues are atomic
by themselves.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from types import CoroutineType
from typing import Any, Protocol

from isthmus.context_variables import ContextMirror
from isthmus.errors import CellInterrupted, CrossingError, SessionClosedError
from isthmus.home_task import HomeTask
from isthmus.jobs import Job, JobPursuit, ancestry, current_job
from isthmus.portal import (
    ORIGIN_DEPTH,
    Portal,
    await_for,
    drive_portal,
    open_portal,
    outcome_in_portal,
    set_crossing,
)
from isthmus.shared_loop import running_loop_of_thread
from isthmus.steppers import raise_here
from isthmus.strikes import strikes

PRIVATE_VARIABLES: frozenset[contextvars.ContextVar[Any]] = frozenset({current_job})


class Request:
    """An awaitable of a thread, on its way to the loop and back.

    *snapshot* holds the context variables of the side that sent it last.
    """

    __slots__ = (
        "_portal",
        "_token",
        "_trap",
        "answered",
        "awaitable",
        "begun",
        "error",
        "job",
        "snapshot",
        "thread",
        "value",
    )

    def __init__(self, thread: CellThread, job: Job, awaitable: Awaitable[Any]) -> None:
        self.thread = thread
        self.job = job
        self.awaitable = awaitable
        self.snapshot = contextvars.copy_context()
        self.value: Any = None
        self.error: BaseException | None = None
        self.answered = False
        self.begun = False
        self._portal: Portal | None = None

    def begin(self, task: HomeTask) -> None:
        """Await the awaitable as a step of *task*, which is idle, though a callback runs now.

        What does not suspend is answered at once; to wake the task would take a turn of the loop.
        The rest of what does suspend is the task's next work.
        """
        if not self._enter():
            return
        wait = functools.partial(await_for, self.job, self.awaitable)
        portal, self._trap = open_portal(wait, task)
        if portal.finished:
            self._leave(portal.value, portal.error)
        else:
            self._portal = portal
            task.mailbox.put_first(self)

    async def perform(self) -> None:
        """Await the awaitable, or what is left of it, in the current task; answer the thread."""
        if not self.begun and not self._enter():
            return
        try:
            value, error = await self._outcome()
        except GeneratorExit:
            self._leave(None, SessionClosedError("the task of the session was destroyed"))
            raise
        self._leave(value, error)

    async def _outcome(self) -> tuple[Any, BaseException | None]:
        portal = self._portal
        if portal is None:
            return await outcome_in_portal(functools.partial(await_for, self.job, self.awaitable))
        await drive_portal(portal, portal.task, self._trap)
        return portal.value, portal.error

    def _enter(self) -> bool:
        """Make the current context the thread cell's; False when its answer is a cancellation."""
        mirror, job = self.thread.loop_side, self.job
        if mirror.has_work(self.snapshot):
            mirror.reflect(self.snapshot)
        if job.cancel_requested and not job.cancel_delivered:
            job.cancel_delivered = True  # it came while the thread was busy, and arrives here
            if job.pursuit is not None:
                job.pursuit.tell()
            self.fail(asyncio.CancelledError(f"cell {job.number} was cancelled"))
            return False
        self.begun = True
        self._token = current_job.set(job)  # tasks and cells started here are the thread cell's
        return True

    def _leave(self, value: Any, error: BaseException | None) -> None:
        """Give the context back to the home, and the outcome to the thread."""
        self.value, self.error = value, error
        self.snapshot = contextvars.copy_context()
        current_job.reset(self._token)
        self.answer()

    def answer(self) -> None:
        """Give the thread what there is. Threads: any."""
        self.answered = True
        self.thread.inbox.put(self)

    def fail(self, error: BaseException) -> None:
        """Answer with *error*, closing a coroutine that nobody will await. Threads: any."""
        if isinstance(self.awaitable, CoroutineType) and not self.begun:
            self.awaitable.close()
        self.error = error
        self.answer()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _settle_before(awaitable: object) -> None:
    """Have nothing arrive while the thread waits for *awaitable*.

    Raises:
        CellInterrupted: It was on its way; a coroutine that nobody will await is closed.
    """
    try:
        strikes.settle()
    except CellInterrupted:
        if isinstance(awaitable, CoroutineType):
            awaitable.close()
        raise


def _come_back(pursuit: JobPursuit, error: BaseException | None) -> None:
    """The thread goes on, after a wait that gave *error*, with code that may have to stop.

    Raises:
        CellInterrupted: It has to.
    """
    if isinstance(error, asyncio.CancelledError):
        pursuit.tell()
    elif error is None:
        pursuit.come_back()


Message = Request | tuple[Job, contextvars.Context] | list[asyncio.Handle]
"""What a thread says: await this; this job has ended; run these callbacks."""


class ThreadOwner(Protocol):
    """Who gets what a thread says, on the loop's thread."""

    def thread_requests(self, request: Request) -> None:
        """The thread waits for *request* to be performed."""

    def thread_ended(self, job: Job, snapshot: contextvars.Context) -> None:
        """*job* has run and left the context variables of *snapshot*."""


class CellThread:
    """One thread, started at its first job.

    Arguments:
        loop: Where requests go.
        owner: A callable that gives who is to be told (weakly held), or None when it is gone.
        name: The thread's name.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: Callable[[], ThreadOwner | None],
        *,
        name: str,
    ) -> None:
        self.loop = loop
        self.name = name
        self.inbox: SimpleQueue[Job | Request | None] = SimpleQueue()
        self.loop_side = ContextMirror(PRIVATE_VARIABLES)
        self.thread_side = ContextMirror(PRIVATE_VARIABLES)
        self.current: Job | None = None
        self._owner = owner
        self._later: deque[Job | None] = deque()
        self._held: list[asyncio.Handle] = []
        self._outbox: deque[Message] = deque()
        self._outbox_announced = False
        self._waiting: list[Request] = []
        self.ended = loop.create_future()
        self._hooks = sys.get_asyncgen_hooks()  # this is the loop's thread, so they are the loop's
        self._claim = threading.Lock()
        self._withdrawn: set[Job] = set()
        self._retired = False
        self._close_reason: str | None = None
        self._thread: threading.Thread | None = None

    # -- the loop's side ---------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Have *job* run after those submitted before; a nested one as soon as possible.

        Raises:
            RuntimeError: The system gives no more threads. *job* is not run.
        """
        if self._thread is None:
            thread = Thread(
                target=contextvars.Context().run,  # not whatever the submitter's context holds
                args=(self._main,),
                name=self.name,
                daemon=True,
            )
            contextvars.Context().run(thread.start)  # by no job: it is ours
            self._thread = thread
        self.inbox.put(job)

    @property
    def ident(self) -> int | None:
        """The thread's identifier, or None before its first job."""
        return self._thread.ident if self._thread is not None else None

    def close(self, reason: str) -> None:
        """End the thread after its current job; fail what it waits for. Idempotent; any thread."""
        self._close_reason = reason
        self.inbox.put(None)
        callers = set(ancestry(current_job.get()))  # who closes the session waits for this call
        for request in list(self._waiting):
            if not request.answered and request.job not in callers:
                request.fail(SessionClosedError(reason))

    def is_waiting(self, job: Job) -> bool:
        """Whether *job* waits for an awaitable that is being awaited, or about to be."""
        return any(request.job is job and not request.answered for request in self._waiting)

    def retire(self, job: Job) -> bool:
        """Leave the thread to *job*, which it runs now; it takes no other and then ends.

        Returns False, and changes nothing, when it does not run *job* (any more).
        """
        with self._claim:
            if job not in ancestry(self.current):  # it may run one that is nested in it
                return False
            self._retired = True
        self.inbox.put(None)
        return True

    def _take(self, job: Job) -> bool:
        """Make *job* the current one, unless it was withdrawn. The thread's own call."""
        with self._claim:
            if self._retired or job in self._withdrawn:
                self._withdrawn.discard(job)
                return False
            self.current = job
            return True

    def withdraw(self, job: Job) -> bool:
        """Take back *job*, which was submitted; whether it had not started. Any thread."""
        with self._claim:
            if job in ancestry(self.current) or job.state != "running":
                return False
            self._withdrawn.add(job)
            return True

    def join(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds for the thread to end; whether it has. Not on the loop."""
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _drain(self) -> None:
        """Pass on what the thread has said. Runs on the loop."""
        self._outbox_announced = False  # before the first popleft: what comes later says so itself
        try:
            self._pass_on()
        finally:
            if self._outbox:  # a task that was woken has ended the loop
                self._drain()

    def _pass_on(self) -> None:
        owner = self._owner()
        while self._outbox:
            message = self._outbox.popleft()
            if isinstance(message, list):
                for handle in message:
                    if not handle.cancelled():
                        handle._run()
            elif owner is None:
                continue
            elif isinstance(message, Request):
                owner.thread_requests(message)
            else:
                owner.thread_ended(*message)

    # -- the thread's side -------------------------------------------------------------------

    def _main(self) -> None:
        set_crossing(self)
        sys.set_asyncgen_hooks(*self._hooks)  # the loop closes what is begun here and abandoned
        sys.set_coroutine_origin_tracking_depth(ORIGIN_DEPTH)
        while (item := self._later.popleft() if self._later else self.inbox.get()) is not None:
            if isinstance(item, Job):
                if self._take(item):
                    self._run(item)
                elif self._retired:
                    break
            item = None
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(_resolve, self.ended)

    def _run(self, job: Job) -> None:
        """Run *job*, which is the current one, and tell the loop."""
        current_job.set(job)
        job.thread = threading.get_ident()
        snapshot = job.snapshot
        if snapshot is not None:
            job.snapshot = None
            if self.thread_side.has_work(snapshot):
                self.thread_side.reflect(snapshot)
        if job.awaits:
            with running_loop_of_thread(self.loop, job.task):
                job.evaluate()
        else:
            job.evaluate()
        self.current = None
        current_job.set(None)
        self._say_ended(job)

    def _run_nested(self, job: Job) -> None:
        """Run *job* below the current one, in a copy of the context variables."""
        outer, self.current = self.current, job
        contextvars.copy_context().run(self._run, job)
        self.current = outer

    def _post(self, message: Message) -> None:
        """Say *message* to the loop; one wake-up serves all that was said before it is heard."""
        self._outbox.append(message)
        if not self._outbox_announced:
            self._outbox_announced = True
            self.loop.call_soon_threadsafe(self._drain)

    def _say_ended(self, job: Job) -> None:
        try:
            if self._held:
                self._release_held()
            self._post((job, contextvars.copy_context()))
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass

    def hold(self, handle: asyncio.Handle) -> None:
        """Have the loop run *handle* when the thread waits next, or ends its job."""
        self._held.append(handle)

    def _release_held(self) -> None:
        """Say to the loop what was held."""
        if self._held:
            held, self._held = self._held, []
            self._post(held)

    def can_wait(self) -> bool:
        """Whether the session is open, so that the loop would answer."""
        return self._close_reason is None

    def wait_in_loop(self, awaitable: Awaitable[Any]) -> Any:
        """Have the loop await *awaitable*, and run nested jobs meanwhile. The thread's own call.

        Raises:
            CrossingError: The session or its loop has ended; a coroutine is closed.
            BaseException: What the awaitable raises.
        """
        job = self.current
        assert job is not None
        if strikes.on_their_way:
            _settle_before(awaitable)
        request = Request(self, job, awaitable)
        self._waiting.append(request)
        self._send(request)
        self._serve_until_answered(request)
        self._waiting.remove(request)
        if self.thread_side.has_work(request.snapshot):
            self.thread_side.reflect(request.snapshot)
        if job.pursuit is not None:
            _come_back(job.pursuit, request.error)
        if request.error is not None:
            raise_here(request.error)
        return request.value

    def _send(self, request: Request) -> None:
        """Post *request*, or fail it at once where nobody would ever hear it."""
        if self._close_reason is not None:
            request.fail(SessionClosedError(self._close_reason))
            return
        try:
            self._release_held()
            self._post(request)
        except RuntimeError:
            request.fail(CrossingError("run_sync() cannot wait: the session's loop is closed"))

    def _serve_until_answered(self, request: Request) -> None:
        while not request.answered:
            item = self.inbox.get()
            if isinstance(item, Job) and item.parent is not None:
                self._run_nested(item)
            elif not isinstance(item, Request):
                self._later.append(item)
