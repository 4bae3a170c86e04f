"""A standard stream as reports write to it. Owns whole writes, and what goes wrong there.

Refuses to know: what is written.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TextIO


class Channel:
    """Writes to *stream*, flushes each time, and goes on when nobody reads any more.

    A character that the stream's encoding does not know is written as an escape. Once the reader of
    a pipe has gone, what is written goes nowhere and :attr:`broken` is true.

    Arguments:
        stream: ``sys.stdout`` or ``sys.stderr``, as it was before a session replaced it.

    Threads: any; each write is whole. The lock guards the stream; innermost.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.RLock()  # an interrupted write may be followed by one in its handler
        self.broken = False
        self.on_broken: Callable[[], object] | None = None
        """Called once, by the write that finds the reader gone."""

    @property
    def encoding(self) -> str:
        """The stream's encoding."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The stream's descriptor, which tells the terminal's size."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write *text* and flush."""
        encodable = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
        self._do(lambda: self._stream.write(encodable))
        return len(text)

    def write_bytes(self, data: bytes) -> None:
        """Write *data* as it is and flush."""
        self._do(lambda: self._stream.buffer.write(data))

    def flush(self) -> None:
        """Nothing is left to flush."""

    def _do(self, write: Callable[[], object]) -> None:
        if self.broken:
            return
        try:
            with self._lock:
                write()
                self._stream.flush()
        except BrokenPipeError:
            self._give_up()

    def _give_up(self) -> None:
        """Send what is still buffered, and all that follows, nowhere; else exit would fail."""
        self.broken = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if self.on_broken is not None:
            self.on_broken()
