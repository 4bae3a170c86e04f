"""A run on a terminal, by rich. Owns the layout, and the progress line.

All goes to one terminal: what cells write comes through as it is, the rest around it is drawn.
While a cell runs for long, a line below its output says which one and for how long; it is taken
away for every write, and stays away while the cell has a line open.
"""

from __future__ import annotations

import math
import time
from typing import IO, cast

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.highlighter import ReprHighlighter
from rich.live import Live
from rich.segment import Segment
from rich.spinner import Spinner
from rich.text import Text
from rich.traceback import Traceback

from isthmus import (
    CellFinished,
    CellResult,
    CellStarted,
    Event,
    Output,
    RemoteError,
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

LONG_RUN_SECONDS = 1.0
"""How long a cell runs before the progress line appears; from the air."""

TRACEBACK_WIDTH = 100
"""Columns of a traceback at most: rich's own choice."""


class TerminalReport(Report):
    """Draws on the terminal behind *out*.

    Arguments:
        err: Standard error; gets what is for it when it is not a terminal.
        cells: How many cells there are.
        quiet: Only what the cells write, and errors.
    """

    def __init__(self, out: Channel, err: Channel, cells: int, *, quiet: bool = False) -> None:
        file = cast(IO[str], out)
        self._console = Console(file=file, markup=False, emoji=False, highlight=False)
        self._err = None if err.isatty() else err
        self._quiet = quiet
        self._marks = _marks(self._console)
        self._progress = ProgressLine(self._console, cells, shown=not quiet)
        self._mid_line = False
        self._finished: CellFinished | None = None

    def send(self, event: Event) -> None:
        """Show *event*. Threads: any."""
        event = as_text(event)
        if isinstance(event, Output):
            self._write(event)
        elif isinstance(event, CellStarted):
            self._start(event)
        elif isinstance(event, CellFinished):
            self._finished = event
        elif failure := settled_badly(event):
            self.notice(failure)

    def cell_ended(self, result: CellResult) -> None:
        """Show the value or the traceback, and the time."""
        self._progress.stop()
        if self._finished is not None and self._finished.value is not None:
            self._show_value(self._finished.value)
        if result.error is not None and wants_traceback(result):
            self._show_error(result.error)
        elif result.error is not None and self._quiet and not isinstance(result.error, SystemExit):
            self.notice(f"cell {result.cell} {outcome(result, self._finished)}")
        mark, style = self._marks[result.error is None]
        words = "" if result.error is None else f"{outcome(result, self._finished)}, "
        self._say(Text(f"{mark} {words}{in_words(result.duration)}", style))

    def coroutine_failed(self, name: str, error: BaseException) -> None:
        """Show the traceback."""
        self._show_error(error)

    def notice(self, text: str) -> None:
        """Say it in a line of its own."""
        self._open_line()
        self._console.print(Text(text, "yellow"), soft_wrap=True)

    def run_ended(self, tally: Tally) -> None:
        """Show the tally."""
        self._progress.stop()
        if not self._quiet:
            self._open_line()
            self._console.rule(style="dim")
        self._say(Text(tally.sentence(), "bold red" if tally.failed else "bold"))

    def close(self) -> None:
        """Take the progress line away and give the cursor back. Idempotent."""
        self._progress.stop()

    def _start(self, event: CellStarted) -> None:
        if self._quiet:
            return
        self._open_line()
        title = Text.assemble((f"[{event.cell}]", "bold"), " ", (event.title, "bold"))
        title.append(f"{' ' if event.title else ''}({event.context})", "cyan")
        self._console.rule(title, align="left", style="dim")
        self._progress.start(event)

    def _write(self, event: Output) -> None:
        """Write what a cell has written, control codes and all."""
        text = event.text
        if self._err is not None and event.stream == "stderr":
            self._err.write(text)
            return
        self._mid_line = not text.endswith("\n")
        if self._mid_line:
            self._progress.pause()
        self._console.print(_AsItIs(text), end="", crop=False)
        if not self._mid_line:
            self._progress.resume()

    def _show_value(self, value: str) -> None:
        arrow, style = self._marks["value"]
        separator = "\n" if "\n" in value else " "
        self._say(Text.assemble((arrow, style), separator, ReprHighlighter()(Text(value))))

    def _show_error(self, error: BaseException) -> None:
        if self._err is not None:
            self._err.write(full_traceback(error))
            return
        self._open_line()
        if isinstance(error, RemoteError):  # it has no frames here
            self._console.print(Text(full_traceback(error)), soft_wrap=True)
            return
        width = min(self._console.width, TRACEBACK_WIDTH)
        try:
            drawn = Traceback.from_exception(
                type(error), error, error.__traceback__, width=width, extra_lines=2
            )
            self._console.print(drawn)
        except Exception:  # a boundary: rich calls __repr__, __notes__ and their like of user code
            self._console.print(Text(full_traceback(error)), soft_wrap=True)

    def _say(self, text: Text) -> None:
        if not self._quiet:
            self._open_line()
            self._console.print(text, soft_wrap=True)

    def _open_line(self) -> None:
        """End a line that a cell has left open."""
        if self._mid_line:
            self._mid_line = False
            self._console.print()


def _marks(console: Console) -> dict[bool | str, tuple[str, str]]:
    """Signs and their styles, for success, failure and values."""
    if console.options.ascii_only:
        return {True: ("ok", "dim green"), False: ("failed", "red"), "value": ("=>", "green")}
    return {True: ("✓", "dim green"), False: ("✗", "red"), "value": ("→", "green")}


class _AsItIs:
    """Text that rich neither wraps nor strips of control codes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Segment(self._text)


class ProgressLine:
    """A line that says which cell runs and for how long, once that is long.

    Arguments:
        cells: How many cells there are.
        shown: False to show nothing, ever.

    Threads: any. rich refreshes the line in a thread of its own, so that it goes on while a cell
    keeps the loop busy.
    """

    def __init__(self, console: Console, cells: int, *, shown: bool = True) -> None:
        self._cells = cells
        self._label = ""
        self._since = math.inf
        self._running = False
        self._shown = shown and console.is_terminal and not console.is_dumb_terminal
        self._spinner = Spinner("line" if console.options.ascii_only else "dots")
        self._live = Live(
            console=console,
            get_renderable=self._render,
            transient=True,
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def start(self, event: CellStarted) -> None:
        """A cell starts; its line will show in a while."""
        title = f" · {event.title}" if event.title else ""
        self._label = f" cell {event.cell} of {self._cells}{title} · "
        self._since = time.monotonic()
        self._running = True
        self._show(True)

    def stop(self) -> None:
        """No cell runs. Idempotent."""
        self._running = False
        self._show(False)

    def pause(self) -> None:
        """Keep off while a line of output is open."""
        self._show(False)

    def resume(self) -> None:
        """Come back, if a cell still runs."""
        self._show(self._running)

    def _show(self, shown: bool) -> None:
        if not self._shown or shown == self._live.is_started:
            return
        if shown:
            self._live.start(refresh=True)  # else what it showed last would flash up
        else:
            self._live.stop()

    def _render(self) -> RenderableType:
        seconds = time.monotonic() - self._since
        if seconds < LONG_RUN_SECONDS:
            return _AsItIs("")
        self._spinner.update(text=Text(f"{self._label}{in_words(seconds)}", "dim", no_wrap=True))
        return self._spinner
