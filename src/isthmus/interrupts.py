"""Stopping code that computes. Owns the pursuit of a job, and the signal to the main thread.

A cell that awaits is stopped by cancelling it, which is not done here. What computes gets
:class:`CellInterrupted`, in steps:

1. On a loop in the main thread by a signal, whose handler runs between two bytecodes of whatever
   runs there and raises where it may; so ``time.sleep``, locks and socket reads are broken too. In
   all other threads by an asynchronous exception (:mod:`isthmus.strikes`), which arrives when
   Python code runs again.
2. Code that swallows it gets it again at each line (:mod:`isthmus.sticky`), or, before Python 3.12,
   again and again for a while.

On the loop's thread only code is struck that keeps the loop from going round: else the loop itself
cancels what the cell awaits. Struck is code of the job that is meant, of one nested in it, or of
its tasks, as :mod:`isthmus.stacks` finds it on a stack; never ours, never the loop's.

Refuses to know: deadlines, who may stop what; it is given a job.

Guarantees: a job is struck after it was ordered to stop, and before its code has ended, or not at
all. Assumes: the handler is installed and removed on the main thread; elsewhere Python cannot.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from threading import get_ident
from types import CodeType, FrameType
from typing import Any

from isthmus.errors import CellInterrupted
from isthmus.frames import Stack, stack_from, stack_in, uncollected
from isthmus.jobs import Job, ancestry
from isthmus.portal import await_for
from isthmus.stacks import codes_of, codes_where_it_waits, job_of, may_be_struck
from isthmus.sticky import sticky_interrupts
from isthmus.strikes import strikes
from isthmus.tracebacks import is_ours
from isthmus.watchdog import watchdog

SIGNAL = signal.SIGURG if hasattr(signal, "SIGURG") else None
"""It does nothing where no handler is installed. None on Windows, where no signal reaches a busy
main thread."""

LOOP_SECONDS = 0.005
"""For how long the loop may not answer before a job's code on its thread is struck; more than a
loop needs that nobody keeps."""

RETRY_SECONDS = 0.002
"""How soon to look again when a job's thread was in code that must not be struck."""

STEP_SECONDS = 0.01
"""How soon to look at what a struck job does; when it goes on, less and less often."""

LONGEST_STEP_SECONDS = 0.1
"""The least often, from the air."""

LOOP_PATIENCE_SECONDS = 0.05
"""For how long the handlers and ``finally`` blocks of a struck job may keep the loop."""

THREAD_PATIENCE_SECONDS = 1.0
"""The same in a thread, where they keep nobody; from the air."""

PURSUIT_SECONDS = 2.0
"""How long after it was told to look whether a job's code goes on computing."""

RETURNS = 20
"""How often a thread that was told may come back from waits for the loop, and go on: more than it
takes to clean up. Code that awaits what never suspends is hardly ever found elsewhere."""

_NEVER = float("inf")


def on_main_thread() -> bool:
    """Whether this is the thread that Python runs signal handlers in."""
    return threading.current_thread() is threading.main_thread()


class Pursuit:
    """The stopping of one job, as often as it is ordered, until its code has ended.

    Arguments:
        job: The job.
        deadline: When it is ordered to stop without a further word, on the clock of
            ``time.monotonic``.

    Attributes:
        told_at: When its own code was last told: struck, or cancelled at an await.
        arrived: Whether what was sent to a thread has been raised there.

    Threads: any, where a method does not say otherwise. The attributes are single values, each
    written in one step; a look that sees an old one is followed by another.
    """

    def __init__(self, job: Job, deadline: float = _NEVER) -> None:
        self.job = job
        self.told_at = -_NEVER
        self.arrived = True
        self._deadline = deadline
        self._ordered_at = -_NEVER
        self._struck_at = -_NEVER
        self._wanted_in: set[int] = set()
        self._returns = 0
        self._asked_at: float | None = None
        self._step = RETRY_SECONDS
        self._until = _NEVER
        self._ended = False

    # -- orders ------------------------------------------------------------------------------

    def order(self, when: float) -> None:
        """Have the job stop; that was ordered at *when*, on the clock of ``time.monotonic``."""
        if when > self._ordered_at:
            self._ordered_at, self._step, self._until = when, RETRY_SECONDS, _NEVER
        watchdog.look_at(self, time.monotonic())

    def ordered_since(self, when: float) -> bool:
        """Whether it was ordered at *when* or later; that its deadline has passed is an order."""
        return self._ordered_at >= when or when <= self._deadline <= time.monotonic()

    def tell(self) -> None:
        """The job's own code has been told."""
        self._returns = 0
        self.told_at = time.monotonic()
        self._note()

    def end(self) -> None:
        """The code has ended, or will never begin. Idempotent."""
        self._ended = True
        self._want_no_more()
        vars(self.job).pop("pursuit", None)
        watchdog.forget(self)
        sticky_interrupts.release(self.job)

    def _is_over(self) -> bool:
        job = self.job
        return self._ended or job.left or (job.state == "ended" and not job.abandoned)

    def _note(self) -> None:
        """What was ordered has been done, for the first time or again."""
        self._want_no_more()
        if self._until == _NEVER:
            self._until, self._step = time.monotonic() + PURSUIT_SECONDS, STEP_SECONDS

    def _want_no_more(self) -> None:
        while self._wanted_in:
            thread = self._wanted_in.pop()
            if strikes.put_off.get(thread) is self:
                strikes.put_off.pop(thread, None)

    # -- looking -----------------------------------------------------------------------------

    def look(self) -> float | None:
        """Strike the job where it computes, if it is to stop; seconds until the next look."""
        now = time.monotonic()
        if now >= self._deadline:
            self._ordered_at, self._step, self._until = self._deadline, RETRY_SECONDS, _NEVER
            self._deadline = _NEVER
        if self._is_over():
            return None
        if self._ordered_at > -_NEVER:
            for thread in self._threads():
                self._look_at(thread)
        wait = min(self._pause(now), self._deadline - now)
        return wait if wait < _NEVER else None

    def _pause(self, now: float) -> float:
        """Seconds until the next look, as far as the last order is concerned."""
        if self._ordered_at == -_NEVER or not self.arrived or now > self._until:
            return _NEVER  # what is on its way to a thread says itself that it arrives
        step, self._step = self._step, min(2 * self._step, LONGEST_STEP_SECONDS)
        return step

    def _threads(self) -> Iterator[int]:
        """Where code of the job can run."""
        if self.job.thread is not None:
            yield self.job.thread
        yield self.job.owner.loop_thread

    def _look_at(self, thread: int) -> None:
        stack = stack_in(thread)
        if not self._is_meant(stack) or (self._is_loop(thread) and not self._keeps_the_loop()):
            return
        if max(self.told_at, self._struck_at) < self._ordered_at:
            if self._is_loop(thread) or not self._may_await_soon():
                self._strike(thread)
        elif self.arrived and self._ignores_it(thread):
            if may_be_struck(stack, on_loop=self._is_loop(thread)):
                self._hold(codes_of(stack))
            self._strike(thread)

    def _is_meant(self, stack: Stack) -> bool:
        """Whether it is code of the job that runs in *stack*, or of one nested in it."""
        return self.job in ancestry(job_of(stack)[0])

    def _is_loop(self, thread: int) -> bool:
        return thread == self.job.owner.loop_thread

    def _keeps_the_loop(self) -> bool:
        """Whether the loop does not go round, which an earlier look has asked it to."""
        now, asked_at = time.monotonic(), self._asked_at  # which the loop may clear at any moment
        if asked_at is not None:
            return now - asked_at >= LOOP_SECONDS
        self._asked_at = now
        with suppress(RuntimeError):  # it is closed: there is nobody to cancel anything
            self.job.owner.loop.call_soon_threadsafe(self._loop_goes_round)
        return False

    def _loop_goes_round(self) -> None:
        self._asked_at = None

    def _ignores_it(self, thread: int) -> bool:
        """Whether the code goes on as if it had not been told, or takes too long to end."""
        patience = LOOP_PATIENCE_SECONDS if self._is_loop(thread) else THREAD_PATIENCE_SECONDS
        since = time.monotonic() - max(self.told_at, self._struck_at)
        return since > patience or (since > STEP_SECONDS and not _handles_stop(thread))

    # -- striking ----------------------------------------------------------------------------

    def strike(self) -> bool:
        """Strike the job if it computes in a thread of its own; whether that is on its way."""
        thread = self.job.thread
        return thread is not None and not self._may_await_soon() and self._strike(thread)

    def _may_await_soon(self) -> bool:
        """Whether a thread's code that awaits may yet be told by its next await, as is better."""
        recent = time.monotonic() - self._ordered_at < STEP_SECONDS
        return self.job.awaits and self.told_at < self._ordered_at and recent

    def _strike(self, thread: int) -> bool:
        self._wanted_in.add(thread)
        strikes.put_off[thread] = self
        if self._is_over():  # just now, and nobody would take it back
            self._want_no_more()
            return False
        if self._is_loop(thread) and main_thread_interrupts.reaches(thread):
            return main_thread_interrupts.send()
        return strikes.send(self, thread)

    def insist(self) -> None:
        """Have a job that waits struck at each line, once it goes on, where that can be.

        For one that was told before and waits again. Threads: the loop's.
        """
        self._hold(codes_where_it_waits(self.job))

    def _hold(self, codes: set[CodeType]) -> None:
        """Have it struck at each line of *codes*."""
        sticky_interrupts.hold(self.job, codes)
        if self._is_over():  # just now
            sticky_interrupts.release(self.job)

    def may_strike(self, thread: int) -> bool:
        """Whether the code that runs in *thread* now may be struck."""
        return self.may_raise_in(stack_in(thread), thread)

    def may_raise_in(self, stack: Stack, thread: int) -> bool:
        """Whether it is for this job, and for nothing that must not be struck, that *stack* runs.

        Only where a look has found that it has to be.
        """
        if thread not in self._wanted_in or not self._is_meant(stack):
            return False
        return may_be_struck(stack, on_loop=self._is_loop(thread))

    def arrive(self) -> CellInterrupted:
        """What to raise; called where it is raised, at that moment."""
        self.arrived = True
        self._struck_at = time.monotonic()
        self._note()
        job, is_own_code = job_of(stack_from(sys._getframe(1)))
        if job is self.job and is_own_code:
            self.told_at = self._struck_at
            job.cancel_requested = job.cancel_delivered = True
        if not self._is_over():
            watchdog.look_at(self, self._struck_at + self._step)
        return CellInterrupted(f"cell {self.job.number} was interrupted")

    def come_out(self, frame: FrameType) -> None:
        """The code in *frame* goes on after a call of ours; see :class:`~isthmus.strikes.Striker`.

        Raises:
            CellInterrupted: It is the one that is meant.
        """
        caller: FrameType | None = frame
        while caller is not None and is_ours(caller) and caller.f_code is not await_for.__code__:
            caller = caller.f_back
        if caller is None or caller.f_code is await_for.__code__:  # the code of a task has ended
            return
        if not self._is_over() and self.may_raise_in(stack_from(caller), get_ident()):
            raise self.arrive()

    def come_back(self) -> None:
        """The calling thread goes on, after a wait for the loop that was not cancelled.

        Raises:
            CellInterrupted: It has not been told, or goes on all the same.
        """
        self._returns += 1
        goes_on = self.told_at < self._ordered_at or self._returns > RETURNS
        if goes_on and not _handles_stop(get_ident()):
            self.pass_by()

    def pass_by(self) -> None:
        """The calling thread's code comes out of what must not be struck.

        Raises:
            CellInterrupted: It had to be, meanwhile.
        """
        if get_ident() in self._wanted_in and not self._is_over():
            raise self.arrive()


def _exception_in(thread: int) -> BaseException | None:
    """What *thread*, another one, is handling."""
    with uncollected():
        current: Any = sys._current_exceptions().get(thread)
    error: BaseException | None = current[1] if isinstance(current, tuple) else current  # 3.11
    return error


def _handles_stop(thread: int) -> bool:
    """Whether *thread* is in a handler or a ``finally`` block that a cancellation has led to."""
    error = sys.exc_info()[1] if thread == get_ident() else _exception_in(thread)
    seen = set[int]()
    while error is not None and id(error) not in seen:
        if isinstance(error, CellInterrupted | asyncio.CancelledError):
            return True
        seen.add(id(error))
        error = error.__context__
    return False


def pursue(job: Job, when: float) -> Pursuit:
    """Have *job* stop, as was ordered at *when*. Threads: any; signal handlers too."""
    pursuit: Pursuit = vars(job).setdefault("pursuit", Pursuit(job))
    pursuit.order(when)
    return pursuit


def set_deadline(job: Job, when: float) -> Pursuit:
    """Have *job*, which has not begun, stop at *when*, on the clock of ``time.monotonic``."""
    pursuit = Pursuit(job, when)
    job.pursuit = pursuit
    watchdog.look_at(pursuit, when)
    return pursuit


class MainThreadInterrupts:
    """The signal that interrupts code in the main thread, and its handler.

    Threads: the main thread's, for :meth:`install` and :meth:`remove`; any for the others.
    """

    def __init__(self) -> None:
        self._users = 0
        self._previous: Any = None

    def install(self) -> bool:
        """Count a user in, on the main thread; whether this is that thread."""
        if SIGNAL is None or not on_main_thread():
            return False
        self._users += 1
        if self._users == 1:
            self._previous = signal.signal(SIGNAL, self._handle)
        return True

    def remove(self) -> None:
        """Count a user out. Called on another thread than the main one, the handler stays."""
        self._users -= 1
        if self._users or SIGNAL is None:
            return
        if on_main_thread() and signal.getsignal(SIGNAL) == self._handle:
            previous = signal.SIG_DFL if self._previous is None else self._previous
            signal.signal(SIGNAL, previous)

    def reaches(self, thread: int) -> bool:
        """Whether a signal would be handled by us in *thread*."""
        return self._users > 0 and thread == threading.main_thread().ident

    def send(self) -> bool:
        """Send the signal; its handler raises in the code that is then found to be meant."""
        main = threading.main_thread().ident
        assert SIGNAL is not None and main is not None
        signal.pthread_kill(main, SIGNAL)
        return True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """The signal's handler. One of another sender is passed on, and one that comes late."""
        thread = get_ident()
        stack = stack_from(frame)
        for job in ancestry(job_of(stack)[0]):
            pursuit = job.pursuit
            if isinstance(pursuit, Pursuit) and pursuit.may_raise_in(stack, thread):
                raise pursuit.arrive()
        if callable(self._previous):
            self._previous(number, frame)


main_thread_interrupts = MainThreadInterrupts()
"""The process has one main thread and one handler a signal, so there is one of these."""
