"""The three contexts behind one door. Owns how a run gets to its context and back to its caller.

Refuses to know: events, results, what happens at a cell's boundary.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

from isthmus.async_namespace import AsyncNamespaceManager, running_loop
from isthmus.cell_run import CellObserver, CellRun
from isthmus.errors import LoopError
from isthmus.events import CellResult, Context
from isthmus.home import Home
from isthmus.interrupts import main_thread_interrupts
from isthmus.jobs import Job, current_job
from isthmus.output import CellOutput

RequestedContext = Context | Literal["auto"]

GRACE_SECONDS = 0.05
"""How long a cell may take to end after it was told that its time is over."""


class ExecutionContextBridge:
    """Runs source in a namespace: on the event loop, in the home thread, or as sync code on the loop.

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
        """Run *code* as sync code on the loop's thread. For the rest see :meth:`execute_in_async`."""
        return await self._execute(code, "sync")

    async def _execute(self, code: str, context: Context) -> Any:
        run = self.prepare(code, context, number=self.manager.next_cell_number())
        await self.run(run)
        return result_of(run).unwrap()

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
        title: str = "",
        observer: CellObserver | None = None,
        output: CellOutput | None = None,
    ) -> CellRun:
        """Compile *code* for *context*; ``"auto"`` means async when it awaits, else thread.

        Raises:
            SyntaxError: *code* does not compile.
            TypeError: *code* is not a ``str``.
            ValueError: *context* is none.
        """
        manager = self.manager
        if context == "auto":
            probe = manager.compiler.compile(code, number=number, blocking=False, filename=filename)
            context = "async" if probe.awaits else "thread"
        elif context not in ("async", "thread", "sync"):
            raise ValueError(f"a context is 'async', 'thread', 'sync' or 'auto', not {context!r}")
        cell = manager.compiler.compile(
            code, number=number, blocking=context != "async", filename=filename
        )
        return CellRun(
            manager,
            cell,
            number=number,
            context=context,
            observer=observer,
            output=output,
            title=title,
        )

    async def run(
        self, run: CellRun, *, timeout: float | None = None, concurrent: bool = False
    ) -> None:
        """Run *run* in its context; its outcome is then in it.

        Arguments:
            timeout: Seconds from now until control returns; None sets no bound.
            concurrent: Beside the other cells instead of in order.

        Raises:
            SessionClosedError: The namespace is closed, or was before its turn came.
            LoopError: No loop runs here, or the home loop does not run.
        """
        home_loop = self.manager.loop
        here = running_loop()
        if home_loop is None or here is home_loop or home_loop.is_closed():
            await self._run_here(run, timeout, concurrent)
        elif not home_loop.is_running():
            raise LoopError(f"the loop of namespace {self.manager.name!r} does not run: {home_loop!r}")
        else:
            work = self._run_here(run, timeout, concurrent)
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, home_loop))

    async def _run_here(self, run: CellRun, timeout: float | None, concurrent: bool) -> None:
        home = self.manager.home()
        loop = home.loop
        job = run.job = Job(
            home,
            run.number,
            run.context,
            run.evaluate,
            awaits=run.cell.awaits,
            done=loop.create_future(),
        )
        job.output = run.output
        with self._deadline(home, run, timeout) if timeout is not None else nullcontext():
            await self._start(home, job, concurrent)
        if not run.evaluated:
            self._explain(run, home)

    @contextmanager
    def _deadline(self, home: Home, run: CellRun, timeout: float) -> Iterator[None]:
        """Stop *run* after *timeout* seconds: by the loop, or by a signal when the loop is hogged."""
        job = run.job
        assert job is not None
        run.deadline = time.perf_counter() + timeout
        alarm = home.loop.call_later(max(timeout, 0), self._expire, home, run)
        watched = home.on_main_thread and job.context != "thread"
        if watched:
            main_thread_interrupts.watch(job, max(timeout, 0))
        try:
            yield
        finally:
            alarm.cancel()
            if watched:
                main_thread_interrupts.forget(job)

    async def _start(self, home: Home, job: Job, concurrent: bool) -> None:
        """Start *job* in its way and wait for its end."""
        parent = current_job.get()
        if concurrent:
            home.start_concurrent(job)
        elif parent is not None and parent.owner is home and parent.state == "running":
            await home.run_nested(job, parent)
            return
        else:
            home.enqueue(job)
        await self._wait_for(home, job)

    async def _wait_for(self, home: Home, job: Job) -> None:
        """Wait until *job* has ended; when the caller is cancelled, cancel it and wait all the same."""
        try:
            await job.done
        except asyncio.CancelledError:
            if home.cancel(job):
                job.done = home.loop.create_future()
                await job.done
            raise

    def _expire(self, home: Home, run: CellRun) -> None:
        """The time of *run* is over: tell it, and give up on it soon."""
        job = run.job
        if job is not None and home.stop(job):
            home.loop.call_later(GRACE_SECONDS, self._give_up, home, job)

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
        jobs = [it for it in home.jobs() if number in (None, it.number) and it.state != "ended"]
        for job in jobs:
            if home.on_main_thread and job.context != "thread":
                main_thread_interrupts.watch(job)
            home.loop.call_soon_threadsafe(home.stop, job)
        return bool(jobs)

    def _explain(self, run: CellRun, home: Home) -> None:
        """Say why a run has an end but no outcome: it was stopped before, or gives none."""
        what = "is still running" if run.job is not None and run.job.abandoned else "never started"
        run.error = asyncio.CancelledError(f"cell {run.number} {what}")


def result_of(run: CellRun) -> CellResult:
    """The result of *run*, as far as it has got."""
    output = run.output
    return CellResult(
        cell=run.number,
        context=run.context,
        filename=run.cell.filename,
        status=run.status,
        value=run.value,
        error=run.error,
        stdout=output.text("stdout") if output is not None else "",
        stderr=output.text("stderr") if output is not None else "",
        bound=run.names_bound(),
        deleted=run.names_deleted(),
        exact=run.exact and run.error is None,
        adopted=run.adopted,
        duration=run.duration,
        stopped=not (run.job is not None and run.job.abandoned),
    )
