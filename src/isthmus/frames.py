"""The frames of a thread, read from any other one. Owns how that is done without harm.

Refuses to know: whose code it is that the frames run.

Assumes: the interpreter lock, so that no frame moves while the frames of a thread are collected.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate, chain, islice, repeat
from operator import itemgetter
from types import FrameType

Stack = list[FrameType]
"""The frames of one thread or greenlet, innermost first."""


def stack_from(frame: FrameType | None) -> Stack:
    """*frame* and its callers. For a stack that does not move: the calling thread's, or a parked
    greenlet's.
    """
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


@contextmanager
def uncollected() -> Iterator[None]:
    """Look at another thread without a collection of garbage in between.

    Before Python 3.12 one may begin at any allocation, and run code in Python: the other thread
    goes on while a frame object is made for a frame that it leaves, or waits for a lock of
    CPython's that is held meanwhile. The one crashes, the other hangs.
    """
    collects = sys.version_info < (3, 12) and gc.isenabled()
    if collects:
        gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def stack_in(thread: int) -> Stack:
    """The frames of the thread of this identifier. Threads: any.

    Taken in one step, which holds the interpreter lock throughout.
    """
    top = islice(map(itemgetter(thread), iter(sys._current_frames, None)), 1)
    frames: deque[FrameType] = deque()
    # The outermost frame's is None, or there is no such thread.
    with uncollected(), suppress(AttributeError, KeyError):
        frames.extend(accumulate(chain(top, repeat("f_back")), getattr))
    if frames and frames[-1] is None:
        frames.pop()
    return list(frames)
