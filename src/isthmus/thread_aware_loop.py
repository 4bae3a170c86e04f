"""An event loop whose plain calls may come from any thread. Owns how they reach the loop's thread.

Refuses to know: cells, sessions, who runs the loop.

On asyncio's own loops ``call_soon`` and its like are for the loop's thread alone; and so is what
leads to them: ``event.set()``, ``queue.put_nowait()``, ``future.set_result()``, ``task.cancel()``.
Made from another thread, they go unnoticed until the loop wakes by itself, or raise in debug mode.
A loop of this class looks at the calling thread, and hops where it is another one.

A callback that hops can begin while its caller has not finished. Where asyncio itself is the caller
that would break it: ``Event.set`` resolves one future after another while the tasks that it wakes
take themselves out of the deque that it goes through. So a callback waits until the outermost
function of asyncio's objects from which it was scheduled has been left.

In a thread that shares the loop (that of a cell which awaits, :mod:`~isthmus.shared_loop`), what
``call_soon`` schedules begins when the thread waits next, as it would in a task.

Guarantees:
- Callbacks of one thread begin in the order in which it scheduled them.
Assumes: the attributes of CPython's ``BaseEventLoop`` that are declared below (3.11 to 3.14).
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import sys
from asyncio import Handle, TimerHandle
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import Context
from threading import get_ident
from types import FrameType
from typing import Any

from isthmus.frames import stack_in
from isthmus.portal import crossing_here

if sys.platform == "win32":
    _PlatformLoop = asyncio.ProactorEventLoop
else:
    _PlatformLoop = asyncio.SelectorEventLoop

_OBJECTS = frozenset({"asyncio.locks", "asyncio.queues", "asyncio.taskgroups", "asyncio.tasks"})
"""Modules whose functions schedule callbacks in the middle of what they do, and never block."""

_BETWEEN = frozenset({"asyncio.base_events", "isthmus.task_factory", __name__})
"""Modules whose functions stand between these and ``call_soon``."""


def _module(frame: FrameType) -> object:
    return frame.f_globals.get("__name__")


def _entered(frame: FrameType | None) -> FrameType | None:
    """The outermost in the row of functions of asyncio's objects that ends at *frame*, if any."""
    while frame is not None and _module(frame) in _BETWEEN:
        frame = frame.f_back
    found = None
    while frame is not None and _module(frame) in _OBJECTS:
        found, frame = frame, frame.f_back
    return found


class _Visit:
    """A callback from another thread, with the function that has to be left before it begins."""

    __slots__ = ("_frame", "_thread", "handle")

    def __init__(self, handle: Handle, frame: FrameType | None) -> None:
        self.handle = handle
        self._frame = frame
        self._thread = get_ident()

    def may_begin(self) -> bool:
        """Whether the function has been left."""
        return self._frame is None or self._frame not in stack_in(self._thread)


def _on_its_thread(name: str) -> Any:
    """The method *name* of the platform's loop, done on the loop's thread while the caller waits.

    For calls whose result or error the caller needs.
    """
    base: Callable[..., Any] = getattr(_PlatformLoop, name)

    @functools.wraps(base)
    def call(self: ThreadAwareLoop, *args: Any, **kwargs: Any) -> Any:
        if self._is_here():
            return base(self, *args, **kwargs)
        return self._wait_for(functools.partial(base, self, *args, **kwargs))

    return call


class ThreadAwareLoop(_PlatformLoop):
    """The platform's event loop, with plain calls that are safe on every thread.

    For hosts: ``asyncio.Runner(loop_factory=ThreadAwareLoop)``. Only what loops do is made safe:
    two threads inside one ``asyncio.Queue`` can still see it half changed.
    """

    _debug: bool
    _ready: deque[Handle]
    _scheduled: list[TimerHandle]
    _timer_cancelled_count: int
    _default_executor: Executor | None
    _thread_id: int | None  # of the thread that runs the loop, None while none does

    def __init__(self) -> None:
        self._visits: deque[_Visit] = deque()
        self._admitting = False
        self._awaited: set[Future[Any]] = set()
        super().__init__()

    def _is_here(self) -> bool:
        """Whether a plain call is one of the loop's own thread; while it does not run, any is."""
        return self._thread_id in (None, get_ident())

    # -- calls that return at once -----------------------------------------------------------

    def call_soon(  # type: ignore[override]  # typeshed binds the arguments to the callback's
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """Have *callback* called in the loop's next turn; wake the loop if it sleeps.

        Threads: any.
        """
        if get_ident() != self._thread_id or self._debug:
            return self._call_soon_unusually(callback, args, context)
        # What the base class does; calling it would double the cost of each step of each task.
        handle = Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def _call_soon_unusually(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> Handle:
        """The same on another thread, in debug mode, and while the loop does not run."""
        if self._is_here():
            return super().call_soon(callback, *args, context=context)
        crossing = crossing_here()
        if crossing is not None and asyncio._get_running_loop() is self:
            handle = Handle(callback, args, self, context)
            crossing.hold(handle)
            return handle
        frame = _entered(sys._getframe(2))
        if frame is None and not self._visits:
            return self.call_soon_threadsafe(callback, *args, context=context)
        return self._announce(Handle(callback, args, self, context), frame)

    def _announce(self, handle: Handle, frame: FrameType | None) -> Handle:
        """Have *handle* admitted once *frame* has been left."""
        self._visits.append(_Visit(handle, frame))
        if not self._admitting:
            self._admitting = True
            self.call_soon_threadsafe(self._admit)
        return handle

    def _admit(self) -> None:
        """Make ready what may begin, in order. On the loop's thread."""
        self._admitting = False  # before the first look: what comes later says so itself
        while self._visits:
            if not self._visits[0].may_begin():
                self._admitting = True
                self.call_soon(self._admit)  # after a poll, in which that thread can go on
                return
            self._ready.append(self._visits.popleft().handle)  # the loop skips cancelled ones

    def call_at(  # type: ignore[override]  # as above
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> TimerHandle:
        """Have *callback* called at *when*, on the loop's clock. Threads: any."""
        here = get_ident() == self._thread_id and not self._debug
        if when is None or (not here and self._is_here()):
            return super().call_at(when, callback, *args, context=context)
        timer = TimerHandle(when, callback, args, self, context)
        if here:
            self._schedule(timer)
        else:
            self.call_soon_threadsafe(self._schedule, timer)
        return timer

    def _schedule(self, timer: TimerHandle) -> None:
        if not timer.cancelled():
            heapq.heappush(self._scheduled, timer)
            timer._scheduled = True  # type: ignore[attr-defined]

    def stop(self) -> None:
        """Stop the loop after its current turn. Threads: any."""
        if self._is_here():
            super().stop()
        else:
            self.call_soon_threadsafe(super().stop)

    # -- calls that are waited for -----------------------------------------------------------

    add_reader = _on_its_thread("add_reader")
    add_writer = _on_its_thread("add_writer")
    remove_reader = _on_its_thread("remove_reader")
    remove_writer = _on_its_thread("remove_writer")
    add_signal_handler = _on_its_thread("add_signal_handler")
    remove_signal_handler = _on_its_thread("remove_signal_handler")

    def _wait_for(self, call: Callable[[], Any]) -> Any:
        """Have *call* made on the loop's thread; its result, or its error."""
        outcome: Future[Any] = Future()
        self._awaited.add(outcome)
        try:
            self.call_soon_threadsafe(_make, call, outcome)
            return outcome.result()
        finally:
            self._awaited.discard(outcome)

    # -- between two users -------------------------------------------------------------------

    def drop_timers(self) -> None:
        """Cancel all timers, and let go of them: they hold the context variables of who set them.

        Left to itself the loop keeps cancelled ones until their time has come, or there are many.
        On the loop's thread.
        """
        for timer in self._scheduled:
            timer.cancel()
            timer._scheduled = False  # type: ignore[attr-defined]
        self._scheduled.clear()
        self._timer_cancelled_count = 0

    def drop_default_executor(self) -> None:
        """Have the threads of the default executor end; whoever asks for it later gets a new one.

        ``shutdown_default_executor`` lets nobody have one ever after. On the loop's thread.
        """
        executor, self._default_executor = self._default_executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Close the loop; what other threads wait for fails."""
        super().close()
        for outcome in list(self._awaited):
            if not outcome.done():
                outcome.set_exception(RuntimeError("Event loop is closed"))


def _make(call: Callable[[], Any], outcome: Future[Any]) -> None:
    try:
        outcome.set_result(call())
    except Exception as error:  # a boundary: it is the waiting thread's
        outcome.set_exception(error)
