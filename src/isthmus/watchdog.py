"""A thread that looks after others while their loop may stand still. Owns it, and its clock.

Refuses to know: what it looks at, and for.

Guarantees: whatever is to be looked at is looked at soon after its time, unless somebody holds the
interpreter lock in between; nothing is looked at from two threads at once.
"""

from __future__ import annotations

import contextvars
import os
import threading
import time
from threading import Thread
from typing import Protocol


class Watched(Protocol):
    """What the watchdog looks at."""

    def look(self) -> float | None:
        """Look; the seconds until the next look, or None for none. Must not wait for anything."""


class Watchdog:
    """The thread, which is there while somebody needs it, and when it has to look at what.

    Threads: any; signal handlers too. The condition's lock, which the same thread may take twice,
    guards all fields. Innermost: nothing is called inside.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget all: what there is at the start, and in a forked child, which has no thread."""
        self._changed = threading.Condition()
        self._times: dict[Watched, float] = {}
        self._next_look = float("inf")
        self._thread: threading.Thread | None = None
        self._users = 0

    def install(self) -> None:
        """Count a user in. The thread starts when there is something to look at."""
        with self._changed:
            self._users += 1

    def remove(self) -> None:
        """Count a user out; without any the thread ends once nothing is left to look at."""
        with self._changed:
            self._users -= 1
            if not self._users:
                self._changed.notify()

    def look_at(self, watched: Watched, when: float) -> None:
        """Look at *watched* at *when*, on the clock of ``time.monotonic``, and at no other time.

        Raises:
            RuntimeError: No thread can be started.
        """
        with self._changed:
            self._times[watched] = when
            if self._thread is None:
                self._start()
            elif when < self._next_look:
                self._changed.notify()

    def forget(self, watched: Watched) -> None:
        """Look at *watched* no more."""
        with self._changed:
            self._times.pop(watched, None)

    def _start(self) -> None:
        thread = Thread(target=self._run, name="isthmus watchdog", daemon=True)
        contextvars.Context().run(thread.start)  # by no job: it is ours
        self._thread = thread

    def _run(self) -> None:
        """Look at each thing whose time has come, until there is none."""
        try:
            while (due := self._wait_for_due()) is not None:
                for watched in due:
                    seconds = watched.look()
                    if seconds is not None:
                        self.look_at(watched, time.monotonic() + seconds)
        finally:
            if self._thread is threading.current_thread():  # a look has failed: a bug of ours
                self._thread = None

    def _wait_for_due(self) -> list[Watched] | None:
        """What is to be looked at now; it is then forgotten. None when the thread has to end."""
        with self._changed:
            while True:
                now = time.monotonic()
                due = [it for it, when in list(self._times.items()) if when <= now]
                for it in due:
                    self._times.pop(it, None)
                if due:
                    return due
                if not self._times and not self._users:
                    self._thread = None
                    return None
                self._next_look = min(self._times.values(), default=float("inf"))
                self._changed.wait(min(self._next_look - now, threading.TIMEOUT_MAX))
                self._next_look = -float("inf")


watchdog = Watchdog()
"""The process needs one, whatever the number of sessions."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=watchdog.begin)
