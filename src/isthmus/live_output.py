"""What one cell writes, on its way to a transport. Owns batches, their timing, and what is dropped.

Refuses to know: namespaces, how a cell runs.

Lines that come one by one are sent one by one, at once. When they come fast they are gathered: in
each *window* of 20 ms a number of lines go at once, and the rest goes together, when the window is
over, or enough is there, or the code flushes or ends. The end of a window is seen by a timer of the
loop, or by the next write if the loop is kept busy.

When the transport is full, a thread waits for room. The thread of a loop must not: there the text
stays, up to a bound, and what exceeds that is dropped and counted. The *gap* is told as soon as
there is room again, in the place where the text would have been.

Guarantees: the events of one cell are in the order of the writes, and each text is sent once.

Locks: that of :class:`~isthmus.output.CellOutput` guards what is outgoing too, and is held while
the transport takes it: that keeps the order. So a transport that has a thread wait for the loop
would hang a loop that waits for the lock; the thread of a loop does not wait for long. A transport
may run code in a cell's context, which leads back here: ``_busy`` sends it away.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from contextvars import Context

from isthmus.events import Display, Output, OutputDropped, StreamName
from isthmus.jobs import current_job, outside_cells
from isthmus.mime import MimeBundle
from isthmus.output import BIG_CHARS, PIECES, CellOutput
from isthmus.portal import crossing_here
from isthmus.transport import Emitter

WINDOW_SECONDS = 0.02
"""How long text is held back at most, where the loop is free: a frame or so, for who looks on."""

LINES_AT_ONCE = 32
"""Lines of a window that are not held back; from the air. What a cell prints before it computes
for long shall be seen even where it keeps the loop busy, and no timer can run."""

STEP = 16
"""Pieces between two looks at the clock while text is gathered."""

EVENT_CHARS = 65_536
"""The longest text of one event, so that a transport's bound is not passed by much."""

LOOP_SECONDS = 1.0
"""How long a loop's thread waits while another thread is in ``send``. That takes microseconds,
unless it waits for this very loop: then it gets on when the loop stops waiting for it."""

WAIT_SECONDS = 0.02
"""How long a thread waits for room without a break: in C code it cannot be interrupted."""


class Gap:
    """Output that was dropped, by stream, in bytes of UTF-8."""

    def __init__(self) -> None:
        self.sizes: dict[StreamName, int] = {}

    def add(self, item: Item) -> None:
        """Count *item*."""
        if isinstance(item, Gap):
            for stream, size in item.sizes.items():
                self._count(stream, size)
        elif isinstance(item, Output):
            self._count(item.stream, len(item.text.encode("utf-8", "surrogatepass")))
        else:
            self._count("stdout", MimeBundle(item.data).size)

    def _count(self, stream: StreamName, size: int) -> None:
        self.sizes[stream] = self.sizes.get(stream, 0) + size


Item = Output | Display | Gap
"""What waits to be sent."""


def _measure(data: str | bytes | MimeBundle) -> tuple[int, bool]:
    """The size of *data*, and whether somebody may be waiting to see it: the end of a line, say."""
    if isinstance(data, str):
        return len(data), "\n" in data
    if isinstance(data, bytes):
        return len(data), b"\n" in data
    return data.size, True


def may_wait() -> bool:
    """Whether this is a thread that no loop depends on."""
    return crossing_here() is not None or asyncio._get_running_loop() is None


class Ticker:
    """Sends what the cells of a session have held back, a moment later: one timer for all of them.

    Arguments:
        loop: The home loop.

    Threads: any. No lock: an output is put among the watched before anybody asks whether the timer
    is armed, and the timer says that it is not before it looks who is watched.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._watched: set[LiveOutput] = set()
        self._armed = False
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, output: LiveOutput) -> bool:
        """Have *output* send what it holds, soon; False when the loop is closed: there is no soon.

        The timer runs without the cell's context variables, which would keep the cell alive.
        """
        self._watched.add(output)
        if not self._armed:
            self._armed = True
            if asyncio._get_running_loop() is self.loop and crossing_here() is None:
                self._start()
                return True
            try:
                self.loop.call_soon_threadsafe(self._start, context=Context())
            except RuntimeError:
                self._armed = False
                self._watched.clear()
                return False
        return True

    def flush(self) -> None:
        """Send at once what is held back. On the loop."""
        if self._timer is not None:
            self._timer.cancel()
        self._tick()

    def _start(self) -> None:
        self._timer = self.loop.call_later(WINDOW_SECONDS, self._tick, context=Context())

    def _tick(self) -> None:
        self._armed, self._timer = False, None
        for output in list(self._watched):
            self._watched.discard(output)
            output.window_is_over()


class LiveOutput(CellOutput):
    """What one cell writes, sent to a transport as it comes.

    Arguments:
        emitter: Sends events.
        session: The name that events carry.
        cell: The number that they carry.
        ticker: Whom to ask for a moment later.
        limit: Characters of each stream to keep for the result.
    """

    __slots__ = (
        "_busy",
        "_cell",
        "_credit",
        "_emitter",
        "_mid_line",
        "_outgoing",
        "_session",
        "_ticker",
        "_waiting",
        "_window_end",
    )

    def __init__(
        self, emitter: Emitter, session: str, cell: int, ticker: Ticker, limit: int
    ) -> None:
        super().__init__(limit)
        self.mark = 0  # every piece is looked at
        self._emitter = emitter
        self._session = session
        self._cell = cell
        self._ticker = ticker
        self._busy = False
        self._outgoing: deque[Item] = deque()
        self._mid_line: dict[StreamName, bool] = {}
        self._waiting: set[int] = set()
        self._credit = 0
        self._window_end = 0.0

    # -- in the writing thread ---------------------------------------------------------------

    def flush(self) -> None:
        """Pass on what has been held back, now."""
        if self._has_more and not self._pass_on():
            self._send_soon()

    def finish(self) -> None:
        """The cell's own code has ended: pass on all, whatever room there is."""
        if self._has_more or self._decoders:
            self._pass_on(last=True)

    def look(self, data: str | bytes | MimeBundle) -> None:
        """Send what there is, or see to it that it is sent in time. *data* is the last piece."""
        self._open_window()
        count = len(self.pieces)
        size, is_awaited = _measure(data)
        enough = count > PIECES or size > BIG_CHARS
        at_once = self._credit > 0
        due = enough or (is_awaited and (at_once or not self._may_wait()))
        self.mark = 0 if at_once else STEP if due else count + STEP
        if due:
            self._credit -= 1
            passed_on = self._pass_on()
            if passed_on and at_once:
                return
            if enough and not passed_on:
                outside_cells(self._drop)
        self._send_soon()

    def _may_wait(self) -> bool:
        """Whether a line of which no more go at once waits for the end of the window."""
        return True

    def _open_window(self) -> None:
        now = time.monotonic()
        if now >= self._window_end:
            self._window_end = now + WINDOW_SECONDS
            self._credit = self._emitter.lines_at_once or LINES_AT_ONCE

    def _send_soon(self) -> None:
        """Have the loop send what is held back, or do it now if the loop never will."""
        if not self._ticker.watch(self) and not self._busy:
            self._pass_on(last=True)

    def window_is_over(self) -> None:
        """Send what was held back; the next line goes at once. Called on the loop, by the ticker.

        What a thread waits to send is left to it: it sends all that there is.
        """
        self.mark = 0  # before the pieces are taken: a write that comes later looks for itself
        self._window_end = 0.0
        if self._has_more and not self._waiting and not self._pass_on():
            self._send_soon()

    def _collect_all(self) -> None:
        """Nothing: what is not kept yet has still to be sent, and is kept then."""

    # -- passing on --------------------------------------------------------------------------

    @property
    def _has_more(self) -> bool:
        """Whether there is anything to send."""
        return bool(self.pieces or self._outgoing)

    def _pass_on(self, *, last: bool = False) -> bool:
        """Send all that there is; False where there is no room and no waiting for it.

        In a thread it waits for room. What is *last* does not: it is one batch at most.
        """
        while not outside_cells(self._send, last):
            if not may_wait():
                return False
            self._wait_for_room()
        return True

    def _send(self, last: bool) -> bool:
        """Send what there is room for; False when something is left that wants room."""
        if not self._enter():
            return True
        try:
            if not self._send_outgoing(last):
                return False
            self._take(self._outgoing, last)  # once: what is written now is looked at for itself
            return self._send_outgoing(last)
        finally:
            self._leave()

    def _enter(self) -> bool:
        """Get the lock; or leave the work to the ticker, where it is not to be had.

        It is not where a transport has led back here, nor to a loop's thread that has waited for
        long enough.
        """
        lock = self._lock
        if not (lock.acquire(False) or lock.acquire(timeout=-1 if may_wait() else LOOP_SECONDS)):
            self._send_soon()
            return False
        if self._busy:
            lock.release()
            self._send_soon()
            return False
        self._busy = True
        return True

    def _leave(self) -> None:
        self._busy = False
        self._lock.release()

    def _send_outgoing(self, last: bool) -> bool:
        outgoing = self._outgoing
        while outgoing:
            if not last and not self._emitter.has_room():
                return False
            self._tell(outgoing.popleft())
        return True

    def _take(self, items: deque[Item], last: bool = False) -> None:
        """Put the pieces that there are behind *items*, as events."""
        session, cell = self._session, self._cell
        for run in self._collect(last):
            if isinstance(run, MimeBundle):
                items.append(Display(session, cell, run.data, run.metadata))
                continue
            stream, text = run
            for start in range(0, len(text), EVENT_CHARS):
                items.append(Output(session, cell, stream, text[start : start + EVENT_CHARS]))

    def _tell(self, item: Item) -> None:
        if isinstance(item, Gap):
            self._tell_gap(item)
            return
        if isinstance(item, Output):
            self._mid_line[item.stream] = not item.text.endswith("\n")
        self._emitter.send(item)

    def _tell_gap(self, gap: Gap) -> None:
        session, cell = self._session, self._cell
        for stream, size in gap.sizes.items():
            self._emitter.send(OutputDropped(session, cell, stream, size))
            start = "\n" if self._mid_line.get(stream) else ""
            note = f"{start}[{size} bytes of output dropped: the reader did not keep up]\n"
            self._tell(Output(session, cell, stream, note))

    # -- where there is no room --------------------------------------------------------------

    def _wait_for_room(self) -> None:
        """Wait in a thread. What is left stays where it is: an interrupt may arrive in between."""
        me = threading.get_ident()
        self._waiting.add(me)
        try:
            while not outside_cells(self._emitter.has_room, WAIT_SECONDS):
                job = current_job.get()
                if job is None or job.owner.closed:  # the session has ended: nobody stops a wait
                    self._waiting.discard(me)
                    self._pass_on(last=True)
                    return
        finally:
            self._waiting.discard(me)

    def _drop(self) -> None:
        """There is no room, and more than enough is held back: count it instead.

        All of it, but for what a thread waits to send.
        """
        if not self._enter():
            return
        try:
            dropped: deque[Item] = deque()
            if not self._waiting:
                dropped, self._outgoing = self._outgoing, dropped
            self._take(dropped)
            self._fill_gap(dropped)
        finally:
            self._leave()

    def _fill_gap(self, dropped: deque[Item]) -> None:
        """Count *dropped* in the gap at the end of what is outgoing."""
        outgoing = self._outgoing
        last = outgoing[-1] if outgoing else None
        gap = last if isinstance(last, Gap) else Gap()
        if gap is not last:
            outgoing.append(gap)
        for item in dropped:
            gap.add(item)
