"""A session in a process of its own, as its host holds it. Owns lifecycle, and what methods ask.

Refuses to know: bytes, signals.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any

from isthmus.answers import Asked
from isthmus.async_namespace import CLEAN_UP_SECONDS
from isthmus.capabilities import Capability, CapabilitySource, by_name
from isthmus.context_bridge import RequestedContext, checked_context
from isthmus.durations import checked_seconds
from isthmus.ending import CloseReport
from isthmus.events import CellResult
from isthmus.executor import BLOCKED_SECONDS, LateOutput
from isthmus.failures import Kind
from isthmus.interceptors import Interceptor, checked_chain
from isthmus.ledger import CoroutinePolicy, SettledCoroutines
from isthmus.namespace import check_name
from isthmus.output import DEFAULT_OUTPUT_LIMIT
from isthmus.ownership import LedgerEntry
from isthmus.transport import Emitter, Transport
from isthmus.values import pack
from isthmus.wire import replies, requests
from isthmus.wire.frames import Buffer, Received
from isthmus.wire.parts import MainProgram, NameDescription, Value
from isthmus.worker.answers import (
    AnswerReader,
    counts_of,
    ledger_of,
    names_of,
    pending_of,
    report_of,
    text_of,
)
from isthmus.worker.callbacks import HostFunctions
from isthmus.worker.flight import Flight
from isthmus.worker.fork_server import ForkServer
from isthmus.worker.launch import Launch
from isthmus.worker.limits import WorkerLimits
from isthmus.worker.lives import Lives
from isthmus.worker.remote_cells import CellOptions, RemoteCells
from isthmus.worker.standstill import StandstillWatch
from isthmus.worker.supervisor import Supervisor, look_at

START_SECONDS = 30.0
"""How long a worker may take to start: fifty times what it takes; from the air."""

GRACE_SECONDS = 2.0
"""How long a worker may take to do what it was told before it is killed; from the air. Its own
part, telling the cell and giving up on it, takes 0.06 s."""

ELSEWHERE = {
    "namespace": "await get(), set(), delete() or snapshot()",
    "view": "await list_names() or snapshot()",
    "manager": "the methods of the session reach what can be reached",
    "executor": "await run() or execute(); report() has the numbers",
}
"""What a session in this process has and one in a worker cannot have, and what to do instead: it is
the live objects themselves."""


class WorkerSession:
    """A :class:`~isthmus.Session` that lives in a process of its own.

    Crashes and hangs of cells are that process's: whatever a cell does, the host goes on, and every
    call ends. It is no sandbox: the worker may do all that its user may.

    Use it as ``async with WorkerSession() as session``; the process is started there, or by the
    first call that needs it. It binds itself to the event loop in which that is. When the process
    has died, calls raise :class:`WorkerDied`; :meth:`restart` starts another, with an empty
    namespace.

    Arguments not named here are those of a session in this process.

    Arguments:
        python: The interpreter to start; None for the host's.
        cwd: The worker's working directory; None for the host's.
        env: Its environment; None for the host's.
        limits: What it may use of the machine.
        fork_server: Have this one fork the worker, which is quicker than starting an interpreter.
        start_timeout: Seconds that it may take to start.
        grace_seconds: How long it may take to do what it was told, to end a cell above all, before
            it is killed.
        trusted: Take pickles from the worker, which runs code of its cells in the host: those of
            results, names and arguments of capabilities, and of nothing that the host has not asked
            for. If false, what is not plain comes as a :class:`RemoteRepr`, and a pickle that comes
            all the same is an :class:`UntrustedValueError`.
        main: Let the session's module be the worker's ``__main__``.
        program: The program that the cells are: what ``sys.argv`` is, and the like.

    Threads: any running loop, for the methods that are awaited; they are done on the loop of the
    session.
    """

    def __init__(
        self,
        name: str = "session",
        *,
        transport: Transport | None = None,
        context: RequestedContext = "async",
        timeout: float | None = None,
        main: bool = True,
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
        python: str | None = None,
        cwd: str | PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        limits: WorkerLimits | None = None,
        fork_server: ForkServer | None = None,
        start_timeout: float = START_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
        trusted: bool = True,
        program: MainProgram | None = None,
    ) -> None:
        given, chain = by_name(capabilities), checked_chain(interceptors)
        if input is not None:
            given["input"] = input
        self.name = name
        self.context: RequestedContext = checked_context(context)
        self.timeout = checked_seconds(timeout, "timeout")
        self.trusted = trusted
        start_seconds = checked_seconds(start_timeout, "start_timeout")
        self._grace = grace = checked_seconds(grace_seconds, "grace_seconds") or 0.0
        if fork_server is not None and python is not None:
            raise ValueError("a worker that is forked has the interpreter of its fork server")
        interpreter = python or (fork_server.python if fork_server else sys.executable)
        launch = Launch(interpreter, cwd, env, limits or WorkerLimits(), fork_server)
        emitter = Emitter(transport)
        options: dict[str, Any] = {
            "name": name,
            "main": main,
            "file": file,
            "history": history,
            "coroutine_policy": coroutine_policy,
            "output_limit": 0,  # what is kept for results is kept here
            "late_output": late_output,
            "blocked_seconds": checked_seconds(blocked_seconds, "blocked_seconds"),
            "hooks": hooks,
            "events": emitter.active,
            "mime": emitter.wants_mime,
            "pickle": bool(trusted),
            "program": program,
        }

        blocked = options["blocked_seconds"] if emitter.active else None

        def new_supervisor() -> Supervisor:
            flight = Flight(name, emitter, output_limit, trusted)
            watch = partial(StandstillWatch, flight, name, blocked) if blocked else None
            return Supervisor(launch, flight, functions, grace, watch)

        # Neither of these holds the session: their processes do not keep it alive.
        self._lives = Lives(
            name,
            new_supervisor,
            lambda: {**options, "capabilities": functions.describe_all()},
            start_seconds,
        )
        self._functions = functions = HostFunctions(name, chain, trusted)
        for each, fn in given.items():
            functions.add(each, fn)
        self._read = AnswerReader(trusted)
        self._cells = RemoteCells(self._lives, functions, grace)
        self._closing: asyncio.Task[None] | None = None
        self._close_report: CloseReport | None = None

    # -- the process -------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The number of the worker process; None as long as there is none."""
        supervisor = self._lives.supervisor
        return None if supervisor is None or supervisor.death is not None else supervisor.pid

    async def start(self) -> None:
        """Start the process now, rather than by the first call that needs it. Idempotent.

        Raises:
            WorkerStartError: It could not be started, or did not answer in time.
            ProtocolVersionError: It speaks another version of the protocol.
            SessionClosedError: The session is closed.
        """
        await self._lives.at_home(self._lives.worker())

    async def restart(self) -> None:
        """Start another process, with an empty namespace, and end this one if it still runs.

        Capabilities are injected again; cells are counted on. Raises as :meth:`start` does.
        """
        await self._lives.at_home(self._lives.restart(CLEAN_UP_SECONDS))

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
        """Run a cell and give its result. Arguments and result are those of :meth:`Session.run`.

        What the cell has raised is a :class:`RemoteError` in the result. A value that cannot be
        sent is a :class:`RemoteRepr`, and one that cannot be loaded here a :class:`PackedValue`.

        A cell whose deadline passes, and whose worker then hangs, takes the worker with it: its
        result is that of a timeout, its error the :class:`WorkerDied` that all others get.

        Raises:
            WorkerDied: The process has ended, before or meanwhile.
            SessionClosedError: The session is closed. Nothing was run.
            TypeError: *code* is not a ``str``, or *timeout* no number. Nothing was run.
            ValueError: *timeout* is negative or NaN, or *context* is none. Nothing was run.

        Cancel: cancels the cell, waits for its end, then goes on.
        """
        if not isinstance(code, str):
            raise TypeError(f"a cell's source must be a str, not {type(code).__name__}")
        make = partial(requests.RunCell, source=code, filename=filename)
        options = self._options(context, timeout, concurrent, atomic, title)
        return await self._lives.at_home(self._cells.run(make, options))

    async def execute(self, /, code: str, **options: Any) -> Any:
        """Run a cell and give its value. Options are those of :meth:`run`.

        Raises:
            RemoteError: What the cell raised.
            CellError: The cell ended with something that must not reach the host as it is.
            WorkerDied: The process has ended, before or meanwhile.
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
        """Call the function *name* and give the result, as :meth:`Session.run_call` does.

        The arguments are copied to the worker.

        Raises:
            TypeError: *name* is not a ``str``, or an argument cannot be sent. Nothing was called.
            WorkerDied: The process has ended, before or meanwhile.

        Cancel: as with :meth:`run`.
        """
        if not isinstance(name, str):
            kind = type(name).__name__
            raise TypeError(f"a function is called by its name, a str, not by a {kind}")
        options = self._options(context, timeout, concurrent, atomic, title)
        buffers: list[Buffer] = []
        arguments = _packed((tuple(args), dict(kwargs or {})), buffers, f"arguments of {name}()")
        make = partial(requests.CallFunction, name=name, arguments=arguments)
        return await self._lives.at_home(self._cells.run(make, options, buffers))

    async def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function *name* and give its result. For the rest see :meth:`run_call`."""
        return (await self.run_call(name, args, kwargs)).unwrap()

    def _options(
        self,
        context: RequestedContext | None,
        timeout: float | None,
        concurrent: bool,
        atomic: bool,
        title: str,
    ) -> CellOptions:
        """What running source and calling a function have in common, checked."""
        self._lives.check_open()
        return CellOptions(
            self.context if context is None else checked_context(context),
            self.timeout if timeout is None else checked_seconds(timeout, "timeout"),
            bool(concurrent),
            bool(atomic),
            title,
        )

    def interrupt(self, cell: int | None = None) -> bool:
        """Stop a cell: the one with this number, or all that run.

        A worker that cannot do so, as C code holds it, is killed after ``grace_seconds``.

        Returns:
            Whether there was something to stop.

        Threads: any; signal handlers too.
        """
        return self._cells.interrupt(cell)

    # -- names -------------------------------------------------------------------------------

    async def get(self, name: str) -> Any:
        """A copy of what *name* is bound to in the namespace.

        Raises:
            UnknownNameError: It is not bound.
            ValueLoadError: It has come as a pickle, which cannot be loaded here.
            WorkerDied: The process has ended.
        """
        return await self._asked(requests.GetName, self._read.value, name=name)

    async def set(self, name: str, value: Any) -> None:
        """Bind *name* to a copy of *value*. Raises as :meth:`update_namespace` does."""
        await self.update_namespace({name: value})

    async def delete(self, name: str) -> None:
        """Take *name* out of the namespace, as ``del`` in a cell does.

        Raises:
            UnknownNameError: It is not bound.
            ReservedNameError: It belongs to the module itself. Nothing was deleted.
            WorkerDied: The process has ended.
        """
        await self._asked(requests.DeleteName, name=name)

    def update_namespace(
        self, updates: Mapping[str, Any], source_context: str = "host"
    ) -> Awaitable[None]:
        """Bind every name in *updates* to a copy of its value, before any cell that is run later.

        Returns:
            What may be awaited, to know that it is done, or why not. An error that nobody awaits
            goes to the exception handler of the loop.

        Raises:
            ReservedNameError: *updates* holds a name of the runtime. Nothing was bound.
            TypeError: A value can be sent in no form but its ``repr``. Nothing was bound.
            SessionClosedError: The session is closed.
            LoopError: No event loop runs here, and the session has none.

        Raises, when awaited:
            ValueLoadError: A value cannot be loaded there. Nothing was bound.
            WorkerDied: The process has ended.

        Threads: any. Atomic: as in :meth:`Session.update_namespace`.
        """
        self._lives.check_open()
        buffers: list[Buffer] = []
        values = {
            check_name(name): _packed(value, buffers, repr(name)) for name, value in updates.items()
        }
        return self._lives.begin(
            requests.UpdateNames, buffers=buffers, values=values, source_context=source_context
        )

    async def snapshot(self) -> dict[str, Any]:
        """A copy of the user's names, and of their values at one moment."""
        found: dict[str, Any] = await self._asked(requests.Snapshot, self._read.snapshot)
        return found

    async def list_names(self, text_characters: int = 0) -> list[NameDescription]:
        """Which names are bound, without their values. See :meth:`Session.list_names`.

        Raises:
            WorkerDied: The process has ended.
        """
        found: list[NameDescription] = await self._asked(
            requests.View, names_of, text_characters=text_characters
        )
        return found

    if not TYPE_CHECKING:  # which would then take every misspelt attribute for one that there is

        def __getattr__(self, name: str) -> Any:
            """Say of what a session in this process has why this one has it not."""
            instead = ELSEWHERE.get(name)
            reason = f": it is in the worker process; {instead}" if instead else ""
            message = f"{type(self).__name__!r} object has no attribute {name!r}{reason}"
            raise AttributeError(message, name=name, obj=self)

    async def _asked(
        self,
        kind: Callable[..., Any],
        convert: Callable[[Received[Any]], Any] | None = None,
        **fields: Any,
    ) -> Any:
        """What becomes of the answer to a request."""
        return await self._lives.at_home(self._ask(kind, convert, fields))

    async def _ask(self, kind: Callable[..., Any], convert: Any, fields: dict[str, Any]) -> Any:
        worker = await self._lives.worker()
        return await worker.ask(kind, convert, **fields)

    # -- capabilities ------------------------------------------------------------------------

    @property
    def capabilities(self) -> Mapping[str, Capability]:
        """What cells may call of the host, by name. A live, read-only view."""
        return self._functions.by_name

    def inject_capability(
        self,
        name: str,
        fn: Callable[..., Any],
        *,
        on_loop: asyncio.AbstractEventLoop | None = None,
        interceptors: Iterable[Interceptor] = (),
    ) -> None:
        """Let cells call *fn* as *name*. See :meth:`AsyncNamespaceManager.inject_capability`.

        It runs in this process: on the loop on which it is registered, or on the session's own, a
        sync function too. Arguments and result are copied.

        Raises:
            ReservedNameError: *name* is not an identifier, or belongs to the runtime.
            TypeError: *fn* is not callable.

        Threads: any.
        """
        self._lives.check_open()
        description = self._functions.add(name, fn, on_loop, interceptors)
        self._lives.soon(self._tell, requests.Inject, {"capability": description})

    def revoke_capability(self, name: str) -> None:
        """Take it back at once: calls that come from now on are refused here.

        Raises:
            KeyError: No capability of this name.

        Threads: any.
        """
        self._functions.revoke(name)
        self._lives.soon(self._tell, requests.Revoke, {"name": name})

    def _tell(self, kind: Callable[..., Any], fields: dict[str, Any]) -> None:
        """Have the running worker do what the next one will know from the start."""
        worker = self._lives.supervisor
        if worker is not None and worker.death is None and not self._lives.is_closing:
            worker.ask(kind, **fields).add_done_callback(look_at)

    # -- coroutines --------------------------------------------------------------------------

    @property
    def pending_coroutines(self) -> Awaitable[dict[str, Any]]:
        """Coroutines that cells have left behind, by name, once it is awaited.

        They belong to the worker, and are shown as :class:`RemoteRepr`.
        """
        return Asked(lambda: self._asked(requests.ListPending, pending_of))

    async def await_pending_coroutines(self, timeout: float | None = None) -> SettledCoroutines:
        """Wait for what cells have left behind. See :meth:`Session.await_pending_coroutines`."""
        seconds = checked_seconds(timeout, "timeout")
        settled: SettledCoroutines = await self._asked(
            requests.AwaitPending, self._read.settled, timeout=seconds
        )
        return settled

    # -- the ledger --------------------------------------------------------------------------

    async def ledger(self) -> list[LedgerEntry]:
        """What the session's code has made that has not ended. See :meth:`Session.ledger`."""
        entries: list[LedgerEntry] = await self._asked(requests.ListLedger, ledger_of)
        return entries

    async def census(self) -> dict[Kind, int]:
        """Count what there is of each kind in the worker. See :meth:`Session.census`."""
        counts: dict[Kind, int] = await self._asked(requests.TakeCensus, counts_of)
        return counts

    async def report(self) -> str:
        """How the session is, for people. See :meth:`Session.report`."""
        text: str = await self._asked(requests.Report, text_of)
        return text

    # -- the end -----------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether the session has ended, or is about to."""
        return self._lives.is_closing

    async def reset(self, timeout: float = CLEAN_UP_SECONDS) -> CloseReport:
        """End what cells have started, and begin again with an empty namespace, in this process.

        See :meth:`Session.reset`; where that is not enough, :meth:`restart` leaves nothing.
        """
        parent = self._cells.calling_cell()
        return report_of(await self._lives.at_home(self._reset(timeout, parent)))

    async def _reset(self, timeout: float, parent: int) -> replies.Ended:
        worker = await self._lives.worker()
        return await worker.reset(timeout, parent)

    async def close(self, timeout: float = CLEAN_UP_SECONDS) -> CloseReport:
        """Close the session in the worker, and end the process; kill it where it does not end.

        Arguments:
            timeout: Seconds for each of cells, tasks and thread to end.

        Returns:
            What would not end by itself; it is gone all the same. Idempotent: a second call gives
            the first one's report, also while that one is still at work.

        A cell on whose behalf a function of the host calls this ends with the session.

        Cancel: the process is killed.
        """
        if self._close_report is None:
            await self._lives.at_home(self._close(timeout))
        return self._close_report or CloseReport()

    async def _close(self, timeout: float) -> None:
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._end(timeout))
        try:
            await asyncio.shield(self._closing)
        except asyncio.CancelledError:
            if not self._cells.calling_cell():  # else it is that cell's end which cancels
                self._closing.cancel()
                await asyncio.wait({self._closing})
            raise

    async def _end(self, timeout: float) -> None:
        ended: replies.Ended | None = None
        try:
            ended = await self._lives.close(timeout)
        finally:
            self._close_report = CloseReport() if ended is None else report_of(ended)

    async def __aenter__(self) -> WorkerSession:
        """Start the process; where that fails or is cancelled, nothing is left of it."""
        is_open = False
        try:
            await self.start()
            is_open = True
        finally:
            if not is_open:
                await self.close()
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
        """Say that a session was dropped without being closed, and end its process."""
        lives = getattr(self, "_lives", None)
        supervisor = None if lives is None else lives.supervisor
        if supervisor is not None and supervisor.death is None:
            warnings.warn(
                f"unclosed session {self.name!r}", ResourceWarning, stacklevel=2, source=self
            )
            supervisor.discard()


def _packed(value: object, buffers: list[Buffer], what: str) -> Value:
    """*value* for the worker, in a form from which it can be made again."""
    packed = pack(value, buffers, trusted=True)
    if packed.kind == "repr":
        if inspect.iscoroutine(value):
            value.close()
        raise TypeError(f"{what} cannot be sent to the worker: {packed.problem}")
    return packed
