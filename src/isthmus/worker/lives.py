"""The processes of one session, one after the other. Owns which one there is, how it is begun, and
the event loop on which it is looked after.

Refuses to know: what is asked of a worker.

Threads: the loop's, where a method does not say otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future as ConcurrentFuture
from typing import Any, TypeVar

from isthmus.errors import LoopError, SessionClosedError, WorkerDied
from isthmus.wire import replies
from isthmus.worker.supervisor import Supervisor, look_at

T = TypeVar("T")

Opening = Callable[[], dict[str, Any]]
"""Gives the fields of ``Open``, as they are then."""

Source = Callable[[Callable[[], Supervisor], Opening, float | None], Awaitable[Supervisor]]
"""Gives what looks after a worker in which the session is open: made by the first argument."""


Sink = Callable[[Supervisor, float], Awaitable[replies.Ended | None]]
"""Closes the session of a worker, within bounds; what the worker then says would not end."""


async def start_one(
    new: Callable[[], Supervisor], opening: Opening, timeout: float | None
) -> Supervisor:
    """Start a process."""
    supervisor = new()
    await supervisor.start(opening(), timeout)
    return supervisor


class Lives:
    """The worker of a session: the one that there is, and those that follow.

    Arguments:
        name: The session's name.
        supervisor: Makes what looks after a process.
        opening: Gives the fields of ``Open``.
        start_timeout: Seconds that a worker may take to start; None sets no bound.
        source: Where workers come from.

    Attributes:
        source: As above.
        sink: Where the worker goes when the session is closed.
        loop: The session's event loop: the one in which it was used first; None before.
        supervisor: Of the process that there is, or was last.
        is_closing: There will be no other one.
    """

    def __init__(
        self,
        name: str,
        supervisor: Callable[[], Supervisor],
        opening: Opening,
        start_timeout: float | None,
        source: Source = start_one,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.supervisor: Supervisor | None = None
        self.is_closing = False
        self.name = name
        self._new_supervisor = supervisor
        self._opening = opening
        self._start_timeout = start_timeout
        self.source = source
        self.sink: Sink = Supervisor.close
        self._starting: asyncio.Task[None] | None = None
        self._early: list[_Early] = []

    def check_open(self) -> None:
        """Refuse what comes after the end. Threads: any.

        Raises:
            SessionClosedError: The session is closed.
        """
        if self.is_closing:
            raise SessionClosedError(f"session {self.name!r} is closed; open a new one")

    # -- beginning and end -------------------------------------------------------------------

    async def worker(self) -> Supervisor:
        """The worker, started if there is none yet.

        Raises:
            SessionClosedError: The session is closed.
            WorkerStartError: It could not be started.
        """
        self.check_open()
        if self.supervisor is None:
            await asyncio.shield(self._ensure_start())
            self.check_open()
        if self.supervisor is None:
            raise WorkerDied(f"the worker of session {self.name!r} was ended")
        return self.supervisor

    def _ensure_start(self) -> asyncio.Task[None]:
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
            self._starting.add_done_callback(self._started)
        return self._starting

    async def _start(self) -> None:
        supervisor = await self.source(self._new_supervisor, self._opening, self._start_timeout)
        self.supervisor = supervisor
        early, self._early = self._early, []
        for each in early:
            each.send(supervisor)

    def _started(self, task: asyncio.Task[None]) -> None:
        """It has succeeded or failed; who waits has the error, if anybody still does."""
        self._starting = None
        early, self._early = self._early, []
        for each in early if look_at(task) else ():
            error = None if task.cancelled() else task.exception()
            each.fail(error or SessionClosedError(f"session {self.name!r} was closed"))

    async def restart(self, timeout: float) -> None:
        """End the worker there is, within bounds, and start another."""
        supervisor, self.supervisor = self.supervisor, None
        if supervisor is not None:
            await supervisor.close(timeout)
        await self.worker()

    async def close(self, timeout: float) -> replies.Ended | None:
        """End the worker for good; what it says would not end, if it could still say so."""
        self.is_closing = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        supervisor, self.supervisor = self.supervisor, None
        return None if supervisor is None else await self.sink(supervisor, timeout)

    # -- the loop ----------------------------------------------------------------------------

    def at_home(self, work: Coroutine[Any, Any, T]) -> Awaitable[T]:
        """What to await for *work* to be done on the session's loop. Threads: any running loop."""
        here = asyncio.get_running_loop()
        if self.loop is None:
            self.loop = here
        if self.loop is here:
            return work
        if not self.loop.is_running():
            work.close()
            raise LoopError(f"the loop of session {self.name!r} does not run: {self.loop!r}")
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def soon(self, function: Callable[..., object], *arguments: object) -> None:
        """Call *function* on the session's loop: now, if that runs here. Threads: any."""
        if self.loop is None or asyncio._get_running_loop() is self.loop:
            function(*arguments)
        else:
            self.loop.call_soon_threadsafe(function, *arguments)

    # -- requests that are sent at once ------------------------------------------------------

    def begin(self, kind: Callable[..., Any], **fields: Any) -> Awaitable[Any]:
        """Send a request before all that is asked later; what may be awaited for its answer.

        Raises:
            LoopError: No event loop runs here, and the session has none.

        Threads: any.
        """
        here = asyncio._get_running_loop()
        loop = self.loop = self.loop or here
        if loop is None or (loop is not here and not loop.is_running()):
            raise LoopError(f"session {self.name!r} has no event loop that runs")
        if loop is here:
            return self._begin_here(kind, fields)
        return _Elsewhere(asyncio.run_coroutine_threadsafe(self._begin_there(kind, fields), loop))

    async def _begin_there(self, kind: Callable[..., Any], fields: dict[str, Any]) -> Any:
        return await self._begin_here(kind, fields)

    def _begin_here(self, kind: Callable[..., Any], fields: dict[str, Any]) -> asyncio.Future[Any]:
        """Send a request now; or first of all when the worker, which is not there yet, is."""
        if self.supervisor is None:
            early = _Early(kind, fields)
            self._early.append(early)
            self._ensure_start()
            return early.answer
        return self.supervisor.ask(kind, **fields)


class _Elsewhere(Awaitable[T]):
    """The answer to a request that was begun on another loop than the session's, or on none."""

    def __init__(self, future: ConcurrentFuture[T]) -> None:
        self._future = future

    def __await__(self) -> Any:
        return asyncio.wrap_future(self._future).__await__()


class _Early:
    """A request for a worker that is not there yet.

    Attributes:
        answer: What becomes of it.
    """

    def __init__(self, kind: Callable[..., Any], fields: dict[str, Any]) -> None:
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._kind = kind
        self._fields = fields

    def send(self, worker: Supervisor) -> None:
        """The worker is there."""
        worker.ask(self._kind, **self._fields).add_done_callback(self._answered)

    def fail(self, error: BaseException) -> None:
        """There will be none."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def _answered(self, reply: asyncio.Future[Any]) -> None:
        if look_at(reply):
            self.fail(reply.exception() or asyncio.CancelledError())
        elif not self.answer.done():
            self.answer.set_result(reply.result())
