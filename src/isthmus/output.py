"""What one cell writes. Owns the pieces on their way in, and the text that is kept for the result.

Refuses to know: events, transports, whose code it is that writes.

Guarantees:
- What one thread writes stays in its order, and what several write is in the order of their calls.
- Nothing is lost, whatever the interleaving of writers, ``__del__`` methods and signal handlers.

A write is on the path of every ``print``, so it takes no lock: it appends to a list, which is
atomic, and now and then has the list *collected*. Whoever collects holds the lock, takes the pieces
that were there at one moment and deletes just these, so that a piece appended meanwhile stays.

Locks: ``_lock`` guards all fields but ``pieces`` (appended to without it) and ``mark`` (a hint,
written whole). Reentrant, because a ``__del__`` or a signal handler that prints can come back here;
``_busy`` sends it away again. It is held over the ``send`` of a transport, which keeps the order of
events: the thread of a loop waits for it no longer than :data:`LOOP_PATIENCE_SECONDS`.
"""

from __future__ import annotations

import codecs
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

from isthmus.events import StreamName
from isthmus.jobs import OutsideCells
from isthmus.mime import MimeBundle

DEFAULT_OUTPUT_LIMIT = 10_000_000
"""Characters of each stream kept in a result; what an evening's notebook prints stays far below."""

PIECES = 1_024
"""Pieces to gather before they are collected; from the air. ``print`` writes two for each line."""

BIG_CHARS = 1_024
"""A longer piece is collected at once, so that what is gathered is bounded: a megabyte or so."""

LOOP_PATIENCE_SECONDS = 1.0
"""How long a loop's thread waits while another thread is in ``send``. That takes microseconds,
unless it waits for this very loop: then it gets on when the loop stops waiting for it."""

ENCODING = "utf-8"
"""What bytes written to ``sys.stdout.buffer`` are taken for."""

Piece = str | tuple[StreamName, str | bytes] | MimeBundle
"""What a write leaves. Bare text is for stdout: most text is, and it is joined by one call."""

Run = tuple[StreamName, str] | MimeBundle
"""Text for one stream, as long as nothing else comes in between; or a display."""


class CellOutput:
    """What one cell writes, kept for its result up to a bound.

    Arguments:
        limit: Characters of each stream to keep, and of the displays.

    Attributes:
        pieces: What has been written and not been collected, oldest first.
        mark: How many pieces there may be before :meth:`look` is to be called.

    Threads: any, for every method.
    """

    __slots__ = (
        "_busy",
        "_decoders",
        "_displayed",
        "_displays",
        "_dropped",
        "_kept",
        "_limit",
        "_lock",
        "_sizes",
        "mark",
        "pieces",
    )

    def __init__(self, limit: int = DEFAULT_OUTPUT_LIMIT) -> None:
        self.pieces: list[Piece] = []
        self.mark = PIECES
        self._lock = threading.RLock()
        self._busy = False
        self._limit = limit
        self._kept: dict[StreamName, list[str]] = {}
        self._sizes: dict[StreamName, int] = {}
        self._dropped: dict[StreamName, int] = {}
        self._displays: list[MimeBundle] = []
        self._displayed = 0
        self._decoders: dict[StreamName, codecs.IncrementalDecoder] = {}

    # -- what the code calls -----------------------------------------------------------------

    def write_to(self, stream: StreamName, data: str | bytes) -> int:
        """Take *data*, a plain ``str`` or ``bytes``, for one of the streams; its length."""
        self.pieces.append((stream, data))
        if len(self.pieces) > self.mark or len(data) > BIG_CHARS:
            self.look(data)
        return len(data)

    def display(self, bundle: MimeBundle) -> None:
        """Take an object's rich form; it keeps its place among the text."""
        self.pieces.append(bundle)
        self.look(bundle)

    def flush(self) -> None:
        """Pass on what has been held back: here, nothing is passed on."""

    # -- what the cell's run calls -----------------------------------------------------------

    def finish(self) -> None:
        """The cell's own code has ended; its tasks and threads may still write."""
        if self.pieces or self._decoders:
            with self._collecting() as collecting:
                if collecting:
                    self._collect(final=True)

    def text(self, stream: StreamName) -> str:
        """What was written, or its beginning and a line that says how much is left out."""
        self._collect_now()
        kept = "".join(self._kept.get(stream, ()))
        dropped = self._dropped.get(stream, 0)
        return f"{kept}\n[{dropped} more characters not kept]\n" if dropped else kept

    @property
    def displays(self) -> tuple[MimeBundle, ...]:
        """What was shown."""
        self._collect_now()
        return tuple(self._displays)

    def forget(self) -> None:
        """The result has been made: keep nothing any more, neither old nor new."""
        self._limit = -1
        self._kept.clear()
        self._displays.clear()

    # -- collecting --------------------------------------------------------------------------

    def look(self, data: str | bytes | MimeBundle) -> None:
        """See to the pieces: they are many, or *data*, the last of them, is big."""
        self._collect_now()

    def _collect_now(self) -> None:
        if self.pieces:
            with self._collecting() as collecting:
                if collecting:
                    self._collect()

    @contextmanager
    def _collecting(self, seconds: float = LOOP_PATIENCE_SECONDS) -> Iterator[bool]:
        """Hold the lock; give whether the pieces may be collected.

        They may not where the caller has come from a collection below it on the stack, and where
        the lock is not to be had within *seconds*. Whoever has it sees to the pieces, or a later
        write does.
        """
        with OutsideCells():
            held = self._lock.acquire(timeout=seconds)
            first = held and not self._busy
            try:
                if first:
                    self._busy = True
                yield first
            finally:
                if first:
                    self._busy = False
                if held:
                    self._lock.release()

    def _collect(self, *, final: bool = False) -> list[Run]:
        """Take the pieces that there are, and keep what they hold. Under the lock."""
        pieces = self.pieces
        count = len(pieces)
        runs = self._joined(pieces[:count])
        del pieces[:count]
        if final:
            runs += [(stream, rest) for stream in STREAMS if (rest := self._rest(stream))]
        for run in runs:
            self._keep(run)
        return runs

    def _joined(self, pieces: list[Piece]) -> list[Run]:
        """Put together what goes to the same stream without anything in between."""
        if not pieces:
            return []
        if not self._decoders:
            try:
                return [("stdout", "".join(pieces))]  # type: ignore[arg-type]
            except TypeError:
                pass  # not all of it is bare text
        runs: list[Run] = []
        for kind, group in itertools.groupby(map(self._decoded, pieces), key=itemgetter(0)):
            if kind is None:
                runs += (bundle for _, bundle in group)
            elif text := "".join(text for _, text in group):
                runs.append((kind, text))
        return runs

    def _decoded(self, piece: Piece) -> tuple[StreamName | None, Any]:
        """The stream and the text of *piece*; None and the bundle for a display."""
        if isinstance(piece, MimeBundle):
            return None, piece
        stream, data = ("stdout", piece) if isinstance(piece, str) else piece
        if isinstance(data, str):
            return stream, self._rest(stream) + data
        if stream not in self._decoders:
            self._decoders[stream] = codecs.getincrementaldecoder(ENCODING)("replace")
        return stream, self._decoders[stream].decode(data)

    def _rest(self, stream: StreamName) -> str:
        """What text, or the end, makes of a character of which only some bytes were written."""
        decoder = self._decoders.pop(stream, None)
        return decoder.decode(b"", final=True) if decoder is not None else ""

    # -- keeping -----------------------------------------------------------------------------

    def _keep(self, run: Run) -> None:
        if self._limit < 0:
            return
        if isinstance(run, MimeBundle):
            self._keep_display(run)
            return
        stream, text = run
        size = self._sizes.get(stream, 0)
        room = self._limit - size
        self._sizes[stream] = size + len(text)
        if room >= len(text):
            self._kept.setdefault(stream, []).append(text)
            return
        self._dropped[stream] = self._dropped.get(stream, 0) + len(text) - max(room, 0)
        if room > 0:
            self._kept.setdefault(stream, []).append(text[:room])

    def _keep_display(self, bundle: MimeBundle) -> None:
        """Keep *bundle*, or what says that it was too much."""
        size = bundle.size
        if self._displayed + size > self._limit:
            types = ", ".join(bundle.data)
            bundle = MimeBundle({"text/plain": f"[{types}: {size} characters not kept]"})
        else:
            self._displayed += size
        self._displays.append(bundle)


STREAMS: tuple[StreamName, ...] = ("stdout", "stderr")


def plain_text(text: object) -> str:
    """*text* as a plain ``str``; one of a subclass is not asked for its own idea of that.

    Raises:
        TypeError: It is no ``str``, in the words of ``io``.
    """
    if not isinstance(text, str):
        raise TypeError(f"write() argument must be str, not {type(text).__name__}")
    return str.__str__(text)
