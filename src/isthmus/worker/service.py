"""What a worker does for its host. Owns one session, and the answer to each request.

Requests that take no time are done at once, in the order in which they come; cells, and waiting for
coroutines, are tasks. A cell's outcome is sent by the cell's own thread when its code has ended.

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
from typing import Any, ClassVar

from isthmus.cell_run import CellRun
from isthmus.ending import CloseReport
from isthmus.errors import InternalError, MessageTooLargeError, ProtocolError
from isthmus.events import CellResult, Display, Event, Output, OutputDropped
from isthmus.executor import AsyncExecutor
from isthmus.namespace import NamespaceManager
from isthmus.namespace_view import NamespaceView
from isthmus.output import DEFAULT_OUTPUT_LIMIT
from isthmus.remote_failures import failure_of
from isthmus.session import Session
from isthmus.tracebacks import safe_repr
from isthmus.values import PackedValue, pack, type_name
from isthmus.wire import callbacks, handshake, replies, requests
from isthmus.wire.frames import Buffer, Received
from isthmus.wire.parts import NameDescription, Value
from isthmus.worker.capture import Capture
from isthmus.worker.leaving import leave
from isthmus.worker.link import Link
from isthmus.worker.remote_capability import Calls, RemoteCapability
from isthmus.worker.usage import own_usage

_OUTPUT = (Output, OutputDropped, Display)


class LinkTransport:
    """Sends events to the host, each line at once: code that never lets go may follow it.

    Arguments:
        link: The connection.
        capture: What was written to descriptors.
        opened: What the host has asked for.
    """

    lines_at_once = sys.maxsize

    def __init__(self, link: Link, capture: Capture, opened: requests.Open) -> None:
        self.all_events = opened.events
        self.wants_mime = opened.mime
        self._session = opened.name
        self._capture = capture
        self._link = link

    def send(self, event: Event) -> None:
        """Write *event* to the host; in a child process of the worker, to its own streams."""
        if self._link.forked:
            if isinstance(event, Output):
                descriptor = 1 if event.stream == "stdout" else 2
                os.write(descriptor, event.text.encode("utf-8", "backslashreplace"))
        elif isinstance(event, _OUTPUT):
            self.send_captured(event.cell)
            self._link.send(event)
        elif self.all_events:
            self._link.send(event)

    def send_captured(self, cell: int) -> None:
        """Send what was written to descriptors until now, as output of *cell*."""
        for stream, text in self._capture.take():
            self._link.send(Output(self._session, cell, stream, text))


class WorkerExecutor(AsyncExecutor):
    """Runs cells, and tells of each where its code begins and ends, in its own thread."""

    service: Service

    def _observe(self, run: CellRun, title: str) -> None:
        super()._observe(run, title)
        run.told = True

    def cell_started(self, run: CellRun) -> None:
        """Tell the host, if it wants to know."""
        if self.service.tells_all:
            super().cell_started(run)
        self.service.cell_started(run.number)

    def cell_ended(self, run: CellRun) -> None:
        """Send the outcome. A cell that was given up has been told of."""
        super().cell_ended(run)
        if not run.abandoned:
            self.service.send_outcome(run.number, run.result)

    def _emit_finished(self, run: CellRun) -> None:
        """Make no event of the outcome where nobody wants it: it asks the value for its repr."""
        if self.service.tells_all:
            super()._emit_finished(run)
        elif run.is_first_to_tell():
            run.finish_output()


class WorkerSideSession(Session):
    """The session that lives here."""

    _executor_type: ClassVar[type[AsyncExecutor]] = WorkerExecutor


class Service:
    """Serves one host.

    Arguments:
        link: The connection to it.
        capture: What was written to descriptors.

    Attributes:
        done: Set when the session has ended as the host wanted, or there never was one.
        tells_all: The host wants all events.
    """

    def __init__(self, link: Link, capture: Capture) -> None:
        self._link = link
        self._capture = capture
        self._calls = Calls(link)
        self._transport: LinkTransport | None = None
        self._session: WorkerSideSession | None = None
        self._opened = requests.Open(0)
        self._owed: dict[int, requests.CellRequest] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._stops: deque[requests.Interrupt | callbacks.Cancel] = deque()
        self._loop = asyncio.get_running_loop()
        self.tells_all = False
        self.done = self._loop.create_future()

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
        if isinstance(message, handshake.Hello):
            self._greet(message)
        elif isinstance(message, callbacks.Cancel):
            self._stop_soon(message)
        elif isinstance(message, requests.Request):
            self._do(message, received)
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
        cell that is meant comes before.
        """
        is_stop = isinstance(message, requests.Interrupt | callbacks.Cancel)
        return is_stop and self._stop_now(message)

    def catch_up(self) -> None:
        """The same with what has left its place, and waits for the loop."""
        for message in list(self._stops):
            if self._stop_now(message):
                self._stops.remove(message)

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

    def interrupt_all(self) -> None:
        """Stop all cells that run. Threads: any; signal handlers too."""
        if self._session is not None:
            self._session.interrupt()

    def _do(self, message: Any, received: Received[Any]) -> None:
        """Answer a request, now or by a task."""
        buffers: list[Buffer] = []
        try:
            answer = _REQUESTS[type(message)](self, message, received.buffers, buffers)
        except Exception as error:  # a boundary: what a request meets is its answer
            self._fail(message.id, error)
            return
        if isinstance(answer, Coroutine):
            task = asyncio.Task(self._finish(message, answer), loop=self._loop)
            self._tasks[message.id] = task
            task.add_done_callback(lambda _: self._tasks.pop(message.id, None))
        elif answer is not None:
            self._reply(answer, buffers)

    async def _finish(self, message: Any, work: Coroutine[Any, Any, Any]) -> None:
        """Do what takes its time."""
        try:
            answer = await work
        except (Exception, asyncio.CancelledError) as error:  # a boundary, as above
            told = isinstance(message, requests.CellRequest) and message.cell not in self._owed
            if not told:
                self._owed.pop(getattr(message, "cell", 0), None)
                self._fail(message.id, error)
            return
        if answer is not None:
            answer, buffers = answer
            self._reply(answer, buffers)
        if isinstance(message, requests.Close):
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
        python = ".".join(map(str, sys.version_info[:3]))
        self._link.send(handshake.Welcome(version, python=python, pid=os.getpid()))

    def _open(self, message: requests.Open, _: Any, __: Any) -> Any:
        self.tells_all = message.events
        limit = message.output_limit
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
            hooks=message.hooks,
        )
        assert isinstance(session.executor, WorkerExecutor)
        session.executor.service = self
        self._session, self._opened, self._transport = session, message, transport
        for description in message.capabilities:
            self._inject_one(description)
        return replies.Done(message.id)

    async def _reset(self, message: requests.Reset) -> tuple[Any, list[Buffer]]:
        return _ended(message.id, await self.session.reset(message.timeout)), []

    async def _close(self, message: requests.Close) -> tuple[Any, list[Buffer]]:
        if self._session is None:
            return replies.Ended(message.id), []
        return _ended(message.id, await self._session.close(message.timeout)), []

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
            uptime=time.monotonic() - _STARTED,
        )
        self._link.send(pong)

    # -- cells -------------------------------------------------------------------------------

    def _run_cell(self, message: requests.RunCell, _: Any, __: Any) -> Any:
        work = self.session.executor.run(
            message.source,
            context=message.context,
            timeout=message.timeout,
            concurrent=message.concurrent,
            atomic=message.atomic,
            filename=message.filename,
            title=message.title,
            number=message.cell,
        )
        return self._see_to(message, work)

    def _call_function(self, message: requests.CallFunction, given: list[Buffer], _: Any) -> Any:
        args, kwargs = (), {}
        if message.arguments is not None:
            args, kwargs = PackedValue(message.arguments, given).load(trusted=True)
        work = self.session.executor.run_call(
            message.name,
            args,
            kwargs,
            context=message.context,
            timeout=message.timeout,
            concurrent=message.concurrent,
            atomic=message.atomic,
            title=message.title,
            number=message.cell,
        )
        return self._see_to(message, work)

    async def _see_to(
        self, message: requests.CellRequest, work: Coroutine[Any, Any, CellResult]
    ) -> None:
        """Run a cell; send its outcome unless the cell has done so itself."""
        self._owed[message.cell] = message
        result = await work
        self.send_outcome(message.cell, lambda: result)

    def cell_started(self, number: int) -> None:
        """The code of a cell is about to run. Threads: the cell's."""
        request = self._owed.get(number)
        if request is not None and request.announce:
            self._link.send(replies.Started(request.id))

    def send_outcome(self, number: int, result: Callable[[], CellResult]) -> None:
        """Send how a cell has ended, unless that was done. Threads: any."""
        request = self._owed.pop(number, None)
        if request is None:
            return
        if self._link.forked:  # a child process that a cell has made ends with the cell
            leave(result().error)
        try:
            if self._transport is not None:
                self._transport.send_captured(number)
            outcome, buffers = self._outcome(request.id, result())
            self._link.send(outcome, buffers)
        except (MessageTooLargeError, MemoryError) as error:
            self._fail(request.id, error)

    def _outcome(self, request: int, result: CellResult) -> tuple[replies.Outcome, list[Buffer]]:
        buffers: list[Buffer] = []
        value, error = result.value, result.error
        outcome = replies.Outcome(
            request,
            cell=result.cell,
            context=result.context,
            filename=result.filename,
            status=result.status,
            value=None if value is None else self._packed(value, buffers),
            error=None if error is None else failure_of(error),
            stdout=result.stdout,
            stderr=result.stderr,
            displays=result.displays,
            bound=result.bound,
            deleted=result.deleted,
            exact=result.exact,
            adopted=result.adopted,
            duration=result.duration,
            stopped=result.stopped,
            rolled_back=result.rolled_back,
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
        found = self.session.snapshot()
        if message.names is not None:
            found = {name: found[name] for name in message.names if name in found}
        packed = {name: self._packed(value, buffers) for name, value in found.items()}
        return replies.Snapshotted(message.id, packed)

    def _view(self, message: requests.View, _: Any, __: Any) -> Any:
        view = NamespaceView(self.session.name, self.session.namespace)
        size = message.text_characters
        names = tuple(
            NameDescription(name, type_name(value), safe_repr(value)[:size] if size else "")
            for name, value in view.items()
        )
        return replies.Viewed(message.id, names)

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
        return replies.Pending(message.id, tuple(self.session.pending_coroutines))

    async def _await_pending(self, message: requests.AwaitPending) -> tuple[Any, list[Buffer]]:
        settled = await self.session.await_pending_coroutines(message.timeout)
        buffers: list[Buffer] = []
        results = {name: self._packed(value, buffers) for name, value in settled.items()}
        errors = {name: failure_of(error) for name, error in settled.errors.items()}
        answer = replies.Settled(
            message.id, results=results, errors=errors, unfinished=settled.unfinished
        )
        return answer, buffers

    async def _clean_up(self, message: requests.CleanUp) -> tuple[Any, list[Buffer]]:
        stubborn = await self.session.manager.cleanup_coroutines(message.timeout)
        return replies.Pending(message.id, stubborn), []


def _ended(request: int, report: CloseReport) -> replies.Ended:
    """The answer that says what would not end."""
    return replies.Ended(
        request,
        cells=report.cells,
        tasks=report.tasks,
        thread=report.thread,
        threads=report.threads,
        coroutines=report.coroutines,
        async_generators=report.async_generators,
    )


_STARTED = time.monotonic()


def _taking_time(method: Callable[[Service, Any], Any]) -> Callable[..., Any]:
    """*method*, which needs no buffers, as the others are called."""
    return lambda service, message, _, __: method(service, message)


_REQUESTS: dict[type[Any], Callable[..., Any]] = {
    requests.Open: Service._open,
    requests.Reset: _taking_time(Service._reset),
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
    requests.CleanUp: _taking_time(Service._clean_up),
}
