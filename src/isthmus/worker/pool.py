"""Workers that wait, started and warm, for sessions. Owns how many there are, and who gets which.

Refuses to know: what sessions do, how a process is forked.

Guarantees: who waits is served in the order of coming; a worker that was handed to somebody who has
given up in that moment goes to the next; a worker that has died is given to nobody. Each worker is
in one of three places at any time, on its way, idle or in use, and counts against the pool's size
until its process has ended.

Threads: the loop's. Nothing in here is awaited between looking at what is idle and giving it away.
"""

from __future__ import annotations

import asyncio
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from os import PathLike
from types import TracebackType
from typing import Any, Literal, get_args

from isthmus.async_namespace import CLEAN_UP_SECONDS
from isthmus.durations import checked_seconds
from isthmus.ending import CloseReport
from isthmus.errors import (
    IsthmusError,
    LoopError,
    PoolClosedError,
    PoolFull,
    PoolTimeout,
    WorkerDied,
    WorkerStartError,
)
from isthmus.transport import Emitter
from isthmus.wire.parts import ProcessLimits
from isthmus.wire.replies import Ended, Vacated
from isthmus.worker.callbacks import HostFunctions
from isthmus.worker.flight import Flight
from isthmus.worker.fork_server import ForkServer
from isthmus.worker.launch import Launch
from isthmus.worker.limits import WorkerLimits
from isthmus.worker.lives import Opening
from isthmus.worker.pool_stats import COUNTED, PoolReport, PoolStats
from isthmus.worker.session import GRACE_SECONDS, START_SECONDS, WorkerSession
from isthmus.worker.supervisor import Supervisor

STARTS_AT_ONCE = 4
"""How many workers are on their way at once: more would only share the processors; from the air."""

REPLACEMENT_SECONDS = 0.01
"""How long after a worker was given to a session another is started in its place, where nobody
waits for one: starting it at once would take the processor from the session's first cell; from the
air."""

CLOSED = "its pool was closed"

OnReturn = Literal["replace", "reset"]
"""What becomes of a worker that comes back: another takes its place, or it is made what it was."""

_OF_THE_POOL = frozenset({"python", "cwd", "env", "fork_server"})


class _Member:
    """One worker of a pool.

    Attributes:
        supervisor: Looks after it; another one as soon as a session has it.
        uses: How many sessions it has had.
        retire: Ends it when it has waited too long; None where it may wait for ever.
    """

    __slots__ = ("retire", "supervisor", "uses")

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.uses = 0
        self.retire: asyncio.TimerHandle | None = None


class WorkerPool:
    """Workers that are started before they are needed, and given to sessions.

    Use it as ``async with WorkerPool() as pool``, and then ``async with pool.session()``: that
    takes a worker, waits for one if need be, and gives it back at the end. It belongs to the event
    loop in which it is opened.

    A worker that comes back is ended, and another is forked in its place, in the background: what a
    cell has done to its process (modules it has changed, threads, descriptors, memory) ends with
    the process. With ``on_return="reset"`` it is made what it was, and given to the next: modules
    that were imported stay. Where it cannot be what it was it is ended all the same.

    Arguments:
        min_idle: How many workers wait, as long as *max_size* allows.
        max_size: How many there are at most, in use or not.
        max_waiting: How many sessions may wait for a worker; None sets no bound.
        timeout: Seconds that one of them waits; None sets no bound.
        max_idle_seconds: How long a worker waits before another takes its place; None for ever.
        on_return: What becomes of a worker that comes back: ``"replace"`` or ``"reset"``.
        max_uses: How many sessions it has before it is ended, where it is reset; None sets no
            bound.
        preload: Modules to import before forking. See :class:`ForkServer`.
        cwd: The workers' working directory; None for the host's.
        env: Their environment; None for the host's.
        limits: What each worker may use of the machine, over all its sessions.
        fork_server: What forks them, and is not closed with the pool; None to have one of its own.
        start_timeout: Seconds that a worker may take to start.

    Threads: one event loop. Close: :meth:`close`; idempotent.
    """

    def __init__(
        self,
        *,
        min_idle: int = 2,
        max_size: int = 10,
        max_waiting: int | None = None,
        timeout: float | None = 30.0,
        max_idle_seconds: float | None = None,
        on_return: OnReturn = "replace",
        max_uses: int | None = None,
        preload: Iterable[str] = (),
        cwd: str | PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        limits: WorkerLimits | None = None,
        fork_server: ForkServer | None = None,
        start_timeout: float | None = START_SECONDS,
    ) -> None:
        _check_sizes(min_idle, max_size, max_waiting, max_uses)
        if on_return not in get_args(OnReturn):
            raise ValueError(f"on_return is 'replace' or 'reset', not {on_return!r}")
        if max_uses is not None and on_return == "replace":
            raise ValueError("max_uses is for workers that are reset: each has one session else")
        if fork_server is not None and preload:
            raise ValueError("modules are preloaded by the fork server: name them there")
        self.min_idle, self.max_size, self.max_waiting = min_idle, max_size, max_waiting
        self.on_return, self.max_uses = on_return, max_uses
        self.timeout = checked_seconds(timeout, "timeout")
        self.max_idle_seconds = checked_seconds(max_idle_seconds, "max_idle_seconds")
        self._start_timeout = checked_seconds(start_timeout, "start_timeout")
        self._own_server = ForkServer(preload) if fork_server is None else None
        server = fork_server or self._own_server
        assert server is not None
        reuse = on_return == "reset"
        self._launch = Launch(server.python, cwd, env, limits or WorkerLimits(), server, reuse)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starts: set[asyncio.Task[Supervisor]] = set()
        self._idle: deque[_Member] = deque()
        self._in_use: set[_Member] = set()
        self._waiting: deque[asyncio.Future[_Member]] = deque()
        self._sessions: weakref.WeakSet[PooledSession] = weakref.WeakSet()
        self._all_ended = asyncio.Event()
        self._replacing: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._closing: asyncio.Task[PoolReport] | None = None
        self._counts = dict.fromkeys(COUNTED, 0)
        self._waited, self._longest_wait = 0.0, 0.0
        self._last_problem = self._last_unfit = ""

    # -- what users call ---------------------------------------------------------------------

    def session(self, name: str = "session", **options: Any) -> PooledSession:
        """A session that takes a worker when it is opened, and gives it back when it is closed.

        Arguments:
            name: The session's name.
            options: Those of :class:`WorkerSession`, but for those of the process, which are the
                pool's. *limits* can be lower than the pool's, and hold from then on.

        Raises:
            TypeError: *options* has one that is the pool's.
        """
        return PooledSession(self, name, **options)

    async def acquire(self, name: str = "session", **options: Any) -> PooledSession:
        """The same, opened. Give it back by :meth:`release`, or close it, which is the same.

        Raises:
            PoolTimeout: No worker was free in time.
            PoolFull: Too many wait already.
            PoolClosedError: The pool is closed.
            WorkerStartError: A worker could not be started.
            LoopError: The pool belongs to another event loop.

        Cancel: gives up the place among those who wait.
        """
        session = self.session(name, **options)
        await session.__aenter__()
        return session

    async def release(self, session: PooledSession) -> CloseReport:
        """Close *session*, whose worker goes back. Returns what :meth:`close` of it does."""
        return await session.close()

    def stats(self) -> PoolStats:
        """What there is now, and what there was."""
        return PoolStats(
            idle=len(self._idle),
            in_use=len(self._in_use),
            starting=len(self._starts),
            waiting=len(self._waiting),
            **self._counts,
            waited_seconds=self._waited,
            longest_wait_seconds=self._longest_wait,
            last_problem=self._last_problem,
            last_unfit=self._last_unfit,
        )

    @property
    def closed(self) -> bool:
        """Whether the pool has ended, or is about to."""
        return self._is_closed

    # -- giving ------------------------------------------------------------------------------

    async def begin(
        self, new: Callable[[], Supervisor], opening: Opening, timeout: float | None
    ) -> Supervisor:
        """A worker for a session, in which it is open: a :data:`~isthmus.worker.lives.Source`.

        One that turns out to have died meanwhile is told of by its supervisor, and another taken;
        the last of :attr:`max_size` that do so in a row fails the session.
        """
        for left in reversed(range(self.max_size)):
            member = await self._take()
            supervisor = new()
            supervisor.adopt(member.supervisor)
            member.supervisor = supervisor
            self._watch(member)
            try:
                await supervisor.start(opening(), timeout)
            except WorkerStartError as error:
                if not left or not isinstance(error.__cause__, WorkerDied):
                    raise
            else:
                self._counts["reused"] += bool(member.uses)
                member.uses += 1
                return supervisor
        raise AssertionError("unreachable")

    async def _take(self) -> _Member:
        """The next worker that is free, for who asks first."""
        self._check_usable()
        if self._would_wait() and len(self._waiting) == self.max_waiting:
            raise PoolFull(f"{self.max_waiting} sessions wait for a worker already")
        waiter: asyncio.Future[_Member] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._serve()
        began, member = time.monotonic(), None
        try:
            async with asyncio.timeout(self.timeout):
                member = await waiter
        except TimeoutError:
            raise PoolTimeout(f"no worker was free within {self.timeout} s") from None
        finally:
            if member is None:
                self._give_up(waiter)
        self._note_wait(time.monotonic() - began)
        return member

    def _give_up(self, waiter: asyncio.Future[_Member]) -> None:
        """Take *waiter* out of the queue; what it was given in this moment goes to the next."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        elif not waiter.cancelled() and waiter.exception() is None:
            member = waiter.result()
            if member in self._in_use:  # and has not died
                self._in_use.remove(member)
                self._make_idle(member, self._idle.appendleft)
        self._serve()

    def _serve(self) -> None:
        """Give what is idle to who waits, and see to it that there will be more."""
        while self._waiting and self._idle:
            waiter = self._waiting.popleft()
            if waiter.done():  # cancelled: he will be here himself in a moment
                continue
            member = self._idle.popleft()
            if member.retire is not None:
                member.retire.cancel()
            self._in_use.add(member)
            waiter.set_result(member)
        if self._waiting:
            self._fill()
        else:
            self._fill_soon()

    def _would_wait(self) -> bool:
        return len(self._idle) <= len(self._waiting)

    def _note_wait(self, seconds: float) -> None:
        self._counts["served"] += 1
        self._waited += seconds
        self._longest_wait = max(self._longest_wait, seconds)

    # -- starting ----------------------------------------------------------------------------

    def _fill_soon(self) -> None:
        if self._replacing is None and not self._is_closed:
            loop = asyncio.get_running_loop()
            self._replacing = loop.call_later(REPLACEMENT_SECONDS, self._fill)

    def _fill(self) -> None:
        """Start as many workers as are wanted and allowed."""
        if self._replacing is not None:
            self._replacing.cancel()
            self._replacing = None
        if self._is_closed:
            return
        wanted = self.min_idle + len(self._waiting) - len(self._idle) - len(self._starts)
        allowed = self.max_size - len(self._idle) - len(self._in_use) - len(self._starts)
        for _ in range(min(wanted, allowed, STARTS_AT_ONCE - len(self._starts))):
            start = asyncio.ensure_future(self._start())
            self._starts.add(start)
            start.add_done_callback(self._started)

    async def _start(self) -> Supervisor:
        """Start one worker, which then waits."""
        supervisor = self._new_supervisor()
        await supervisor.start(None, self._start_timeout)
        return supervisor

    def _new_supervisor(self) -> Supervisor:
        """What looks after a worker that waits."""
        flight = Flight("", Emitter(None), 0, trusted=False)
        functions = HostFunctions("", (), trusted=False)
        return Supervisor(self._launch, flight, functions, GRACE_SECONDS)

    def _started(self, start: asyncio.Task[Supervisor]) -> None:
        """A start has led to a worker, or not."""
        self._starts.discard(start)
        if start.cancelled():
            return
        if (error := start.exception()) is not None:
            self._counts["failed"] += 1
            self._last_problem = str(error)
            self._tell(error)
            return
        member = _Member(start.result())
        self._counts["started"] += 1
        self._make_idle(member, self._idle.append)
        self._watch(member)
        self._serve()

    def _tell(self, error: BaseException) -> None:
        """Tell who has waited longest. Where nobody waits, nothing is tried until somebody does."""
        waiter = next((it for it in self._waiting if not it.done()), None)
        if waiter is not None:
            self._waiting.remove(waiter)
            told = error if isinstance(error, IsthmusError) else WorkerStartError(str(error))
            waiter.set_exception(told)
            self._fill()

    def _make_idle(self, member: _Member, add: Callable[[_Member], object]) -> None:
        """Let *member* wait, for a bounded time."""
        add(member)
        if self.max_idle_seconds is not None:
            loop = asyncio.get_running_loop()
            why = "it has waited for longer than it may"
            member.retire = loop.call_later(self.max_idle_seconds, member.supervisor.kill, why)

    # -- taking back -------------------------------------------------------------------------

    async def take_back(self, supervisor: Supervisor, timeout: float) -> Ended | None:
        """Close a session, and have its worker wait for the next, or end it, which the pool hears.

        A :data:`~isthmus.worker.lives.Sink`. Cancel: the worker is ended.
        """
        member = next((it for it in self._in_use if it.supervisor is supervisor), None)
        if member is None or not self._may_reuse(member):
            return await supervisor.close(timeout)
        ended = await supervisor.vacate(timeout)
        if isinstance(ended, Vacated):
            self._reuse(member)
            return None
        self._counts["unfit"] += 1
        self._last_unfit = ended.unfit if ended is not None else str(supervisor.death)
        return ended

    def _may_reuse(self, member: _Member) -> bool:
        left = self.max_uses is None or member.uses < self.max_uses
        return self.on_return == "reset" and left and not self._is_closed

    def _reuse(self, member: _Member) -> None:
        """Have a worker wait, as it did before its session."""
        waiting = self._new_supervisor()
        waiting.adopt(member.supervisor)
        member.supervisor = waiting
        self._watch(member)
        if self._is_closed:
            waiting.kill(CLOSED)
        elif member in self._in_use:
            self._in_use.remove(member)
            self._make_idle(member, self._idle.append)
            self._serve()

    # -- ending ------------------------------------------------------------------------------

    def _watch(self, member: _Member) -> None:
        """Be told of its end, also if that was before. Its process does not keep the pool alive."""
        pool = weakref.ref(self)

        def ended() -> None:
            if (it := pool()) is not None:
                it._ended(member)

        member.supervisor.when_ended(ended)

    def _ended(self, member: _Member) -> None:
        """A process has ended; another may take its place."""
        if member.retire is not None:
            member.retire.cancel()
        if member in self._idle:
            self._idle.remove(member)
        elif member in self._in_use:
            self._in_use.remove(member)
        else:
            return
        if not member.supervisor.reason and not member.supervisor.is_closing:
            self._counts["died"] += 1
        if not self._idle and not self._in_use:
            self._all_ended.set()
        self._serve()

    async def close(self, timeout: float = CLEAN_UP_SECONDS) -> PoolReport:
        """Close the sessions that are still open, and end all workers.

        Who waits for a worker gets a :class:`PoolClosedError`.

        Arguments:
            timeout: Seconds for each of cells, tasks and thread of a session to end.

        Returns:
            What was still open. Idempotent.

        Raises:
            LoopError: The pool belongs to another event loop.

        Cancel: it goes on by itself.
        """
        self._check_loop()
        if self._closing is None:
            self._is_closed = True
            self._closing = asyncio.ensure_future(self._close(timeout))
        return await asyncio.shield(self._closing)

    async def _close(self, timeout: float) -> PoolReport:
        stats, sessions = self.stats(), [it for it in self._sessions if not it.closed]
        names = tuple(it.name for it in sessions if it.pid is not None)
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(PoolClosedError("the pool was closed"))
        if self._replacing is not None:
            self._replacing.cancel()
        for start in self._starts:
            start.cancel()
        reports = await asyncio.gather(*(it.close(timeout) for it in sessions))
        if self._starts:
            await asyncio.wait(self._starts)
        for member in tuple(self._idle):
            member.supervisor.kill(CLOSED)
        while self._idle or self._in_use:
            self._all_ended.clear()
            await self._all_ended.wait()
        if self._own_server is not None:
            await asyncio.to_thread(self._own_server.close)
        ended = zip(sessions, reports, strict=True)
        left = {it.name: report for it, report in ended if not report.clean}
        return PoolReport(names, left, stats)

    # -- being used --------------------------------------------------------------------------

    def enroll(self, session: PooledSession) -> None:
        """Close *session* with the pool, if it is still open then."""
        self._sessions.add(session)

    def _check_usable(self) -> None:
        self._check_loop()
        if self._is_closed:
            raise PoolClosedError("the pool is closed; open another")

    def _check_loop(self) -> None:
        here = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = here
        if self._loop is not here:
            raise LoopError(
                f"this pool belongs to the event loop {self._loop!r}, and this is {here!r}: "
                "open a pool in each loop; they may share a ForkServer"
            )

    async def __aenter__(self) -> WorkerPool:
        """Start the workers that are to wait; none of them is waited for."""
        self._check_usable()
        self._fill()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()

    def __del__(self) -> None:
        """Say that a pool was dropped without being closed, and end its workers."""
        idle = getattr(self, "_idle", ())
        if not idle:
            return
        warnings.warn(f"unclosed pool {self!r}", ResourceWarning, stacklevel=2, source=self)
        for member in idle:
            member.supervisor.discard()


class PooledSession(WorkerSession):
    """A session in a worker of a pool: a :class:`WorkerSession`, which gives it back when closed.

    :meth:`restart` ends the worker and takes another one, in its turn. A worker that has died has
    left its place in the pool, too.
    """

    def __init__(
        self,
        pool: WorkerPool,
        name: str = "session",
        *,
        limits: WorkerLimits | None = None,
        **options: Any,
    ) -> None:
        taken = sorted(_OF_THE_POOL & set(options))
        if taken:
            raise TypeError(f"{', '.join(taken)}: an option of the pool, not of its sessions")
        super().__init__(name, **options)
        self._lives.source = partial(_begin_within, pool, limits)
        self._lives.sink = pool.take_back
        pool.enroll(self)


async def _begin_within(
    pool: WorkerPool,
    limits: WorkerLimits | None,
    new: Callable[[], Supervisor],
    opening: Opening,
    timeout: float | None,
) -> Supervisor:
    """A worker that has *limits* from the session's beginning on, beside those of the pool."""
    given = None if limits is None else ProcessLimits(**asdict(limits))
    return await pool.begin(new, lambda: {**opening(), "limits": given}, timeout)


def _check_sizes(
    min_idle: int, max_size: int, max_waiting: int | None, max_uses: int | None
) -> None:
    for name, value, least in (
        ("min_idle", min_idle, 0),
        ("max_size", max_size, 1),
        ("max_waiting", 0 if max_waiting is None else max_waiting, 0),
        ("max_uses", 1 if max_uses is None else max_uses, 1),
    ):
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} is a whole number, not {value!r}")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value!r}")
