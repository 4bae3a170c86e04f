"""The session that lives in a worker, and what runs its cells. Owns when a cell is told of.

Refuses to know: how the host is told, messages but for those that ask for cells.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, ClassVar, Protocol

from isthmus.call_run import Call
from isthmus.cell_run import CellRun
from isthmus.executor import AsyncExecutor
from isthmus.session import Session
from isthmus.wire import requests
from isthmus.worker.reserve import Reserve


class Teller(Protocol):
    """Who tells the host.

    Attributes:
        reserve: Memory for the outcome of a cell that has used up all there is.
        tells_all: The host wants all events.
    """

    reserve: Reserve
    tells_all: bool

    def announces(self, number: int) -> bool:
        """Whether the host wants an answer when the code of a cell is about to run."""

    def cell_started(self, number: int) -> None:
        """The code of a cell is about to run. Threads: the cell's."""

    def send_outcome(self, run: CellRun) -> None:
        """Send how a cell has ended, unless that was done. Threads: any."""


class WorkerExecutor(AsyncExecutor):
    """Runs cells, and tells of each where its code begins and ends, in its own thread."""

    teller: Teller

    def run_cell(self, message: requests.RunCell) -> Coroutine[Any, Any, CellRun]:
        """Run source to its outcome, which is in the run until it was sent."""
        return self._run(
            message.source,
            message.context,
            message.timeout,
            concurrent=message.concurrent,
            atomic=message.atomic,
            filename=message.filename,
            title=message.title,
            number=message.cell,
        )

    def call_function(
        self, message: requests.CallFunction, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, CellRun]:
        """Call a function, in the same way."""
        return self._run_call(
            Call(message.name, args, kwargs),
            message.context,
            message.timeout,
            concurrent=message.concurrent,
            atomic=message.atomic,
            title=message.title,
            number=message.cell,
        )

    def _observe(self, run: CellRun, title: str) -> None:
        super()._observe(run, title)
        if not self.teller.reserve.is_whole:
            self.teller.reserve.renew()
        if not self.teller.tells_all and self.late_output == "origin":
            run.told = self.teller.announces(run.number)

    def cell_started(self, run: CellRun) -> None:
        """Tell the host, if it wants to know."""
        super().cell_started(run)
        self.teller.cell_started(run.number)

    def cell_ended(self, run: CellRun) -> None:
        """Send the outcome, unless cells nested in this one still run: then it waits for them.

        A cell that was given up has been told of.
        """
        if isinstance(run.error, MemoryError):
            self.teller.reserve.spend()
        super().cell_ended(run)
        if not run.abandoned and not run.children:
            self.teller.send_outcome(run)

    def _emit_finished(self, run: CellRun) -> None:
        """Make no event of the outcome where nobody wants it: it asks the value for its repr."""
        if self.teller.tells_all:
            super()._emit_finished(run)
        elif run.is_first_to_tell():
            run.finish_output()


class WorkerSideSession(Session):
    """The session that lives here."""

    _executor_type: ClassVar[type[AsyncExecutor]] = WorkerExecutor
