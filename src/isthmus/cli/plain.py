"""A run as plain text, for pipes and files. Owns the layout; no control codes, nothing wrapped.

What cells write to ``sys.stdout`` goes to standard output, with the lines that say which cell it is
from; what they write to ``sys.stderr``, and tracebacks, go to standard error.
"""

from __future__ import annotations

from isthmus import (
    CellFinished,
    CellResult,
    CellStarted,
    Event,
    Output,
)
from isthmus.cli.channel import Channel
from isthmus.cli.report import (
    Report,
    Tally,
    as_text,
    full_traceback,
    in_words,
    outcome,
    settled_badly,
    wants_traceback,
)


class PlainReport(Report):
    """Writes to *out* and *err*.

    Arguments:
        quiet: Only what the cells write, and errors: as under ``python FILE``.
    """

    def __init__(self, out: Channel, err: Channel, *, quiet: bool = False) -> None:
        self._channels = {"stdout": out, "stderr": err}
        self._quiet = quiet
        self._mid_line = False
        self._finished: CellFinished | None = None

    def send(self, event: Event) -> None:
        """Show *event*. Threads: any."""
        event = as_text(event)
        if isinstance(event, Output):
            self._channels[event.stream].write(event.text)
            if event.stream == "stdout":
                self._mid_line = not event.text.endswith("\n")
        elif isinstance(event, CellStarted):
            title = f" {event.title}" if event.title else ""
            self._say(f"--- [{event.cell}]{title} ({event.context})")
        elif isinstance(event, CellFinished):
            self._finished = event
        elif failure := settled_badly(event):
            self.notice(failure)

    def cell_ended(self, result: CellResult) -> None:
        """Show the value or the traceback, and the time."""
        finished = self._finished
        if finished is not None and finished.value is not None:
            self._say(f"=> {finished.value}")
        if finished is not None and finished.traceback and wants_traceback(result):
            self._channels["stderr"].write(finished.traceback)
        elif result.error is not None and self._quiet and not isinstance(result.error, SystemExit):
            self.notice(f"cell {result.cell} {outcome(result, finished)}")
        self._say(f"--- [{result.cell}] {outcome(result, finished)}, {in_words(result.duration)}")

    def coroutine_failed(self, name: str, error: BaseException) -> None:
        """Show the traceback."""
        self._channels["stderr"].write(full_traceback(error))

    def notice(self, text: str) -> None:
        """Say it on standard error."""
        self._channels["stderr"].write(f"isthmus: {text}\n")

    def run_ended(self, tally: Tally) -> None:
        """Show the tally."""
        self._say(f"=== {tally.sentence()}")

    def close(self) -> None:
        """Nothing to give back."""

    def _say(self, line: str) -> None:
        if not self._quiet:
            start = "\n" if self._mid_line else ""
            self._mid_line = False
            self._channels["stdout"].write(f"{start}{line}\n")
