"""A session: many cells, one namespace, one beginning and one end. Owns lifecycle.

Refuses to know: how cells run.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, ClassVar

from isthmus.answers import DONE, Ready, ReadyDict, ReadyList, ReadyText
from isthmus.async_namespace import CLEAN_UP_SECONDS, AsyncNamespaceManager, running_loop
from isthmus.capabilities import Capability, CapabilitySource, by_name
from isthmus.context_bridge import RequestedContext, checked_context
from isthmus.durations import checked_seconds
from isthmus.ending import CloseReport, end_owned, end_threads, log_end, still_running
from isthmus.errors import SessionClosedError
from isthmus.events import CellResult, SessionClosed, SessionReset
from isthmus.executor import BLOCKED_SECONDS, AsyncExecutor, LateOutput
from isthmus.failures import Kind
from isthmus.home import Home
from isthmus.interceptors import Interceptor, checked_chain
from isthmus.jobs import outside_cells
from isthmus.ledger import CoroutinePolicy, SettledCoroutines
from isthmus.name_descriptions import described_names
from isthmus.namespace_view import NamespaceView
from isthmus.output import DEFAULT_OUTPUT_LIMIT
from isthmus.ownership import LedgerEntry
from isthmus.session_report import session_report
from isthmus.transport import Transport
from isthmus.wire.parts import NameDescription


class Session:
    """One live namespace in which cells of source run, on the event loop, in a thread, or both.

    Use it as ``async with Session() as session``, or call :meth:`close` yourself. It binds itself
    to the event loop in which it runs its first cell.

    Arguments:
        name: The session's name, in events, task names and the name of its module.
        transport: Where events go; None for nowhere.
        context: Where cells run whose caller does not say: ``"async"``, ``"thread"``, ``"sync"``,
            or ``"auto"`` (async when the cell awaits, else thread).
        timeout: Seconds that a cell may take whose caller does not say; None sets no bound.
        main: Let the session's module be ``__main__`` as long as the session is open.
        file: The module's ``__file__``, where the cells come from a file.
        history: Keep the last three values in ``_``, ``__`` and ``___``.
        coroutine_policy: What becomes of a coroutine left under a name: ``"adopt"`` (it becomes a
            task), ``"hold"`` (it is recorded) or ``"close"``.
        output_limit: Characters of each stream kept in a result.
        late_output: Whose the output is of tasks and threads whose cell has ended: ``"origin"``,
            that cell's, or ``"current"``, that of the cell that runs, if one does.
        blocked_seconds: After how many seconds an event loop that does not go round is reported by
            a :class:`~isthmus.events.LoopBlocked` event, where there is a transport; None for
            never.
        hooks: Capture output, and let tasks that cells start use ``run_sync``. See docs.
        capabilities: Functions of the host that cells may call: by name, or as an iterable of
            functions that know their names (see :func:`~isthmus.capabilities.capability`).
        interceptors: What every call of a capability passes, the first one outermost.
        input: What ``input()`` is in cells, a sync or async function; a capability like others.
            Without one, ``input()`` raises :class:`NoInputError`.

    Raises:
        TypeError: *timeout* or *blocked_seconds* is no number of seconds, or one of the others is
            not what it must be.
        ValueError: One of the two is negative or NaN, or one of the others is none of its values.

    Threads: any running loop, for the methods that are awaited; they are done on the home loop.
    """

    _executor_type: ClassVar[type[AsyncExecutor]] = AsyncExecutor
    """What runs the cells."""

    def __init__(
        self,
        name: str = "session",
        *,
        transport: Transport | None = None,
        context: RequestedContext = "async",
        timeout: float | None = None,
        main: bool = False,
        file: str | None = None,
        history: bool = True,
        coroutine_policy: CoroutinePolicy = "adopt",
        output_limit: int = DEFAULT_OUTPUT_LIMIT,
        late_output: LateOutput = "origin",
        blocked_seconds: float | None = BLOCKED_SECONDS,
        hooks: bool = True,
        capabilities: CapabilitySource = (),
        interceptors: Iterable[Interceptor] = (),
        input: Callable[..., Any] | None = None,  # noqa: A002 (it is that builtin, in cells)
    ) -> None:
        given, chain = by_name(capabilities), checked_chain(interceptors)
        if input is not None:
            given["input"] = input
        self.name = name
        self.context = checked_context(context)
        self.timeout = checked_seconds(timeout, "timeout")
        self.manager = AsyncNamespaceManager(
            name,
            main=main,
            file=file,
            history=history,
            coroutine_policy=coroutine_policy,
            hooks=hooks,
        )
        self._close_report: CloseReport | None = None
        self._closing = asyncio.Lock()  # of the home loop: it binds itself where it is first waited
        with ExitStack() as undo:
            undo.callback(self.manager.close)
            self.manager.interceptors = chain
            self.executor = self._executor_type(
                self.manager,
                transport,
                name,
                output_limit=output_limit,
                late_output=late_output,
                blocked_seconds=blocked_seconds,
            )
            for each, fn in given.items():
                self.manager.inject_capability(each, fn)
            undo.pop_all()

    # -- cells -------------------------------------------------------------------------------

    async def run(
        self,
        code: str,
        *,
        context: RequestedContext | None = None,
        timeout: float | None = None,
        concurrent: bool = False,
        atomic: bool = False,
        filename: str | None = None,
        title: str = "",
    ) -> CellResult:
        """Run a cell and give its result, with its error if it failed.

        Arguments:
            code: The cell's source.
            context: Where to run it; None for the session's default.
            timeout: Seconds until control returns; None for the session's default, and
                ``float("inf")`` for no bound, whatever that is.
            concurrent: Beside the other cells instead of in order.
            atomic: When it fails (by an error, a cancellation, its timeout, an interrupt), put back
                every name that has changed, but for those that others wrote meanwhile; objects that
                were changed in place stay so. Such a cell copies the namespace at its start. See
                docs/concurrency.md.
            filename: What tracebacks call the cell; None makes a name.
            title: A label for events.

        Raises:
            SessionClosedError: The session is closed. Nothing was run.
            LoopError: The session's loop does not run.
            TypeError: *code* is not a ``str``, or *timeout* no number. Nothing was run.
            ValueError: *timeout* is negative or NaN, or *context* is none. Nothing was run.

        Cancel: cancels the cell, waits for its end, then goes on.
        """
        self._check_open()
        return await self.executor.run(
            code,
            context=self.context if context is None else context,
            timeout=self.timeout if timeout is None else timeout,
            concurrent=concurrent,
            atomic=atomic,
            filename=filename,
            title=title,
        )

    async def execute(self, /, code: str, **options: Any) -> Any:
        """Run a cell and give its value. Options are those of :meth:`run`.

        Raises:
            Exception: What the cell raised, or what :meth:`run` raises.
            CellError: The cell ended with something that must not reach the host as it is.
        """
        return (await self.run(code, **options)).unwrap()

    async def run_call(
        self,
        name: str,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        context: RequestedContext | None = None,
        timeout: float | None = None,
        concurrent: bool = False,
        atomic: bool = False,
        title: str = "",
    ) -> CellResult:
        """Call the function *name* and give the result, with its error if it failed.

        A call is a cell like any other, without source: it has its turn, its number, its events and
        its output, and is nested where a cell calls it. The function is looked up when its turn has
        come, as a cell would look it up: in the namespace, then among capabilities and builtins.
        An awaitable that it returns is awaited. The value is the caller's alone: it does not become
        ``_``, and a coroutine in it is not adopted.

        Arguments:
            name: What the function is bound to.
            args: Its positional arguments; they and the value keep their identity.
            kwargs: Its keyword arguments.
            context: Where to run it; None for the session's default. An async function runs on the
                loop in all of them. ``"auto"`` is async for an async function, else thread.
            timeout: Seconds until control returns; None for the session's default, and
                ``float("inf")`` for no bound, whatever that is.
            concurrent: Beside the cells instead of in order.
            atomic: When it fails, put names back as :meth:`run` does.
            title: A label for events.

        Returns:
            The result. Its error is an :class:`UnknownNameError` where nothing is bound to *name*,
            a TypeError where that cannot be called.

        Raises:
            SessionClosedError: The session is closed. Nothing was called.
            LoopError: The session's loop does not run.
            TypeError: *name* is not a ``str``, or *timeout* no number. Nothing was called.
            ValueError: *timeout* is negative or NaN, or *context* is none. Nothing was called.

        Cancel: cancels the call, waits for its end, then goes on.
        """
        self._check_open()
        return await self.executor.run_call(
            name,
            args,
            kwargs,
            context=self.context if context is None else context,
            timeout=self.timeout if timeout is None else timeout,
            concurrent=concurrent,
            atomic=atomic,
            title=title,
        )

    async def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function *name* and give its result. For the rest see :meth:`run_call`.

        Raises:
            UnknownNameError: Nothing is bound to *name*. Nothing was called.
            TypeError: What is bound to it cannot be called.
            Exception: What the function raised, or what :meth:`run_call` raises.
            CellError: The call ended with something that must not reach the host as it is.
        """
        return (await self.run_call(name, args, kwargs)).unwrap()

    def interrupt(self, cell: int | None = None) -> bool:
        """Stop a cell: the one with this number, or all that run.

        A cell that awaits gets ``CancelledError`` there, one that computes ``CellInterrupted``.

        Returns:
            Whether there was something to stop.

        Threads: any; signal handlers too.
        """
        return self.executor.interrupt(cell)

    # -- names -------------------------------------------------------------------------------

    @property
    def namespace(self) -> dict[str, Any]:
        """The live mapping."""
        return self.manager.namespace

    @property
    def view(self) -> NamespaceView:
        """The user's names, for reading: a live :class:`NamespaceView`. Threads: any."""
        return NamespaceView(self.name, self.manager.namespace)

    async def get(self, name: str) -> Any:
        """What *name* is bound to in the namespace; capabilities and builtins are not in it.

        Raises:
            UnknownNameError: It is not bound.
            SessionClosedError: The session is closed.

        Threads: any loop. Atomic: per name. Cancel: none; it is done at once.
        """
        self._check_open()
        return self.manager.get(name)

    async def set(self, name: str, value: Any) -> None:
        """Bind *name* to *value*. A bare coroutine is adopted, as in :meth:`update_namespace`.

        Raises:
            ReservedNameError: A name of the runtime, or no name at all. Nothing was bound.
            SessionClosedError: The session is closed. Nothing was bound.

        Threads: any loop. Atomic: per name. Cancel: none; it is done at once.
        """
        self.update_namespace({name: value})

    async def delete(self, name: str) -> None:
        """Take *name* out of the namespace, as ``del`` in a cell does.

        A coroutine that was adopted under it goes on and stays pending until it has ended.

        Raises:
            UnknownNameError: It is not bound.
            ReservedNameError: It belongs to the module itself. Nothing was deleted.
            SessionClosedError: The session is closed. Nothing was deleted.

        Threads: any loop. Atomic: per name. Cancel: none; it is done at once.
        """
        self._check_open()
        self.manager.delete(name, "host")

    def update_namespace(self, updates: Mapping[str, Any], source_context: str = "host") -> Ready:
        """Bind names for the cells. See :meth:`AsyncNamespaceManager.update_namespace`.

        Returns:
            What may be awaited, as a :class:`WorkerSession` has it; here all is done.
        """
        self._check_open()
        self.manager.update_namespace(updates, source_context)
        return DONE

    def snapshot(self) -> ReadyDict[str, Any]:
        """A shallow copy of the user's names, which may be awaited. Threads: any."""
        return ReadyDict(self.manager.snapshot())

    async def list_names(self, text_characters: int = 0) -> list[NameDescription]:
        """Which names are bound, in the order in which they were first, and to objects of what.

        Arguments:
            text_characters: How much of each value's ``repr`` to tell; 0 asks no value for it.

        Raises:
            SessionClosedError: The session is closed.

        Threads: any loop. Cancel: none; it is done at once.
        """
        self._check_open()
        return described_names(self.view, text_characters)

    # -- capabilities ------------------------------------------------------------------------

    @property
    def capabilities(self) -> Mapping[str, Capability]:
        """What cells may call of the host, by name. A live, read-only view."""
        return self.manager.capabilities

    def inject_capability(
        self,
        name: str,
        fn: Callable[..., Any],
        *,
        on_loop: asyncio.AbstractEventLoop | None = None,
        interceptors: Iterable[Interceptor] = (),
    ) -> None:
        """Let cells call *fn* as *name*. See :meth:`AsyncNamespaceManager.inject_capability`."""
        self._check_open()
        self.manager.inject_capability(name, fn, on_loop=on_loop, interceptors=interceptors)

    def revoke_capability(self, name: str) -> None:
        """Take it back at once. See :meth:`AsyncNamespaceManager.revoke_capability`."""
        self.manager.revoke_capability(name)

    # -- coroutines --------------------------------------------------------------------------

    @property
    def pending_coroutines(self) -> ReadyDict[str, Any]:
        """Coroutines that cells have left behind, by name. A copy, which may be awaited."""
        return ReadyDict(self.manager.pending_coroutines)

    async def await_pending_coroutines(self, timeout: float | None = None) -> SettledCoroutines:
        """Wait for them. See :meth:`AsyncNamespaceManager.await_pending_coroutines`."""
        return await self.manager.await_pending_coroutines(timeout)

    # -- the ledger --------------------------------------------------------------------------

    def ledger(self) -> ReadyList[LedgerEntry]:
        """What the session's code has made that has not ended, in the order in which it was made.

        The list may be awaited, as that of a worker has to be.

        Each coroutine, task, async generator and thread, with its cell and line. Coroutines are
        those that were under a name or in a container at the end of a cell, and those that
        :meth:`census` has found; async generators those that were begun.

        Threads: any. Its cost grows with what there is.
        """
        return ReadyList(self.manager.ownership.entries())

    def census(self) -> ReadyDict[Kind, int]:
        """Count what there is of each kind, by looking at all objects of the process.

        The counts may be awaited, as those of a worker have to be.

        So that the ledger can be checked. What it did not know it then lists. Costs some 30 ms for
        300,000 objects of the process, during which no other code runs.

        Threads: any.
        """
        return ReadyDict(self.manager.census())

    def report(self) -> ReadyText:
        """Cells and their times, names, what the code has made and has left, memory: for people.

        The text may be awaited, and may change with any version. The numbers of cells are in
        ``executor.tally``, those of what they have made in ``manager.ownership.counts``.

        Threads: any. Its cost grows with what there is.
        """
        return ReadyText(session_report(self.manager, self.executor.tally))

    # -- the end -----------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether the session has ended: closed, or with the shutdown of its loop."""
        home = self.manager.current_home
        return self.manager.closed or (home is not None and home.closed)

    def _check_open(self) -> None:
        if self.closed:
            raise SessionClosedError(f"session {self.name!r} is closed; open a new one")

    async def reset(self, timeout: float = CLEAN_UP_SECONDS) -> CloseReport:
        """End what the session's code has started, and begin again with an empty namespace.

        The mapping keeps its identity, and holds what it held when the session was opened; so do
        the context variables. Capabilities stay, and cells are numbered on. Cells that are asked
        for meanwhile run afterwards.

        Arguments:
            timeout: Seconds for cells and tasks to end, for the clean-up of async generators, and
                for threads.

        Returns:
            What would not end. It goes on, and may still write to the namespace.

        Raises:
            SessionClosedError: The session is closed. Nothing was changed.

        A cell may call it; it and the cells that it is nested in go on to their own end, in the
        cleared namespace.

        Threads: any running loop. Cancel: what has been stopped stays stopped; call it again.
        """
        self._check_open()
        home = self.manager.current_home
        if home is None or home.closed or not home.loop.is_running():
            self.manager.leave_home()
            self.manager.clear()
            return self._told(SessionReset, CloseReport())
        if home.loop is running_loop():
            return await self._reset_at(home, timeout)
        report: CloseReport = await self.manager.run_on_home_loop(self._reset_at(home, timeout))
        return report

    async def _reset_at(self, home: Home, timeout: float) -> CloseReport:
        """Reset on the home loop."""
        manager = self.manager
        async with self._closing:
            self._check_open()
            home.pause()
            try:
                report = await end_owned(manager, home, timeout)
                ends = manager.leave_home()
                report = await end_threads(report, manager.ownership, home, ends, timeout)
                manager.clear()
            finally:
                manager.ownership.ending = False
                home.resume()
        return self._told(SessionReset, report)

    def _told(self, kind: type[SessionReset | SessionClosed], report: CloseReport) -> CloseReport:
        """*report*, once the transport and the log have been told."""
        self.executor.emitter.emit(kind(self.executor.session_id, 0, report.left))
        outside_cells(log_end, self.name, kind.__name__, report)
        return report

    async def close(self, timeout: float = CLEAN_UP_SECONDS) -> CloseReport:
        """Stop what runs, end what the session's code has started, and give everything back.

        Arguments:
            timeout: Seconds for cells and tasks to end, for the clean-up of async generators, and
                for threads.

        Returns:
            What would not end. Idempotent: a second call gives the first one's report, also while
            that one is still at work.

        A cell may call it; it and the cells that it is nested in are then left to end by
        themselves.

        Threads: any running loop. Cancel: what has been stopped stays stopped; call it again.
        """
        home, closing = self.manager.current_home, self._closing.locked()
        if home is None or not home.loop.is_running() or (home.closed and not closing):
            self._close_idle(home)
        elif home.loop is running_loop():
            await self._close_at(home, timeout)
        else:
            await self.manager.run_on_home_loop(self._close_at(home, timeout))
        return self._close_report or CloseReport(canary=self.manager.canary)

    def _close_idle(self, home: Home | None) -> None:
        """Close where nothing runs, or nothing can be told to end."""
        manager = self.manager
        if not manager.closed:
            report = CloseReport() if home is None else still_running(manager.ownership, home)
            manager.close()
            report = replace(report, canary=manager.canary)
            self._close_report = self._told(SessionClosed, report)

    async def _close_at(self, home: Home, timeout: float) -> None:
        """Close on the home loop, and keep the report."""
        manager = self.manager
        async with self._closing:
            if self._close_report is not None:
                return
            try:
                report = await end_owned(manager, home, timeout)
                ends = home.ends()
                manager.end_home()
                # The hooks stay in until the threads have ended.
                report = await end_threads(report, manager.ownership, home, ends, timeout)
            finally:
                manager.ownership.ending = manager.closed
                if manager.closed:
                    manager.close()
            self._close_report = self._told(SessionClosed, replace(report, canary=manager.canary))

    async def __aenter__(self) -> Session:
        """Nothing to wait for: the session is open from the start."""
        self._check_open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Close the session."""
        await self.close()

    def __del__(self) -> None:
        """Say that a session was dropped without being closed, and free what it held."""
        manager = getattr(self, "manager", None)
        if manager is not None and not manager.closed:
            warnings.warn(
                f"unclosed session {self.name!r}", ResourceWarning, stacklevel=2, source=self
            )
            manager.close()
