"""What a worker does for its host. Owns the session that there is, and the answer to each request.

Requests that take no time are done at once, in the order in which they come, and cells until they
wait; the rest of a cell, and waiting for coroutines, are tasks. A cell's outcome is sent by the
cell's own thread when its code has ended.

Refuses to know: sockets, processes.

Threads: the loop's, but for outcomes and events.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import msgspec

from isthmus.cell_run import CellRun
from isthmus.ending import CloseReport
from isthmus.errors import InternalError, MessageTooLargeError, ProtocolError
from isthmus.holders import Canary
from isthmus.home_task import has_begun
from isthmus.jobs import Job, current_job
from isthmus.name_descriptions import described_names
from isthmus.namespace import NamespaceManager
from isthmus.output import DEFAULT_OUTPUT_LIMIT
from isthmus.remote_failures import failure_of
from isthmus.session import Session
from isthmus.values import TEXT_CHARACTERS, PackedValue, pack
from isthmus.wire import callbacks, handshake, replies, requests
from isthmus.wire.frames import Buffer, Received
from isthmus.wire.parts import MainProgram, Owned, Value
from isthmus.worker.calls import Calls
from isthmus.worker.capture import Capture
from isthmus.worker.leaving import leave
from isthmus.worker.link import Link
from isthmus.worker.link_transport import LinkTransport
from isthmus.worker.prompt_start import begin_now
from isthmus.worker.remote_capability import RemoteCapability
from isthmus.worker.reserve import Reserve
from isthmus.worker.usage import own_usage
from isthmus.worker.worker_session import WorkerExecutor, WorkerSideSession

if TYPE_CHECKING:
    from isthmus.worker.vacancy import Vacancy

_ENDING = requests.Close | requests.Reset | requests.Vacate
"""What ends all cells."""


class Service:
    """Serves one host.

    Arguments:
        link: The connection to it.
        capture: What was written to descriptors.

    Attributes:
        reserve: Memory for the outcome of a cell that has used up all there is.
        done: Set when the session has ended as the host wanted, or there never was one.
        tells_all: The host wants all events.
    """

    def __init__(self, link: Link, capture: Capture) -> None:
        self._link = link
        self._capture = capture
        self._calls = Calls(link, self._home_loop)
        self._transport: LinkTransport | None = None
        self._session: WorkerSideSession | None = None
        self._opened = requests.Open(0)
        self._owed: dict[int, requests.CellRequest] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._stops: deque[requests.Interrupt | callbacks.Cancel] = deque()
        self._freed_from: set[int] = set()
        self._ending: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._started = time.monotonic()
        self._vacancy: Vacancy | None = None
        self.reserve = Reserve()
        self.tells_all = False
        self.done = self._loop.create_future()

    def _home_loop(self) -> asyncio.AbstractEventLoop | None:
        """Where cells wait for the host's answers."""
        return self._session.manager.loop if self._session is not None else None

    @property
    def _executor(self) -> WorkerExecutor:
        """What runs the session's cells."""
        executor = self.session.executor
        assert isinstance(executor, WorkerExecutor)
        return executor

    @property
    def session(self) -> Session:
        """The session.

        Raises:
            ProtocolError: There is none.
        """
        if self._session is None:
            raise ProtocolError("there is no session: Open comes first")
        return self._session

    # -- messages ----------------------------------------------------------------------------

    def take(self, received: Received[Any]) -> None:
        """Do what a message asks for, or begin to."""
        message = received.message
        kind = type(message)
        serve = _REQUESTS.get(kind)
        if serve is not None:
            self._do(serve, message, received)
        elif kind is handshake.Hello:
            self._greet(message)
        elif kind is callbacks.Cancel:
            self._stop_soon(message)
        else:
            self._calls.answer(received)

    # -- stopping cells ----------------------------------------------------------------------
    #
    # A cell may begin within the step of the loop that asks for it, and what is to stop it may have
    # come in the same moment. That waits behind the beginnings of all cells before it; and where
    # one of these keeps the loop, the signal finds it here.

    def hurry(self, message: Any) -> bool:
        """Stop a cell that runs, where *message* is to; whether it was that.

        Called in a signal's handler, in the middle of a cell. Otherwise it keeps its place: the
        cell that is meant comes before. So does what ends all cells; this one is to let it.
        """
        if isinstance(message, _ENDING):
            self._free_loop()
        is_stop = isinstance(message, requests.Interrupt | callbacks.Cancel)
        return is_stop and self._stop_now(message)

    def catch_up(self) -> None:
        """The same with what has left its place, and waits for the loop."""
        for message in list(self._stops):
            if self._stop_now(message):
                self._stops.remove(message)
        if self._ending is not None and not has_begun(self._ending):
            self._free_loop()

    def _stop_soon(self, message: Any) -> None:
        self._stops.append(message)
        self._loop.call_soon(self._stop_all)

    def _stop_all(self) -> None:
        """Stop what is to be stopped. On the loop."""
        while self._stops:
            message = self._stops.popleft()
            if isinstance(message, callbacks.Cancel):
                if (task := self._tasks.get(message.request)) is not None:
                    task.cancel()
            elif not self._stop_now(message):
                self._link.send(replies.Interrupted(message.id, False))

    def _stop_now(self, message: requests.Interrupt | callbacks.Cancel) -> bool:
        """Interrupt what *message* is about; False when there is nothing yet."""
        if self._session is None:
            return False
        if isinstance(message, requests.Interrupt):
            found = self._session.interrupt(message.cell)
            if found:
                self._link.send(replies.Interrupted(message.id, True))
            return found
        cells = [it.cell for it in list(self._owed.values()) if it.id == message.request]
        return bool(cells) and self._session.interrupt(cells[0])

    def _free_loop(self) -> None:
        """Stop the cell in whose code this is, once, and first those that would begin after it.

        The others are left to the loop, which tells each cell only once to end.
        """
        job, session = current_job.get(), self._session
        home = None if session is None else session.manager.current_home
        if job is None or session is None or home is None or job.number in self._freed_from:
            return
        self._freed_from.add(job.number)
        for number in [*(it.number for it in reversed(home.queue)), job.number]:
            session.interrupt(number)

    def interrupt_all(self) -> None:
        """Stop all cells that run. Threads: any; signal handlers too."""
        if self._session is not None:
            self._session.interrupt()

    def _do(self, serve: Callable[..., Any], message: Any, received: Received[Any]) -> None:
        """Answer a request by *serve*, now or by a task."""
        buffers: list[Buffer] = []
        try:
            answer = serve(self, message, received.buffers, buffers)
        except Exception as error:  # a boundary: what a request meets is its answer
            self._fail(message.id, error)
            return
        if answer is None:
            return
        if isinstance(answer, Coroutine):
            parent = self._job(getattr(message, "parent", 0))
            task = self._task_of(parent, self._finish(message, answer))
            self._note_task(message.id, task)
            if isinstance(message, _ENDING):
                self._ending = task
        else:
            self._reply(answer, buffers)

    def _note_task(self, request: int, task: asyncio.Task[None]) -> None:
        self._tasks[request] = task
        task.add_done_callback(lambda _: self._tasks.pop(request, None))

    async def _finish(self, message: Any, work: Coroutine[Any, Any, Any]) -> None:
        """Do what takes its time."""
        try:
            answer, buffers = await work
        except (Exception, asyncio.CancelledError) as error:  # a boundary, as above
            self._fail(message.id, error)
            return
        self._reply(answer, buffers)
        if isinstance(answer, replies.Ended) and not isinstance(message, requests.Reset):
            self._finished()

    def _reply(self, answer: Any, buffers: list[Buffer]) -> None:
        try:
            self._link.send(answer, buffers)
        except (MessageTooLargeError, MemoryError) as error:
            self._fail(answer.id, error)

    def _fail(self, request: int, error: BaseException) -> None:
        try:
            self._link.send(replies.Failed(request, failure_of(error)))
        except (MemoryError, InternalError) as worse:  # who waits for an answer hears of the end
            leave(worse)
        if self._session is None:  # it was Open
            self._finished()

    def _finished(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    # -- beginning and end -------------------------------------------------------------------

    def _greet(self, hello: handshake.Hello) -> None:
        version = handshake.agreed_version(hello.versions)
        if version is None:
            text = f"this worker speaks versions {handshake.VERSIONS}"
            self._link.send(handshake.Refused(handshake.VERSIONS, text))
            self._finished()
            return
        self._link.encoder.limits = hello.limits
        features = self._link.adopt(hello.features)
        python = ".".join(map(str, sys.version_info[:3]))
        self._link.send(handshake.Welcome(version, features, python=python, pid=os.getpid()))
        if hello.reuse:
            from isthmus.worker.vacancy import Vacancy  # most workers have one session

            self._vacancy = Vacancy(self._link, self._capture, self._calls)

    def _open(self, message: requests.Open, _: Any, __: Any) -> Any:
        self.tells_all = message.events
        limit = message.output_limit
        if message.limits is not None:
            from isthmus.worker.limits import WorkerLimits  # few workers have any

            WorkerLimits(**msgspec.structs.asdict(message.limits)).apply()
        transport = LinkTransport(self._link, self._capture, message)
        session = WorkerSideSession(
            message.name,
            transport=transport,
            main=message.main,
            file=message.file,
            history=message.history,
            coroutine_policy=message.coroutine_policy,
            output_limit=DEFAULT_OUTPUT_LIMIT if limit is None else limit,
            late_output=message.late_output,
            blocked_seconds=message.blocked_seconds,
            hooks=message.hooks,
        )
        self._session, self._opened, self._transport = session, message, transport
        self._executor.teller = self
        if message.program is not None:
            _be_program(message.program, session.namespace, message.file)
        for description in message.capabilities:
            self._inject_one(description)
        return replies.Done(message.id)

    async def _reset(self, message: requests.Reset) -> tuple[Any, list[Buffer]]:
        return _ended(message.id, await self.session.reset(message.timeout)), []

    async def _close(self, message: requests.Close) -> tuple[Any, list[Buffer]]:
        if self._session is None:
            return replies.Ended(message.id), []
        return _ended(message.id, await self._session.close(message.timeout)), []

    async def _vacate(self, message: requests.Vacate) -> tuple[Any, list[Buffer]]:
        report = await self.session.close(message.timeout)
        unfit = ", ".join(report.left) or await self._leave_session(report.canary, message.timeout)
        if unfit:
            return _ended(message.id, report, unfit), []
        return replies.Vacated(message.id), []

    async def _leave_session(self, canary: Canary | None, timeout: float) -> str:
        """Hold nothing of the session, which has ended; what is in the way of another."""
        if others := {*self._tasks.values()} - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=timeout)  # which answer, and not without a session
        self._executor.flush_output()
        self._session = self._transport = self._link.slate = None
        self._opened, self.tells_all = requests.Open(0), False
        self._freed_from.clear()
        self._ending = None
        assert self._vacancy is not None
        return await self._vacancy.restore(canary, timeout)

    def _ping(self, message: requests.Ping, _: Any, __: Any) -> None:
        """Answer when the loop has gone round once more: cells may be about to begin."""
        self._loop.call_soon(self._pong, message.id)

    def _pong(self, request: int) -> None:
        usage = own_usage()
        pong = replies.Pong(
            request,
            cells=tuple(sorted(self._owed)),
            memory_bytes=usage.memory_bytes,
            peak_memory_bytes=usage.peak_memory_bytes,
            cpu_seconds=usage.cpu_seconds,
            uptime=time.monotonic() - self._started,
        )
        self._link.send(pong)

    # -- cells -------------------------------------------------------------------------------

    def _run_cell(self, message: requests.RunCell, _: Any, __: Any) -> None:
        self._begin_cell(message, self._executor.run_cell(message))

    def _call_function(self, message: requests.CallFunction, given: list[Buffer], _: Any) -> Any:
        args, kwargs = (), {}
        if message.arguments is not None:
            args, kwargs = PackedValue(message.arguments, given).load(trusted=True)
        self._begin_cell(message, self._executor.call_function(message, args, kwargs))

    def _begin_cell(
        self, message: requests.CellRequest, work: Coroutine[Any, Any, CellRun]
    ) -> None:
        """Run a cell until it waits or ends; one that waits goes on in a task."""
        self._owed[message.cell] = message
        seeing_to = self._see_to(message, work)
        parent = self._job(message.parent)
        task = (
            begin_now(seeing_to, self._loop) if parent is None else self._task_of(parent, seeing_to)
        )
        if task is not None:
            self._note_task(message.id, task)

    async def _see_to(
        self, message: requests.CellRequest, work: Coroutine[Any, Any, CellRun]
    ) -> None:
        """Run a cell; send its outcome unless the cell has done so itself."""
        try:
            run = await work
        except (Exception, asyncio.CancelledError) as error:  # a boundary, as above
            if self._owed.pop(message.cell, None) is not None:
                self._fail(message.id, error)
        else:
            self.send_outcome(run)

    def _job(self, number: int) -> Job | None:
        """The cell with this number, if there is one that has not ended; None for 0."""
        if not number:  # most of the time
            return None
        home = self.session.manager.current_home
        jobs = home.unended() if home is not None else []
        return next((job for job in jobs if job.number == number), None)

    def _task_of(self, parent: Job | None, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that does *work* as code of the cell *parent* would."""
        context = copy_context()
        context.run(current_job.set, parent)
        return asyncio.Task(work, loop=self._loop, context=context)

    def announces(self, number: int) -> bool:
        """Whether the host wants an answer when the code of a cell is about to run."""
        request = self._owed.get(number)
        return request is not None and request.announce

    def cell_started(self, number: int) -> None:
        """The code of a cell is about to run. Threads: the cell's."""
        if self.announces(number):
            self._link.send(replies.Started(self._owed[number].id))

    def send_outcome(self, run: CellRun) -> None:
        """Send how a cell has ended, unless that was done. Threads: any."""
        request = self._owed.pop(run.number, None)
        if request is None:
            return
        if self._link.forked:  # a child process that a cell has made ends with the cell
            leave(run.error)
        try:
            if self._transport is not None:
                self._transport.send_captured(run.number)
            outcome, buffers = self._outcome(request.id, run)
            run.release()
            self._link.send(outcome, buffers)
        except (MessageTooLargeError, MemoryError) as error:
            self._fail(request.id, error)

    def _outcome(self, request: int, run: CellRun) -> tuple[replies.Outcome, list[Buffer]]:
        """How *run* has ended; what it has written was sent, and is not in it."""
        buffers: list[Buffer] = []
        value, error = run.value, run.error
        outcome = replies.Outcome(
            request,
            cell=run.number,
            context=run.context,
            filename=run.cell.filename,
            status=run.status,
            value=None if value is None else self._packed(value, buffers),
            error=None if error is None else failure_of(error),
            bound=run.names_bound(),
            deleted=run.names_deleted(),
            exact=run.exact,
            adopted=run.adopted,
            duration=run.duration,
            stopped=not run.abandoned,
            rolled_back=run.rolled_back or (),
        )
        return outcome, buffers

    def _packed(self, value: object, buffers: list[Buffer]) -> Value:
        return pack(value, buffers, trusted=self._opened.pickle)

    # -- names -------------------------------------------------------------------------------

    def _get(self, message: requests.GetName, _: Any, buffers: list[Buffer]) -> Any:
        value = self.session.manager.get(message.name)
        return replies.Returned(message.id, None if value is None else self._packed(value, buffers))

    def _update(self, message: requests.UpdateNames, given: list[Buffer], _: Any) -> Any:
        values = {
            name: PackedValue(value, given).load(trusted=True)
            for name, value in message.values.items()
        }
        self.session.update_namespace(values, message.source_context)
        return replies.Done(message.id)

    def _delete(self, message: requests.DeleteName, _: Any, __: Any) -> Any:
        self.session.manager.delete(message.name, message.source_context)
        return replies.Done(message.id)

    def _snapshot(self, message: requests.Snapshot, _: Any, buffers: list[Buffer]) -> Any:
        found: dict[str, Any] = self.session.snapshot()
        if message.names is not None:
            found = {name: found[name] for name in message.names if name in found}
        packed = {name: self._packed(value, buffers) for name, value in found.items()}
        return replies.Snapshotted(message.id, packed)

    def _view(self, message: requests.View, _: Any, __: Any) -> Any:
        names = described_names(self.session.view, message.text_characters)
        return replies.Viewed(message.id, tuple(names))

    # -- capabilities ------------------------------------------------------------------------

    def _inject(self, message: requests.Inject, _: Any, __: Any) -> Any:
        self._inject_one(message.capability)
        return replies.Done(message.id)

    def _inject_one(self, description: Any) -> None:
        manager = self.session.manager
        replaced = manager.capabilities.get(description.name)
        made = RemoteCapability(description, self._calls, manager)
        NamespaceManager.inject_capability(manager, description.name, made)
        if replaced is not None:
            replaced.revoke()

    def _revoke(self, message: requests.Revoke, _: Any, __: Any) -> Any:
        self.session.revoke_capability(message.name)
        return replies.Done(message.id)

    # -- coroutines --------------------------------------------------------------------------

    def _list_pending(self, message: requests.ListPending, _: Any, __: Any) -> Any:
        names = described_names(self.session.pending_coroutines, TEXT_CHARACTERS)
        return replies.Viewed(message.id, tuple(names))

    async def _await_pending(self, message: requests.AwaitPending) -> tuple[Any, list[Buffer]]:
        settled = await self.session.await_pending_coroutines(message.timeout)
        buffers: list[Buffer] = []
        results = {name: self._packed(value, buffers) for name, value in settled.items()}
        errors = {name: failure_of(error) for name, error in settled.errors.items()}
        answer = replies.Settled(
            message.id, results=results, errors=errors, unfinished=settled.unfinished
        )
        return answer, buffers

    # -- the ledger --------------------------------------------------------------------------

    def _list_ledger(self, message: requests.ListLedger, _: Any, __: Any) -> Any:
        entries = tuple(Owned(*astuple(it)) for it in self.session.ledger())
        return replies.Listed(message.id, entries)

    def _take_census(self, message: requests.TakeCensus, _: Any, __: Any) -> Any:
        counts = {str(kind): number for kind, number in self.session.census().items()}
        return replies.Counted(message.id, counts)

    def _report(self, message: requests.Report, _: Any, __: Any) -> Any:
        return replies.Reported(message.id, str(self.session.report()))


def _be_program(program: MainProgram, namespace: dict[str, Any], file: str | None) -> None:
    """Let cells see what a program sees under ``python FILE``."""
    sys.argv[:] = program.argv
    if not sys.flags.safe_path:
        sys.path[0:1] = [program.folder]
    namespace["__doc__"] = program.doc
    if file is None:
        namespace.pop("__file__", None)


def _ended(request: int, report: CloseReport, unfit: str = "") -> replies.Ended:
    """The answer that says what would not end, and what keeps the worker from going on."""
    names = set(replies.Ended.__struct_fields__) - {"id", "unfit"}
    return replies.Ended(request, unfit=unfit, **{it: getattr(report, it) for it in names})


def _taking_time(method: Callable[[Service, Any], Any]) -> Callable[..., Any]:
    """*method*, which needs no buffers, as the others are called."""
    return lambda service, message, _, __: method(service, message)


_REQUESTS: dict[type[Any], Callable[..., Any]] = {
    requests.Open: Service._open,
    requests.Reset: _taking_time(Service._reset),
    requests.Vacate: _taking_time(Service._vacate),
    requests.Close: _taking_time(Service._close),
    requests.Ping: Service._ping,
    requests.RunCell: Service._run_cell,
    requests.CallFunction: Service._call_function,
    requests.Interrupt: lambda service, message, _, __: service._stop_soon(message),
    requests.GetName: Service._get,
    requests.UpdateNames: Service._update,
    requests.DeleteName: Service._delete,
    requests.Snapshot: Service._snapshot,
    requests.View: Service._view,
    requests.Inject: Service._inject,
    requests.Revoke: Service._revoke,
    requests.ListPending: Service._list_pending,
    requests.AwaitPending: _taking_time(Service._await_pending),
    requests.ListLedger: Service._list_ledger,
    requests.TakeCensus: Service._take_census,
    requests.Report: Service._report,
}
