"""Work on another event loop. Owns the task there, and what passes between the two loops.

Refuses to know: whose work it is, and why it belongs there.

Guarantees: what one delegate is given is done in order, in one task.
Assumes: the other loop goes on running until the delegate is dismissed; where it is shut down, as
by ``asyncio.run``, callers get ``CancelledError``.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from types import CoroutineType
from typing import Any

from isthmus.errors import LoopError
from isthmus.home_task import has_begun, made_by_scope, take_back
from isthmus.jobs import current_job
from isthmus.mailbox import Mailbox
from isthmus.portal import await_for, outcome_in_portal


class Delegate:
    """A task on another loop that does what a caller elsewhere wants done, one thing at a time.

    One task for all, so that a timeout or a task group that is entered by one can be left by the
    next. It has a copy of the context variables that its maker had.

    Arguments:
        loop: The loop, which runs in another thread.
        began: Called there with the task, once there is one.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        began: Callable[[DelegateTask], object] | None = None,
    ) -> None:
        self.loop = loop
        self._began = began
        self._context = copy_context()
        self._mailbox = Mailbox(loop)
        self._task: DelegateTask | None = None
        self._current: Order | None = None
        self._cancels = 0

    # -- the caller's side -----------------------------------------------------------------------

    async def perform(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Have *work* awaited there, and give its result or raise its error.

        Raises:
            LoopError: The loop is closed.

        Cancel: cancels *work* there and does not wait for its end; an error that it raises then
        goes to the exception handler of the loop.
        """
        order = self.begin(work)
        try:
            return await asyncio.wrap_future(order.outcome)
        except asyncio.CancelledError:
            self.cancel(order)
            raise

    def begin(self, work: Coroutine[Any, Any, Any], given: object = None) -> Order:
        """Have *work* awaited there, after what was begun before. Threads: any.

        Arguments:
            work: What to await.
            given: What *work* itself awaits; closed with it where it is a coroutine.

        Raises:
            LoopError: The loop is closed. *work* is closed as well.
        """
        order = Order(self, work, Future(), given)
        try:
            self.loop.call_soon_threadsafe(self._accept, order)
        except RuntimeError as error:
            order.refuse()
            raise LoopError(f"{self.loop!r} has just been closed") from error
        return order

    def cancel(self, order: Order) -> None:
        """Cancel what was begun, without waiting for its end. Threads: any."""
        order.outcome.cancel()
        self._say(self._cancel, order)

    def dismiss(self) -> None:
        """Have the task end once it has done what it was given. Idempotent. Threads: any."""
        self._say(self._mailbox.put, None)

    def _say(self, callback: Callable[..., object], *args: object) -> None:
        with suppress(RuntimeError):  # the loop is closed, and its tasks have been cancelled
            self.loop.call_soon_threadsafe(callback, *args)

    # -- the other loop's side -------------------------------------------------------------------

    def _accept(self, order: Order) -> None:
        # Not by the loop's factory: the task is the host's, whatever the context variables say.
        if self._task is None:
            self._task = DelegateTask(self._mailbox, self.loop, self._context)
            if self._began is not None:
                self._began(self._task)
        if self._task.done() or self._task.ending:
            order.refuse()
        else:
            self._mailbox.put(order)

    def _cancel(self, order: Order) -> None:
        if self._current is order and self._task is not None:
            self._cancels += 1
            asyncio.Task.cancel(self._task)

    async def perform_order(self, order: Order) -> None:
        """Do what one order says. In the task."""
        assert self._task is not None
        if order.outcome.cancelled():
            order.refuse()
            return
        self._current = order
        wait = functools.partial(await_for, current_job.get(), order.work)
        value, error = await outcome_in_portal(wait)
        self._current = None
        if self._cancels:
            count, self._cancels = self._cancels, 0
            await take_back(count)
        elif isinstance(error, asyncio.CancelledError) and self._task.ending:
            order.refuse()
            raise error
        self._settle(order, value, error)

    def _settle(self, order: Order, value: Any, error: BaseException | None) -> None:
        outcome = order.outcome
        if isinstance(error, asyncio.CancelledError):
            outcome.cancel()
        elif outcome.set_running_or_notify_cancel():
            if error is None:
                outcome.set_result(value)
            else:
                outcome.set_exception(error)
        elif error is not None:
            message = "a capability failed whose caller had been cancelled"
            self.loop.call_exception_handler({"message": message, "exception": error})


class DelegateTask(asyncio.Task[None]):
    """The task itself. Made directly, so that no task factory has a say in it.

    A scope that one piece of work has entered may cancel it, and does then what it does in one long
    coroutine. Any other cancellation (a session that closes, the loop's shutdown) is meant for
    good.

    Attributes:
        ending: It takes nothing more.
        thread: The thread for which it waits, if it does so for one alone.
    """

    thread: threading.Thread | None = None

    def __init__(self, mailbox: Mailbox, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self.ending = False
        self._mailbox = mailbox
        super().__init__(_serve(mailbox), loop=loop, context=context)

    def cancel(self, msg: Any = None) -> bool:
        """Cancel as any task; where no scope asks, end."""
        if not made_by_scope(sys._getframe(1)):
            self.ending = True
            if has_begun(self):
                self._mailbox.put(None)
            else:  # it never will
                _refuse_all(self._mailbox)
        return super().cancel(msg)


async def _serve(mailbox: Mailbox) -> None:
    """Perform what comes until told to leave, and refuse the rest."""
    try:
        while (order := await mailbox.get()) is not None:
            mailbox.redeliver()
            await order.perform()
    finally:
        _refuse_all(mailbox)


def _refuse_all(mailbox: Mailbox) -> None:
    while isinstance(left := mailbox.get_nowait(), Order):
        left.refuse()


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """Something to be awaited by a delegate, and where to say how it ended."""

    delegate: Delegate
    work: Coroutine[Any, Any, Any]
    outcome: Future[Any]
    given: object = None

    async def perform(self) -> None:
        """Do it. In the delegate's task."""
        await self.delegate.perform_order(self)

    def refuse(self) -> None:
        """Say that it was cancelled; it may not even have begun."""
        self.work.close()
        if isinstance(self.given, CoroutineType):
            self.given.close()
        self.outcome.cancel()


async def on_loop(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> Any:
    """Await *work* in a task of its own on *loop*. For the rest see :meth:`Delegate.perform`."""
    delegate = Delegate(loop)
    try:
        return await delegate.perform(work)
    finally:
        delegate.dismiss()


async def awaiting(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Call *function* and await what it returns, both where this coroutine runs."""
    return await function(*args)
