"""Seeing from the host that a worker does not answer. Owns when it is asked, and what is told.

A worker whose loop stands still says so itself, in a thread of its own. Where C code holds its
interpreter no thread of it runs; then its host says so.

Refuses to know: processes, why a worker does not answer.

Threads: the loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from isthmus.events import LoopBlocked
from isthmus.worker.flight import Flight

STACK = "the worker does not answer: C code holds its interpreter, or the process is stopped\n"
"""What stands in place of a stack, which only the worker could tell."""

PATIENCE = 1.5
"""After how many times ``blocked_seconds`` the host tells what the worker has not: that one needs
up to a quarter more than one of them, and the host must not be first."""


class StandstillWatch:
    """Looks whether a worker answers, as long as cells run there.

    Arguments:
        flight: The cells, and where events go.
        session: The name that events carry.
        seconds: After how long a standstill is told.
        ping: Asks the worker for a sign of life; a future of it.
    """

    def __init__(
        self,
        flight: Flight,
        session: str,
        seconds: float,
        ping: Callable[[], asyncio.Future[Any]],
    ) -> None:
        self._flight = flight
        self._session = session
        self._seconds = seconds
        self._ping = ping
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._answer: asyncio.Future[Any] | None = None
        self._known = 0  # how often the worker had told of itself when it was last known to be free

    def wake(self) -> None:
        """A cell is on its way: look, until none is."""
        if self._timer is None:
            self._known = self._flight.standstills
            self._timer = self._loop.call_later(self._seconds, self._look)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        """Cells have run for a while: ask."""
        self._timer = None
        if not self._flight.cells:
            return
        if self._answer is None or self._answer.done():
            self._answer = self._ping()
            self._answer.add_done_callback(self._answered)
            self._timer = self._loop.call_later(PATIENCE * self._seconds, self._judge)
        else:  # it has been told of; the answer will come in the end
            self._timer = self._loop.call_later(self._seconds, self._look)

    def _answered(self, answer: asyncio.Future[Any]) -> None:
        self._known = self._flight.standstills

    def _judge(self) -> None:
        """Tell, unless the worker has answered, or has told itself."""
        assert self._answer is not None
        if not self._answer.done() and self._flight.standstills == self._known:
            cell, seconds = self._flight.current(), PATIENCE * self._seconds
            self._flight.tell(LoopBlocked(self._session, cell, seconds, STACK))
        self._timer = self._loop.call_later(self._seconds, self._look)
