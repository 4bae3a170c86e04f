"""What a worker has answered, as the methods of a session give it. Owns the translation.

Refuses to know: how the worker was asked.
"""

from __future__ import annotations

from typing import Any, cast

from isthmus.ending import CloseReport
from isthmus.errors import ValueLoadError
from isthmus.failures import Kind
from isthmus.ledger import SettledCoroutines
from isthmus.ownership import LedgerEntry
from isthmus.remote_failures import error_of
from isthmus.values import PackedValue, RemoteRepr
from isthmus.wire import replies
from isthmus.wire.frames import Received
from isthmus.wire.parts import NameDescription, Value

_STAYS = "it belongs to the worker"


class AnswerReader:
    """Reads answers.

    Arguments:
        trusted: Load values that come as pickles; otherwise they are refused.
    """

    def __init__(self, trusted: bool) -> None:
        self._trusted = trusted

    def value(self, received: Received[replies.Returned]) -> Any:
        """The one value."""
        return PackedValue(received.message.value, received.buffers).load(trusted=self._trusted)

    def snapshot(self, received: Received[replies.Snapshotted]) -> dict[str, Any]:
        """Names and values."""
        values = received.message.values
        return {name: self.one_of_many(value, received) for name, value in values.items()}

    def settled(self, received: Received[replies.Settled]) -> SettledCoroutines:
        """What became of coroutines."""
        message, settled = received.message, SettledCoroutines()
        for name, value in message.results.items():
            settled[name] = self.one_of_many(value, received)
        settled.errors.update({name: error_of(it) for name, it in message.errors.items()})
        settled.unfinished = tuple(message.unfinished)
        return settled

    def one_of_many(self, value: Value, received: Received[Any]) -> Any:
        """A value beside which there is something else to tell: it stays packed if need be.

        Its ``load()`` says why it could not be loaded.
        """
        packed = PackedValue(value, received.buffers)
        try:
            return packed.load(trusted=self._trusted)
        except ValueLoadError:
            return packed


def names_of(received: Received[replies.Viewed]) -> list[NameDescription]:
    """Names and what they are bound to."""
    return list(received.message.names)


def pending_of(received: Received[replies.Viewed]) -> dict[str, Any]:
    """Coroutines that cells have left behind; each is shown."""
    names = received.message.names
    return {it.name: RemoteRepr(it.text, it.type_name, _STAYS) for it in names}


def ledger_of(received: Received[replies.Listed]) -> list[LedgerEntry]:
    """What the session's code has made."""
    entries = received.message.entries
    return [
        LedgerEntry(it.kind, it.name, it.cell, it.line, it.filename, it.state) for it in entries
    ]


def counts_of(received: Received[replies.Counted]) -> dict[Kind, int]:
    """How many there are of each kind."""
    return cast(dict[Kind, int], received.message.counts)


def text_of(received: Received[replies.Reported]) -> str:
    """A text for people."""
    return received.message.text


def report_of(ended: replies.Ended) -> CloseReport:
    """What would not end."""
    return CloseReport(
        ended.cells,
        ended.tasks,
        ended.thread,
        ended.threads,
        ended.coroutines,
        ended.async_generators,
    )
