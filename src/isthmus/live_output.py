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
Locks: that of :class:`~isthmus.output.CellOutput`; waiting for room is done without it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from contextvars import Context

from isthmus.events import Display, Output, OutputDropped, StreamName
from isthmus.jobs import current_job
from isthmus.mime import MimeBundle
from isthmus.output import BIG_CHARS, LOOP_PATIENCE_SECONDS, PIECES, CellOutput
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


def _has_line_end(data: str | bytes | MimeBundle) -> bool:
    """Whether somebody may be waiting to see *data*."""
    if isinstance(data, MimeBundle):
        return True
    return b"\n" in data if isinstance(data, bytes) else "\n" in data


def may_wait() -> bool:
    """Whether this is a thread that no loop depends on."""
    return crossing_here() is not None or asyncio._get_running_loop() is None


class LiveOutput(CellOutput):
    """What one cell writes, sent to a transport as it comes.

    Arguments:
        emitter: Sends events.
        session: The name that events carry.
        cell: The number that they carry.
        loop: The home loop, for timers.
        limit: Characters of each stream to keep for the result.
    """

    __slots__ = (
        "_armed",
        "_cell",
        "_credit",
        "_emitter",
        "_loop",
        "_mid_line",
        "_outgoing",
        "_session",
        "_timer",
        "_waiting",
        "_window_end",
    )

    def __init__(
        self,
        emitter: Emitter,
        session: str,
        cell: int,
        loop: asyncio.AbstractEventLoop,
        limit: int,
    ) -> None:
        super().__init__(limit)
        self.mark = 0  # every piece is looked at
        self._emitter = emitter
        self._session = session
        self._cell = cell
        self._loop = loop
        self._outgoing: deque[Item] = deque()
        self._mid_line: dict[StreamName, bool] = {}
        self._waiting: set[int] = set()
        self._credit = 0
        self._window_end = 0.0
        self._armed = False
        self._timer: asyncio.TimerHandle | None = None

    # -- in the writing thread ---------------------------------------------------------------

    def flush(self) -> None:
        """Pass on what has been held back, now."""
        if (self.pieces or self._outgoing) and not self._pass_on():
            self._arm()

    def finish(self) -> None:
        """The cell's own code has ended: pass on all, whatever room there is."""
        if self.pieces or self._outgoing or self._decoders:
            self._pass_on(last=True)
        if self._timer is not None and self._on_loop():
            self._timer.cancel()
            self._timer, self._armed = None, False

    def look(self, data: str | bytes | MimeBundle) -> None:
        """Send what there is, or see to it that it is sent in time. *data* is the last piece."""
        self._open_window()
        count = len(self.pieces)
        size = data.size if isinstance(data, MimeBundle) else len(data)
        enough = count > PIECES or size > BIG_CHARS
        due = enough or (self._credit > 0 and _has_line_end(data))
        at_once = self._credit > 0
        self.mark = 0 if at_once else STEP if due else count + STEP
        if due:
            self._credit -= 1
            if self._pass_on() and at_once:
                return
            if enough and self.pieces and not may_wait():
                self._drop()
        self._arm()

    def _open_window(self) -> None:
        now = time.monotonic()
        if now >= self._window_end:
            self._window_end = now + WINDOW_SECONDS
            self._credit = LINES_AT_ONCE

    # -- passing on --------------------------------------------------------------------------

    def _pass_on(self, *, last: bool = False) -> bool:
        """Send all that there is; False where there is no room and no waiting for it.

        In a thread it waits for room. What is *last* does not: it is one batch at most.
        """
        while not self._send(force=last, final=last):
            if not may_wait():
                return False
            self._wait_for_room()
        return True

    def _send(self, *, force: bool, final: bool = False) -> bool:
        """Send what there is room for; False when something is left that wants room."""
        patience = -1 if may_wait() else LOOP_PATIENCE_SECONDS
        with self._collecting(patience) as collecting:
            if not collecting:
                self._arm()
                return True
            while self._outgoing or self.pieces or final:
                if not force and not self._emitter.has_room():
                    return False
                if not self._outgoing:
                    self._take(self._outgoing, final=final)
                    final = False
                if self._outgoing:
                    self._tell(self._outgoing.popleft())
        return True

    def _take(self, items: deque[Item], *, final: bool = False) -> None:
        """Put the pieces that there are behind *items*, as events. Under the lock."""
        session, cell = self._session, self._cell
        for run in self._collect(final=final):
            if isinstance(run, MimeBundle):
                items.append(Display(session, cell, run.data, run.metadata))
                continue
            stream, text = run
            for start in range(0, len(text), EVENT_CHARS):
                items.append(Output(session, cell, stream, text[start : start + EVENT_CHARS]))

    def _tell(self, item: Item) -> None:
        if isinstance(item, Gap):
            for stream, size in item.sizes.items():
                self._emitter.emit(OutputDropped(self._session, self._cell, stream, size))
                start = "\n" if self._mid_line.get(stream) else ""
                note = f"{start}[{size} bytes of output dropped: the reader did not keep up]\n"
                self._tell(Output(self._session, self._cell, stream, note))
            return
        if isinstance(item, Output):
            self._mid_line[item.stream] = not item.text.endswith("\n")
        self._emitter.emit(item)

    def _wait_for_room(self) -> None:
        """Wait in a thread. What is left stays where it is: an interrupt may arrive here."""
        me = threading.get_ident()
        self._waiting.add(me)
        try:
            while not self._emitter.has_room(WAIT_SECONDS):
                job = current_job.get()
                if job is None or job.owner.closed:  # the session has ended: nobody stops a wait
                    self._send(force=True)
                    return
        finally:
            self._waiting.discard(me)

    def _drop(self) -> None:
        """There is no room, and more than enough is held back: count it instead.

        All of it, but for what a thread waits to send.
        """
        with self._collecting() as collecting:
            if not collecting:
                return
            dropped: deque[Item] = deque()
            if not self._waiting:
                dropped, self._outgoing = self._outgoing, dropped
            self._take(dropped)
            self._fill_gap(dropped)

    def _fill_gap(self, dropped: deque[Item]) -> None:
        """Count *dropped* in the gap at the end of what is outgoing."""
        outgoing = self._outgoing
        last = outgoing[-1] if outgoing else None
        gap = last if isinstance(last, Gap) else Gap()
        if gap is not last:
            outgoing.append(gap)
        for item in dropped:
            gap.add(item)

    # -- the timer ---------------------------------------------------------------------------

    def _on_loop(self) -> bool:
        """Whether the caller runs in the home loop."""
        return asyncio._get_running_loop() is self._loop and crossing_here() is None

    def _arm(self) -> None:
        """Have the loop look after what is held back. Threads: any."""
        if self._armed:
            return
        self._armed = True
        if self._on_loop():
            self._start_timer()
            return
        try:
            self._loop.call_soon_threadsafe(self._start_timer, context=Context())
        except RuntimeError:  # the loop is closed: there is no later
            self._armed = False
            if not self._busy:
                self._send(force=True)

    def _start_timer(self) -> None:
        """Arm the timer, without the cell's context variables: they would keep the cell alive."""
        self._timer = self._loop.call_later(WINDOW_SECONDS, self._window_is_over, context=Context())

    def _window_is_over(self) -> None:
        """Send what was held back; the next line goes at once. Runs on the loop."""
        self._timer, self._armed = None, False
        self.mark = 0  # before the pieces are taken: a write that comes later looks for itself
        self._window_end = 0.0
        if self._waiting:
            return  # a thread waits for room, with all that there is
        if not self._send(force=False):
            self._arm()
