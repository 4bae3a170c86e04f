"""What cells print. Owns the streams that stand in for ``sys.stdout`` and ``sys.stderr``, and the
text that one cell has written.

Refuses to know: events, transports. Code that belongs to no cell prints as ever.
"""

from __future__ import annotations

import io
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO

from isthmus.events import StreamName
from isthmus.jobs import current_job

STREAMS: tuple[StreamName, ...] = ("stdout", "stderr")

DEFAULT_OUTPUT_LIMIT = 10_000_000
"""Characters of each stream kept in a result; what an evening's notebook prints stays far below."""


Forward = Callable[[StreamName, str], None]
"""Takes complete lines of one stream, in the writing thread."""


class CellOutput:
    """The text that one cell writes: kept for its result up to a bound, and passed on.

    Arguments:
        forward: Called with the stream's name and complete lines, in the writing thread; what is
            written without an end of line waits for it, or for :meth:`flush`.
        limit: Characters of each stream to keep.

    Threads: any. Each ``write`` is whole; the order between threads is that of their calls.
    """

    __slots__ = ("_dropped", "_forward", "_kept", "_limit", "_partial", "_sizes")

    def __init__(self, forward: Forward | None, limit: int = DEFAULT_OUTPUT_LIMIT) -> None:
        self._forward = forward
        self._limit = limit
        self._kept: dict[StreamName, list[str]] = {}
        self._partial: dict[StreamName, deque[str]] = {}
        self._sizes: dict[StreamName, int] = {}
        self._dropped: dict[StreamName, int] = {}

    def write(self, stream: StreamName, text: str) -> None:
        """Take *text*; pass it on with what came before it, once a line is complete."""
        self._keep(stream, text)
        if self._forward is None:
            return
        self._partial.setdefault(stream, deque()).append(text)
        if "\n" in text:
            self.flush(stream)

    def flush(self, stream: StreamName) -> None:
        """Pass on what has not been passed on yet."""
        waiting = self._partial.get(stream)
        if not waiting or self._forward is None:
            return
        pieces = []
        while waiting:  # one at a time: another thread may append, or flush, meanwhile
            try:
                pieces.append(waiting.popleft())
            except IndexError:
                break
        self._forward(stream, "".join(pieces))

    def flush_all(self) -> None:
        """Pass on what is left of both streams."""
        for stream in list(self._partial):
            self.flush(stream)

    def text(self, stream: StreamName) -> str:
        """What was written, or its beginning and a line that says how much is left out."""
        kept = "".join(self._kept.get(stream, ()))
        dropped = self._dropped.get(stream, 0)
        return f"{kept}\n[{dropped} more characters not kept]\n" if dropped else kept

    def _keep(self, stream: StreamName, text: str) -> None:
        size = self._sizes.get(stream, 0)
        room = self._limit - size
        self._sizes[stream] = size + len(text)
        if room >= len(text):
            self._kept.setdefault(stream, []).append(text)
            return
        self._dropped[stream] = self._dropped.get(stream, 0) + len(text) - max(room, 0)
        if room > 0:
            self._kept.setdefault(stream, []).append(text[:room])


class RoutedStream(io.TextIOBase):
    """Stands in for one of the process's streams: text goes to the cell that wrote it.

    Arguments:
        name: ``"stdout"`` or ``"stderr"``.
        original: What stood there; gets the text of code that belongs to no cell.
    """

    def __init__(self, name: StreamName, original: TextIO | None) -> None:
        self._name = name
        self.original = original

    def write(self, text: str) -> int:
        """Write *text* where it belongs. Raises TypeError when it is not a ``str``."""
        job = current_job.get()
        if job is None:
            return 0 if self.original is None else self.original.write(text)
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        job.write(self._name, text)
        return len(text)

    def flush(self) -> None:
        """Pass on a line that is not complete yet."""
        job = current_job.get()
        if job is not None:
            job.flush(self._name)
        elif self.original is not None and not self.original.closed:
            self.original.flush()

    def close(self) -> None:
        """Do nothing: the stream is everybody's, and its owner closes the original."""

    def writable(self) -> bool:
        """Always true."""
        return True

    def isatty(self) -> bool:
        """False in a cell; else what the original says."""
        in_cell = current_job.get() is not None
        return not in_cell and self.original is not None and self.original.isatty()

    def fileno(self) -> int:
        """The original's descriptor; what is written there is not routed."""
        if self.original is None:
            raise io.UnsupportedOperation("fileno")
        return self.original.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The original's encoding."""
        return getattr(self.original, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """What the original does with characters that it cannot encode."""
        return getattr(self.original, "errors", None)

    def __getattr__(self, name: str) -> Any:
        """Whatever else the original has (``buffer``, ``reconfigure``, …)."""
        return getattr(self.__dict__.get("original"), name)


class OutputHooks:
    """Replaces ``sys.stdout`` and ``sys.stderr``: in with the first user, out with the last.

    A stream that somebody else has put there since stays in place. The replacements are made once
    and never freed: ``print`` on CPython up to 3.13 holds a borrowed reference to ``sys.stdout``,
    so that one which another thread is printing to must not go away.

    Threads: any; the lock guards all fields and nothing is called inside it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._streams: dict[StreamName, RoutedStream] = {}

    def install(self) -> None:
        """Count a user in."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                for name in STREAMS:
                    routed = self._streams.setdefault(name, RoutedStream(name, None))
                    routed.original = getattr(sys, name)
                    setattr(sys, name, routed)

    def remove(self) -> None:
        """Count a user out."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                for name, routed in self._streams.items():
                    if getattr(sys, name) is routed:
                        setattr(sys, name, routed.original)


output_hooks = OutputHooks()
"""The process has one ``sys``, so there is one of these."""
