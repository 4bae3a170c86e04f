"""Something to be done at a deadline, by a host that may be late itself. Owns the waiting for it.

Refuses to know: what is done, and to whom.

Threads: the loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LATE_SECONDS = 0.25
"""By how much a host is late that was stopped, or had other work, and how long it then reads what
others have sent meanwhile, before it looks again; from the air."""


class Alarm:
    """Calls a function at a deadline. One that comes late is put off until the host has caught up.

    A host that was stopped finds deadlines passed and answers unread at the same moment.

    Arguments:
        seconds: Until the deadline.
        ring: What is called. Nothing is, once the alarm was cancelled.
    """

    def __init__(self, seconds: float, ring: Callable[[], object]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._set(self._loop.time() + seconds)

    def _set(self, when: float) -> None:
        self._when = when
        self._timer = self._loop.call_at(when, self._due)

    def _due(self) -> None:
        now = self._loop.time()
        if now - self._when > LATE_SECONDS:
            self._set(now + LATE_SECONDS)
        else:
            self._ring()

    def cancel(self) -> None:
        """What it was for has come about. Idempotent."""
        self._timer.cancel()
