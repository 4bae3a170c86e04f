"""Which side sends which messages, and what answers what. Owns the tables.

Refuses to know: when (:mod:`isthmus.wire.conversation`), and bytes.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from isthmus import events
from isthmus.wire import callbacks, handshake, replies, requests

Side = Literal["host", "worker"]

SIDES: tuple[Side, ...] = get_args(Side)

Kinds = frozenset[type[Any]]

EVENTS: Kinds = frozenset(
    {
        events.CellStarted,
        events.Output,
        events.OutputDropped,
        events.Display,
        events.CellFinished,
        events.NamespaceUpdated,
        events.CoroutineAdopted,
        events.CoroutineSettled,
        events.CoroutineDropped,
        events.TaskFailed,
        events.ThreadDied,
        events.LoopBlocked,
        events.SessionReset,
        events.SessionClosed,
    }
)
"""What happens in the session, told as it happens. They are messages as they are."""

_FAILED = replies.Failed
_CALL = frozenset({replies.Returned, replies.Handed, _FAILED})

ANSWERS: dict[type[Any], Kinds] = {
    requests.Open: frozenset({replies.Done, _FAILED}),
    requests.RunCell: frozenset({replies.Started, replies.Outcome, _FAILED}),
    requests.CallFunction: frozenset({replies.Started, replies.Outcome, _FAILED}),
    requests.Interrupt: frozenset({replies.Interrupted, _FAILED}),
    requests.GetName: frozenset({replies.Returned, _FAILED}),
    requests.UpdateNames: frozenset({replies.Done, _FAILED}),
    requests.DeleteName: frozenset({replies.Done, _FAILED}),
    requests.Snapshot: frozenset({replies.Snapshotted, _FAILED}),
    requests.View: frozenset({replies.Viewed, _FAILED}),
    requests.Inject: frozenset({replies.Done, _FAILED}),
    requests.Revoke: frozenset({replies.Done, _FAILED}),
    requests.ListPending: frozenset({replies.Viewed, _FAILED}),
    requests.AwaitPending: frozenset({replies.Settled, _FAILED}),
    requests.ListLedger: frozenset({replies.Listed, _FAILED}),
    requests.TakeCensus: frozenset({replies.Counted, _FAILED}),
    requests.Report: frozenset({replies.Reported, _FAILED}),
    requests.Ping: frozenset({replies.Pong, _FAILED}),
    requests.Reset: frozenset({replies.Ended, _FAILED}),
    requests.Vacate: frozenset({replies.Vacated, replies.Ended, _FAILED}),
    requests.Close: frozenset({replies.Ended, _FAILED}),
    callbacks.CallCapability: _CALL,
    callbacks.Step: _CALL | {replies.Exhausted},
}
"""For each request what may answer it."""

INTERIM: Kinds = frozenset({replies.Started})
"""Answers after which another one follows."""

CALLBACKS: Kinds = frozenset({callbacks.CallCapability, callbacks.Step})
"""Requests of the worker."""

REQUESTS: Kinds = frozenset(ANSWERS) - CALLBACKS
"""Requests of the host."""

REPLIES: dict[Side, Kinds] = {
    "host": frozenset[type[Any]]().union(*(ANSWERS[kind] for kind in CALLBACKS)),
    "worker": frozenset[type[Any]]().union(*(ANSWERS[kind] for kind in REQUESTS)),
}
"""Answers of each side to the other's requests."""

ALL_REPLIES: Kinds = REPLIES["host"] | REPLIES["worker"]
"""Answers of either side."""

SENT_BY: dict[Side, Kinds] = {
    "host": REQUESTS | REPLIES["host"] | {handshake.Hello, callbacks.Cancel},
    "worker": CALLBACKS
    | REPLIES["worker"]
    | EVENTS
    | {handshake.Welcome, handshake.Refused, callbacks.Release, callbacks.Held, callbacks.Cancel},
}
"""All that each side ever sends."""


def other_side(side: Side) -> Side:
    """The peer of *side*."""
    return "worker" if side == "host" else "host"
