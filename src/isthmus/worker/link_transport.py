"""Where the events of a worker's session go: to its host. Owns what is sent at once, what waits.

Refuses to know: cells, answers to requests.

Threads: any.
"""

from __future__ import annotations

import os
import sys

from isthmus.events import Display, Event, Output, OutputDropped
from isthmus.wire import callbacks, requests
from isthmus.worker.capture import Capture
from isthmus.worker.link import Link
from isthmus.worker.slate import Slate

LINES_AT_ONCE = 4
"""Lines that are sent at once, in each fiftieth of a second, before more are held back; from the
air. Whoever looks on sees the first ones at once."""

_OUTPUT = (Output, OutputDropped, Display)


class LinkTransport:
    """Sends events to the host. What is held back, because it comes fast, is on the slate: code
    that never lets go may follow it. Where there is no slate each line is sent at once.

    Arguments:
        link: The connection.
        capture: What was written to descriptors.
        opened: What the host has asked for.
    """

    def __init__(self, link: Link, capture: Capture, opened: requests.Open) -> None:
        self.all_events = opened.events
        self.wants_mime = opened.mime
        self._session = opened.name
        self._capture = capture
        self._link = link
        self.lines_at_once = sys.maxsize
        if opened.slate:
            slate = Slate(opened.slate, self._hold)
            link.slate = slate
            self.lines_at_once, self.hold, self.let_go = LINES_AT_ONCE, slate.claim, slate.wipe

    def _hold(self, cell: int) -> None:
        self._link.send(callbacks.Held(cell))

    def send(self, event: Event) -> None:
        """Write *event* to the host; in a child process of the worker, to its own streams."""
        if self._link.forked:
            if isinstance(event, Output):
                descriptor = 1 if event.stream == "stdout" else 2
                os.write(descriptor, event.text.encode("utf-8", "backslashreplace"))
        elif isinstance(event, _OUTPUT):
            self.send_captured(event.cell)
            self._link.send(event)
        elif self.all_events:
            self._link.send(event)

    def send_captured(self, cell: int) -> None:
        """Send what was written to descriptors until now, as output of *cell*."""
        for stream, text in self._capture.take():
            self._link.send(Output(self._session, cell, stream, text))
