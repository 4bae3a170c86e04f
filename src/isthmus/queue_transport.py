"""A transport for hosts that read events as they come. Owns the queue between the two.

Refuses to know: sessions, cells, what the events mean.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from isthmus.events import Display, Event, Output
from isthmus.mime import MimeBundle

QUEUE_LIMIT = 1_000_000
"""Characters of output that may wait; from the air."""


def _size(event: Event) -> int:
    """What *event* counts for: only output is bounded, all else is little."""
    if isinstance(event, Output):
        return len(event.text)
    return MimeBundle(event.data).size if isinstance(event, Display) else 0


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class QueueTransport:
    """Events in a queue, for a reader in any event loop or thread.

    In a loop: ``async for event in transport``. In a thread: ``for event in transport``. Both end
    after :meth:`close`, when all has been read. Several readers share the events.

    The queue is bounded by the output in it. When it is full, code in threads waits for the reader,
    and what code on a loop prints is dropped and counted. So read while cells run: a host that
    first awaits a thread cell, and then reads, waits for ever if that prints too much, as with a
    pipe.

    Arguments:
        limit: Characters of output that may wait before the queue is full.
        wants_mime: Have the rich form of each cell's value in ``CellFinished``.

    Threads: any, for every method. The condition's lock guards all fields; innermost.
    Close: by the host, after the sessions that use it. Idempotent; what comes later is ignored.
    """

    def __init__(self, limit: int = QUEUE_LIMIT, *, wants_mime: bool = False) -> None:
        self.limit = limit
        self.wants_mime = wants_mime
        self._changed = threading.Condition()
        self._events: deque[Event] = deque()
        self._size = 0
        self._closed = False
        self._waiters: list[asyncio.Future[None]] = []

    # -- the session's side ------------------------------------------------------------------

    def send(self, event: Event) -> None:
        """Put *event* into the queue, whether it is full or not."""
        with self._changed:
            if self._closed:
                return
            self._events.append(event)
            self._size += _size(event)
            waiters = self._wake_threads()
        self._wake_loops(waiters)

    def wait_writable(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds until the queue is not full; whether it is not."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed or self._size < self.limit, timeout)

    def close(self) -> None:
        """Let readers end once they have read all there is."""
        with self._changed:
            self._closed = True
            waiters = self._wake_threads()
        self._wake_loops(waiters)

    def _wake_threads(self) -> list[asyncio.Future[None]]:
        """Wake the threads that wait; give what waits in loops. Under the lock."""
        self._changed.notify_all()
        waiters, self._waiters = self._waiters, []
        return waiters

    def _wake_loops(self, waiters: list[asyncio.Future[None]]) -> None:
        for waiter in waiters:
            with suppress(RuntimeError):  # its loop is closed
                waiter.get_loop().call_soon_threadsafe(_wake, waiter)

    # -- the reader's side -------------------------------------------------------------------

    def __len__(self) -> int:
        """How many events wait to be read."""
        return len(self._events)

    def _take(self) -> Event | None:
        """The next event, if there is one. Under the lock."""
        if not self._events:
            return None
        event = self._events.popleft()
        self._size -= _size(event)
        self._changed.notify_all()
        return event

    def __aiter__(self) -> QueueTransport:
        """Read in an event loop."""
        return self

    async def __anext__(self) -> Event:
        """The next event, waited for.

        Cancel: nothing is taken.
        """
        while True:
            with self._changed:
                event = self._take()
                if event is not None:
                    return event
                if self._closed:
                    raise StopAsyncIteration
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.append(waiter)
            await waiter

    def __iter__(self) -> Iterator[Event]:
        """Read in a thread, which waits for each event."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._events or self._closed)
                event = self._take()
            if event is None:
                return
            yield event
