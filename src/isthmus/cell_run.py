"""One run of one cell: its code, its outcome, its output. Owns the evaluation.

Refuses to know: where it runs (a context calls :meth:`CellRun.evaluate`), events, transports.
"""

from __future__ import annotations

import asyncio
import threading
import time
from asyncio import wait
from typing import Any, Protocol

from isthmus.async_namespace import AsyncNamespaceManager
from isthmus.cells import CompiledCell
from isthmus.errors import CellInterrupted
from isthmus.events import CellResult, Context, Status
from isthmus.jobs import Job, JobOutput
from isthmus.output import CellOutput
from isthmus.portal import run_sync
from isthmus.streams import stream_hooks
from isthmus.strikes import strikes
from isthmus.tracebacks import trim

CLOCK_SLACK_SECONDS = 0.002
"""How much earlier than asked a loop's timer may fire; its clock's resolution is far below."""

_once = threading.RLock()
"""Guards what a run does once: two of its threads may print first at once, and a cell that is
given up may end in that moment. Innermost.

``__dict__.setdefault`` would do without it, but slows every later look at the run's attributes.
"""


async def _ended(jobs: tuple[Job, ...]) -> None:
    loop = asyncio.get_running_loop()
    await wait([job.wait_future(loop) for job in jobs])


class CellObserver(Protocol):
    """Who is told of a run, inside the cell's own context."""

    def cell_started(self, run: CellRun) -> None:
        """The code is about to run."""

    def cell_ended(self, run: CellRun) -> None:
        """The code has run, with its outcome in *run*."""

    def output_of(self, run: CellRun) -> CellOutput:
        """Something for what it writes."""

    def late_output_of(self, run: CellRun) -> JobOutput | None:
        """Where its tasks and threads write now that it has ended; None for where they did."""


class CellRun(Job):
    """A cell on its way from compiled code to an outcome: a job that runs code in a namespace.

    Attributes:
        cell: The compiled code.
        value: What the last expression gave, or ``__result__``.
        error: What ended the code, or None.
        evaluated: The code has run, and the outcome is complete.
        deadline: When it is told to stop, on the clock of ``time.perf_counter``; None for never.
        adopted: Names whose coroutines became tasks at its end.
        duration: Seconds from the start of the code to its outcome.
        may_bind_more: It can call a function of an earlier cell that binds globals.
        told: Whether the observer wants to hear of the start.
        title: A label for events.
        value_is_bound: The value counts as bound to ``_``.
        atomic: What it has bound and deleted is put back when it fails.
        rolled_back: The names that were put back; None unless it was rolled back.
    """

    observer: CellObserver | None = None
    told = False
    may_bind_more = False
    title = ""
    value_is_bound = True
    atomic = False
    rolled_back: tuple[str, ...] | None = None
    value: Any = None
    error: BaseException | None = None
    evaluated = False
    deadline: float | None = None
    adopted: tuple[str, ...] = ()
    started = 0.0
    duration = 0.0
    _own_output: CellOutput | None = None
    _was_told = False
    _ended_as: Status = "ok"

    def __init__(
        self, manager: AsyncNamespaceManager, cell: CompiledCell, number: int, context: Context
    ) -> None:
        self.number = number  # not by the base class: this is on the path of every cell
        self.context = context
        self.awaits = cell.awaits
        self.output = None
        self.manager = manager
        self.cell = cell

    def evaluate(self) -> None:
        """Run the code and keep its outcome. Never raises. Called in the cell's context."""
        self.started = time.perf_counter()
        if self.cell.calls and self.manager.binds_invisibly:
            self.may_bind_more = True
        try:
            if self.told and self.observer is not None:
                self.observer.cell_started(self)
            if self.atomic:
                with self.manager.lock:
                    self.manager.rollbacks.begin(self)
            self.value = self._run_awaiting() if self.cell.awaits else self._run_code()
            while self.children:  # cells that the code has started and that still run
                run_sync(_ended(self.children))
        except BaseException as error:  # a boundary: whatever the cell raises is its outcome
            self.error = error
        self.state, self.left = "finishing", True
        if strikes.on_their_way or self.pursuit is not None:
            try:
                self.leave_code()
            except CellInterrupted:  # too late: the code has ended
                self.leave_code()
        try:
            self._finish()
        except BaseException as error:  # a boundary: __del__ or __repr__ of the cell's objects
            self.error = self.error or trim(error)

    def refuse(self, error: BaseException) -> None:
        """Keep *error* as the outcome of code that cannot be run."""
        self.error = error
        self.evaluated = True

    def _finish(self) -> None:
        """What follows the code, in the cell's context still."""
        self.duration = time.perf_counter() - self.started
        if self.manager.rollbacks.copies:  # it is atomic, or beside a cell that is
            self._settle()
        else:
            self.evaluated = True
        if self.error is not None:
            trim(self.error)
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

    def _run_awaiting(self) -> Any:
        """Run a cell that awaits, in either form, whichever of its two parts it is that awaits."""
        try:
            return self._run_code()
        except StopIteration as error:  # PEP 479: no coroutine lets it out
            raise RuntimeError("coroutine raised StopIteration") from error

    # -- being atomic, or beside a cell that is ---------------------------------------------------

    @property
    def names(self) -> frozenset[str]:
        """Names that its code shows to be bound or deleted by it."""
        return frozenset((*self.cell.bound, *self.cell.deleted))

    def _settle(self) -> None:
        """Roll an atomic cell back that has failed; else tell other atomic cells what it has done.

        From here on the outcome is known: whoever finds no copy to roll back to sees it as well.
        """
        self.manager.restore_module_names()
        if self.atomic and self.error is not None:
            self.evaluated = True
            if self._roll_back():
                return
        with self.manager.lock:
            self.evaluated = True
            dropped = self.manager.rollbacks.leave(self)
        del dropped  # a __del__ runs here, outside the lock

    def _roll_back(self) -> bool:
        """Undo what an atomic cell has done, once; whether there was a copy to roll back to."""
        beside = [it for it in self.owner.beside(self) if isinstance(it, CellRun)]
        running = [it for it in beside if it.started and not it.evaluated]
        with self.manager.lock:
            undone = self.manager.rollbacks.roll_back(self, running)
        if undone is not None:
            self.manager.forget_undone(undone)
        return undone is not None

    def give_up(self) -> None:
        """Roll an atomic cell back as control leaves it: what it writes from now on is its own."""
        super().give_up()
        if self.atomic and self._roll_back():
            self.error = asyncio.CancelledError(f"cell {self.number} is still running")

    # -- output ------------------------------------------------------------------------------

    def open_output(self) -> JobOutput:
        """Where what the code writes goes; made for the first write, most cells write nothing."""
        if self.evaluated and self.observer is not None:
            late = self.observer.late_output_of(self)
            if late is not None:
                return late
        self.output = self._make_output()
        return self.output

    def _make_output(self) -> CellOutput:
        made = self.observer.output_of(self) if self.observer is not None else CellOutput()
        with _once:
            if self._own_output is None:
                self._own_output = made
            return self._own_output

    def finish_output(self) -> None:
        """Pass on all that the code has written. In the cell's own context, where it has ended."""
        if stream_hooks.diverted:
            stream_hooks.flush_diversions()
        if self._own_output is not None:
            self._own_output.finish()

    def is_first_to_tell(self) -> bool:
        """Whether the outcome has not been told yet; only the first call says so. Threads: any.

        A cell that is given up may end in its thread at that very moment.
        """
        with _once:
            is_first, self._was_told = not self._was_told, True
        return is_first

    # -- outcome -----------------------------------------------------------------------------

    @property
    def exact(self) -> bool:
        """Whether the names bound and deleted are known from the code, which ran to its end."""
        if self.rolled_back is not None:
            return not self.abandoned
        return self.cell.exact and not self.may_bind_more and self.error is None

    def unwrap(self) -> Any:
        """The value, or raise what ended the code; the run then holds neither."""
        if self.error is not None:
            return self.result().unwrap()
        value, self.value = self.value, None
        if self._own_output is not None:
            self._own_output.forget()
        return value

    def result(self) -> CellResult:
        """The result, as far as it has got; the run then holds neither value nor error."""
        output = self._own_output
        result = CellResult(  # by position: by name it takes three times as long
            self.number,
            self.context,
            self.cell.filename,
            self.status,
            self.value,
            self.error,
            output.text("stdout") if output is not None else "",
            output.text("stderr") if output is not None else "",
            output.displays if output is not None else (),
            self.names_bound(),
            self.names_deleted(),
            self.exact,
            self.adopted,
            self.duration,
            not self.abandoned,
            self.rolled_back or (),
        )
        self.release()
        return result

    def release(self) -> None:
        """Hold the outcome no more: whoever wanted it has it. How it ended is known still."""
        if self._own_output is not None:
            self._own_output.forget()
        if self.error is not None:
            self._ended_as = self.status
        self.value = self.error = None

    @property
    def status(self) -> Status:
        """How it ended, as far as it has."""
        error = self.error
        if error is None:
            return self._ended_as
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
        """Names that the code can bind and that are there now; none after a roll-back."""
        bound = self.cell.bound
        if not bound or self.rolled_back is not None:
            return ()
        return tuple(filter(self.manager.namespace.__contains__, bound))

    def names_deleted(self) -> tuple[str, ...]:
        """Names that the code can delete and that are not there now; none after a roll-back."""
        deleted = self.cell.deleted
        if not deleted or self.rolled_back is not None:
            return ()
        mapping = self.manager.namespace
        return tuple([name for name in deleted if name not in mapping])
