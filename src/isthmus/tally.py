"""How many cells of a session have run, how they ended, how long they took. Owns the counts.

Refuses to know: what a cell does, who asks.
"""

from __future__ import annotations

import logging

from isthmus.events import Context, Status
from isthmus.jobs import outside_cells

_log = logging.getLogger("isthmus.cells")


class CellTally:
    """The cells of one session whose outcome is known.

    Arguments:
        session: The session's name, for the log.

    Attributes:
        ended: How many there were of each status.
        seconds: How long they took, all together.
        longest: The seconds of the longest one, and its number; ``(0.0, 0)`` before the first.

    Threads: any. CPython switches threads at calls and jumps only, so that ``+=`` loses nothing.
    """

    def __init__(self, session: str) -> None:
        self.ended: dict[Status, int] = {}
        self.seconds = 0.0
        self.longest = (0.0, 0)
        self._session = session

    def note(self, number: int, context: Context, status: Status, seconds: float) -> None:
        """Count one cell. On the path of every cell."""
        self.ended[status] = self.ended.get(status, 0) + 1
        self.seconds += seconds
        if seconds > self.longest[0]:
            self.longest = (seconds, number)
        if _log.isEnabledFor(logging.DEBUG):
            outside_cells(self._log, number, context, status, seconds)

    def _log(self, number: int, context: Context, status: Status, seconds: float) -> None:
        extra = {"session": self._session, "cell": number, "context": context, "status": status}
        _log.debug(
            "cell %d of %r: %s after %.6f s",
            number,
            self._session,
            status,
            seconds,
            extra={**extra, "duration": seconds},
        )
