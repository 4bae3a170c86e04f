"""The home of a session's cells: its task and its thread, and whose turn it is. Owns order.

Refuses to know: source code, namespaces, events.

Ordered jobs run one at a time, first come first served, over all contexts. Thread jobs that follow
each other are handed to the thread together, so that a burst of them does not wait for the loop in
between. Nested jobs run at once, where their caller is; concurrent ones in a task or thread of
their own.

Assumes: every method is called on the loop's thread. So there is no lock here.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from isthmus.cell_thread import PRIVATE_VARIABLES, CellThread, Request
from isthmus.context_variables import ContextMirror
from isthmus.errors import SessionClosedError
from isthmus.home_task import (
    HomeTask,
    Settlement,
    Turn,
    cancel_for,
    drive_in_task,
    run_as_current,
    take_back,
)
from isthmus.interrupts import pursue
from isthmus.jobs import Crossing, Job, ancestry, current_job
from isthmus.loop_watch import LoopWatch
from isthmus.mailbox import Mailbox
from isthmus.ownership import Ownership
from isthmus.portal import in_portal
from isthmus.visitors import Visitor

HOGGED_SECONDS = 0.005
"""How long cells that end at once may follow each other before the loop goes round in between."""


class Home:
    """Where the jobs of one session run, on one event loop.

    Arguments:
        loop: The home loop.
        name: For the names of tasks and threads.
        context: What the home task's context variables start with.
        ownership: Where what its jobs make is entered.
        on_shutdown: Called when the loop's shutdown has ended the home.

    Attributes:
        given_up: Jobs without whose end control has gone back, until their code really ends.
        paused: No job starts; those that come wait in the queue.
        dismisses: What other threads begin to wait for is cancelled at once.
        loop_watches: Who sees whether the loop goes round; closed with the home.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        name: str,
        ownership: Ownership,
        context: contextvars.Context | None = None,
        on_shutdown: Callable[[], None] | None = None,
    ) -> None:
        self.loop = loop
        self.name = name
        self.ownership = ownership
        self.context = context if context is not None else contextvars.copy_context()
        self.closed = False
        self.paused = False
        self.dismisses = False
        self.running: Job | None = None
        self.in_thread: deque[Job] = deque()
        self.queue: deque[Job] = deque()
        self.aside: set[Job] = set()
        self.given_up: set[Job] = set()
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self.loop_watches: list[LoopWatch] = []
        self._on_shutdown = on_shutdown
        self._last_round = 0.0
        self._task: HomeTask | None = None
        self._thread: CellThread | None = None
        self.loop_thread = threading.get_ident()
        self._extra_threads: set[CellThread] = set()
        self._retired_threads: set[CellThread] = set()
        self._concurrent_tasks: set[asyncio.Task[None]] = set()

    # -- what there is -----------------------------------------------------------------------

    def task_of_cells(self) -> HomeTask:
        """The home task; made at its first use."""
        if self._task is None:
            ended = weakref.WeakMethod(self._task_ended)
            self._task = HomeTask(
                self.loop,
                name=f"isthmus {self.name}",
                context=self.context,
                ended=lambda task: call_if_alive(ended, task),
            )
        return self._task

    def _thread_of_cells(self) -> CellThread:
        if self._thread is None:
            self._thread = CellThread(self.loop, weakref.ref(self), name=f"isthmus {self.name}")
            weakref.finalize(self, self._thread.close, "the session was dropped").atexit = False
        return self._thread

    @property
    def thread(self) -> CellThread | None:
        """The home thread, if a cell has needed it."""
        return self._thread

    def jobs(self) -> list[Job]:
        """All jobs that have not ended."""
        running = [self.running] if self.running is not None else []
        return [*running, *self.in_thread, *self.aside, *self.queue]

    def beside(self, job: Job) -> list[Job]:
        """Jobs whose code may run now and does not wait for *job*: given up ones too. Threads: any.

        Whoever started *job* in its own task waits for it.
        """
        waiting = {it.parent for it in ancestry(job) if it.parent and it.task is it.parent.task}
        return [it for it in (*self.jobs(), *self.given_up) if it is not job and it not in waiting]

    def unended(self) -> list[Job]:
        """The same, and those that were given up. Threads: any."""
        return [*(job for job in self.jobs() if job.state != "ended"), *self.given_up]

    def may_run_code(self) -> bool:
        """Whether a job or a task of the session is alive. Threads: any."""
        tasks = self.ownership.of_kind("task")
        return bool(self.unended()) or not all(task.done() for task in tasks)

    # -- starting jobs -----------------------------------------------------------------------

    def enqueue(self, job: Job) -> None:
        """Run *job* when its turn comes."""
        if self.closed:
            self._check_open()
        if self.queue or self.running is not None or self.in_thread or self.paused:
            self.queue.append(job)
            self._take_turns()
        elif job.context == "thread":
            self._start_in_thread(job)
        else:
            task = self._give_turn(job)
            if task.started:
                run_as_current(task, self.context, task.run, job)
            else:
                task.mailbox.put(Turn(job))

    def _take_turns(self) -> None:
        """Start what may start: thread jobs in a row, or one loop job when all else has ended."""
        while self.queue and self.running is None and not self.paused:
            job = self.queue[0]
            if job.context != "thread":
                if not self.in_thread:
                    self._give_turn(self.queue.popleft()).mailbox.put(Turn(job))
                return
            self._start_in_thread(self.queue.popleft())

    def _give_turn(self, job: Job) -> HomeTask:
        """Make *job* the one that runs on the loop; the task that has to run it."""
        self.running = job
        job.state = "running"
        task = job.task = self._task or self.task_of_cells()
        return task

    def _start_in_thread(self, job: Job) -> None:
        task = job.task = self._task or self.task_of_cells()
        job.mailbox = task.mailbox
        if not self.in_thread:  # else the thread is ahead of the loop, and has newer values
            job.snapshot = self.context.copy()
        job.state = "running"
        self.in_thread.append(job)
        try:
            (self._thread or self._thread_of_cells()).submit(job)
        except RuntimeError as error:  # the system gives no more threads
            self.in_thread.remove(job)
            job.refuse(error)
            self.ended(job)

    def has_hogged(self, job: Job) -> bool:
        """Count *job*, which has ended; whether its caller should let the loop go round now.

        A cell that never waits ends within its caller's step, so that a row of them would never let
        the loop go on.
        """
        if job.done is not None:  # its caller has waited
            return False
        now = time.monotonic()
        if now - self._last_round < HOGGED_SECONDS:
            return False
        self._last_round = now
        # A callback of the loop, which runs cells without a task, lets it go round by itself.
        return asyncio.current_task(self.loop) is not None

    async def run_nested(self, job: Job, parent: Job) -> None:
        """Run *job* at once, in the caller's task; in the thread when it is a thread job."""
        self._check_open()
        job.parent = parent
        parent.children = (*parent.children, job)
        job.task = asyncio.current_task()
        self.aside.add(job)
        job.state = "running"
        try:
            if job.context != "thread":
                token = current_job.set(job)
                await in_portal(job.evaluate)
                current_job.reset(token)
            elif job.task is parent.task:  # the thread is free, or waits for this very task
                await self._serve(job, self._thread_of_cells())
            else:
                await self._serve_in_own_thread(job)
            if job.cancels:
                await take_back(job.cancels)
        finally:
            self.ended(job)

    def start_concurrent(self, job: Job) -> None:
        """Run *job* beside the others, in a task or thread of its own."""
        self._check_open()
        if self.paused:
            job.concurrent = True
            self.queue.append(job)
            return
        job.state = "running"
        self.aside.add(job)
        job.task = drive_in_task(
            self.loop,
            self._run_concurrent(job),
            name=f"isthmus {self.name} cell {job.number}",
            context=self.context.copy(),
        )
        self._concurrent_tasks.add(job.task)
        job.task.add_done_callback(self._concurrent_tasks.discard)

    async def _run_concurrent(self, job: Job) -> None:
        try:
            if job.cancel_requested:
                return
            if job.context == "thread":
                await self._serve_in_own_thread(job)
            else:
                current_job.set(job)
                await in_portal(job.evaluate)
        finally:
            self.ended(job)

    async def _serve_in_own_thread(self, job: Job) -> None:
        name = f"isthmus {self.name} cell {job.number}"
        thread = CellThread(self.loop, weakref.ref(self), name=name)
        self._extra_threads.add(thread)
        try:
            await self._serve(job, thread)
        finally:
            thread.close("the cell has ended")
            self._extra_threads.discard(thread)

    async def _serve(self, job: Job, thread: CellThread) -> None:
        """Have *thread* run *job*, and await for it what it awaits, in the current task."""
        mailbox = job.mailbox = Mailbox(self.loop)
        job.snapshot = contextvars.copy_context()
        try:
            thread.submit(job)
        except RuntimeError as error:  # as above
            job.snapshot = None
            job.refuse(error)
            return
        while (request := await mailbox.get()) is not None:
            mailbox.redeliver()
            await request.perform()
        mailbox.redeliver()
        if job.snapshot is not None:
            ContextMirror(PRIVATE_VARIABLES).reflect(job.snapshot)

    # -- other threads -----------------------------------------------------------------------

    def crossing(self) -> Crossing:
        """The way to the loop, for one wait of a thread that works for one of the jobs."""
        return Visitor(self, once=True)

    def note_visit(self, task: asyncio.Task[Any]) -> None:
        """*task*, which has not begun, is to wait on behalf of a thread of the session."""
        self.tasks.add(task)
        if self.dismisses:  # which has come between the thread and the loop
            task.cancel("the session ends what it owns")

    # -- what a thread says ------------------------------------------------------------------

    def thread_requests(self, request: Request) -> None:
        """Have the task that serves the job perform *request*: at once, if it is idle."""
        task, mailbox = self._task, request.job.mailbox
        if request.job.abandoned:
            request.fail(asyncio.CancelledError("the cell was given up"))
        elif self.closed or mailbox is None:
            request.fail(SessionClosedError("the session has ended"))
        elif task is not None and mailbox is task.mailbox and mailbox.idle:
            run_as_current(task, self.context, request.begin, task)
        else:
            mailbox.put(request)

    def thread_ended(self, job: Job, snapshot: contextvars.Context) -> None:
        """*job* has run in its thread."""
        if job.abandoned:
            self.given_up.discard(job)
            self._retired_threads = {it for it in self._retired_threads if not it.ended.done()}
            return
        if self._task is not None:
            self._task.forget_left_scopes()
        if not self.in_thread or self.in_thread[0] is not job:  # nested or concurrent
            job.snapshot = snapshot
            if job.mailbox is not None:
                job.mailbox.put(None)
            return
        self.in_thread.popleft()
        if job.task is not self._task and job.mailbox is not None:  # it has seen a new beginning
            job.mailbox.put(None)
            self.ended(job)
            return
        if self._thread is not None and self._thread.loop_side.has_work(snapshot):
            self.context.run(self._thread.loop_side.reflect, snapshot)
        if job.cancels and not self.task_of_cells().done():
            self.running = job  # the home task may not have noticed: nobody begins there before
            self.task_of_cells().mailbox.put(Settlement(job))
        else:
            self.ended(job)

    # -- ending jobs -------------------------------------------------------------------------

    def ended(self, job: Job) -> None:
        """*job* has run: tell its caller, and start what comes next."""
        if job.abandoned and job.context != "thread":  # of a thread's end the thread itself tells
            self.given_up.discard(job)
        self._leave(job)

    def _leave(self, job: Job) -> None:
        """Go on without *job*."""
        if self.running is job:
            self.running = None
        self.aside.discard(job)
        if job.parent is not None:
            job.parent.children = tuple(it for it in job.parent.children if it is not job)
        job.end()
        if self.queue:
            self._take_turns()

    def stop(self, job: Job, since: float | None = None) -> bool:
        """Have *job* stop: interrupt its code where it computes in a thread, or cancel it.

        Code that computes on the loop is interrupted from outside, and told by then.

        Arguments:
            job: The job; one that was given up can be told again.
            since: When that was asked for, on the clock of ``time.monotonic``; None for now. A job
                that was told since is not told again.

        Returns:
            Whether its code had not ended.
        """
        if job.state == "ended" and job not in self.given_up:
            return False
        since = time.monotonic() if since is None else since
        if job.state != "queued":
            pursuit = pursue(job, since)
            if pursuit.told_at >= since:
                return True
            if job.context == "thread":
                job.cancel_requested = True  # its next await tells it, if that is sooner
            if pursuit.strike():
                return True
            if job in self.given_up:
                pursuit.insist()
        self.cancel(job)
        return True

    def cancel(self, job: Job) -> None:
        """Cancel what *job* is doing, or take it out of the queue.

        A thread job that does not await at the moment is cancelled at its next await.
        """
        job.cancel_requested = True
        if job in self.queue:
            self.queue.remove(job)
            job.end()
        elif self._thread is not None and job in self.in_thread and self._thread.withdraw(job):
            self.in_thread.remove(job)
            self.ended(job)
        elif job.context != "thread" or self._is_awaited_for(job):
            cancel_for(job)

    def _is_awaited_for(self, job: Job) -> bool:
        """Whether the loop is awaiting something for the thread job *job* at this moment."""
        return any(thread.is_waiting(job) for thread in self._threads())

    def abandon(self, job: Job) -> None:
        """Give up on *job*, whose code goes on running, and make room for the next.

        The task or thread that it holds is retired; the next job gets a new one. A job that runs on
        its caller's stack cannot be given up: the caller could not go on.
        """
        is_of_task = job.cancels > 0 or self._is_awaited_for(
            job
        )  # whose cancellations stay with it
        holds_task = self.running is job or (job in self.in_thread and is_of_task)
        if not self._let_go(job):
            return
        if holds_task:
            self._retire_task()
        if job in self.in_thread:
            self.in_thread.remove(job)
            self.queue.extendleft(reversed(self.in_thread))
            self.in_thread.clear()
        elif job.context == "thread" and job.mailbox is not None:
            job.mailbox.put(None)
        job.give_up()
        self.given_up.add(job)
        self._leave(job)

    def _let_go(self, job: Job) -> bool:
        """Leave to *job* the thread in which it runs; whether it can be left behind at all."""
        parent = job.parent
        if job.context != "thread":
            return parent is None
        if parent is not None and parent.context == "thread" and parent.task is job.task:
            return False
        for thread in self._threads():
            if thread.retire(job):
                self._retired_threads.add(thread)
                self._thread = None if thread is self._thread else self._thread
                return True
        return False  # it has ended this moment; the thread's word is on its way

    def _retire_task(self) -> None:
        """Leave the home task to the job that it runs or awaits for."""
        self.task_of_cells().mailbox.put(None)
        self._task = None
        self.context = self.context.copy()

    def _threads(self) -> list[CellThread]:
        """The threads in which jobs run that have not been given up."""
        home = [self._thread] if self._thread is not None else []
        return [*home, *self._extra_threads]

    # -- the end -----------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self.closed:
            raise SessionClosedError(f"session {self.name!r} has ended; open a new one")

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A home task has left: told to, retired, or because the loop shuts down."""
        if task is not self._task:
            return
        if self.closed:
            return  # what still runs, a thread cell that has closed the session, ends by itself
        self.close("the event loop is shutting down")
        for job in self.jobs():
            job.give_up()
            job.end()
        if self._on_shutdown is not None:
            self._on_shutdown()

    def dismiss_waits(self) -> None:
        """Cancel what other threads wait for, and from here on what they begin to wait for.

        Not before tasks have ended: they may have threads clean up for them.
        """
        self.dismisses = True
        own = asyncio.current_task()
        for task in list(self.tasks):
            if task is not own:
                task.cancel("the session ends what it owns")

    def cells_left(self) -> tuple[int, ...]:
        """Numbers of cells whose code still runs, but for those that run the caller."""
        callers = set(ancestry(current_job.get()))
        left = {*self.jobs(), *self.given_up} - callers
        return tuple(sorted(job.number for job in left if job.state != "queued"))

    def cells_in_threads(self) -> tuple[int, ...]:
        """Numbers of cells whose code runs in a thread. Threads: any, also without the loop."""
        running = [it.current for it in (*self._threads(), *self._retired_threads)]
        return tuple(sorted(job.number for job in running if job is not None))

    # -- a new beginning ---------------------------------------------------------------------

    def pause(self) -> None:
        """Let no job start before :meth:`resume`, but for those that running jobs start."""
        self.paused = True

    def resume(self) -> None:
        """Start the jobs that have come meanwhile."""
        self.paused = self.dismisses = False
        for job in [job for job in self.queue if job.concurrent]:
            self.queue.remove(job)
            self.start_concurrent(job)
        self._take_turns()

    def start_over(self, context: contextvars.Context) -> set[asyncio.Future[Any]]:
        """Leave the task, the thread and the context variables; jobs to come get new ones.

        A job that calls this goes on where it is, and ordered jobs wait for its end.

        Returns:
            What ends with the task and the thread.
        """
        ends, callers = self.ends(), set(ancestry(current_job.get()))
        task, thread, self._task, self._thread = self._task, self._thread, None, None
        self.context = context
        caller = next((job for job in self.in_thread if job in callers), None)
        if caller is not None:
            self.running = caller  # whose thread is not that of the jobs behind it any more
        elif task is not None:
            task.mailbox.put(None)
        if thread is not None:
            current = thread.current
            if current is None or current not in callers or not thread.retire(current):
                thread.close("the session was reset")
        return ends

    def close(self, reason: str) -> None:
        """Refuse new jobs, drop those that wait, end the home task and threads. Does not wait."""
        if self.closed:
            return
        self.closed = self.dismisses = True
        for watch in self.loop_watches:
            watch.close()
        while self.queue:
            self.queue.popleft().end()
        if self._task is not None and not self.loop.is_closed():
            self._task.mailbox.put(None)
        for thread in self._threads():
            thread.close(reason)

    def ends(self) -> set[asyncio.Future[Any]]:
        """The ends to come of the home task and thread, but for those that run the caller."""
        callers = set(ancestry(current_job.get()))
        ends: set[asyncio.Future[Any]] = set()
        task, thread = self._task, self._thread
        serving = {asyncio.current_task(), *(it.task for it in callers)}
        if task is not None and task not in serving:
            ends.add(task)
        if thread is not None and thread.ident is not None and thread.current not in callers:
            ends.add(thread.ended)
        return ends

    def ends_of_retired(self) -> set[asyncio.Future[Any]]:
        """The ends to come of threads that were left to jobs which were given up."""
        return {it.ended for it in self._retired_threads}


def call_if_alive(method: weakref.WeakMethod[Any], *arguments: object) -> None:
    """Call *method*, unless the object that it belongs to is gone."""
    target = method()
    if target is not None:
        target(*arguments)
