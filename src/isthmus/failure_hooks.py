"""Where Python reports failures that nobody has asked for. Owns our places in these reports.

Refuses to know: who is told of a failure of a session (:mod:`isthmus.ownership` does).

- A failed task that is dropped goes to the exception handler of its loop, which is wrapped.
- A coroutine that is dropped unawaited goes to ``warnings._warn_unawaited_coroutine``, a private
  function of CPython's, which is replaced where it is there. Else the warning is what it ever was.

What is no session's goes where it went before.
"""

from __future__ import annotations

import asyncio
import warnings
import weakref
from collections.abc import Callable
from contextvars import Context
from typing import Any

from isthmus.hooks import Hook, LoopHook
from isthmus.jobs import current_job
from isthmus.ownership import DROPPED, Ownership

HandlerContext = dict[str, Any]


class _Handler:
    """An exception handler of a loop that looks whose failure it is."""

    def __init__(self, previous: Callable[..., object] | None) -> None:
        self.previous = previous

    def __call__(self, loop: asyncio.AbstractEventLoop, context: HandlerContext) -> None:
        task = context.get("future")
        dropped = getattr(task, DROPPED, None)
        if dropped is None:
            self._pass_on(loop, context)
        elif not dropped(task):
            # CPython 3.12+ calls a handler in the task's context; what the host's prints is not the
            # cell's.
            Context().run(self._pass_on, loop, context)

    def _pass_on(self, loop: asyncio.AbstractEventLoop, context: HandlerContext) -> None:
        if self.previous is None:
            loop.default_exception_handler(context)
        else:
            self.previous(loop, context)


class ExceptionHandlerHooks(LoopHook):
    """Wraps the exception handler of loops."""

    def _put_in(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.set_exception_handler(_Handler(loop.get_exception_handler()))

    def _take_out(self, loop: asyncio.AbstractEventLoop) -> None:
        handler = loop.get_exception_handler()
        if isinstance(handler, _Handler):
            loop.set_exception_handler(handler.previous)


exception_handler_hooks = ExceptionHandlerHooks()
"""A loop has one exception handler, whatever the number of sessions on it."""


class UnawaitedHook(Hook):
    """Stands in for the function that warns of a coroutine that was never awaited.

    Sessions are registered by weak references, which are read without a lock: the function is
    called in finalizers.
    """

    def __init__(self) -> None:
        super().__init__()
        self._plain: Callable[[Any], None] | None = None
        self._ours = self._warn
        self._sessions: dict[int, weakref.ref[Ownership]] = {}

    def add(self, ownership: Ownership) -> int:
        """Count a session in; a key with which to count it out."""
        key = id(ownership)
        self._sessions[key] = weakref.ref(ownership)
        self.install()
        return key

    def discard(self, key: int) -> None:
        """Count the session of *key* out. It may be gone."""
        self._sessions.pop(key, None)
        self.remove()

    def _put_in(self) -> None:
        self._plain = getattr(warnings, "_warn_unawaited_coroutine", None)
        if self._plain is not None:
            warnings._warn_unawaited_coroutine = self._ours  # type: ignore[attr-defined]

    def _take_out(self) -> None:
        if getattr(warnings, "_warn_unawaited_coroutine", None) is self._ours:
            warnings._warn_unawaited_coroutine = self._plain  # type: ignore[attr-defined]

    def _warn(self, coroutine: Any) -> None:
        owner = self._owner_of(coroutine)
        if owner is not None:
            owner.coroutine_dropped(coroutine)
        elif self._plain is not None:
            self._plain(coroutine)

    def _owner_of(self, coroutine: Any) -> Ownership | None:
        """The session whose code made *coroutine*; most often the one whose code runs."""
        job = current_job.get()
        here = None if job is None else job.owner.ownership
        if isinstance(here, Ownership) and here.owns(coroutine):
            return here
        for reference in list(self._sessions.values()):
            ownership = reference()
            if ownership is not None and ownership.owns(coroutine):
                return ownership
        return None


unawaited_hook = UnawaitedHook()
"""The process has one ``warnings``, so there is one of these."""
