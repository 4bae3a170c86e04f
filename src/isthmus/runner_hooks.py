"""Who calls ``asyncio.run`` and its like. Owns their replacements, and which code is a session's.

Refuses to know: what they mean for code of a session (see :mod:`isthmus.runners`).

Code of a session is code whose globals are the namespace of a session that has the hooks. Every
other caller, libraries below a cell among them, gets what was there before; so does code of a
session where no loop runs and none is reached: in a thread that it has started itself.

The replacements go in with the first session and out with the last. One that somebody has replaced
since stays in place.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import threading
from asyncio import _get_running_loop
from collections.abc import Callable
from types import FrameType
from typing import Any

from isthmus.cell_thread import CellThread
from isthmus.patches import Patch, own_attribute
from isthmus.portal import crossing_here
from isthmus.runners import (
    SessionRunner,
    complete_in_session,
    refuse_to_run_forever,
    run_in_session,
)


class RunnerHooks:
    """Replaces the three for code of sessions: in with the first user, out with the last.

    Threads: any. The lock guards all fields and the replacing of attributes; nothing of ours is
    locked inside. It is reentrant because the collector may end a dropped session while it is held:
    so a session is in the table before anything is done for it, and undoing something twice is
    harmless. Namespaces are looked up without it: one look into a dict is atomic.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._sessions: dict[int, asyncio.AbstractEventLoop] = {}
        self._patches: list[Patch] = []
        self._loop_patches: dict[asyncio.AbstractEventLoop, Patch] = {}

    def install(self, loop: asyncio.AbstractEventLoop, namespace: int) -> None:
        """Count in a session of *loop* whose namespace has the ``id`` *namespace*."""
        with self._lock:
            self._sessions[namespace] = loop
            if not self._patches:
                self._patches = self._patch_asyncio()
            if loop not in self._loop_patches:
                self._loop_patches[loop] = self._patch_loop(loop)

    def remove(self, loop: asyncio.AbstractEventLoop, namespace: int) -> None:
        """Count it out."""
        with self._lock:
            del self._sessions[namespace]
            unused = [] if self._sessions else self._patches
            if unused:
                self._patches = []
            if loop in self._loop_patches and loop not in self._sessions.values():
                unused = [*unused, self._loop_patches.pop(loop)]
            for patch in unused:
                patch.undo()

    def _is_of_session(self, caller: FrameType) -> bool:
        return id(caller.f_globals) in self._sessions

    def _cannot_run_a_loop(self, caller: FrameType) -> bool:
        """Whether *caller* is session code on a loop's thread, or in a cell's thread."""
        in_cell = isinstance(crossing_here(), CellThread)  # not a thread that a cell has started
        return (in_cell or _get_running_loop() is not None) and self._is_of_session(caller)

    def _patch_asyncio(self) -> list[Patch]:
        by_name, by_module = asyncio.run, asyncio.runners.run
        run = self._run(by_name)
        same = run if by_module is by_name else self._run(by_module)
        return [
            Patch(asyncio, {"run": run}),
            Patch(asyncio.runners, {"run": same}),
            Patch(asyncio.Runner, {"__init__": self._init_of_runner(asyncio.Runner.__init__)}),
        ]

    def _run(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def run(*args: Any, **kwargs: Any) -> Any:
            if not self._cannot_run_a_loop(sys._getframe(1)):
                return original(*args, **kwargs)
            given = inspect.signature(original).bind(*args, **kwargs)
            return run_in_session(*given.args, **given.kwargs)

        return run

    def _init_of_runner(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def init(runner: asyncio.Runner, *args: Any, **kwargs: Any) -> None:
            original(runner, *args, **kwargs)
            if type(runner) is asyncio.Runner and self._cannot_run_a_loop(sys._getframe(1)):
                runner.__class__ = SessionRunner  # so the class asyncio.Runner stays what it is
                runner.__init__(*args, **kwargs)

        return init

    def _patch_loop(self, loop: asyncio.AbstractEventLoop) -> Patch:
        complete = self._for_session(loop, "run_until_complete", complete_in_session)
        forever = self._for_session(loop, "run_forever", refuse_to_run_forever)
        return Patch(loop, {"run_until_complete": complete, "run_forever": forever})

    def _for_session(
        self, loop: asyncio.AbstractEventLoop, name: str, meant: Callable[..., Any]
    ) -> Callable[..., Any]:
        """The method *name* of *loop*, but *meant* for session code while the loop runs."""
        own = own_attribute(loop, name)

        @functools.wraps(getattr(loop, name))
        def call(*args: Any, **kwargs: Any) -> Any:
            if loop.is_running() and self._is_of_session(sys._getframe(1)):
                return meant(loop, *args, **kwargs)
            if own is not None:
                return own(*args, **kwargs)
            return getattr(type(loop), name)(loop, *args, **kwargs)  # patched since, perhaps

        return call


runner_hooks = RunnerHooks()
"""The process has one ``asyncio``, so there is one of these."""
