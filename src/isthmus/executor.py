"""One cell from source to outcome: compile, run, synchronise, tell. Owns the executor.

Refuses to know: lifecycle, how a context works.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from isthmus.async_namespace import AsyncNamespaceManager
from isthmus.call_run import Call
from isthmus.cell_run import CellRun
from isthmus.cells import CompiledCell
from isthmus.context_bridge import ExecutionContextBridge, RequestedContext
from isthmus.durations import checked_seconds
from isthmus.events import (
    CellFinished,
    CellResult,
    CellStarted,
    CoroutineAdopted,
    CoroutineDropped,
    CoroutineSettled,
    LoopBlocked,
    NamespaceUpdated,
    Output,
    TaskFailed,
    ThreadDied,
)
from isthmus.failures import Failure
from isthmus.held_output import HeldOutput
from isthmus.jobs import JobOutput
from isthmus.live_output import LiveOutput, Ticker
from isthmus.loop_watch import LoopWatch
from isthmus.mime import rich_bundle
from isthmus.namespace_sync import NamespaceSynchronizer
from isthmus.output import DEFAULT_OUTPUT_LIMIT, CellOutput
from isthmus.tally import CellTally
from isthmus.tracebacks import format_error, safe_repr, safe_str, trim
from isthmus.transport import Emitter, Transport

BLOCKED_SECONDS = 1.0
"""After how long a loop that stands still is reported; from the air."""

LateOutput = Literal["origin", "current"]
"""Whose the output is of tasks and threads whose cell has ended: that cell's, or the cell's that
runs at the moment, if one does."""


class AsyncExecutor:
    """Runs cells in a namespace and tells a transport about it.

    Arguments:
        namespace: The namespace; several executors may share one, and its order of cells.
        transport: Where events go; None for nowhere.
        session_id: What events carry as their session; default: the namespace's name.
        output_limit: Characters of each stream kept in a result.
        late_output: To which cell goes what tasks and threads write whose cell has ended: to
            ``"origin"``, that cell, or to ``"current"``, the one that started last of those that
            run, if any do.
        blocked_seconds: After how many seconds a home loop that does not go round is reported by a
            :class:`~isthmus.events.LoopBlocked` event, if there is a transport; None for never.

    Attributes:
        tally: How many cells have run, how they ended, and how long they took.

    Threads: any running loop, for every method; the cells run on the namespace's home loop or in
    its home thread.
    """

    def __init__(
        self,
        namespace: AsyncNamespaceManager,
        transport: Transport | None = None,
        session_id: str | None = None,
        *,
        output_limit: int = DEFAULT_OUTPUT_LIMIT,
        late_output: LateOutput = "origin",
        blocked_seconds: float | None = BLOCKED_SECONDS,
    ) -> None:
        if late_output not in ("origin", "current"):
            raise ValueError(f"late_output is 'origin' or 'current', not {late_output!r}")
        self.namespace = namespace
        self.session_id = session_id if session_id is not None else namespace.name
        self.bridge = ExecutionContextBridge(namespace)
        self.synchronizer = NamespaceSynchronizer(namespace)
        self.emitter = Emitter(transport)
        self.tally = CellTally(self.session_id)
        self.output_limit = output_limit
        self.late_output = late_output
        self.blocked_seconds = checked_seconds(blocked_seconds, "blocked_seconds")
        self._loop_watch: LoopWatch | None = None
        self._ticker: Ticker | None = None
        self._running: list[CellRun] = []  # only where late output needs to know
        if self.emitter.active:
            namespace.on_update(self._updated)
            namespace.ledger.on_settled(self._settled)
            namespace.reports.on_failure(self._failed)

    # -- running -----------------------------------------------------------------------------

    async def execute(self, code: str, *, timeout: float | None = None) -> Any:
        """Run *code* on the event loop; its top level may await. The value of its last expression.

        Arguments:
            code: The cell's source.
            timeout: Seconds until control returns; None sets no bound.

        Raises:
            SyntaxError: *code* does not compile; nothing was run.
            TypeError: *code* is not a ``str``, or *timeout* no number; nothing was run.
            ValueError: *timeout* is negative or NaN; nothing was run.
            SessionClosedError: The namespace is closed.
            Exception: What the code raises.
            CellError: The code ended with something that must not reach the host as it is.

        Cancel: cancels the cell and waits for its end.
        """
        return (await self._run(code, "async", timeout)).unwrap()

    async def execute_in_thread(self, code: str, *, timeout: float | None = None) -> Any:
        """Run *code* in the home thread. For the rest see :meth:`execute`."""
        return (await self._run(code, "thread", timeout)).unwrap()

    async def execute_sync_in_async(self, code: str, *, timeout: float | None = None) -> Any:
        """Run *code* as sync code on the loop's thread. For the rest see :meth:`execute`."""
        return (await self._run(code, "sync", timeout)).unwrap()

    async def run(
        self,
        code: str,
        *,
        context: RequestedContext = "async",
        timeout: float | None = None,
        concurrent: bool = False,
        atomic: bool = False,
        filename: str | None = None,
        title: str = "",
        number: int | None = None,
    ) -> CellResult:
        """Run *code* and give the full result, errors of the cell included.

        Arguments:
            code: The cell's source.
            context: Where to run it; ``"auto"`` is async when the code awaits, else thread.
            timeout: Seconds until control returns; None sets no bound.
            concurrent: Beside the session's other cells instead of in order.
            atomic: When it fails, put every name back that has changed, but for those that others
                wrote meanwhile. Such a cell copies the namespace at its start.
            filename: What tracebacks call the cell; None makes a name.
            title: A label for events.
            number: The cell's number, where somebody else counts; None takes the next one.

        Raises:
            SessionClosedError: The namespace is closed.
            LoopError: The home loop does not run.
            TypeError: *code* is not a ``str``, or *timeout* no number. Nothing was run.
            ValueError: *timeout* is negative or NaN, or *context* is none. Nothing was run.

        Cancel: cancels the cell and waits for its end.
        """
        run = await self._run(
            code,
            context,
            timeout,
            concurrent=concurrent,
            atomic=atomic,
            filename=filename,
            title=title,
            number=number,
        )
        return run.result()

    async def _run(
        self,
        code: str,
        context: RequestedContext,
        timeout: float | None,
        *,
        concurrent: bool = False,
        atomic: bool = False,
        filename: str | None = None,
        title: str = "",
        number: int | None = None,
    ) -> CellRun:
        """Run *code* to its outcome; one that does not compile has its outcome at once."""
        seconds = checked_seconds(timeout, "timeout")
        if number is None:
            number = self.namespace.next_cell_number()
        try:
            run = self.bridge.prepare(code, context, number=number, filename=filename)
        except SyntaxError as error:
            return self._not_compiled(number, code, context, error, title)
        if atomic:
            run.atomic = True
        self._observe(run, title)
        try:
            await self.bridge.run(run, timeout=seconds, concurrent=concurrent)
        finally:
            self._count(run)
        self._tell_unfinished(run)
        return run

    async def run_call(
        self,
        name: str,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        context: RequestedContext = "async",
        timeout: float | None = None,
        concurrent: bool = False,
        atomic: bool = False,
        title: str = "",
        number: int | None = None,
    ) -> CellResult:
        """Call the function *name* and give the full result, errors of the function included.

        Arguments:
            name: What the function is bound to, in the namespace or the prelude, when the call's
                turn has come.
            args: Its positional arguments; they and the value keep their identity.
            kwargs: Its keyword arguments.

        The other arguments, and what it raises, are those of :meth:`run`. *context* decides where
        the function runs; ``"auto"`` is async for an async function, else thread. An awaitable that
        the function returns is awaited.

        Cancel: cancels the call and waits for its end.
        """
        run = await self._run_call(
            Call(name, tuple(args), dict(kwargs or {})),
            context,
            timeout,
            concurrent=concurrent,
            atomic=atomic,
            title=title,
            number=number,
        )
        return run.result()

    async def _run_call(
        self,
        call: Call,
        context: RequestedContext,
        timeout: float | None,
        *,
        concurrent: bool = False,
        atomic: bool = False,
        title: str = "",
        number: int | None = None,
    ) -> CellRun:
        """Run *call* to its outcome."""
        seconds = checked_seconds(timeout, "timeout")
        if number is None:
            number = self.namespace.next_cell_number()
        run = self.bridge.prepare_call(call, context, number=number)
        run.atomic = atomic
        self._observe(run, title)
        try:
            await self.bridge.run(run, timeout=seconds, concurrent=concurrent)
        finally:
            self._count(run)
        self._tell_unfinished(run)
        return run

    def _observe(self, run: CellRun, title: str) -> None:
        """Have the transport hear of *run*."""
        run.observer = self
        run.told = self.emitter.active or self.late_output == "current"
        if title:
            run.title = title

    def _count(self, run: CellRun) -> None:
        """Count *run*, where its code has begun."""
        if run.started:
            self.tally.note(run.number, run.context, run.status, run.duration)

    def _tell_unfinished(self, run: CellRun) -> None:
        """Tell the outcome of *run* where its code could not: it never ran, or runs on."""
        if not run.evaluated and self.emitter.active:
            self._emit_finished(run)

    def interrupt(self, cell: int | None = None) -> bool:
        """Stop the cell with this number, or all that run; whether there was something to stop.

        Threads: any; signal handlers too.
        """
        return self.bridge.interrupt(cell)

    def _not_compiled(
        self, number: int, code: str, context: RequestedContext, error: SyntaxError, title: str
    ) -> CellRun:
        """The run of a cell that does not compile: it has its events all the same."""
        cell = CompiledCell.empty(code, error.filename or "")
        run = CellRun(self.namespace, cell, number, "async" if context == "auto" else context)
        run.title = title
        run.error = trim(error)
        run.evaluated = True
        self.tally.note(number, run.context, "error", 0.0)
        if self.emitter.active:
            self._emit_started(run)
            self._emit_finished(run)
        return run

    # -- what a run tells, in the cell's own context ---------------------------------------------

    def cell_started(self, run: CellRun) -> None:
        """*run* starts: tell the transport."""
        if self.late_output == "current":
            self._running.append(run)
        if self.blocked_seconds is not None and self.emitter.active:
            self._watch_loop(self.blocked_seconds)
        self._emit_started(run)

    def _watch_loop(self, delay: float) -> None:
        """Have somebody look whether the home loop goes round, as long as cells run."""
        home, watch = self.namespace.current_home, self._loop_watch
        if home is None:
            return
        if watch is None or not watch.is_for(home):
            report = weakref.WeakMethod(self._loop_blocked)
            watch = self._loop_watch = LoopWatch(home, delay, report)
            home.loop_watches.append(watch)
        watch.wake()

    def _emit_started(self, run: CellRun) -> None:
        self.emitter.emit(
            CellStarted(
                self.session_id,
                run.number,
                run.context,
                run.cell.filename,
                run.cell.source,
                run.title,
            )
        )

    def cell_ended(self, run: CellRun) -> None:
        """Synchronise the namespace after *run*, and tell the transport its outcome."""
        if not run.abandoned:
            self._settle(run)
        if run in self._running:
            self._running.remove(run)
            run.output = None  # its tasks and threads have to ask from now on

    def _settle(self, run: CellRun) -> None:
        if run.rolled_back is None:
            value = run.value if run.value_is_bound else None
            run.adopted = self.synchronizer.sync_after_execution(run.context, run.cell.bound, value)
            if "_" in run.adopted and run.value is not None:
                run.value = self.namespace.namespace["_"]
        if self.emitter.active:
            self._emit_finished(run)
        else:
            run.finish_output()

    def output_of(self, run: CellRun) -> CellOutput:
        """Something for what *run* writes; it sends it on as events, if anybody listens."""
        loop = self.namespace.loop
        if loop is None or not self.emitter.active:
            return CellOutput(self.output_limit)
        ticker = self._ticker
        if ticker is None or ticker.loop is not loop:
            ticker = self._ticker = Ticker(loop)
        kind = HeldOutput if self.emitter.can_hold else LiveOutput
        return kind(self.emitter, self.session_id, run.number, ticker, self.output_limit)

    def flush_output(self) -> None:
        """Send at once what cells have written that have ended. On the loop."""
        if self._ticker is not None:
            self._ticker.flush()

    def late_output_of(self, run: CellRun) -> JobOutput | None:
        """The output of the cell that runs, if late output goes there and one does."""
        running = [it for it in list(self._running) if not it.abandoned]
        if not running or run in running:  # its own code has not quite ended
            return None
        return running[-1].output or running[-1].open_output()

    def _emit_finished(self, run: CellRun) -> None:
        if not run.is_first_to_tell():
            return
        event = self._outcome(run)  # it asks the value for its repr, which may print
        run.finish_output()
        for name in run.adopted:
            self.emitter.emit(CoroutineAdopted(self.session_id, run.number, name))
        self.emitter.emit(event)

    def _outcome(self, run: CellRun) -> CellFinished:
        error = run.error
        mime = rich_bundle(run.value) if self.emitter.wants_mime else None
        return CellFinished(
            self.session_id,
            run.number,
            run.status,
            run.duration,
            value=None if run.value is None else safe_repr(run.value),
            error=None if error is None else type(error).__name__,
            message=None if error is None else safe_str(error),
            traceback=None if error is None else format_error(error),
            bound=run.names_bound(),
            deleted=run.names_deleted(),
            exact=run.exact,
            adopted=run.adopted,
            stopped=not run.abandoned,
            mime=mime,
            rolled_back=run.rolled_back or (),
        )

    # -- what happens beside cells -----------------------------------------------------------------

    def _updated(
        self, bound: tuple[str, ...], deleted: tuple[str, ...], source_context: str
    ) -> None:
        self.emitter.emit(NamespaceUpdated(self.session_id, 0, bound, source_context, deleted))

    def _loop_blocked(self, cell: int, seconds: float, stack: str) -> None:
        self.emitter.emit(LoopBlocked(self.session_id, cell, seconds, stack))

    def _settled(self, name: str, error: BaseException | None) -> None:
        text = None if error is None else f"{type(error).__name__}: {safe_str(error)}"
        self.emitter.emit(CoroutineSettled(self.session_id, 0, name, text))

    def _failed(self, failure: Failure) -> None:
        cell, name = failure.cell, failure.name
        if failure.job is None:  # whose output it would be in is gone
            self.emitter.emit(Output(self.session_id, cell, "stderr", failure.text))
        place = failure.filename, failure.line
        if failure.kind == "coroutine":
            self.emitter.emit(CoroutineDropped(self.session_id, cell, name, *place))
        elif failure.kind == "thread":
            self.emitter.emit(ThreadDied(self.session_id, cell, name, failure.summary))
        else:
            self.emitter.emit(TaskFailed(self.session_id, cell, name, failure.summary, *place))
