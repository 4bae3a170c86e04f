"""What one cell writes, on its way to a transport that *holds* text. Owns what waits there.

Text that is held can be seen by whoever looks, though nobody can send it: because code keeps the
loop busy, or the interpreter's lock, or has crashed. So no line looks at the clock; what is held
goes together when there is no more room for it, when the code flushes or ends, or when the loop
sees that a window is over.

To hold text a cell is given a *pen*, a function in C that takes bytes: then a line costs its
encoding, one call and no lock. The pen is taken away before anything else is written or sent; who
was about to use it is refused, and writes in the slow way.

Refuses to know: where the text can be seen, and by whom.

Guarantees: what is in ``pieces`` comes after what is held. Where there are pieces when a write has
ended there is no pen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from isthmus.events import StreamName
from isthmus.live_output import WINDOW_SECONDS, LiveOutput
from isthmus.mime import MimeBundle
from isthmus.output import Run


def _no_pen(data: bytes) -> int:
    """Stand for the pen where there is none."""
    raise ValueError("nothing is held")


class HeldOutput(LiveOutput):
    """What one cell writes, sent to a transport that can show what has not been sent.

    The arguments are those of :class:`LiveOutput`. The lock guards the pen, but for its use.
    """

    __slots__ = ("_pen",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._pen: Callable[[bytes], int] = _no_pen

    # -- in the writing thread ---------------------------------------------------------------

    def write(self, text: str) -> None:
        """Take *text*, and have it seen or sent."""
        try:
            self._pen(text.encode())  # not by a name: whoever has the pen keeps it from others
            return
        except ValueError:  # there is no pen, or no room; or a lone surrogate
            pass
        self.pieces.append(text)
        self.look(text)

    def write_to(self, stream: StreamName, data: str | bytes) -> int:
        """The same for either stream; only what is written to stdout is held."""
        self.pieces.append((stream, data))
        self.look(data)
        return len(data)

    def look(self, data: str | bytes | MimeBundle) -> None:
        """Hold the last piece, *data*, and those before it; or see to it that they are sent."""
        self._open_window()
        if self._credit <= 0 and self._hold():
            self._send_soon()
            return
        if self._pen is not _no_pen:
            self._let_go()
        super().look(data)

    def _open_window(self) -> None:
        if self._pen is _no_pen:
            super()._open_window()
        else:  # lines come fast: the next ones do not go at once, whenever the window has begun
            self._window_end = time.monotonic() + WINDOW_SECONDS

    def _hold(self) -> bool:
        """Hold all pieces that there are, and those that follow; false where that cannot be."""
        lock = self._lock
        if not lock.acquire(False):
            return False
        try:
            return not self._busy and self._write_pieces()
        except (TypeError, ValueError):  # not all of it is bare text; or as above
            return False
        finally:
            lock.release()

    def _write_pieces(self) -> bool:
        pieces = self.pieces
        count = len(pieces)
        data = "".join(pieces[:count]).encode()  # type: ignore[arg-type]
        pen = self._emitter.hold(self._cell, len(data)) if self._pen is _no_pen else self._pen
        if pen is None:
            return False
        pen(data)
        del pieces[:count]
        self._pen = pen
        return True

    # -- passing on --------------------------------------------------------------------------

    def _let_go(self) -> None:
        """Have what is held before all pieces, and hold no more."""
        with self._lock:
            if self._pen is not _no_pen:
                self._pen = _no_pen
                self.pieces.insert(0, self._emitter.let_go(self._cell))

    def _collect(self, final: bool = False) -> list[Run]:
        self._let_go()
        return super()._collect(final)

    @property
    def _has_more(self) -> bool:
        return self._pen is not _no_pen or super()._has_more

    def _may_wait(self) -> bool:
        return False
