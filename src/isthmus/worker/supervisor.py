"""One life of a worker: start, handshake, requests, interrupts, death. Owns the order of these.

Refuses to know: what a session's methods mean.

Guarantees: when the worker has died, all who wait for it have an error at once; no process, and no
descriptor, is left.

Threads: the loop's.
"""

from __future__ import annotations

import asyncio
import functools
import math
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from isthmus.ending import CLOSING_STEPS
from isthmus.errors import (
    InternalError,
    MessageTooLargeError,
    ProtocolError,
    ProtocolVersionError,
    RemoteError,
    WorkerDied,
    WorkerStartError,
)
from isthmus.events import Event, Output
from isthmus.wire import callbacks, handshake, replies, requests
from isthmus.wire.frames import Buffer, Received
from isthmus.worker.callbacks import HostFunctions
from isthmus.worker.connection import Answer, Convert, HostConnection
from isthmus.worker.flight import Flight
from isthmus.worker.host_calls import HostCalls
from isthmus.worker.launch import Launch
from isthmus.worker.process import WorkerProcess
from isthmus.worker.slate import HostSlate
from isthmus.worker.standstill import StandstillWatch

NUDGE_SECONDS = 0.02
"""How soon to signal again a worker that was in code of ours, where it does not read messages."""

PARTING_SECONDS = 0.5
"""How long the end of the stream may come before that of the process, or after it; from the air."""

SOFTWARE = "isthmus"

_OF_FUNCTIONS = (callbacks.CallCapability, callbacks.Step, callbacks.Release, callbacks.Cancel)


class Supervisor:
    """One worker process, from its start to its end.

    Arguments:
        launch: How to start it.
        flight: Where the cells are noted.
        functions: What cells may call of the host.
        grace_seconds: How long it may take to do what it was told before it is killed.
        standstill: Makes what tells that it does not answer, given how to ask it; None for nobody.

    Attributes:
        death: What it died of; None as long as it lives.
        flight: The cells that it runs.
        reason: Why it was killed; empty unless it was.
        is_closing: It was told to end.
    """

    def __init__(
        self,
        launch: Launch,
        flight: Flight,
        functions: HostFunctions,
        grace_seconds: float,
        standstill: Callable[[Callable[[], asyncio.Future[Any]]], StandstillWatch] | None = None,
    ) -> None:
        self.death: WorkerDied | None = None
        self._launch = launch
        self.flight = flight
        self._calls = HostCalls(functions, self)
        self._grace = grace_seconds
        self._connection = HostConnection(self._take, self._lost)
        self._process: WorkerProcess | None = None
        self._loop = asyncio.get_running_loop()
        self._greeted: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._is_lost = False
        self._fault: ProtocolError | None = None
        self.reason = ""
        self.is_closing = False
        self._slate = HostSlate(flight.session, flight.tell)
        self._chores: set[asyncio.Task[None]] = set()
        self._standstill = standstill(self._ping) if standstill is not None else None

    # -- the start ---------------------------------------------------------------------------

    async def start(self, opening: dict[str, Any] | None, timeout: float | None) -> None:
        """Start the process, unless it waits already, and open the session in it.

        Arguments:
            opening: The fields of ``Open``; None opens nothing, and lets the worker wait.
            timeout: Seconds for all of it; None sets no bound.

        Raises:
            WorkerStartError: It could not be started, or did not answer in time, or not as a worker
                does. No process is left.
            ProtocolVersionError: It speaks another version. No process is left.

        Cancel: ends the process.
        """
        is_open = False
        try:
            async with asyncio.timeout(timeout):
                if self._process is None and self.death is None:
                    await self._connect()
                    await self._greeted
                if opening is not None:
                    await self.ask(requests.Open, slate=self._slate.make(), **opening)
            is_open = True
        except TimeoutError as error:
            raise self._start_error(f"it did not answer in {timeout} s") from error
        except (WorkerDied, OSError, RemoteError, MessageTooLargeError) as error:
            raise self._start_error(str(error)) from error
        finally:
            self._slate.unlink()
            if not is_open and self._process is not None:
                self._process.kill()
                await asyncio.wait({self._ended})

    def adopt(self, waiting: Supervisor) -> None:
        """Take over the process of *waiting*, in which no session is open.

        What it has written until now stays there. For *waiting* there is no process any more.
        """
        self.death, self.reason = waiting.death, waiting.reason
        process, waiting._process = waiting._process, None
        if process is None or self.death is not None:
            return
        process.drain()
        self._process, self._connection = process, waiting._connection
        self._process.serve(self.flight.capture, self._exited)
        self._connection.serve(self._take, self._lost)
        if waiting._is_lost:
            self._lost(waiting._fault)
        elif process.ending is not None:
            self._exited()
        waiting._retire()

    def _retire(self) -> None:
        """Be of no use any more, as another one looks after the process."""
        self.death = WorkerDied("its session was closed, and the worker may have another one")
        self._calls.end(self.death)
        self._stop_watching()

    def _stop_watching(self) -> None:
        self._slate.end()
        if self._standstill is not None:
            self._standstill.close()

    def when_ended(self, function: Callable[[], object]) -> None:
        """Have *function* called once the process has ended."""
        self._ended.add_done_callback(lambda _: function())

    def _start_error(self, what: str) -> WorkerStartError:
        if self._process is not None:
            self._process.drain()
        output = self.flight.last_output.strip()
        told = f"; it has written:\n{output}" if output else ""
        text = f"the worker ({self._launch.python}) could not be started: {what}{told}"
        return WorkerStartError(text)

    async def _connect(self) -> None:
        with ExitStack() as undo:
            ours, theirs = map(undo.enter_context, socket.socketpair())
            self._process = WorkerProcess(self._launch, theirs, self.flight.capture, self._exited)
            self._connection.greet(ours, SOFTWARE, reuse=self._launch.reuse)
            await self._loop.create_unix_connection(lambda: self._connection, sock=ours)
            undo.pop_all()
            theirs.close()
        await self._process.started()

    # -- messages ----------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._process is not None
        return self._process.pid

    def ask(
        self,
        kind: Callable[..., Any],
        convert: Convert | None = None,
        buffers: Sequence[Buffer] = (),
        **fields: Any,
    ) -> asyncio.Future[Any]:
        """Send a request; a future of what becomes of its answer.

        Raises:
            WorkerDied: There is nobody to ask.
            MessageTooLargeError: It is more than the worker takes. Nothing was sent.
        """
        return self.ask_numbered(lambda number: kind(number, **fields), convert, buffers)[1]

    def ask_numbered(
        self,
        make: Callable[[int], Any],
        convert: Convert | None = None,
        buffers: Sequence[Buffer] = (),
    ) -> tuple[int, Answer]:
        """Send the request that *make* makes of an id; the id, and the same as above."""
        if self.death is not None:
            raise _copied(self.death)
        if self._is_lost:  # its end will be here in a moment, and say why
            answer = Answer(loop=self._loop)
            self._ended.add_done_callback(functools.partial(self._fail_late, answer))
            return 0, answer
        return self._connection.ask(make, convert, buffers)

    def note_cell(self) -> None:
        """A cell is on its way."""
        if self._standstill is not None and self.death is None:
            self._standstill.wake()

    def _ping(self) -> asyncio.Future[Any]:
        free = self.ask(requests.Ping)
        free.add_done_callback(look_at)
        return free

    def _fail_late(self, answer: Answer, _: object) -> None:
        if not answer.done() and self.death is not None:
            answer.fail(_copied(self.death))

    def send(self, message: Any, buffers: Sequence[Buffer] = ()) -> None:
        """Send what has no answer; nothing where there is nobody to hear it."""
        if self.death is None and not self._is_lost and not self._connection.is_over:
            self._connection.send(message, buffers)

    def _take(self, received: Received[Any]) -> None:
        """Take what is no last answer."""
        message = received.message
        if isinstance(message, Output):
            self._slate.pass_on(message)
        elif isinstance(message, Event):
            self.flight.tell(message)
        elif isinstance(message, callbacks.Held):
            self._slate.watch()
        elif isinstance(message, _OF_FUNCTIONS):
            self._calls.take(received)
        elif isinstance(message, handshake.Welcome):
            self._connection.agree(message)
            self._greet(None)
        elif isinstance(message, handshake.Refused):
            text = f"the worker speaks versions {message.versions}, not {handshake.VERSIONS}"
            self._greet(ProtocolVersionError(text))
        elif not isinstance(message, replies.Started):
            raise InternalError(f"nobody takes {message!r}; please report this")

    def _greet(self, error: Exception | None) -> None:
        if self._greeted.done():
            return
        if error is None:
            self._greeted.set_result(None)
        else:
            self._greeted.set_exception(error)

    # -- being interrupted -------------------------------------------------------------------

    def pursue(self, cells: Sequence[int], work: asyncio.Future[Any], what: str) -> None:
        """See to it that the worker takes notice of *work*; one that hangs is killed in the end.

        Arguments:
            cells: Numbers of cells that are told to end; where they have, all is well.
            work: Done when the worker has taken notice.
            what: What is said of its death otherwise.
        """
        chore = self._loop.create_task(self._pursue(cells, work, what))
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)

    async def _pursue(self, cells: Sequence[int], work: asyncio.Future[Any], what: str) -> None:
        """Signal until the worker has read its messages, and wait until its loop goes round.

        A loop that goes round does what a session does: a cell that will not end is left behind.
        Time is counted in waits: a host that was stopped for a while has not waited.
        """
        if self.death is not None or self.is_closing:
            return
        free = self._ping()
        waits = math.ceil(self._grace / NUDGE_SECONDS)
        while not free.done() and set(cells) <= set(self.flight.cells):
            if not waits:
                self.kill(what)
                return
            waits -= 1
            if self._process is not None and not work.done():
                self._process.signal()
            await asyncio.wait({free, work}, timeout=NUDGE_SECONDS)

    def kill(self, reason: str) -> None:
        """End the process at once.

        Arguments:
            reason: What is said of its death.
        """
        if self.death is None and self._process is not None:
            self.reason = self.reason or reason
            self._process.kill()

    # -- the end -----------------------------------------------------------------------------

    async def reset(self, timeout: float, parent: int) -> replies.Ended:
        """Reset the session; what the worker says of it. One that cannot do so is killed.

        Arguments:
            timeout: Seconds for each of cells, tasks and thread to end.
            parent: The cell that wants it, which goes on; or 0.
        """
        answer = self.ask(requests.Reset, timeout=timeout, parent=parent)
        late = self._loop.call_later(
            NUDGE_SECONDS, self.pursue, (), answer, "its session could not be reset"
        )
        try:
            ended: replies.Ended = await answer
            return ended
        finally:
            late.cancel()

    async def close(self, timeout: float) -> replies.Ended | None:
        """Close the session and end the process; None where it had to be killed.

        Arguments:
            timeout: Seconds for each of cells, tasks and thread to end.

        Cancel: the process is killed.
        """
        ended = await self._end(requests.Close, timeout)
        return ended if isinstance(ended, replies.Ended) else None

    async def vacate(self, timeout: float) -> replies.Ended | replies.Vacated | None:
        """Close the session, but end the process only where it is fit for no other session.

        After ``Vacated`` it waits for whoever will :meth:`adopt` it. For the rest see above.
        """
        return await self._end(requests.Vacate, timeout)

    async def _end(
        self, kind: type[requests.Close | requests.Vacate], timeout: float
    ) -> replies.Ended | replies.Vacated | None:
        ended: replies.Ended | replies.Vacated | None = None
        self.is_closing = True
        try:
            if self.death is None:
                ended = await self._ask_to_end(kind, timeout)
            if isinstance(ended, replies.Ended):
                await asyncio.wait({self._ended}, timeout=timeout + self._grace)
        finally:
            if not isinstance(ended, replies.Vacated):
                self.kill("its session was closed")
                await asyncio.wait({self._ended})
        return ended

    async def _ask_to_end(
        self, kind: type[requests.Close | requests.Vacate], timeout: float
    ) -> replies.Ended | replies.Vacated | None:
        """What the worker says of the end of its session; None where it does not."""
        future = self.ask(kind, timeout=timeout)
        future.add_done_callback(look_at)  # this may be cancelled, and nobody wait for it
        await self._nudge(future, CLOSING_STEPS * timeout + self._grace)
        if not future.done() or look_at(future):
            return None
        ended: replies.Ended | replies.Vacated = future.result()
        return ended

    async def _nudge(self, future: asyncio.Future[Any], seconds: float) -> None:
        """Wait for *future*; signal as long as cells may keep the worker from reading."""
        latest = self._loop.time() + seconds
        while not future.done() and (left := latest - self._loop.time()) > 0:
            may_be_kept = self.flight.cells and self._process is not None
            await asyncio.wait({future}, timeout=min(left, NUDGE_SECONDS) if may_be_kept else left)
            if not future.done() and self._process is not None:
                self._process.signal()

    def discard(self) -> None:
        """End the process where nobody can wait for that. Idempotent."""
        self._connection.abort()
        self._connection.close()
        if self._process is not None:
            self._process.discard()

    def _exited(self) -> None:
        """The process has ended; what it has sent before may still be on its way."""
        if self._is_lost:
            self._die()
        else:
            self._loop.call_later(PARTING_SECONDS, self._connection.abort)

    def _lost(self, fault: ProtocolError | None) -> None:
        """The connection has ended."""
        self._is_lost, self._fault = True, fault
        process = self._process
        if process is None or process.ending is not None:
            self._die()
        elif fault is not None:
            self.kill(f"it broke the protocol: {fault}")
        else:
            what = "it has closed its connection"
            self._loop.call_later(PARTING_SECONDS, self.kill, what)

    def _die(self) -> None:
        """Say of what it died, to all who wait."""
        if self.death is not None:
            return
        self._stop_watching()
        if self._process is not None:
            self._process.drain()
        death = self.death = self._cause()
        self._greet(_copied(death))
        look_at(self._greeted)
        self._connection.fail_all(lambda: _copied(death))
        self._connection.close()
        if self._process is not None:
            self._process.discard()
        self._calls.end(_copied(death))
        if not self._ended.done():
            self._ended.set_result(None)

    def _cause(self) -> WorkerDied:
        ending = self._process.ending if self._process is not None else None
        cells = self.flight.cells
        if ending is None:
            return WorkerDied("the worker never ran", cells=cells)
        if ending.out_of_memory:
            how = "was ended by the kernel: its control group ran out of memory"
        elif ending.signal is not None:
            how = f"was ended by {ending.signal}"
        elif ending.exit_code is None:
            how = f"has ended, and {ending.why_unknown}"
        else:
            how = f"has ended with exit code {ending.exit_code}"
        peak = (
            f", having held {ending.peak_memory_bytes >> 20} MiB at most" if ending.signal else ""
        )
        why = f": {self.reason}" if self.reason else ""
        running = f"; cells without an outcome: {', '.join(map(str, cells))}" if cells else ""
        return WorkerDied(
            f"the worker (process {self.pid}) {how}{peak}{why}{running}",
            exit_code=ending.exit_code,
            signal=ending.signal,
            out_of_memory=ending.out_of_memory,
            peak_memory_bytes=ending.peak_memory_bytes,
            output=self.flight.last_output,
            cells=cells,
        )


def _copied(death: WorkerDied) -> WorkerDied:
    """The same, to be raised once more: an exception that is raised again grows its traceback."""
    return WorkerDied(str(death), **vars(death))


def closing_seconds(timeout: float, grace_seconds: float) -> float:
    """How long :meth:`Supervisor.close` may take: until the worker has closed, and has ended."""
    return (CLOSING_STEPS + 1) * timeout + 2 * grace_seconds


def look_at(future: asyncio.Future[Any]) -> bool:
    """Whether *future* has failed, which is then known: the loop does not complain of it."""
    return future.cancelled() or future.exception() is not None
