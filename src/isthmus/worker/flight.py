"""Cells in flight: what they have written so far, and what is made of their outcome. Owns both.

What a cell prints comes as events that carry its number. What is written to a descriptor has none:
it is put down to the cell that has begun last and not ended.

Refuses to know: connections, processes.

Threads: the loop's.
"""

from __future__ import annotations

import asyncio
import codecs
from collections import deque

from isthmus.context_bridge import RequestedContext
from isthmus.errors import ProtocolError, RemoteError, WorkerDied
from isthmus.events import (
    CellResult,
    CellStarted,
    Display,
    Event,
    LoopBlocked,
    Output,
    StreamName,
)
from isthmus.mime import MimeBundle
from isthmus.output import CellOutput
from isthmus.remote_failures import error_of
from isthmus.transport import Emitter
from isthmus.wire import replies
from isthmus.wire.frames import Received
from isthmus.wire.parts import Failure
from isthmus.worker.answers import AnswerReader

LAST_CHARACTERS = 4_000
"""How much of what a worker has written is kept for the account of its death; from the air."""

_SAME_HERE: dict[str, type[BaseException]] = {
    "asyncio.exceptions.CancelledError": asyncio.CancelledError,
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
}
"""What a result has as its error as it is: :meth:`CellResult.unwrap` never raises it."""


class Flight:
    """The cells that have no outcome yet.

    Arguments:
        session: The name that events carry.
        emitter: Sends events to the host's transport.
        output_limit: Characters of each stream to keep for a result.
        trusted: Load values that come as pickles.

    Attributes:
        session: The same.
        standstills: How often it was told that the worker's loop stands still.
    """

    def __init__(self, session: str, emitter: Emitter, output_limit: int, trusted: bool) -> None:
        self.standstills = 0
        self.session = session
        self._emitter = emitter
        self._limit = output_limit
        self._read = AnswerReader(trusted)
        self._outputs: dict[int, CellOutput | None] = {}  # None as long as there is no output
        self._begun: list[int] = []
        self._last: deque[str] = deque()
        self._last_size = 0
        self._decoders = {
            stream: codecs.getincrementaldecoder("utf-8")("replace")
            for stream in ("stdout", "stderr")
        }

    @property
    def cells(self) -> tuple[int, ...]:
        """Their numbers."""
        return tuple(self._outputs)

    def add(self, number: int) -> None:
        """A cell is on its way."""
        self._outputs[number] = None

    def begin(self, number: int) -> None:
        """The code of a cell begins."""
        if number in self._outputs and number not in self._begun:
            self._begun.append(number)

    def drop(self, number: int) -> None:
        """Nobody waits for a cell any more. Idempotent."""
        self._outputs.pop(number, None)
        if number in self._begun:
            self._begun.remove(number)

    # -- what is told ------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Take an event of the worker, and pass it on."""
        if isinstance(event, Output):
            self._remember(event.text)
            if (output := self._output_of(event.cell)) is not None:
                output.write_to(event.stream, event.text)
        elif isinstance(event, Display):
            if (output := self._output_of(event.cell)) is not None:
                output.display(MimeBundle(event.data, event.metadata))
        elif isinstance(event, CellStarted):
            self.begin(event.cell)
        elif isinstance(event, LoopBlocked):
            self.standstills += 1
        self._emitter.emit(event)

    def _output_of(self, number: int) -> CellOutput | None:
        """What a cell has written; None where nobody waits for it."""
        output = self._outputs.get(number)
        if output is None and number in self._outputs:
            output = self._outputs[number] = CellOutput(self._limit)
        return output

    def capture(self, stream: StreamName, data: bytes) -> None:
        """Take what was written to a descriptor, whole characters of it."""
        text = self._decoders[stream].decode(data)
        if text:
            self.tell(Output(self.session, self.current(), stream, text))

    def current(self) -> int:
        """The cell that has begun last, or else would be the next to; 0 if there is none."""
        return self._begun[-1] if self._begun else next(iter(self._outputs), 0)

    def _remember(self, text: str) -> None:
        self._last.append(text[-LAST_CHARACTERS:])
        self._last_size += len(self._last[-1])
        while self._last_size - len(self._last[0]) >= LAST_CHARACTERS:
            self._last_size -= len(self._last.popleft())

    @property
    def last_output(self) -> str:
        """The last that was written, of all cells and of none."""
        return "".join(self._last)[-LAST_CHARACTERS:]

    # -- outcomes ----------------------------------------------------------------------------

    def result(self, number: int, received: Received[replies.Outcome]) -> CellResult:
        """The result of cell *number*, which is no longer in flight.

        Raises:
            ProtocolError: It is that of another cell.
        """
        outcome = received.message
        if outcome.cell != number:
            raise ProtocolError(f"the outcome of cell {number} says that of {outcome.cell}")
        output = self._outputs.get(outcome.cell)
        self.drop(outcome.cell)
        return CellResult(
            outcome.cell,
            outcome.context,
            outcome.filename,
            outcome.status,
            None if outcome.value is None else self._read.one_of_many(outcome.value, received),
            None if outcome.error is None else _error(outcome.error),
            "" if output is None else output.text("stdout"),
            "" if output is None else output.text("stderr"),
            () if output is None else output.displays,
            outcome.bound,
            outcome.deleted,
            outcome.exact,
            outcome.adopted,
            outcome.duration,
            outcome.stopped,
            outcome.rolled_back,
        )

    def unfinished(
        self, number: int, context: RequestedContext, error: WorkerDied, duration: float
    ) -> CellResult:
        """The result of a cell whose time was over, and whose worker was ended for it."""
        output = self._outputs.get(number) or CellOutput()
        self.drop(number)
        return CellResult(
            number,
            "async" if context == "auto" else context,
            status="timeout",
            error=error,
            stdout=output.text("stdout"),
            stderr=output.text("stderr"),
            displays=output.displays,
            exact=False,
            duration=duration,
        )


def _error(failure: Failure) -> BaseException:
    """What ended a cell, as a result has it. Where it is not a description it comes from one."""
    described = error_of(failure)
    if isinstance(described, RemoteError):
        name = failure.type_name.removeprefix("builtins.")
        if name == "SystemExit":
            same: BaseException = SystemExit(failure.details.get("code"))
        elif name in _SAME_HERE:
            same = _SAME_HERE[name](failure.message)
        else:
            return described
    else:
        same = described
    same.__cause__ = RemoteError(failure.type_name, failure.message, failure.traceback)
    return same
