"""Recognising that the loop's thread waits for the one that waits for the loop."""

from __future__ import annotations

import concurrent.futures
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from isthmus.deadlocks import loop_waiting_for_this_thread
from support import WAIT_SECONDS, wait_until

requirement = pytest.mark.requirement

_WAITS = frozenset({"wait", "join", "_wait_for_tstate_lock"})


def _is_waiting(thread: threading.Thread) -> bool:
    """Whether *thread* stands still in a wait of the standard library."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_name in _WAITS


class _Pair:
    """A job of a pool, which looks at a thread that waits for something of the pool."""

    def __init__(self, wait: Callable[[_Pair], object], *, alone: bool = False) -> None:
        self.wait = wait
        self.alone = alone
        self.seen: str | None = "nobody has looked"
        self._started, self._looked = threading.Event(), threading.Event()
        self._waiter = threading.Thread(target=self._wait)

    def _wait(self) -> None:
        assert self._started.wait(WAIT_SECONDS)
        self.wait(self)

    def _look(self) -> None:
        self.thread = threading.current_thread()
        self._started.set()
        wait_until(lambda: _is_waiting(self._waiter))
        self.seen = loop_waiting_for_this_thread(self._waiter.ident or 0)
        self._looked.set()

    def look(self) -> str | None:
        """What the job sees."""
        with ThreadPoolExecutor() as self.executor:
            self.job = self.executor.submit(self._look)
            if not self.alone:
                self.other: Future[Any] = self.executor.submit(self._looked.wait, WAIT_SECONDS)
            self._waiter.start()
            self.job.result(2 * WAIT_SECONDS)
        self._waiter.join(WAIT_SECONDS)
        return self.seen


@requirement("4.5-deadlocks")
@pytest.mark.parametrize(
    "wait",
    [
        lambda pair: pair.job.result(),
        lambda pair: pair.job.exception(),
        lambda pair: concurrent.futures.wait([pair.other, pair.job]),
        lambda pair: pair.thread.join(),
    ],
    ids=["result", "exception", "wait", "join"],
)
def test_a_wait_for_what_runs_here_is_seen(wait: Callable[[_Pair], object]) -> None:
    assert (_Pair(wait).look() or "").startswith(__file__)


@requirement("4.5-deadlocks")
def test_leaving_the_pool_in_which_this_runs_is_seen() -> None:
    pair = _Pair(lambda pair: pair.executor.shutdown(), alone=True)
    assert (pair.look() or "").startswith(__file__)


@requirement("4.5-deadlocks")
@pytest.mark.parametrize(
    "wait",
    [
        lambda pair: pair.job.result(WAIT_SECONDS),
        lambda pair: pair.job.exception(WAIT_SECONDS),
        lambda pair: concurrent.futures.wait([pair.job], WAIT_SECONDS),
        lambda pair: concurrent.futures.wait(
            [pair.job, pair.other], return_when=concurrent.futures.FIRST_COMPLETED
        ),
        lambda pair: pair.thread.join(0.2),
        lambda pair: pair.other.result(),
        lambda pair: concurrent.futures.wait([pair.other]),
    ],
    ids=[
        "result with a timeout",
        "exception with a timeout",
        "wait with a timeout",
        "wait for the first",
        "join with a timeout",
        "result of another",
        "wait for another",
    ],
)
def test_a_wait_that_can_end_otherwise_is_none(wait: Callable[[_Pair], object]) -> None:
    assert _Pair(wait).look() is None


@requirement("4.5-deadlocks")
def test_a_thread_that_computes_waits_for_nobody() -> None:
    assert loop_waiting_for_this_thread(threading.get_ident()) is None
    assert loop_waiting_for_this_thread(0) is None
