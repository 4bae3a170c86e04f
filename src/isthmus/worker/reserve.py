"""Memory kept for the moment when a cell has used up all there is. Owns it.

An outcome has to be told then as well, and greenlets move their stacks to memory as they switch:
one that gets none ends the process.

Refuses to know: cells, and what is told.
"""

from __future__ import annotations

from contextlib import suppress

RESERVE_BYTES = 4 << 20
"""Some arenas of CPython's allocator (1 MiB each); from the air. Nothing is written there, so that
it takes room in the address space only, which is what a limit counts: ``bytes`` has its zeros from
the system, when somebody looks; a ``bytearray`` writes them."""


class Reserve:
    """The memory.

    Attributes:
        kept: It; None while it is given away.

    Threads: any; the last word counts, and either state is a good one.
    """

    def __init__(self) -> None:
        self.kept: bytes | None = bytes(RESERVE_BYTES)

    def spend(self) -> None:
        """Give it away: there is none left."""
        self.kept = None

    def renew(self) -> None:
        """Take it again, if there is as much."""
        with suppress(MemoryError):
            self.kept = bytes(RESERVE_BYTES)
