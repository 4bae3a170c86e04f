"""Async generators that session code begins. Owns the hook of a loop's thread that sees them.

Refuses to know: who keeps account of them.

CPython calls a hook of the thread when an async generator is iterated for the first time. Each run
of an event loop sets the loop's own, so ours is put before it again whenever a cell finds that it
is not there. (https://docs.python.org/3/library/sys.html#sys.set_asyncgen_hooks)
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any

from isthmus.hooks import LoopHook
from isthmus.jobs import current_job

Hook = Callable[[AsyncGenerator[Any, Any]], None]


class _FirstIteration:
    """The hook: tells whoever owns the running job, then calls the hook that was there."""

    def __init__(self, previous: Hook | None) -> None:
        self.previous = previous

    def __call__(self, generator: AsyncGenerator[Any, Any]) -> None:
        job = current_job.get()
        if job is not None:
            job.owner.ownership.note_generator(generator)
        if self.previous is not None:
            self.previous(generator)


def _is_in(hook: Any) -> bool:
    """Whether ours is called by *hook*, which may be somebody else's that passes on to it."""
    while hook is not None and not isinstance(hook, _FirstIteration):
        hook = getattr(hook, "previous", None)
    return hook is not None


class GeneratorHooks(LoopHook):
    """Puts the hook before that of loops. Threads: any, but for :meth:`renew`."""

    def renew(self) -> None:
        """Put the hook in, if it is not there. On the thread of a running loop."""
        first = sys.get_asyncgen_hooks().firstiter
        if not isinstance(first, _FirstIteration) and not _is_in(first):
            sys.set_asyncgen_hooks(firstiter=_FirstIteration(first))

    def _put_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """The next cell does."""

    def _take_out(self, loop: asyncio.AbstractEventLoop) -> None:
        if asyncio._get_running_loop() is loop:
            self._restore(loop)
        elif loop.is_running():
            with suppress(RuntimeError):  # it has just been closed
                loop.call_soon_threadsafe(self._restore_if_unused, loop)

    def _restore_if_unused(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop not in self._users:
            self._restore(loop)

    def _restore(self, loop: asyncio.AbstractEventLoop) -> None:
        first = sys.get_asyncgen_hooks().firstiter
        if isinstance(first, _FirstIteration):
            sys.set_asyncgen_hooks(firstiter=first.previous)


generator_hooks = GeneratorHooks()
"""A loop has one thread, whatever the number of sessions on it."""
