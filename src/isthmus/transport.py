"""Where a session's events go. Owns the interface, and a transport that keeps them in memory.

Refuses to know: sessions, cells.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from typing import Protocol, TypeVar

from isthmus.events import Event

_log = logging.getLogger("isthmus.transport")

E = TypeVar("E", bound=Event)


class Transport(Protocol):
    """What a host supplies to hear of what happens in a session.

    ``send`` is called in the order in which things happen, in the thread in which they happen: the
    loop's for async and sync cells, the cell's own for thread cells. It is called inline, so a slow
    one slows the cell down (and, on the loop's thread, the loop). What it raises is logged and
    counted; the cell goes on.
    """

    def send(self, event: Event) -> None:
        """Take *event*. Threads: any; calls of one cell's own code do not overlap."""


class MemoryTransport:
    """Keeps events in a list, the last *limit* of them.

    Arguments:
        limit: How many events to keep; None keeps all.

    Threads: any.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._events: deque[Event] = deque(maxlen=limit)

    def send(self, event: Event) -> None:
        """Keep *event*."""
        self._events.append(event)

    @property
    def events(self) -> list[Event]:
        """A copy of what is kept, oldest first."""
        return list(self._events)

    def of_type(self, kind: type[E]) -> list[E]:
        """The kept events of one type."""
        return [event for event in self.events if isinstance(event, kind)]

    def __iter__(self) -> Iterator[Event]:
        """Iterate over a copy."""
        return iter(self.events)


class Emitter:
    """Sends a session's events and survives its transport.

    Attributes:
        active: Whether anybody listens, so that events are worth making.
        failures: How many events the transport has refused by raising.
    """

    def __init__(self, transport: Transport | None) -> None:
        if transport is not None and not callable(getattr(transport, "send", None)):
            raise TypeError(
                f"a transport must have a method send(event), and {transport!r} has not"
            )
        self._transport = transport
        self.active = transport is not None
        self.failures = 0

    def emit(self, event: Event) -> None:
        """Send *event*. Never raises: an error of the transport is not the cell's."""
        if self._transport is None:
            return
        try:
            self._transport.send(event)
        except Exception:  # a boundary: the transport is the host's code
            self.failures += 1
            _log.exception("transport %r failed on %s", self._transport, type(event).__name__)
