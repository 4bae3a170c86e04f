"""A worker between two sessions. Owns that it is then what it was before the first.

What a session owns has ended with it; this is about the process. What belongs to that and can be
put back is; where something is left that cannot, the worker is fit for no other session.

Refuses to know: messages, and what a session owns.

Threads: the loop's.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
from collections.abc import Callable, Iterator

from isthmus.holders import Canary, holders
from isthmus.thread_aware_loop import ThreadAwareLoop
from isthmus.worker.calls import Calls
from isthmus.worker.capture import Capture
from isthmus.worker.link import Link
from isthmus.worker.process_state import ProcessState
from isthmus.worker.remains import Remains


class Vacancy:
    """What the process is before its first session: made then.

    Arguments:
        link: The connection to the host.
        capture: What was written to descriptors.
        calls: What was asked of the host.
    """

    def __init__(self, link: Link, capture: Capture, calls: Calls) -> None:
        self._link, self._capture, self._calls = link, capture, calls
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ThreadAwareLoop)
        self._loop, self._state = loop, ProcessState(loop)
        self._remains = Remains()

    async def restore(self, canary: Canary | None, timeout: float) -> str:
        """Let the process be what it was; what is in the way, in words, or nothing.

        What is still in its pipes by then is what the session has written.

        Arguments:
            canary: Tells whether anything still holds the namespace of the session that has ended.
            timeout: Seconds for answers of the host that are on their way.
        """
        self._loop.drop_default_executor()
        await self._calls.settle(timeout)
        self._loop.drop_timers()
        gc.collect()
        unfit = next(self._problems(canary), "")
        await asyncio.sleep(0)  # the host is told of its objects that were dropped
        self._capture.forget()
        return unfit or self._link.unsettled

    def _problems(self, canary: Canary | None) -> Iterator[str]:
        """What is in the way, in words. The process is put back where nothing was."""
        yield from self._remains.running()
        if canary is not None and canary() is not None:
            names = ", ".join(holders(canary))
            if canary() is not None:  # after one more collection
                yield f"what the session has defined is held by {names}"
        yield from self._remains.changed()
        for step in (self._state.put_back, _flush):
            yield from _problem_of(step)


def _problem_of(step: Callable[[], object]) -> Iterator[str]:
    """Do *step*; what it has met, in words."""
    try:
        step()
    except Exception as error:  # a boundary: cells may have changed anything
        yield f"it cannot be what it was: {type(error).__name__}: {error}"


def _flush() -> None:
    """Write what was printed and is in buffers still: those of Python, and of C."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    ctypes.CDLL(None).fflush(None)
