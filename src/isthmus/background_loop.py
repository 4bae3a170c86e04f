"""An event loop in a thread of its own, for a host that has none. Owns the loop, the thread, and
what other threads wait for there.

Refuses to know: sessions.

Guarantees:
- What is accepted has an outcome, also when the loop ends meanwhile.
- The last work is really the last: what is accepted before it has begun before it.
Assumes: nobody waits for the loop on its own thread.

Lock: ``_lock`` guards ``_last``, so that nothing is accepted behind the last work. Innermost; only
asyncio's queue of callbacks is touched inside.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from contextlib import suppress
from threading import Thread
from typing import Any

from isthmus.errors import CellCancelled, CellInterrupted, SessionClosedError
from isthmus.home import call_if_alive
from isthmus.portal import end_idle_runners
from isthmus.strikes import set_async_exception
from isthmus.thread_aware_loop import ThreadAwareLoop

STOP_SECONDS = 1.0
"""How long work may take to end whose waiting thread has been interrupted, and the loop when the
interpreter exits; from the air."""

PATIENCE_SECONDS = 0.3
"""How much of that the loop has to end by itself: it may have tasks that clean up."""

RETRY_SECONDS = 0.02
"""How soon to interrupt its thread again that would not end."""

LOOK_SECONDS = 0.5
"""How often a thread that waits looks up: a signal that came just before the wait is noticed then,
and on Windows any; soon enough for somebody who has pressed Ctrl-C."""

Work = Coroutine[Any, Any, Any]


async def _nothing() -> None: ...


class Errand(Future[Any]):
    """Work for the loop, and its outcome for the thread that waits.

    It is cancelled by :meth:`withdraw` alone, so that an outcome says that the work has ended.
    """

    def __init__(self, work: Work) -> None:
        super().__init__()
        self._work: Work | None = work
        self._task: asyncio.Task[Any] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin the work, in the context of the thread that waits. On the loop."""
        work, self._work = self._work, None
        if work is not None:
            # Not by the loop's factory: the task is the host's, whatever the variables say.
            self._task = asyncio.Task(work, loop=loop)
            self._task.add_done_callback(self._settle)

    def withdraw(self) -> None:
        """Cancel the work. On the loop."""
        if self._task is not None:
            self._task.cancel()
        elif self._work is not None:
            self.refuse(asyncio.CancelledError())

    def refuse(self, error: BaseException) -> None:
        """Do not begin the work; *error* is its outcome."""
        work, self._work = self._work, None
        if work is not None:
            work.close()
            self.set_exception(error)

    def _settle(self, task: asyncio.Task[Any]) -> None:
        self._task = None
        if task.cancelled():
            self.set_exception(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self.set_exception(error)
        else:
            self.set_result(task.result())


class BackgroundLoop:
    """One event loop that runs in one thread from here until :meth:`end`.

    A host that never ends it can still exit: the thread is a daemon, and is ended at exit.

    Arguments:
        name: The thread's name.

    Threads: any, for every method.
    """

    def __init__(self, name: str) -> None:
        self.loop = ThreadAwareLoop()
        self._lock = threading.Lock()
        self._last: Errand | None = None
        self._thread = Thread(
            target=contextvars.Context().run,  # not whatever the maker's context holds
            args=(self._main,),
            name=name,
            daemon=True,
        )
        try:
            contextvars.Context().run(self._thread.start)  # by no cell: it is ours
        except RuntimeError:  # the process may not have more threads
            self.loop.close()
            raise
        exit_ = weakref.WeakMethod(self._exit)
        self._at_exit = weakref.finalize(self, lambda: call_if_alive(exit_))

    @property
    def runs_here(self) -> bool:
        """Whether the calling thread is the loop's own."""
        return self._thread is threading.current_thread()

    @property
    def ending(self) -> bool:
        """Whether the last work has been accepted."""
        return self._last is not None

    def _main(self) -> None:
        """Run the loop until the last work has ended; then end what is left, and close it."""
        with (
            # At exit by _exit(), or by a task that calls sys.exit() when it is cancelled.
            suppress(CellInterrupted, SystemExit, KeyboardInterrupt),
            asyncio.Runner(loop_factory=lambda: self.loop) as runner,
        ):
            self._run_until_last(runner.get_loop())
        end_idle_runners()
        self._at_exit.detach()

    def _run_until_last(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._last is None or not self._last.done():
            # A task that calls sys.exit() ends any run of a loop, and code may stop() it; this one
            # is not theirs to end.
            with suppress(SystemExit, KeyboardInterrupt):
                loop.run_forever()

    def _exit(self) -> None:
        """The interpreter exits: end the thread, by force if need be.

        What a daemon thread still runs then is ended by CPython before 3.14 by unwinding its C
        stack, once it asks for the interpreter's lock; that crashes in a greenlet.
        """
        self.end(_nothing)
        deadline = time.monotonic() + STOP_SECONDS
        ended = self.join(PATIENCE_SECONDS)
        while not ended and time.monotonic() < deadline:
            assert self._thread.ident is not None
            set_async_exception(self._thread.ident, CellInterrupted)
            ended = self.join(RETRY_SECONDS)

    def run(self, work: Work) -> Any:
        """Have *work* awaited on the loop, in a copy of the caller's context; wait for its outcome.

        Raises:
            SessionClosedError: The loop is ending; *work* is closed. Or it ended meanwhile.
            CellCancelled: Code on the loop has cancelled the task that awaits *work*.
            BaseException: What *work* raises.
            KeyboardInterrupt: Or another exception that a signal's handler raises in the thread
                that waits. *work* is cancelled, and has ended, or could not in a second.
        """
        errand = Errand(work)
        try:
            self._perform(errand)
            return errand.result()
        except asyncio.CancelledError:  # of the task: what is cancelled in a cell has an outcome
            raise self._cancelled() from None
        finally:
            del errand  # an error in it refers to this frame

    def _cancelled(self) -> Exception:
        if self.ending:
            return SessionClosedError("the session was closed while the call was waiting")
        return CellCancelled("the call was cancelled by code on the session's event loop")

    def _perform(self, errand: Errand) -> None:
        """Have *errand* done; where the wait for it fails, withdraw it."""
        try:
            self._accept(errand)
            while not errand.done():
                wait([errand], LOOK_SECONDS)
        finally:
            if not errand.done():
                self.loop.call_soon_threadsafe(errand.withdraw)
                wait([errand], STOP_SECONDS)

    def _accept(self, errand: Errand) -> None:
        with self._lock:
            if self._last is None:
                self.loop.call_soon_threadsafe(errand.start, self.loop)
                return
        errand.refuse(SessionClosedError("the session is closed, and its event loop with it"))

    def end(self, work: Callable[[], Work]) -> Future[Any]:
        """Accept nothing more, await *work* as the last, then end the loop and the thread.

        Does not wait. Idempotent: a second call gives the first one's outcome.
        """
        with self._lock:
            if self._last is None:
                self._last = Errand(work())
                self._last.add_done_callback(lambda _: self.loop.stop())
                self.loop.call_soon_threadsafe(self._last.start, self.loop)
            return self._last

    def answers(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds for the loop to go round; whether it has, or has ended."""
        answered = threading.Event()
        try:
            self.loop.call_soon_threadsafe(answered.set)
        except RuntimeError:  # it is closed
            return True
        return answered.wait(timeout) or self.loop.is_closed()

    def join(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds for the thread to end; whether it has."""
        self._thread.join(timeout)
        return not self._thread.is_alive()
