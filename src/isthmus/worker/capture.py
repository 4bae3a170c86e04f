"""What was written to this process's own descriptors, read back. Owns the worker's end of that.

Descriptors 1 and 2 are pipes whose other ends the host reads, so that nothing is lost when this
process dies. It may read there as well: before it sends what a cell has printed, and the outcome of
a cell, it sends what was written to the descriptors until then. So what is written in either way
keeps its order, and goes to the cell that wrote it.

Refuses to know: messages, cells.

Locks: one guards the decoders, and is held for reading what is there; innermost.
"""

from __future__ import annotations

import codecs
import os
import select
import threading
from collections.abc import Sequence

from isthmus.events import StreamName

READ_BYTES = 1 << 16
"""How much to read at once: a pipe's default."""

_STREAMS: tuple[StreamName, ...] = ("stdout", "stderr")


class Capture:
    """The reading ends of this process's own output.

    Arguments:
        descriptors: Of its stdout and its stderr, for reading without waiting; or none.

    Threads: any.
    """

    def __init__(self, descriptors: Sequence[int]) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")
        self._lock = threading.Lock()
        self._ends = [
            (stream, descriptor, decoder("replace"))
            for stream, descriptor in zip(_STREAMS, descriptors, strict=False)
        ]
        self._poll = select.poll()  # one call for both, and most of the time there is nothing
        for descriptor in descriptors:
            self._poll.register(descriptor, select.POLLIN)

    def take(self) -> list[tuple[StreamName, str]]:
        """What was written and the host has not read, of each stream."""
        found: list[tuple[StreamName, str]] = []
        with self._lock:
            if not self._poll.poll(0):
                return found
            for stream, descriptor, decoder in self._ends:
                try:
                    while data := os.read(descriptor, READ_BYTES):
                        found.append((stream, decoder.decode(data)))
                except (BlockingIOError, OSError):  # nothing more; or a cell has closed it
                    continue
        return found

    def forget(self) -> None:
        """Half a character may be left, and what follows is not its other half."""
        with self._lock:
            for _, _, decoder in self._ends:
                decoder.reset()
