"""A loop that is used from a second thread for a while. Owns the thread-safe forms of its calls.

Refuses to know: cells, sessions.

A thread cell that awaits is async code: it sees the home loop as its running loop, and it (or a
library below it) calls ``create_task``, ``call_soon``, ``call_later`` there. While such a cell
runs, these methods are replaced *on the loop object* by ones that look at the calling thread: in a
cell's thread they hop, on every other thread they are what they were. A view with the same methods
would not do: futures know their loop by identity, so that ``gather``, ``as_completed`` or
``wait_for`` would find two different loops.

A :class:`~isthmus.thread_aware_loop.ThreadAwareLoop` looks at the calling thread by itself, always,
and nothing of it is replaced.

What the thread starts, by ``create_task`` or ``call_soon``, begins to run when the thread awaits
next or ends its cell, as in an async cell. Library functions rely on that: ``asyncio.gather`` would
miss the failure of a task that ended before it has made its own future.

What stays unsafe, by Python's rule, is the state of loop-bound objects themselves: two threads
inside one ``asyncio.Queue``.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from isthmus.patches import Patch
from isthmus.portal import crossing_here, run_sync
from isthmus.thread_aware_loop import ThreadAwareLoop

_HOPPING = (
    "add_reader",
    "add_signal_handler",
    "add_writer",
    "call_at",
    "call_later",
    "remove_reader",
    "remove_signal_handler",
    "remove_writer",
)
"""Calls whose result the caller needs: the thread waits until the loop has made them."""

_CURRENT_TASK_HOLDERS = ("asyncio", "asyncio.tasks", "anyio._backends._asyncio")
"""Modules with a name ``current_task`` that code of a cell may use."""


async def _made(call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    return call(*args, **kwargs)


def _hopping(original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if crossing_here() is not None:
            return run_sync(_made(original, args, kwargs))
        return original(*args, **kwargs)

    return call


def _call_soon(loop: asyncio.AbstractEventLoop) -> Callable[..., asyncio.Handle]:
    original = loop.call_soon

    def call_soon(callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        crossing = crossing_here()
        if crossing is None:
            return original(callback, *args, context=context)
        handle = asyncio.Handle(callback, args, loop, context)
        crossing.hold(handle)
        return handle

    return call_soon


class _SharedLoops:
    """Which loops are shared now, by how many threads, and which task each thread stands for.

    The lock guards all fields and the replacing of attributes; nothing of ours is locked inside,
    and no code of others is called.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: dict[int, asyncio.Task[Any] | None] = {}
        self._users: dict[asyncio.AbstractEventLoop, int] = {}
        self._patches: dict[asyncio.AbstractEventLoop, Patch] = {}
        self._current_task_patches: list[Patch] = []

    def enter(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None) -> None:
        """Count the calling thread in; the first one replaces the methods."""
        with self._lock:
            if not self._tasks:
                self._patch_current_task()
            self._tasks[threading.get_ident()] = task
            self._users[loop] = self._users.get(loop, 0) + 1
            if loop not in self._patches and not isinstance(loop, ThreadAwareLoop):
                replacements = {name: _hopping(getattr(loop, name)) for name in _HOPPING}
                self._patches[loop] = Patch(loop, {**replacements, "call_soon": _call_soon(loop)})

    def leave(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count the calling thread out; the last one puts the methods back."""
        with self._lock:
            del self._tasks[threading.get_ident()]
            if not self._tasks:
                for patch in self._current_task_patches:
                    patch.undo()
                self._current_task_patches.clear()
            self._users[loop] -= 1
            if not self._users[loop]:
                del self._users[loop]
                if loop in self._patches:
                    self._patches.pop(loop).undo()

    def _patch_current_task(self) -> None:
        """CPython before 3.14 finds the current task by the loop alone, whatever the thread."""
        tasks = self._tasks
        for name in _CURRENT_TASK_HOLDERS:
            module = sys.modules.get(name)
            original = getattr(module, "current_task", None)
            if module is None or original is None:
                continue

            def current_task(
                loop: asyncio.AbstractEventLoop | None = None,
                original: Callable[..., Any] = original,
            ) -> asyncio.Task[Any] | None:
                task = tasks.get(threading.get_ident())
                return original(loop) if task is None else task

            self._current_task_patches.append(Patch(module, {"current_task": current_task}))


_shared_loops = _SharedLoops()


@contextmanager
def running_loop_of_thread(
    loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None
) -> Iterator[None]:
    """Let the calling thread, which has a crossing, see *loop* run, and *task* as current."""
    outer = asyncio._get_running_loop()
    if outer is not None:  # nested in a cell that awaits
        yield
        return
    _shared_loops.enter(loop, task)
    asyncio._set_running_loop(loop)
    try:
        yield
    finally:
        asyncio._set_running_loop(None)
        _shared_loops.leave(loop)
