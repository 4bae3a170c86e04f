"""What one cell writes. Owns the pieces on their way in, and the text that is kept for the result.

Refuses to know: events, transports, whose code it is that writes.

Guarantees:
- What one thread writes stays in its order, and what several write is in the order of their calls.
- Nothing is lost, whatever the interleaving of writers.

A write is on the path of every ``print``, so it takes no lock: it appends to a list, which is
atomic, and now and then has the list *collected*. Whoever collects holds the lock, takes the pieces
that were there at one moment and deletes just these, so that a piece appended meanwhile stays.

Locks: ``_lock`` guards all fields but ``pieces`` (appended to without it) and ``mark`` (a hint, set
in one step). Reentrant, because a ``__del__`` or a signal handler can come back here. Innermost.
"""

from __future__ import annotations

import codecs
import itertools
import threading
from operator import itemgetter
from typing import Any

from isthmus.events import StreamName
from isthmus.jobs import outside_cells
from isthmus.mime import MimeBundle

DEFAULT_OUTPUT_LIMIT = 10_000_000
"""Characters of each stream kept in a result; what an evening's notebook prints stays far below."""

PIECES = 1_024
"""Pieces to gather before they are collected; from the air. ``print`` writes two for each line."""

BIG_CHARS = 1_024
"""A longer piece is collected at once, so that what is gathered is bounded: a megabyte or so."""

ENCODING = "utf-8"
"""What bytes written to ``sys.stdout.buffer`` are taken for."""

Piece = str | tuple[StreamName, str | bytes] | MimeBundle
"""What a write leaves. Bare text is for stdout: most text is, and it is joined by one call."""

Run = tuple[StreamName, str] | MimeBundle
"""Text for one stream, as long as nothing else comes in between; or a display."""


class KeptText:
    """The text of one stream that is kept: its beginning. *size* counts all that there was."""

    __slots__ = ("parts", "size")

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.size = 0

    def add(self, text: str, limit: int) -> None:
        """Keep of *text* what does not go beyond *limit* characters."""
        room = limit - self.size
        self.size += len(text)
        if room > 0:
            self.parts.append(text if len(text) <= room else text[:room])

    def text(self, limit: int) -> str:
        """What is kept, and a line that says how much is left out."""
        kept, dropped = "".join(self.parts), self.size - limit
        return f"{kept}\n[{dropped} more characters not kept]\n" if dropped > 0 else kept


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
        "_decoders",
        "_displayed",
        "_displays",
        "_kept",
        "_limit",
        "_lock",
        "mark",
        "pieces",
    )

    def __init__(self, limit: int = DEFAULT_OUTPUT_LIMIT) -> None:
        self.pieces: list[Piece] = []
        self.mark = PIECES
        self._lock = threading.RLock()
        self._limit = limit
        self._kept: dict[StreamName, KeptText] = {}
        self._displays: list[MimeBundle] = []
        self._displayed = 0
        self._decoders: dict[StreamName, codecs.IncrementalDecoder] = {}

    # -- what the code calls -----------------------------------------------------------------

    def write(self, text: str) -> None:
        """Take *text*, a plain ``str``, for stdout. On the path of every ``print``."""
        pieces = self.pieces
        pieces.append(text)
        if len(pieces) > self.mark or len(text) > BIG_CHARS:
            self.look(text)

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

    def text(self, stream: StreamName) -> str:
        """What was written, or its beginning and a line that says how much is left out."""
        self._collect_all()
        kept = self._kept.get(stream)
        return kept.text(self._limit) if kept is not None else ""

    @property
    def displays(self) -> tuple[MimeBundle, ...]:
        """What was shown."""
        self._collect_all()
        return tuple(self._displays)

    def forget(self) -> None:
        """The result has been made: keep nothing any more, neither old nor new."""
        self._limit = -1
        self._kept.clear()
        self._displays.clear()

    # -- collecting --------------------------------------------------------------------------

    def look(self, data: str | bytes | MimeBundle) -> None:
        """See to the pieces: they are many, or *data*, the last of them, is big."""
        outside_cells(self._collect)

    def _collect_all(self) -> None:
        """Collect what there is, for the result."""
        if self.pieces or self._decoders:
            outside_cells(self._collect, True)

    def _collect(self, final: bool = False) -> list[Run]:
        """Take the pieces that there are, and keep what they hold. Outside of cells."""
        with self._lock:
            pieces = self.pieces
            count = len(pieces)
            taken = pieces[:count]
            del pieces[:count]
            runs = self._joined(taken)
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
        kept = self._kept.get(stream)
        if kept is None:
            kept = self._kept[stream] = KeptText()
        kept.add(text, self._limit)

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
