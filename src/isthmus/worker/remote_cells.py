"""Cells in a worker, as its host sees them: begun, waited for, stopped. Owns their numbers.

Refuses to know: what a cell is made of, how a worker is started.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from isthmus.context_bridge import RequestedContext
from isthmus.errors import WorkerDied
from isthmus.events import CellResult
from isthmus.wire import callbacks, requests
from isthmus.wire.frames import Buffer
from isthmus.worker.alarm import Alarm
from isthmus.worker.callbacks import HostFunctions
from isthmus.worker.connection import Answer
from isthmus.worker.host_calls import current_caller
from isthmus.worker.lives import Lives
from isthmus.worker.supervisor import Supervisor, look_at


class CellOptions(NamedTuple):
    """What running source and calling a function have in common, in the order of the message.

    Attributes:
        context: Where to run it.
        timeout: Seconds until control returns; None sets no bound.
        concurrent: Beside the session's other cells instead of in order.
        atomic: Put names back when it fails.
        title: A label for events.
    """

    context: RequestedContext
    timeout: float | None
    concurrent: bool
    atomic: bool
    title: str


class RemoteCells:
    """The cells of one session, over all its processes.

    Arguments:
        lives: The processes.
        functions: What cells may call of the host.
        grace_seconds: How long a worker may take to end a cell before it is killed.

    Threads: the loop's, but for :meth:`interrupt`.
    """

    def __init__(self, lives: Lives, functions: HostFunctions, grace_seconds: float) -> None:
        self._lives = lives
        self._functions = functions
        self._grace = grace_seconds
        self._number = 0
        self._told: set[int] = set()  # cells to which an interrupt is on its way

    async def run(
        self,
        make: Callable[..., requests.CellRequest],
        options: CellOptions,
        buffers: Sequence[Buffer] = (),
    ) -> CellResult:
        """Have a cell run, to its outcome or to the end of its time.

        Arguments:
            make: Makes the message that asks for it, of its id, the cell's number, *options*, and
                the number of the cell that waits for it.
            options: How it is to run.
            buffers: What goes along with the message.

        Raises:
            WorkerDied: The process has ended, before or meanwhile.

        Cancel: cancels the cell, waits for its end, then goes on.
        """
        worker = self._lives.supervisor or await self._lives.worker()
        flight = worker.flight
        self._number = number = self._number + 1
        flight.add(number)
        worker.note_cell()
        try:
            parent = self.calling_cell()
            asked, outcome = worker.ask_numbered(
                lambda it: make(it, number, *options, parent),
                partial(flight.result, number),
                buffers,
            )
            outcome.leave = partial(self._cancel, worker, number, asked, outcome)
            context, seconds = options.context, options.timeout
            if seconds is None:
                result: CellResult = await outcome
                return result
            return await self._outcome_in_time(worker, number, outcome, context, seconds)
        finally:
            flight.drop(number)

    def calling_cell(self) -> int:
        """The cell for which this code is at work, as a function that the cell has called; or 0."""
        caller = current_caller.get()
        return caller.cell if caller is not None and caller.functions is self._functions else 0

    async def _outcome_in_time(
        self,
        worker: Supervisor,
        number: int,
        outcome: Answer,
        context: RequestedContext,
        seconds: float,
    ) -> CellResult:
        """Wait for an outcome; the worker itself sees to the deadline, unless it hangs."""
        started, overdue = time.monotonic(), f"cell {number} did not end by its deadline"

        def expire() -> None:
            if not outcome.done():
                worker.kill(overdue)

        alarm = Alarm(seconds + self._grace, expire)
        try:
            result: CellResult = await outcome
            return result
        except WorkerDied as death:
            if worker.reason != overdue:
                raise
            duration = time.monotonic() - started
            return worker.flight.unfinished(number, context, death, duration)
        finally:
            alarm.cancel()

    def _cancel(self, worker: Supervisor, number: int, asked: int, outcome: Answer) -> None:
        """Whoever waits for the outcome of a cell is cancelled: so is the cell."""
        worker.send(callbacks.Cancel(asked))
        worker.pursue((number,), outcome, f"cell {number} could not be cancelled")

    def interrupt(self, cell: int | None) -> bool:
        """Stop a cell, or all that run; whether there was one. Threads: any.

        While the worker has not noticed one interrupt of a cell it is not sent another.
        """
        worker, loop = self._lives.supervisor, self._lives.loop
        flying = () if worker is None else worker.flight.cells
        cells = [number for number in flying if cell in (None, number)]
        if not cells or loop is None:
            return False
        if untold := [number for number in cells if number not in self._told]:
            self._told.update(untold)
            loop.call_soon_threadsafe(self._interrupt, untold)
        return True

    def _interrupt(self, cells: list[int]) -> None:
        worker = self._lives.supervisor
        for cell in cells:
            if worker is None or worker.death is not None:
                self._told.discard(cell)
                continue
            noticed = worker.ask(requests.Interrupt, cell=cell)
            noticed.add_done_callback(partial(self._notice, cell))
            worker.pursue((cell,), noticed, f"cell {cell} could not be interrupted")

    def _notice(self, cell: int, noticed: asyncio.Future[Any]) -> None:
        look_at(noticed)
        self._told.discard(cell)
