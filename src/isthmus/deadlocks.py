"""Waits that can never end. Owns recognising that the loop's thread waits for this very thread.

Refuses to know: why this thread waits for the loop, and what is done about it.

Sync code in a cell that waits for a thread by blocking (``Thread.join``, ``Future.result``, leaving
a ``ThreadPoolExecutor``) stops the event loop; when that thread then waits for the loop, neither
goes on. What the loop's thread waits for is read from its stack, so only waits without a timeout
through Python's own functions are seen: one for a bare lock or queue could be ended by anybody.
"""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.thread
import sys
import threading
from concurrent.futures import Future
from types import CodeType, FrameType
from typing import Any

from isthmus.frames import stack_from, stack_in, uncollected

_JOIN = threading.Thread.join.__code__
_RESULTS: frozenset[CodeType] = frozenset({Future.result.__code__, Future.exception.__code__})
_WAIT = concurrent.futures.wait.__code__
_WORK = concurrent.futures.thread._WorkItem.run.__code__

_LIBRARY = frozenset(
    {threading.__file__, concurrent.futures._base.__file__, concurrent.futures.thread.__file__}
)


def loop_waiting_for_this_thread(loop_thread: int) -> str | None:
    """Where the thread with this identifier waits for the calling one, without end; or None.

    Returns:
        The file and line of the nearest code that is not Python's own waiting.
    """
    stack = stack_in(loop_thread)
    mine = threading.current_thread(), _future_computed_here()
    if not any(_waits_for(frame, *mine) for frame in stack):
        return None
    outside = (it for it in stack if it.f_code.co_filename not in _LIBRARY)
    frame = next(outside, None)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "its own code"


def _waits_for(frame: FrameType, thread: threading.Thread, future: Future[Any] | None) -> bool:
    """Whether *frame* is a wait without a timeout that only *thread*, or *future*, can end."""
    code = frame.f_code
    if code is not _JOIN and code is not _WAIT and code not in _RESULTS:
        return False
    with uncollected():
        values = frame.f_locals
    if values.get("timeout") is not None:
        return False
    if code is _WAIT:
        everything = values.get("return_when") == concurrent.futures.ALL_COMPLETED
        return everything and future is not None and future in values.get("fs", ())
    awaited = values.get("self")
    return awaited is thread or (future is not None and awaited is future)


def _future_computed_here() -> Future[Any] | None:
    """The future of the executor's job that the calling thread runs, if it runs one."""
    for frame in stack_from(sys._getframe(1)):
        if frame.f_code is _WORK:
            future: Future[Any] | None = frame.f_locals["self"].future
            return future
    return None
