"""Seeing that an event loop stands still. Owns the question put to it, and when to ask.

Refuses to know: what becomes of a report.

The watchdog looks what the loop's thread is doing, a few times per delay, while cells or tasks of
the session are alive. A thread that is in the loop's own code, waiting for what comes next, is left
alone; any other is asked for a sign of life, which is a callback. So a loop that goes round pays
nothing.

Guarantees: a blockage is reported once; neither the home nor who is told is kept alive.
"""

from __future__ import annotations

import contextvars
import threading
import time
import weakref
from typing import Any, Protocol

from isthmus.frames import stack_in
from isthmus.jobs import JobOwner
from isthmus.stacks import is_of_loop, job_of, stack_of_thread
from isthmus.watchdog import watchdog

LOOKS = 4
"""In a delay, so that a report is late by a quarter of it at most."""

SHORTEST_LOOK_SECONDS = 0.005
"""Between two looks, however short the delay: what CPython gives a thread that computes."""


class Occupant(JobOwner, Protocol):
    """Whose loop it is: a home."""

    def may_run_code(self) -> bool:
        """Whether a job or a task of the session is alive. Threads: any."""


class LoopWatch:
    """The watch over one loop, for one session.

    Arguments:
        home: Whose loop it is; held weakly.
        delay: Seconds that the loop may stand still.
        report: A bound method, held weakly. It is called, in a thread of its own, with the number
            of the cell whose code keeps the loop, or 0; the seconds for which it has; and where it
            stands, as text.

    Threads: any. The attributes are single values, each written in one step.
    """

    def __init__(self, home: Occupant, delay: float, report: weakref.WeakMethod[Any]) -> None:
        self._home = weakref.ref(home)
        self._delay = delay
        self._pause = max(delay / LOOKS, SHORTEST_LOOK_SECONDS)
        self._report = report
        self._asked_at: float | None = None
        self._asleep = True
        self._closed = False

    def is_for(self, home: Occupant) -> bool:
        """Whether it watches the loop of *home*."""
        return self._home() is home

    def wake(self) -> None:
        """Code of the session is about to run: look, until there is none any more."""
        if self._asleep and not self._closed:
            self._asleep = False
            watchdog.look_at(self, time.monotonic() + self._pause)

    def close(self) -> None:
        """Look no more. Idempotent."""
        self._closed = True
        watchdog.forget(self)

    def look(self) -> float | None:
        """See whether the loop goes round; seconds until the next look."""
        asked_at = self._asked_at  # which the loop may clear at any moment
        home = self._home()
        if home is None or home.closed or self._closed:
            return None
        if asked_at is not None:
            return self._judge(home, time.monotonic() - asked_at)
        if not home.may_run_code():
            self._asleep = True
            if not home.may_run_code():
                return None
            self._asleep = False  # one that has come since found it awake
        if not is_of_loop(stack_in(home.loop_thread)):
            self._ask(home)
        return self._pause

    def _ask(self, home: Occupant) -> None:
        self._asked_at = time.monotonic()
        try:
            home.loop.call_soon_threadsafe(self._answer, context=contextvars.Context())
        except RuntimeError:  # it is closed
            self._closed = True

    def _answer(self) -> None:
        """The loop goes round. Runs there."""
        self._asked_at = None
        if not self._asleep and not self._closed:
            watchdog.look_at(self, time.monotonic() + self._pause)

    def _judge(self, home: Occupant, seconds: float) -> float | None:
        """The loop has not answered for so long; seconds until the next look."""
        if seconds < self._delay:
            return min(self._pause, self._delay - seconds)
        job, _ = job_of(stack_in(home.loop_thread))
        number = job.number if job is not None else 0
        stack = stack_of_thread(home.loop_thread)
        if self._asked_at is not None:
            self._tell(number, seconds, stack)
        return None  # the loop's answer goes on

    def _tell(self, *blockage: object) -> None:
        """Report, in a thread that may wait: the watchdog must not."""
        report = self._report()
        if report is not None:
            thread = threading.Thread(
                target=report, args=blockage, name="isthmus report", daemon=True
            )
            contextvars.Context().run(thread.start)  # by no job: it is ours
