"""Stopping code that computes. Owns the signal to the main thread and the watch over deadlines.

Refuses to know: who may stop what; it is given a job. A cell that awaits is stopped by cancelling
it, which is not done here; threads are interrupted by :class:`~isthmus.cell_thread.CellThread`.

A loop on the main thread that a cell hogs is reached by a signal: its handler runs between two
bytecodes of whatever runs there, and breaks ``time.sleep``, locks and socket reads too. The handler
looks who runs and raises :class:`CellInterrupted` only in the code of the job that it is meant for,
never in ours and never in the loop's. So a signal that comes late hits nobody. The signal is
``SIGURG``, which does nothing where no handler is installed.

Guarantees: a job is interrupted while its state is ``running``, once a request, or not at all.
Assumes: the handler is installed and removed on the main thread, the only one where Python can.
"""

from __future__ import annotations

import contextvars
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from isthmus.errors import CellInterrupted
from isthmus.jobs import Job, current_job
from isthmus.portal import Runner

SIGNAL = signal.SIGURG if hasattr(signal, "SIGURG") else None
"""None on Windows, where no signal reaches a busy main thread."""

LOOP_FIRST_SECONDS = 0.01
"""How long the loop has to cancel a job before its code is interrupted; more than it needs."""

RETRY_SECONDS = 0.002
"""How soon to signal again when the main thread was in code that must not be interrupted."""

PURSUIT_SECONDS = 1.0
"""For how long to try; then the job waits for something, and its cancellation is what ends it."""

_PACKAGE = str(Path(__file__).parent)


def on_main_thread() -> bool:
    """Whether this is the thread that Python runs signal handlers in."""
    return threading.current_thread() is threading.main_thread()


def _is_code_of_a_cell(frame: FrameType | None) -> bool:
    """Whether *frame* is interrupted outside this package's own code, and below a cell's."""
    if frame is None or frame.f_code.co_filename.startswith(_PACKAGE):
        return False
    while frame is not None:
        if frame.f_code is Runner.run.__code__:
            return True
        frame = frame.f_back
    return False


class MainThreadInterrupts:
    """The signal's handler, and the thread that sends it when a deadline passes.

    Threads: any, but for :meth:`install` and :meth:`remove`. The condition's lock guards all fields
    but ``_wanted``, which the handler reads: it must not wait for a lock that its own thread holds.
    Innermost: nothing is called inside.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users = 0
        self._previous: Any = None
        self._wanted: dict[Job, int] = {}
        self._deadlines: dict[Job, float] = {}
        self._next_look = float("inf")
        self._watchdog: threading.Thread | None = None

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
        with self._changed:
            self._deadlines.clear()
            self._changed.notify()
        if on_main_thread() and signal.getsignal(SIGNAL) == self._handle:
            previous = signal.SIG_DFL if self._previous is None else self._previous
            signal.signal(SIGNAL, previous)

    def watch(self, job: Job, seconds: float = 0.0) -> None:
        """Interrupt *job* in *seconds* and a little more: the loop gets the first chance.

        Nothing happens when the loop has cancelled the job by then, which says that nothing hogs
        it, when the job has ended, or when :meth:`forget` was called.
        """
        when = time.monotonic() + seconds + LOOP_FIRST_SECONDS
        with self._changed:
            self._wanted[job] = job.cancels
            self._deadlines[job] = when
            if self._watchdog is None:
                self._watchdog = threading.Thread(
                    target=self._watch, name="isthmus watchdog", daemon=True
                )
                contextvars.Context().run(self._watchdog.start)  # by no job: it is ours
            elif when < self._next_look:
                self._changed.notify()

    def forget(self, job: Job) -> None:
        """*job* is not to be interrupted any more."""
        with self._changed:
            self._deadlines.pop(job, None)
            self._wanted.pop(job, None)

    def _watch(self) -> None:
        """Signal the main thread for each job whose time has come, until there is none."""
        while True:
            with self._changed:
                due, wait = self._due()
                if wait is None:
                    self._watchdog = None
                    return
                if not due:
                    self._changed.wait(wait)
            if due:
                self._send()

    def _due(self) -> tuple[list[Job], float | None]:
        """Jobs whose time has come, to be looked at again soon; and the seconds until the next.

        None for the seconds when there is nothing left. Holds the lock.
        """
        now = time.monotonic()
        for job in [it for it in list(self._deadlines) if it.state in ("finishing", "ended")]:
            self._drop(job)
        due = [job for job, when in list(self._deadlines.items()) if when <= now]
        for job in due:
            if now - self._deadlines.get(job, now) > PURSUIT_SECONDS:
                self._drop(job)
        if not self._deadlines and self._users == 0:
            return due, None
        later = [when for when in list(self._deadlines.values()) if when > now]
        self._next_look = min(later, default=float("inf"))
        return due, min(self._next_look - now, threading.TIMEOUT_MAX)

    def _drop(self, job: Job) -> None:
        """Forget *job*. One step each: the handler needs no lock for it."""
        self._deadlines.pop(job, None)
        self._wanted.pop(job, None)

    def _send(self) -> None:
        main = threading.main_thread().ident
        if SIGNAL is not None and main is not None:
            signal.pthread_kill(main, SIGNAL)
        time.sleep(RETRY_SECONDS)

    def _is_wanted(self, job: Job) -> bool:
        """Whether *job* computes, and the loop has not managed to cancel it since."""
        due = time.monotonic() >= self._deadlines.get(job, float("inf"))
        return due and job.state == "running" and self._wanted.get(job) == job.cancels

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """The signal's handler: raise in the cell that is meant, if its code is what runs."""
        job = current_job.get()
        if job is not None and self._is_wanted(job) and _is_code_of_a_cell(frame):
            self._drop(job)
            raise CellInterrupted(f"cell {job.number} was interrupted")
        if callable(self._previous):
            self._previous(number, frame)


main_thread_interrupts = MainThreadInterrupts()
"""The process has one main thread and one handler a signal, so there is one of these."""
