"""A mailbox: what one task is to do next. Owns the wait for it, which no cancellation ends.

Refuses to know: what is in the letters.

Assumes: every method is called on the loop's thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol


class Work(Protocol):
    """What a mailbox carries: something to do in the task that reads it."""

    async def perform(self) -> None:
        """Do it. Never raises, but for the cancellation that ends the task."""


class _PatientFuture(asyncio.Future[None]):
    """A future that a cancellation of its task does not wake.

    ``Task.cancel`` asks the future that the task waits for; when that says no, the cancellation
    stays pending in the task until it runs again. So the idle wait neither swallows a cancellation
    nor spins on it. In a loop that no longer runs, nobody would ever wake the task: there, the
    cancellation (``asyncio.run`` shutting down) goes through.
    """

    def cancel(self, msg: Any = None) -> bool:
        """Cancel only in a loop that does not run."""
        return not self.get_loop().is_running() and super().cancel(msg)


class Mailbox:
    """What one task is to do next. One reader; writers on the loop's thread."""

    __slots__ = ("_items", "_loop", "_waiter", "pending")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[Work | None] = deque()
        self._waiter: _PatientFuture | None = None
        self.pending: asyncio.CancelledError | None = None

    def put(self, item: Work | None) -> None:
        """Add *item*; None tells the reader to leave."""
        self._items.append(item)
        self._wake()

    def put_first(self, item: Work) -> None:
        """Add *item*, which has begun, before all others: one may be the word to leave."""
        self._items.appendleft(item)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def idle(self) -> bool:
        """Whether the reader waits, and nothing has come for it."""
        return self._waiter is not None and not self._waiter.done()

    async def get(self) -> Work | None:
        """The next item. A cancellation that comes meanwhile is kept in ``pending``.

        Raises:
            asyncio.CancelledError: The loop is shutting down.
        """
        while not self._items:
            self._waiter = waiter = _PatientFuture(loop=self._loop)
            try:
                await waiter
            except asyncio.CancelledError as error:
                if waiter.cancelled():
                    raise
                self.pending = error
            finally:
                self._waiter = None
        return self._items.popleft()

    def get_nowait(self) -> Work | None:
        """The next item; None, too, where there is none."""
        return self._items.popleft() if self._items else None

    def redeliver(self) -> None:
        """Let a cancellation that came during :meth:`get` arrive at the reader's next ``await``.

        ``cancel`` and ``uncancel`` together leave the count of requests as it was; a scope that
        was left in the meantime has taken its own request back, so then there is nothing to do.
        """
        pending, self.pending = self.pending, None
        task = asyncio.current_task(self._loop)
        if pending is None or task is None or not task.cancelling():
            return
        asyncio.Task.cancel(task, *pending.args)
        task.uncancel()
