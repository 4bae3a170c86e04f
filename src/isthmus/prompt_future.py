"""A future that wakes its task at once. Owns the shortcut past one turn of the event loop.

Refuses to know: what is waited for.

A plain future wakes the task that awaits it in the next turn of the loop. Where the result is set
by a callback of the loop itself, with no task running, that turn (a poll, and for a moment the
interpreter lock for other threads) can be spared: the task is stepped within the callback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")

Wakeup = Callable[[Any], object]


class PromptFuture(asyncio.Future[T]):
    """A future whose first waiter is called at once by :meth:`resolve` and :meth:`fail`.

    Threads: the loop's, as for any future.
    """

    _first: tuple[Wakeup, Context | None] | None = None

    def add_done_callback(self, fn: Wakeup, /, *, context: Context | None = None) -> None:
        """Keep the first callback for :meth:`resolve`; further ones are as for any future."""
        if self._first is None and not self.done():
            self._first = fn, context
        else:
            super().add_done_callback(fn, context=context)

    def remove_done_callback(self, fn: Wakeup, /) -> int:
        """Remove *fn*; how often it was there."""
        if self._first is not None and self._first[0] == fn:
            self._first = None
            return 1
        return super().remove_done_callback(fn)

    def resolve(self, result: T) -> None:
        """Set the result; step the task that waits, if no other task is running now."""
        self._end(self.set_result, result)

    def fail(self, error: BaseException) -> None:
        """Set the exception, in the same way."""
        self._end(self.set_exception, error)

    def _end(self, end: Callable[[Any], object], outcome: object) -> None:
        first, self._first = self._first, None
        if first is not None and asyncio.current_task(self.get_loop()) is not None:
            super().add_done_callback(first[0], context=first[1])
            first = None
        end(outcome)
        if first is not None:
            fn, context = first
            if context is None:
                fn(self)
            else:
                context.run(fn, self)

    def cancel(self, msg: Any = None) -> bool:
        """Cancel, telling the first waiter as any other."""
        if self._first is not None:
            (fn, context), self._first = self._first, None
            super().add_done_callback(fn, context=context)
        return super().cancel(msg)
