"""What goes with a connection: descriptors that the host sends along with its first message.

There is one for each feature that ``Hello`` names, in that order. Owns them, on both sides.

Refuses to know: messages after the first.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from isthmus.wire.handshake import FEATURES, LIFELINE, SHARED_BUFFERS
from isthmus.worker import lifeline, shared_memory
from isthmus.worker.descriptors import close_all, moved
from isthmus.worker.shared_memory import MemoryChannel


class HostCompanions:
    """The host's ends of them.

    Raises:
        OSError: There are no descriptors left.

    Attributes:
        features: Those that this system has.
        memory: The channel for shared memory; None where there is none.
        theirs: The worker's ends, in the order of *features*; to be closed by :meth:`sent`.

    Close: :meth:`close`, idempotent. It ends the worker.
    """

    def __init__(self) -> None:
        self.features: tuple[str, ...] = ()
        self.memory: MemoryChannel | None = None
        self.theirs: list[int] = []
        self._lifeline: int | None = None
        with ExitStack() as undo:
            undo.callback(self.close)
            if shared_memory.IS_SUPPORTED:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                self.memory = MemoryChannel(ours)
                self._add(SHARED_BUFFERS, theirs.detach())
            if lifeline.IS_SUPPORTED:
                theirs_end, self._lifeline = os.pipe()
                self._add(LIFELINE, theirs_end)
            undo.pop_all()

    def _add(self, feature: str, descriptor: int) -> None:
        self.features += (feature,)
        self.theirs.append(descriptor)

    def sent(self) -> None:
        """The worker's ends are on their way."""
        close_all(self.theirs)
        self.theirs.clear()

    def agree(self, features: Sequence[str]) -> None:
        """The worker takes these *features*."""
        if SHARED_BUFFERS not in features and self.memory is not None:
            self.memory.close()
            self.memory = None

    def close(self) -> None:
        """Close all of it."""
        self.sent()
        self.agree(())
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None


def adopt(
    features: Sequence[str], descriptors: Sequence[int]
) -> tuple[tuple[str, ...], MemoryChannel | None]:
    """Take what has come with ``Hello``, in the worker.

    Returns:
        Those of the *features* that are in force, and the channel for shared memory, if any.
    """
    given = dict(zip((it for it in features if it in FEATURES), descriptors, strict=False))
    in_force: list[str] = []
    memory = None
    if SHARED_BUFFERS in given and shared_memory.IS_SUPPORTED:
        memory = MemoryChannel(socket.socket(fileno=moved(given[SHARED_BUFFERS])))
        in_force.append(SHARED_BUFFERS)
    if LIFELINE in given and lifeline.IS_SUPPORTED:
        lifeline.hold(moved(given[LIFELINE]))
        in_force.append(LIFELINE)
    return tuple(in_force), memory
