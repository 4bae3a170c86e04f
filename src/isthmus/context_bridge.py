"""The three contexts behind one door. Owns how a run gets to its context and back to its caller.

Refuses to know: events, results, what happens at a cell's boundary.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import sleep
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

from isthmus.async_namespace import AsyncNamespaceManager
from isthmus.call_run import Call, CallRun, names_async_function
from isthmus.cell_run import CellRun
from isthmus.events import Context
from isthmus.home import Home
from isthmus.interrupts import pursue, set_deadline
from isthmus.jobs import Job, ancestry, current_job

RequestedContext = Context | Literal["auto"]

_CONTEXTS = ("async", "thread", "sync", "auto")

GRACE_SECONDS = 0.04
"""How long a cell may take to end after it was told that its time is over: with all else, control
is back 50 ms after a deadline."""


def checked_context(context: RequestedContext) -> RequestedContext:
    """*context*, if it is one.

    Raises:
        ValueError: It is none.
    """
    if context not in _CONTEXTS:
        raise ValueError(f"a context is 'async', 'thread', 'sync' or 'auto', not {context!r}")
    return context


class _Caller:
    """The code that awaits a cell nested in it, in the task in which that runs.

    A cancellation of the task, and an interrupt of a cell that runs in it, reach the innermost code
    there, which is the nested cell's, and end with it. They are meant for its caller as well.
    """

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._requests = self._task.cancelling() if self._task is not None else 0
        self._since = time.monotonic()

    def check(self, parent: Job) -> None:
        """Not let the caller go on, whose cell is *parent*, if it was to stop meanwhile.

        Raises:
            asyncio.CancelledError: It was: by whoever stops cells, or by a scope that it is in.
        """
        for job in ancestry(parent):
            if job.task is self._task and job.pursuit and job.pursuit.ordered_since(self._since):
                raise asyncio.CancelledError(f"cell {job.number} was cancelled")
        task = self._task
        if task is None or task.cancelling() <= self._requests:
            return
        if not task._must_cancel:  # type: ignore[attr-defined]  # else the next await raises it
            raise asyncio.CancelledError("the task of the cell was cancelled")


class ExecutionContextBridge:
    """Runs source in a namespace: on the loop, in the home thread, or as sync code on the loop.

    Arguments:
        namespace_manager: The namespace; bridges and executors of one namespace share its home, so
            that the order of cells holds over all of them.

    Threads: any running loop; the work is done on the home loop.
    """

    def __init__(self, namespace_manager: AsyncNamespaceManager) -> None:
        self.manager = namespace_manager

    async def execute_in_async(self, code: str) -> Any:
        """Run *code* on the event loop; its top level may await. The value of its last expression.

        Raises:
            SyntaxError: *code* does not compile; nothing was run.
            SessionClosedError: The namespace is closed.
            Exception: What the code raises.
            CellError: The code ended with something that must not reach the host as it is.

        Cancel: cancels the cell and waits for its end.
        """
        return await self._execute(code, "async")

    async def execute_in_thread(self, code: str) -> Any:
        """Run *code* in the home thread. For the rest see :meth:`execute_in_async`."""
        return await self._execute(code, "thread")

    async def execute_sync_in_async(self, code: str) -> Any:
        """Run *code* as sync code on the loop. For the rest see :meth:`execute_in_async`."""
        return await self._execute(code, "sync")

    async def _execute(self, code: str, context: Context) -> Any:
        run = self.prepare(code, context, number=self.manager.next_cell_number())
        await self.run(run)
        return run.unwrap()

    @property
    def context_stack(self) -> tuple[Context, ...]:
        """The contexts entered, outermost first, where the caller is code of a cell; else empty."""
        stack: list[Context] = []
        job = current_job.get()
        while job is not None:
            stack.append(job.context)
            job = job.parent
        return tuple(reversed(stack))

    def prepare(
        self,
        code: str,
        context: RequestedContext,
        *,
        number: int,
        filename: str | None = None,
    ) -> CellRun:
        """Compile *code* for *context*; ``"auto"`` means async when it awaits, else thread.

        Raises:
            SyntaxError: *code* does not compile.
            TypeError: *code* is not a ``str``.
            ValueError: *context* is none.
        """
        compiler = self.manager.compiler
        checked_context(context)
        if context == "auto":
            probe = compiler.compile(code, number=number, blocking=False, filename=filename)
            context = "async" if probe.awaits else "thread"
        cell = compiler.compile(code, number=number, blocking=context != "async", filename=filename)
        return CellRun(self.manager, cell, number, context)

    def prepare_call(self, call: Call, context: RequestedContext, *, number: int) -> CallRun:
        """Prepare *call* for *context*; ``"auto"`` means async for an async function, else thread.

        Raises:
            TypeError: Its name is not a ``str``.
            ValueError: *context* is none.
        """
        if not isinstance(call.name, str):
            kind = type(call.name).__name__
            raise TypeError(f"a function is called by its name, a str, not by a {kind}")
        checked_context(context)
        if context == "auto":
            context = "async" if names_async_function(self.manager, call.name) else "thread"
        return CallRun(self.manager, call, number, context)

    async def run(
        self, run: CellRun, *, timeout: float | None = None, concurrent: bool = False
    ) -> None:
        """Run *run* in its context; its outcome is then in it.

        Arguments:
            timeout: Seconds from now until control returns, not negative; None sets no bound.
            concurrent: Beside the other cells instead of in order.

        Raises:
            SessionClosedError: The namespace is closed, or was before its turn came.
            LoopError: No loop runs here, or the home loop does not run.

        Cancel: cancels the cell, waits for its end, then goes on.
        """
        home = self.manager.home_of(asyncio.get_running_loop())
        if home is None:
            work = self.run(run, timeout=timeout, concurrent=concurrent)
            await self.manager.run_on_home_loop(work)
            return
        run.owner = home
        if timeout is not None or concurrent or current_job.get() is not None:
            await self._run_specially(home, run, timeout, concurrent)
        else:
            home.enqueue(run)
            if run.state != "ended":
                try:
                    await run.wait_future(home.loop)
                except asyncio.CancelledError:
                    await self._stop(home, run)
                    raise
        if not run.evaluated:
            what = "is still running" if run.abandoned else "was stopped before it started"
            run.error = asyncio.CancelledError(f"cell {run.number} {what}")
            run.duration = time.perf_counter() - run.started if run.started else 0.0
        elif home.has_hogged(run):
            await sleep(0)

    async def _run_specially(
        self, home: Home, run: CellRun, timeout: float | None, concurrent: bool
    ) -> None:
        """Run *run* in the way that suits its caller and its options."""
        parent = current_job.get()
        with self._deadline(home, run, timeout):
            if concurrent:
                home.start_concurrent(run)
            elif parent is not None and parent.owner is home and parent.state != "ended":
                caller = _Caller()
                await home.run_nested(run, parent)
                caller.check(parent)
            else:
                home.enqueue(run)
            try:
                if run.state != "ended":
                    await run.wait_future(home.loop)
            except asyncio.CancelledError:
                await self._stop(home, run)
                raise

    async def _stop(self, home: Home, run: CellRun) -> None:
        """The caller of *run* is cancelled: stop it, and wait for its end."""
        if home.stop(run):
            await run.wait_future(home.loop)

    @contextmanager
    def _deadline(self, home: Home, run: CellRun, timeout: float | None) -> Iterator[None]:
        """Stop *run* after *timeout* seconds: by the loop, or from outside when that is kept."""
        if timeout is None:
            yield
            return
        run.deadline = time.perf_counter() + timeout
        when = time.monotonic() + timeout
        alarm = home.loop.call_later(timeout, self._expire, home, run, when)
        pursuit = set_deadline(run, when)
        try:
            yield
        finally:
            alarm.cancel()
            if not run.abandoned:
                pursuit.end()

    def _expire(self, home: Home, run: CellRun, when: float) -> None:
        """The time of *run* is over: tell it, and give up on it soon."""
        if home.stop(run, when):
            home.loop.call_later(GRACE_SECONDS, self._give_up, home, run)

    def _give_up(self, home: Home, job: Job) -> None:
        """The code has not ended after it was told to: return control without it."""
        if job.state != "ended":
            home.abandon(job)

    def interrupt(self, number: int | None = None) -> bool:
        """Stop the cell with this number, or all that run; whether there was something to stop.

        Threads: any; signal handlers too.
        """
        home = self.manager.current_home
        if home is None:
            return False
        now = time.monotonic()
        jobs = [it for it in home.unended() if number in (None, it.number)]
        for job in jobs:
            if job.state != "queued":
                pursue(job, now)
            with suppress(RuntimeError):  # the loop is closed
                home.loop.call_soon_threadsafe(home.stop, job, now)
        return bool(jobs)
