"""What a run tells its user. Owns the interface of reports, the tally, and shared wording.

Refuses to know: terminals, formats, how cells run.
"""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass
from typing import Protocol

from isthmus import (
    CellFinished,
    CellResult,
    CoroutineSettled,
    Display,
    Event,
    MimeBundle,
    Output,
    RemoteError,
)


class Report(Protocol):
    """Shows a run as it goes on. It is the session's transport too.

    All else is called by the driver, on the loop's thread.
    """

    def send(self, event: Event) -> None:
        """Take an event. Threads: any."""

    def cell_ended(self, result: CellResult) -> None:
        """A cell has ended; its events have been sent."""

    def coroutine_failed(self, name: str, error: BaseException) -> None:
        """A coroutine that a cell left behind under *name* has failed."""

    def notice(self, text: str) -> None:
        """Say *text*, which is no cell's output."""

    def run_ended(self, tally: Tally) -> None:
        """All is over."""

    def close(self) -> None:
        """Give the terminal back. Idempotent."""


@dataclass(slots=True)
class Tally:
    """How many cells there are and how they ended, and the *seconds* from first to last."""

    cells: int
    succeeded: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def not_run(self) -> int:
        """Cells whose turn never came."""
        return self.cells - self.succeeded - self.failed

    def sentence(self) -> str:
        """``5 cells: 3 ok, 1 failed, 1 not run, in 1.2 s``."""
        counts = ((self.succeeded, "ok"), (self.failed, "failed"), (self.not_run, "not run"))
        parts = [f"{count} {word}" for count, word in counts if count] or ["nothing to run"]
        cells = "1 cell" if self.cells == 1 else f"{self.cells} cells"
        return f"{cells}: {', '.join(parts)}, in {in_words(self.seconds)}"


def in_words(seconds: float) -> str:
    """A duration for people: ``12 ms``, ``3.4 s``, ``2 min 5 s``."""
    if seconds < 0.001:
        return "<1 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def outcome(result: CellResult, finished: CellFinished | None = None) -> str:
    """How a cell ended, in a few words: ``failed: ValueError``, ``interrupted at line 3``.

    Arguments:
        finished: What the session has told of it: the line is there, where the error itself has
            come from another process.
    """
    if result.error is None:
        return "ok"
    if result.status == "error":
        if isinstance(result.error, SystemExit):
            return f"exit: {result.error.code!r}"
        return f"failed: {error_name(result.error)}"
    words = {"timeout": "timed out", "cancelled": "cancelled", "interrupted": "interrupted"}
    line = line_in(result.filename, result.error)
    if line is None and finished is not None:
        line = line_told(result.filename, finished.traceback or "")
    where = f" at line {line}" if line else ""
    return words[result.status] + where + ("" if result.stopped else "; its code is still running")


def error_name(error: BaseException) -> str:
    """The name of its class, where it was raised."""
    name = error.type if isinstance(error, RemoteError) else type(error).__name__
    return name.rpartition(".")[2]


def line_in(filename: str, error: BaseException) -> int | None:
    """The line of *filename* that *error* came through last, or None when it did not."""
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == filename
    ]
    return lines[-1] if lines else None


def line_told(filename: str, text: str) -> int | None:
    """The same, from a traceback as Python prints it."""
    found = re.findall(rf'File "{re.escape(filename)}", line (\d+)', text)
    return int(found[-1]) if found else None


def wants_traceback(result: CellResult) -> bool:
    """Whether a traceback tells more than :func:`outcome`: not when the cell was stopped."""
    return result.status == "error" and not isinstance(result.error, SystemExit)


def settled_badly(event: Event) -> str | None:
    """What to say of a coroutine left behind that has failed; None of all else.

    One that was cancelled did not fail: that is how the end of a run ends it.
    """
    if not isinstance(event, CoroutineSettled) or event.error is None:
        return None
    if event.error.startswith("CancelledError"):
        return None
    return f"the coroutine left behind as {event.name!r} has failed: {event.error}"


def as_text(event: Event) -> Event:
    """A display as the text that a terminal can show; every other event as it is."""
    if isinstance(event, Display):
        return Output(event.session, event.cell, "stdout", f"{MimeBundle(event.data).text}\n")
    return event


def full_traceback(error: BaseException) -> str:
    """The traceback as Python prints it."""
    if isinstance(error, RemoteError):
        return error.traceback
    return "".join(traceback.format_exception(error))
