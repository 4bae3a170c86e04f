"""What a pool says of itself: what it has, and what there was to end. Owns the records.

Refuses to know: workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from isthmus.ending import CloseReport

COUNTED = ("started", "served", "reused", "unfit", "died", "failed")
"""What of :class:`PoolStats` is counted up."""


@dataclass(frozen=True, slots=True)
class PoolStats:
    """What a pool has at one moment, and what it has had.

    Attributes:
        idle: Workers that wait for a session.
        in_use: Workers that have one.
        starting: Workers on their way.
        waiting: Sessions that wait for a worker.
        started: Workers that have ever been ready.
        served: How often one was given to a session.
        reused: How often that was one which had a session before.
        unfit: How often one came back that could not have another session.
        died: Workers that have ended before anybody told them to.
        failed: Starts that have not led to a worker.
        waited_seconds: What all sessions together have waited that were served.
        longest_wait_seconds: The longest that one of these has.
        last_problem: Why the last start failed that did; empty if none did.
        last_unfit: Why the last worker was unfit that was; empty if none was.
    """

    idle: int = 0
    in_use: int = 0
    starting: int = 0
    waiting: int = 0
    started: int = 0
    served: int = 0
    reused: int = 0
    unfit: int = 0
    died: int = 0
    failed: int = 0
    waited_seconds: float = 0.0
    longest_wait_seconds: float = 0.0
    last_problem: str = ""
    last_unfit: str = ""


@dataclass(frozen=True, slots=True)
class PoolReport:
    """What there was to end when a pool was closed.

    Attributes:
        sessions: Names of sessions that were still open; they are closed.
        left: What would not end in these by itself, by name; it is gone all the same.
        stats: What the pool had then.
    """

    sessions: tuple[str, ...] = ()
    left: Mapping[str, CloseReport] = field(default_factory=dict)
    stats: PoolStats = PoolStats()

    @property
    def clean(self) -> bool:
        """Whether all sessions had been closed."""
        return not self.sessions
