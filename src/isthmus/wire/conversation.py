"""Who may send what when. Owns the phases of a connection, and which requests are unanswered.

    START ──Hello──▸ GREETED ──Welcome──▸ READY ──Open──▸ OPEN ──Close──▸ CLOSING ──Ended──▸ CLOSED
                        └─Refused─▸ CLOSED   │              └─Vacate─▸ VACATING ──Ended────────┘
                                             ├────────────Close──────────▸ CLOSING
                                             ◂──────────Vacated────────── VACATING

``Failed`` in answer to ``Open`` or ``Vacate`` leads to CLOSED as well. Both sides keep the same
table; each one moves when it sends or receives, so that they may be in different phases for a
moment.

Nothing of one session crosses into the next: ``Vacated`` is out of turn as long as a request of
either side is unanswered, but for ``Ping``, or an object of the host is in use. So what may be on
its way then is a ``Cancel``, which finds nothing.

Guarantees: a message that is out of turn changes nothing.
Refuses to know: bytes, and what a message asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from isthmus.errors import InternalError, ProtocolError
from isthmus.wire import callbacks, handshake, replies, requests
from isthmus.wire.catalogue import (
    ALL_REPLIES,
    ANSWERS,
    CALLBACKS,
    EVENTS,
    INTERIM,
    REPLIES,
    REQUESTS,
    Kinds,
    Side,
    other_side,
)

_NO_OBJECT = "there is no such object"


class Phase(Enum):
    """How far a connection is."""

    START = "start"  # nothing was said
    GREETED = "greeted"  # the host has said Hello
    READY = "ready"  # a version is agreed; there is no session yet
    OPEN = "open"  # there is a session, or will be as soon as the worker has read so
    VACATING = "vacating"  # the host wants no more of this session; answers are on their way
    CLOSING = "closing"  # the host wants no more; answers are on their way
    CLOSED = "closed"  # nothing will be said any more


_NONE: Kinds = frozenset()
_TALK: dict[Side, Kinds] = {
    "host": REPLIES["host"] | {callbacks.Cancel},
    "worker": REPLIES["worker"]
    | CALLBACKS
    | EVENTS
    | {callbacks.Release, callbacks.Held, callbacks.Cancel},
}
_HELLO: Kinds = frozenset({handshake.Hello})
_ANSWER: Kinds = frozenset({handshake.Welcome, handshake.Refused})
_FIRST: Kinds = frozenset({requests.Open, requests.Ping, requests.Close, callbacks.Cancel})
_LAST: Kinds = frozenset({requests.Interrupt, requests.Ping})
_ANY_TIME: Kinds = frozenset({requests.Ping})
_OF_NO_SESSION: Kinds = _ANY_TIME | {requests.Vacate}

LEGAL: dict[Phase, dict[Side, Kinds]] = {
    Phase.START: {"host": _HELLO, "worker": _NONE},
    Phase.GREETED: {"host": _NONE, "worker": _ANSWER},
    Phase.READY: {"host": _FIRST, "worker": frozenset({replies.Pong, replies.Failed})},
    Phase.OPEN: {
        "host": _TALK["host"] | REQUESTS - {requests.Open},
        "worker": _TALK["worker"],
    },
    Phase.VACATING: {"host": _TALK["host"] | _ANY_TIME, "worker": _TALK["worker"]},
    Phase.CLOSING: {"host": _TALK["host"] | _LAST, "worker": _TALK["worker"]},
    Phase.CLOSED: {"host": _NONE, "worker": _NONE},
}
"""What each side may send in each phase."""

NEXT: dict[type[Any], Phase] = {
    handshake.Hello: Phase.GREETED,
    handshake.Welcome: Phase.READY,
    handshake.Refused: Phase.CLOSED,
    requests.Open: Phase.OPEN,
    requests.Vacate: Phase.VACATING,
    requests.Close: Phase.CLOSING,
}
"""Which messages begin another phase. The last answer to ``Close``, any other than ``Vacated`` to
``Vacate``, and ``Failed`` in answer to ``Open``, begin the last one."""


_LAST_OF_ALL: Kinds = frozenset({requests.Close, requests.Vacate})
"""Requests whose answer is the worker's last message, unless it is ``Vacated``."""


_LEADING_ON: Kinds = CALLBACKS | _LAST_OF_ALL | {requests.Open}
"""Requests whose last answer may change more than that they are answered."""


class _End:
    """What one side has said.

    Attributes:
        side: Which one.
        legal: What it may send in this phase.
        last_id: The highest id of its requests.
        unanswered: Its requests without a last answer, by id.
    """

    __slots__ = ("last_id", "legal", "side", "unanswered")

    def __init__(self, side: Side) -> None:
        self.side = side
        self.legal = LEGAL[Phase.START][side]
        self.last_id = 0
        self.unanswered: dict[int, type[Any]] = {}


class Conversation:
    """One end's knowledge of a connection.

    Tell it of every message, before it is sent and when it was received.

    Arguments:
        side: Which end this is.

    Attributes:
        phase: How far the connection is, as this end knows.

    Threads: one at a time.
    """

    def __init__(self, side: Side) -> None:
        self.phase = Phase.START
        self._own = _End(side)
        self._peer = _End(other_side(side))
        self._objects: set[int] = set()
        self._last_object = 0
        self._offered: handshake.Hello | None = None

    # -- messages ----------------------------------------------------------------------------

    def next_id(self) -> int:
        """The id for the next request of this end."""
        return self._own.last_id + 1

    def send(self, message: Any) -> None:
        """*message* is about to be sent.

        Raises:
            InternalError: It is out of turn: a bug at this end. It must not be sent.
        """
        fault = self._take(self._own, self._peer, message)
        if fault is not None:
            raise InternalError(
                f"this {self._own.side} must not send {_described(message)}: {fault}"
            )

    def receive(self, message: Any) -> None:
        """*message* was received.

        Raises:
            ProtocolError: It is out of turn. The connection is to be ended.
        """
        fault = self._take(self._peer, self._own, message)
        if fault is not None:
            raise ProtocolError(f"the {self._peer.side} has sent {_described(message)}: {fault}")

    def receive_end(self) -> bool:
        """The stream of the other side has ended; whether it may, here.

        A host may leave as long as there is no session. Otherwise the end comes after the last
        message of the worker: before that a host has died, and its worker ends with it; or a worker
        has died, and what is unanswered will stay so.
        """
        expected = self.phase is Phase.CLOSED or (
            self._own.side == "worker" and self.phase in (Phase.START, Phase.GREETED, Phase.READY)
        )
        self._enter(Phase.CLOSED)
        return expected

    # -- what is unanswered --------------------------------------------------------------------

    @property
    def asked(self) -> Mapping[int, type[Any]]:
        """Requests of this end without a last answer, by id. Live; not to be changed."""
        return self._own.unanswered

    @property
    def owed(self) -> Mapping[int, type[Any]]:
        """Requests of the other end that have no last answer yet, by id. Live, as above."""
        return self._peer.unanswered

    @property
    def unsettled(self) -> str:
        """What there is of a session beside its end; empty where a worker may be vacated."""
        for end in (self._own, self._peer):
            if left := set(end.unanswered.values()) - _OF_NO_SESSION:
                names = ", ".join(sorted(it.__name__ for it in left))
                return f"requests of the {end.side} have no answer: {names}"
        return "objects of the host are in use" if self._objects else ""

    @property
    def objects(self) -> frozenset[int]:
        """Numbers of the objects that the host has handed out and the worker has not released."""
        return frozenset(self._objects)

    # -- the rules -----------------------------------------------------------------------------

    def _take(self, sender: _End, receiver: _End, message: Any) -> str | None:
        """Note *message*; or say why *sender* must not send it. Called for every message."""
        kind = type(message)
        if kind not in sender.legal:
            return f"the connection is {self.phase.value}"
        if kind in ALL_REPLIES:
            return self._take_reply(receiver, message)
        if kind in ANSWERS:
            fault = self._take_request(sender, message)
        else:
            fault = self._take_other(sender, message)
        if fault is None and kind in NEXT:
            self._enter(NEXT[kind])
        return fault

    def _take_request(self, sender: _End, message: Any) -> str | None:
        kind = type(message)
        if message.id <= sender.last_id:
            return f"ids go upwards, and the last one was {sender.last_id}"
        if kind is callbacks.Step and message.object not in self._objects:
            return _NO_OBJECT
        if kind is requests.Vacate and not (self._offered and self._offered.reuse):
            return "it has not said that it would"
        sender.last_id = message.id
        sender.unanswered[message.id] = kind
        return None

    def _take_reply(self, receiver: _End, message: Any) -> str | None:
        kind, number = type(message), message.id
        asked = receiver.unanswered.get(number)
        if asked is None:
            return "no request with this id is unanswered"
        if kind not in ANSWERS[asked]:
            return f"it does not answer {asked.__name__}"
        if kind is replies.Handed and message.object <= self._last_object:
            return f"numbers of objects go upwards, and the last one was {self._last_object}"
        if kind is replies.Vacated and self.unsettled:
            return self.unsettled
        if kind not in INTERIM:
            del receiver.unanswered[number]
            if asked in _LEADING_ON:
                self._answered(asked, message)
        return None

    def _answered(self, asked: type[Any], message: Any) -> None:
        """*message* is the last answer to a request of the kind *asked*."""
        kind = type(message)
        if kind is replies.Handed:
            self._last_object = message.object
            self._objects.add(message.object)
        elif kind is replies.Vacated:
            self._enter(Phase.READY)
        elif asked in _LAST_OF_ALL or (asked is requests.Open and kind is replies.Failed):
            self._enter(Phase.CLOSED)

    def _take_other(self, sender: _End, message: Any) -> str | None:
        """Take what is neither a request nor an answer."""
        kind = type(message)
        if kind is handshake.Hello:
            self._offered = message
        elif kind is handshake.Welcome:
            return self._fault_of_welcome(message)
        elif kind is callbacks.Cancel and message.request > sender.last_id:
            return "there was no such request"
        elif kind is callbacks.Release:
            if message.object not in self._objects:
                return _NO_OBJECT
            self._objects.discard(message.object)
        return None

    def _fault_of_welcome(self, message: handshake.Welcome) -> str | None:
        hello = self._offered or handshake.Hello(())
        if message.version not in hello.versions:
            return f"the host speaks {hello.versions}"
        if not set(message.features) <= set(hello.features):
            return f"the host knows the features {hello.features}"
        return None

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        for end in (self._own, self._peer):
            end.legal = LEGAL[phase][end.side]


def _described(message: Any) -> str:
    """The name of *message*, and its id if it has one: its contents may be anything."""
    number = getattr(message, "id", None)
    name = type(message).__name__
    return name if number is None else f"{name} {number}"
