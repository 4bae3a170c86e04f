"""Where a session's events go. Owns the interface, and a transport that keeps them in memory.

Refuses to know: sessions, cells.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from isthmus.events import Event
from isthmus.jobs import outside_cells

_log = logging.getLogger("isthmus.transport")

E = TypeVar("E", bound=Event)

Hold = Callable[[int, int], Callable[[bytes], int] | None]


class Transport(Protocol):
    """What a host supplies to hear of what happens in a session.

    ``send`` is called in the order in which things happen, and inline: a slow one slows the cell
    down and, on the loop's thread, the loop. What it raises is logged and counted; the cell goes
    on. What it prints is the host's, not the cell's.

    It is called in the thread in which things happen: the loop's for async and sync cells, the
    cell's own for thread cells. Output that was held back, because it came fast, is sent by the
    loop's thread too, for a thread cell as well.

    A transport that can be full has a second method, :class:`WaitsForRoom`. One that wants the rich
    form of each cell's value has an attribute ``wants_mime`` that is true.
    """

    def send(self, event: Event) -> None:
        """Take *event*. Threads: any; calls for one cell do not overlap."""


class WaitsForRoom(Protocol):
    """A transport that can be full. It is asked before output is sent, and for nothing else.

    Where the answer is no, a thread waits, and what code on a loop's thread goes on to write is
    dropped, with an :class:`~isthmus.events.OutputDropped` event. An event that is sent all the
    same is to be taken: at the end of a cell a last batch of its output goes out in any case.
    """

    def wait_writable(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds for room, and say whether there is; 0 only asks.

        Threads: any; on a loop's thread *timeout* is 0.
        """


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
        wants_mime: Whether the transport wants values in their rich form.
        lines_at_once: How many lines the transport wants at once where they come fast; 0 leaves it
            to the sender.
        can_hold: Whether the transport has a place for text that is held back.
        hold: Gives what takes the text of a cell, as bytes, for whoever looks for what is held
            back: of a cell with a number, that begins with so many bytes. None where there is no
            place for it. It must not run code of others.
        let_go: Takes that away, and gives back the text, which is about to be sent.
        failures: How many events the transport has refused by raising.
    """

    def __init__(self, transport: Transport | None) -> None:
        if transport is not None and not callable(getattr(transport, "send", None)):
            raise TypeError(
                f"a transport must have a method send(event), and {transport!r} has not"
            )
        self._transport = transport
        self._wait_writable = getattr(transport, "wait_writable", None)
        self.active = transport is not None
        self.wants_mime = bool(getattr(transport, "wants_mime", False))
        self.lines_at_once = int(getattr(transport, "lines_at_once", 0))
        self.can_hold = hasattr(transport, "hold")
        self.hold: Hold = getattr(transport, "hold", _no_place)
        self.let_go: Callable[[int], str] = getattr(transport, "let_go", str)
        self.failures = 0

    def emit(self, event: Event) -> None:
        """Send *event*, for code of a cell. Never raises: an error of the transport is not its."""
        if self._transport is not None:
            outside_cells(self.send, event)

    def send(self, event: Event) -> None:
        """The same where the caller is outside of cells. There is a transport."""
        try:
            self._transport.send(event)  # type: ignore[union-attr]
        except Exception:  # a boundary: the transport is the host's code
            self._note_failure(type(event).__name__)

    def has_room(self, timeout: float = 0.0) -> bool:
        """Whether the transport takes output, after at most *timeout* seconds.

        Never raises. The caller is outside of cells.
        """
        if self._wait_writable is None:
            return True
        try:
            return bool(self._wait_writable(timeout))
        except Exception:  # a boundary: the transport is the host's code
            self._note_failure("wait_writable")
            return True

    def _note_failure(self, what: str) -> None:
        self.failures += 1
        _log.exception("transport %r failed on %s", self._transport, what)


def _no_place(cell: int, size: int) -> None:
    """Hold nothing."""
