"""One run of one cell: its code, its outcome, its output. Owns the evaluation.

Refuses to know: where it runs (a context calls :meth:`CellRun.evaluate`), events, transports.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Protocol

from isthmus.async_namespace import AsyncNamespaceManager
from isthmus.cells import CompiledCell
from isthmus.errors import CellInterrupted
from isthmus.events import Context, Status
from isthmus.jobs import Job
from isthmus.output import CellOutput
from isthmus.portal import run_sync
from isthmus.tracebacks import trim


CLOCK_SLACK_SECONDS = 0.002
"""How much earlier than asked a loop's timer may fire; its clock's resolution is far below."""


class CellObserver(Protocol):
    """Who is told of a run, inside the cell's own context."""

    def cell_started(self, run: CellRun) -> None:
        """The code is about to run."""

    def cell_ended(self, run: CellRun) -> None:
        """The code has run, with its outcome in *run*."""


class CellRun:
    """A cell on its way from compiled code to an outcome.

    Attributes:
        value: What the last expression gave, or ``__result__``.
        error: What ended the code, or None.
        deadline: When it is told to stop, on the clock of ``time.perf_counter``; None for never.
        job: The run as the contexts see it; set by who starts it.
    """

    __slots__ = (
        "adopted",
        "cell",
        "context",
        "deadline",
        "duration",
        "error",
        "evaluated",
        "exact",
        "job",
        "manager",
        "number",
        "observer",
        "output",
        "started",
        "title",
        "value",
    )

    def __init__(
        self,
        manager: AsyncNamespaceManager,
        cell: CompiledCell,
        *,
        number: int,
        context: Context,
        observer: CellObserver | None = None,
        output: CellOutput | None = None,
        title: str = "",
    ) -> None:
        self.manager = manager
        self.cell = cell
        self.number = number
        self.context = context
        self.observer = observer
        self.output = output
        self.title = title
        self.value: Any = None
        self.error: BaseException | None = None
        self.deadline: float | None = None
        self.evaluated = False
        self.exact = cell.exact and not (cell.calls and manager.binds_invisibly)
        self.adopted: tuple[str, ...] = ()
        self.started = 0.0
        self.duration = 0.0
        self.job: Job | None = None

    def evaluate(self) -> None:
        """Run the code and keep its outcome. Never raises. Called in the cell's context."""
        self.started = time.perf_counter()
        try:
            if self.observer is not None:
                self.observer.cell_started(self)
            self.value = self._run_code()
            if self.job is not None and self.job.children:
                self._wait_for_children(self.job)
        except BaseException as error:  # a boundary: whatever the cell raises is its outcome
            self.error = error
        if self.job is not None:
            self.job.leave_code()
        try:
            self._finish()
        except BaseException as error:  # a boundary: __del__ or __repr__ of the cell's objects
            self.error = self.error or trim(error)

    def _finish(self) -> None:
        """What follows the code, in the cell's context still."""
        if self.error is not None:
            trim(self.error)
        self.duration = time.perf_counter() - self.started
        self.evaluated = True
        if self.cell.defines_global:
            self.manager.binds_invisibly = True
        self.manager.restore_module_names()
        if self.observer is not None:
            self.observer.cell_ended(self)

    def _run_code(self) -> Any:
        cell, mapping = self.cell, self.manager.namespace
        if cell.body is not None:
            value = eval(cell.body, mapping)
            if cell.body_is_coroutine:
                run_sync(value)
        if cell.last is not None:
            value = eval(cell.last, mapping)
            return run_sync(value) if cell.last_is_coroutine else value
        return mapping.get("__result__") if "__result__" in cell.bound else None

    def _wait_for_children(self, job: Job) -> None:
        """Wait for cells that this one has started and that still run."""
        while job.children:
            run_sync(asyncio.wait([child.done for child in job.children]))

    @property
    def status(self) -> Status:
        """How it ended, as far as it has."""
        error = self.error
        if error is None:
            return "ok"
        if isinstance(error, asyncio.CancelledError | CellInterrupted):
            if self._deadline_passed():
                return "timeout"
            return "cancelled" if isinstance(error, asyncio.CancelledError) else "interrupted"
        return "error"

    def _deadline_passed(self) -> bool:
        """Whether the cell's time was over when it ended, or is now if it has not."""
        end = self.started + self.duration if self.evaluated else time.perf_counter()
        return self.deadline is not None and end >= self.deadline - CLOCK_SLACK_SECONDS

    def names_bound(self) -> tuple[str, ...]:
        """Names that the code can bind and that are there now."""
        mapping = self.manager.namespace
        return tuple(name for name in self.cell.bound if name in mapping)

    def names_deleted(self) -> tuple[str, ...]:
        """Names that the code can delete and that are not there now."""
        mapping = self.manager.namespace
        return tuple(name for name in self.cell.deleted if name not in mapping)
