"""A run for other programs: one event a line. Owns the format: msgspec's own JSON.

Each line is an object whose ``type`` names a class of ``isthmus.events``. Always UTF-8.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from isthmus import CellResult, CellStarted, Event
from isthmus.cli.channel import Channel
from isthmus.cli.report import Report, Tally
from isthmus.cli.script import ScriptCell


class JsonLinesReport(Report):
    """Writes every event to *out*; what is for people goes to *err*.

    Arguments:
        cells: The program's cells: events show their text without the padding that puts it on the
            file's own lines.
    """

    def __init__(self, out: Channel, err: Channel, cells: Sequence[ScriptCell]) -> None:
        self._out = out
        self._err = err
        self._cells = cells

    def send(self, event: Event) -> None:
        """Write one line. Threads: any."""
        if isinstance(event, CellStarted) and event.cell <= len(self._cells):
            event = msgspec.structs.replace(event, source=self._cells[event.cell - 1].source)
        self._out.write_bytes(encode_line(event))

    def cell_ended(self, result: CellResult) -> None:
        """All of it was in the events."""

    def coroutine_failed(self, name: str, error: BaseException) -> None:
        """There was an event."""

    def notice(self, text: str) -> None:
        """Say it on the side."""
        self._err.write(f"isthmus: {text}\n")

    def run_ended(self, tally: Tally) -> None:
        """The last line was the last event."""

    def close(self) -> None:
        """Nothing to give back."""


def encode_line(event: Event) -> bytes:
    """One line of JSON; lone surrogates, which UTF-8 has no bytes for, become escapes."""
    try:
        return msgspec.json.encode(event) + b"\n"
    except UnicodeEncodeError:
        return msgspec.json.encode(_encodable(msgspec.to_builtins(event))) + b"\n"


def _encodable(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    return value
