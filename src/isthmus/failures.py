"""Failures that nobody has asked for: a task, a thread, a coroutine that was never awaited.

Owns who is told of them: the output of the cell that made what failed, listeners (the session's
events), the log. Refuses to know: how a failure is noticed, transports.

Where a listener hears of it, the host's own channels (the loop's exception handler,
``threading.excepthook``, warnings) need not; where there is none they do, as ever. So nothing is
swallowed, and nothing is said twice to the same reader.

Threads: any, for every function: what fails may be finalized anywhere.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Literal

from isthmus.jobs import Job, current_job
from isthmus.tracebacks import safe_str

Kind = Literal["coroutine", "task", "async generator", "thread"]
"""What session code can leave running, or waiting to be run."""

_log = logging.getLogger("isthmus.failures")
_log.addHandler(logging.NullHandler())  # all that it says is in the output of a cell as well


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that failed while nobody was there to be told.

    Attributes:
        kind: What it was.
        name: What it was called.
        cell: The cell that made it; 0 where that is not known.
        filename: The file of the line that made it.
        line: That line, or 0.
        error: What it raised; None for a coroutine that was dropped unawaited.
        text: What the user reads of it.
        job: The cell itself, for its output; None where it is gone.
    """

    kind: Kind
    name: str
    cell: int
    filename: str
    line: int
    error: BaseException | None
    text: str
    job: Job | None

    @property
    def summary(self) -> str:
        """The error in one line, or what stands for it."""
        if self.error is None:
            return "it was never awaited"
        return f"{type(self.error).__name__}: {safe_str(self.error)}"


FailureListener = Callable[[Failure], None]


class FailureReports:
    """Tells of the failures of one session.

    Arguments:
        session: The session's name, for the log.
    """

    def __init__(self, session: str) -> None:
        self._session = session
        self._listeners: list[FailureListener] = []

    def on_failure(self, listener: FailureListener) -> None:
        """Have *listener* called with each failure, instead of the host's own channels."""
        self._listeners.append(listener)

    def tell(self, failure: Failure) -> bool:
        """Tell the cell's output and the listeners of *failure*; whether there was a listener."""
        self._write(failure)
        return self._pass_on(failure)

    def warn(self, failure: Failure, message: str) -> None:
        """Tell of a coroutine that was never awaited, by a warning in the output of its cell.

        Where nobody listens and the cell has ended, nobody would read it there, so that it goes to
        the process's own stream. Filters that are in force here hold, and what has replaced
        ``warnings.showwarning``. Where a filter makes an error of it, a listener is told instead,
        if there is one.

        Warns:
            RuntimeWarning: With *message*.
        """
        told = self._pass_on(failure)
        if failure.job is None and told:
            return
        read = failure.job is not None and (told or failure.job.state != "ended")
        try:
            copy_context().run(_warn, failure, message, failure.job if read else None)
        except RuntimeWarning:
            if not told:
                raise
            self._write(failure)

    def _write(self, failure: Failure) -> None:
        if failure.job is not None:
            Context().run(_write_to_cell, failure.job, failure.text)

    def _pass_on(self, failure: Failure) -> bool:
        if _log.isEnabledFor(logging.WARNING):
            Context().run(self._log, failure)  # outside the cell, whose output it would be else
        for listener in self._listeners:
            listener(failure)
        return bool(self._listeners)

    def _log(self, failure: Failure) -> None:
        what = f"{failure.kind} {failure.name!r} of cell {failure.cell}"
        extra = {"session": self._session, "cell": failure.cell, "line": failure.line}
        _log.warning("%s in %r: %s", what, self._session, failure.summary, extra=extra)


def _write_to_cell(job: Job, text: str) -> None:
    current_job.set(job)
    if sys.stderr is not None:
        sys.stderr.write(text)
        sys.stderr.flush()


def _warn(failure: Failure, message: str, job: Job | None) -> None:
    current_job.set(job)
    warnings.warn_explicit(message, RuntimeWarning, failure.filename, failure.line)
