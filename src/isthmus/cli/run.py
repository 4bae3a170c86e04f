"""A run: a program's cells in a session, from first to last. Owns order, stopping, exit status.

Refuses to know: what the cells look like on a screen, what the command line looks like.

Assumes: the main thread, which is where Ctrl-C arrives.
"""

from __future__ import annotations

import asyncio
import builtins
import os
import signal
import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

from isthmus import AnySession, CellResult, RequestedContext, Session, ThreadAwareLoop
from isthmus.cli.channel import Channel
from isthmus.cli.program import Program
from isthmus.cli.report import Report, Tally
from isthmus.cli.script import ScriptCell

SUCCESS, FAILURE, UNUSABLE = 0, 1, 2

STOP_SECONDS = 1.0
"""How long a cell may take to end that was told to; from the air. Python cannot interrupt a thread
that is blocked in C code."""

INTERRUPTED = 128 + signal.SIGINT
"""What shells report of a program that Ctrl-C has ended: 130."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run a program.

    Attributes:
        context: Where cells run that do not say.
        timeout: Seconds that a cell may take, and coroutines left behind at the end; None sets no
            bound.
        keep_going: Run the cells behind one that has failed.
        arguments: What the program sees as ``sys.argv[1:]``.
        worker: Run the cells in a process of their own.
    """

    context: RequestedContext = "async"
    timeout: float | None = None
    keep_going: bool = False
    arguments: tuple[str, ...] = ()
    worker: bool = False


def run_program(program: Program, options: RunOptions, report: Report, out: Channel) -> int:
    """Run *program*, show it through *report*, and give the exit status.

    The run stops when nobody reads *out* any more.

    Threads: the main thread, with no event loop running in it.
    """
    run = _kind(options)(program, options, report)
    out.on_broken = lambda: run.stop(FAILURE)
    try:
        with (
            script_environment(program, options.arguments),
            stopped_by_ctrl_c(run),
            asyncio.Runner(loop_factory=ThreadAwareLoop) as runner,
        ):
            status = runner.run(run.main())
            if run.stuck:  # the runner would wait for it for ever
                run.leave(status)
            return status
    finally:
        report.close()


def _kind(options: RunOptions) -> type[ProgramRun]:
    if not options.worker:
        return ProgramRun
    from isthmus.cli.worker_run import WorkerRun  # it builds on this module

    return WorkerRun


class ProgramRun:
    """One program on its way through one session."""

    def __init__(self, program: Program, options: RunOptions, report: Report) -> None:
        self._program = program
        self._options = options
        self._report = report
        self._tally = Tally(len(program.cells))
        self._session: AnySession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._given_up = asyncio.Event()
        self._settling = False
        self.stopped_with: int | None = None
        """The exit status of a run that was stopped."""
        self.stuck = False
        """Some code on the loop would not end."""

    async def main(self) -> int:
        """Run all of it; the exit status."""
        started = time.monotonic()
        self._loop = asyncio.get_running_loop()
        session = self._session = self._open()
        try:
            status = await self._unless_given_up(self._run(session))
        finally:
            await self._close()
        self.stuck = await _tasks_remain() or self.stuck
        self._tally.seconds = time.monotonic() - started
        if self.stopped_with == INTERRUPTED:
            self._report.notice("interrupted by Ctrl-C")
        self._report.run_ended(self._tally)
        return status if self.stopped_with is None else self.stopped_with

    def stop(self, status: int) -> None:
        """Stop what runs, and leave with *status*. Threads: any; signal handlers too."""
        self.stopped_with = status
        if self._session is not None:
            self._session.interrupt()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._give_up_soon)

    def leave(self, status: int) -> NoReturn:
        """End the process, whatever still runs in it. Nothing is waited for or cleaned up."""
        self._report.close()
        os._exit(status)

    def _give_up_soon(self) -> None:
        """Let the cell end; nothing else is worth waiting for."""
        assert self._loop is not None
        self._loop.call_later(0.0 if self._settling else STOP_SECONDS, self._given_up.set)

    async def _unless_given_up(self, work: Coroutine[Any, Any, int]) -> int:
        """Wait for *work*, or until a stopped run is given up; its result is then FAILURE."""
        task = asyncio.ensure_future(work)
        waiter = asyncio.ensure_future(self._given_up.wait())
        try:
            await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                await self._close()
        finally:
            task.cancel()
            waiter.cancel()
            await asyncio.wait({task, waiter}, timeout=STOP_SECONDS)
        return task.result() if task.done() and not task.cancelled() else FAILURE

    @property
    def _session_name(self) -> str:
        return self._program.path.stem if self._program.path is not None else "stdin"

    def _open(self) -> AnySession:
        """A session whose module is what ``__main__`` would be under ``python FILE``."""
        path = self._program.path
        session = Session(
            self._session_name,
            transport=self._report,
            context=self._options.context,
            timeout=self._options.timeout,
            main=True,
            file=None if path is None else str(path),
            input=builtins.input,
        )
        if path is None:
            session.namespace.pop("__file__", None)
        session.namespace["__doc__"] = self._program.docstring
        return session

    async def _run(self, session: AnySession) -> int:
        """Run the cells, then wait for what they have left behind; the exit status."""
        status = await self._run_cells(session)
        return await self._settle(session) if status is None else status

    async def _run_cells(self, session: AnySession) -> int | None:
        """Run the cells. The exit status, or None when all have succeeded."""
        status = None
        for cell in self._program.cells:
            if self.stopped_with is not None:
                return self.stopped_with
            error = (await self._run_cell(session, cell)).error
            if isinstance(error, SystemExit):
                return self._exit(error)
            if error is not None:
                status = FAILURE
                if not self._options.keep_going:
                    break
        return status

    async def _run_cell(self, session: AnySession, cell: ScriptCell) -> CellResult:
        result = await self._result(session, cell)
        self._report.cell_ended(result)
        if result.error is None or _exit_status(result.error) == SUCCESS:
            self._tally.succeeded += 1
        else:
            self._tally.failed += 1
        return result

    async def _result(self, session: AnySession, cell: ScriptCell) -> CellResult:
        return await session.run(
            cell.padded_source, context=cell.context, filename=cell.filename, title=cell.title
        )

    def _exit(self, error: SystemExit) -> int:
        """End as ``python FILE`` does: with a number, or with 1 and the message printed."""
        if error.code is not None and not isinstance(error.code, int):
            self._report.notice(str(error.code))
        return _exit_status(error) or SUCCESS

    async def _settle(self, session: AnySession) -> int:
        """Wait for coroutines that cells have left behind under a name."""
        settled = await session.await_pending_coroutines(0)
        errors = dict(settled.errors)
        if settled.unfinished:
            names = ", ".join(settled.unfinished)
            self._report.notice(f"waiting for what was left behind: {names}")
            self._settling = True
            settled = await session.await_pending_coroutines(self._options.timeout)
            errors |= settled.errors
        if self.stopped_with is not None:
            return self.stopped_with
        for name, error in errors.items():
            self._report.coroutine_failed(name, error)
        if settled.unfinished:
            self._report.notice(f"did not end in time: {', '.join(settled.unfinished)}")
        return FAILURE if errors or settled.unfinished else SUCCESS

    async def _close(self) -> None:
        """Close the session and say what would not end. Idempotent."""
        session, self._session = self._session, None
        if session is None:
            return
        left = await session.close()
        if not left.clean:
            self._report.notice(f"would not end: {', '.join(left.left)}")


async def _tasks_remain() -> bool:
    """Cancel all other tasks; whether some would not end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    return bool(tasks and (await asyncio.wait(tasks, timeout=STOP_SECONDS))[1])


def _exit_status(error: BaseException) -> int | None:
    """The status that ``sys.exit`` asked for; None when *error* is not from there."""
    if not isinstance(error, SystemExit):
        return None
    if error.code is None:
        return SUCCESS
    return error.code & 0xFF if isinstance(error.code, int) else FAILURE


@contextmanager
def script_environment(program: Program, arguments: tuple[str, ...]) -> Iterator[None]:
    """``sys.argv`` and ``sys.path`` as under ``python FILE``, and back again.

    Under ``-P`` or ``PYTHONSAFEPATH`` Python adds no folder to the path; nor is one added here.
    """
    argv, path = sys.argv, list(sys.path)
    sys.argv = [program.name, *arguments]
    if not sys.flags.safe_path:
        folder = "" if program.path is None else str(program.path.resolve().parent)
        sys.path[0:1] = [folder]
    try:
        yield
    finally:
        sys.argv = argv
        sys.path[:] = path


@contextmanager
def stopped_by_ctrl_c(run: ProgramRun) -> Iterator[None]:
    """Have Ctrl-C stop *run*, and a second one leave at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        if run.stopped_with == INTERRUPTED:
            run.leave(INTERRUPTED)
        run.stop(INTERRUPTED)

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
