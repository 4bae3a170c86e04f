"""Memory kept for the moment when a cell has used up all there is. Owns it.

An outcome has to be told then as well, and greenlets move their stacks to memory as they switch:
one that gets none ends the process.

Refuses to know: cells, and what is told.
"""

from __future__ import annotations

import mmap
from contextlib import suppress

PIECE_BYTES = 256 << 10
PIECES = 16
"""4 MiB in all, which is some arenas of CPython's allocator (1 MiB each); from the air. In pieces,
as there may be room for some of them only once it was given away. Nothing is written there, so that
it takes room in the address space alone, which is what a limit counts; and mapped, so that it goes
back to the system at once."""


class Reserve:
    """The memory.

    Attributes:
        is_whole: All of it is here.

    Threads: any; the last word counts, and either state is a good one.
    """

    def __init__(self) -> None:
        self.is_whole = False
        self._pieces: list[mmap.mmap] = []
        self.renew()

    def spend(self) -> None:
        """Give it away: there is none left."""
        self.is_whole = False
        while self._pieces:
            self._pieces.pop().close()

    def renew(self) -> None:
        """Take it again, as much as there is room for."""
        with suppress(MemoryError, OSError):
            while len(self._pieces) < PIECES:
                self._pieces.append(mmap.mmap(-1, PIECE_BYTES, mmap.MAP_PRIVATE))
            self.is_whole = True
