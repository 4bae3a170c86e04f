"""Who may send what when: the phases, ids and answers, and what is out of turn."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus import InternalError, ProtocolError
from isthmus.events import Output
from isthmus.wire.callbacks import CallCapability, Cancel, Release, Step
from isthmus.wire.catalogue import EVENTS, SENT_BY, SIDES, Side, other_side
from isthmus.wire.conversation import LEGAL, NEXT, Conversation, Phase
from isthmus.wire.handshake import Hello, Refused, Welcome
from isthmus.wire.parts import CapabilityDescription, Failure
from isthmus.wire.replies import (
    Done,
    Ended,
    Exhausted,
    Failed,
    Handed,
    Outcome,
    Pong,
    Returned,
    Started,
    Vacated,
)
from isthmus.wire.requests import (
    Close,
    GetName,
    Inject,
    Interrupt,
    Open,
    Ping,
    RunCell,
    Vacate,
)
from wire_messages import KINDS, required

requirement = pytest.mark.requirement


class Pair:
    """Both ends; what one sends arrives at once."""

    def __init__(self) -> None:
        self.ends: dict[Side, Conversation] = {side: Conversation(side) for side in SIDES}

    def say(self, side: Side, *messages: Any) -> None:
        for message in messages:
            self.ends[side].send(message)
            self.ends[other_side(side)].receive(message)

    def open(self, *, reuse: bool = False) -> Pair:
        self.say("host", Hello((1,), reuse=reuse))
        self.say("worker", Welcome(1))
        self.say("host", Open(1))
        self.say("worker", Done(1))
        return self

    @property
    def phases(self) -> set[Phase]:
        return {it.phase for it in self.ends.values()}

    def refuses(self, side: Side, message: Any, why: str) -> None:
        """Check that neither end takes *message*, and that nothing has changed by it."""
        before = self.state()
        with pytest.raises(InternalError, match=f"this {side} must not send .*{why}"):
            self.ends[side].send(message)
        with pytest.raises(ProtocolError, match=f"the {side} has sent .*{why}"):
            self.ends[other_side(side)].receive(message)
        assert self.state() == before

    def state(self) -> list[Any]:
        return [
            (it.phase, dict(it.asked), dict(it.owed), it.objects, it.next_id())
            for it in self.ends.values()
        ]


# -- phases ----------------------------------------------------------------------------------------


@requirement("7.3-turns")
def test_a_connection_from_its_beginning_to_its_end() -> None:
    pair = Pair()
    phases = [pair.phases]
    for side, message in (
        ("host", Hello((1,))),
        ("worker", Welcome(1)),
        ("host", Open(1)),
        ("host", RunCell(2, 1, source="x")),
        ("worker", Done(1)),
        ("worker", Outcome(2, cell=1)),
        ("host", Close(3)),
        ("worker", Ended(3)),
    ):
        pair.say(side, message)  # type: ignore[arg-type]
        phases.append(pair.phases)
    p = Phase
    assert [one for (one,) in phases] == [
        p.START, p.GREETED, p.READY, p.OPEN, p.OPEN, p.OPEN, p.OPEN, p.CLOSING, p.CLOSED,
    ]  # fmt: skip
    assert all(end.receive_end() for end in pair.ends.values())


@requirement("7.3-turns")
@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("side", SIDES)
def test_what_the_table_does_not_list_is_refused(phase: Phase, side: Side) -> None:
    pair = reached(phase)
    assert pair.phases == {phase}
    for kind in SENT_BY["host"] | SENT_BY["worker"]:
        if kind not in LEGAL[phase][side]:
            pair.refuses(side, required(kind), f"the connection is {phase.value}")


def reached(phase: Phase) -> Pair:
    """A pair in this phase."""
    if phase in (Phase.OPEN, Phase.VACATING, Phase.CLOSING, Phase.CLOSED):
        pair = Pair().open(reuse=phase is Phase.VACATING)
        if phase is not Phase.OPEN:
            pair.say("host", Vacate(2) if phase is Phase.VACATING else Close(2))
        if phase is Phase.CLOSED:
            pair.say("worker", Ended(2))
        return pair
    pair = Pair()
    if phase is not Phase.START:
        pair.say("host", Hello((1,)))
    if phase is Phase.READY:
        pair.say("worker", Welcome(1))
    return pair


@requirement("7.3-turns")
def test_the_table_is_the_one_that_the_page_shows() -> None:
    """Spelled out once more, by rules of thumb that the table must keep to."""
    everything = {side: {p for p in Phase if SENT_BY[side] & LEGAL[p][side]} for side in SIDES}
    with_a_session = {Phase.OPEN, Phase.VACATING, Phase.CLOSING}
    assert everything["host"] == {Phase.START, Phase.READY} | with_a_session
    assert everything["worker"] == {Phase.GREETED, Phase.READY} | with_a_session
    for phase in Phase:
        for side in SIDES:
            assert LEGAL[phase][side] <= SENT_BY[side]
    for kind in EVENTS | {CallCapability, Step, Release}:
        assert {p for p in Phase if kind in LEGAL[p]["worker"]} == with_a_session
    for kind in (RunCell, GetName, Inject):
        assert {p for p in Phase if kind in LEGAL[p]["host"]} == {Phase.OPEN}
    for kind in (Ping, Interrupt):
        assert kind in LEGAL[Phase.CLOSING]["host"]
    assert {Open, Ping, Close, Cancel} == LEGAL[Phase.READY]["host"]
    assert set(NEXT) == {Hello, Welcome, Refused, Open, Vacate, Close}
    every = {kind for p in Phase for side in SIDES for kind in LEGAL[p][side]}
    assert every == set(KINDS.values())


@requirement("7.3-turns")
def test_a_session_that_could_not_be_opened_ends_the_connection() -> None:
    pair = Pair()
    pair.say("host", Hello((1,)))
    pair.say("worker", Welcome(1))
    pair.say("host", Open(1), RunCell(2, 1, source="x"))
    pair.say("worker", Failed(1, Failure("builtins.ValueError")))
    assert pair.phases == {Phase.CLOSED}
    assert pair.ends["host"].asked == {2: RunCell}


@requirement("7.3-turns")
def test_a_worker_without_a_session_can_be_asked_and_ended() -> None:
    pair = reached(Phase.READY)
    pair.say("host", Ping(1))
    pair.say("worker", Pong(1))
    pair.say("host", Close(2))
    pair.say("worker", Ended(2))
    assert pair.phases == {Phase.CLOSED}


# -- several sessions ------------------------------------------------------------------------------


@requirement("7.3-turns")
def test_a_worker_that_was_vacated_has_one_session_after_the_other() -> None:
    pair = Pair().open(reuse=True)
    pair.say("host", Vacate(2))
    assert pair.phases == {Phase.VACATING}
    pair.say("worker", Vacated(2))
    assert pair.phases == {Phase.READY}
    pair.say("host", Cancel(1), Ping(3), Open(4), RunCell(5, 1, source="x"))
    pair.say("worker", Pong(3), Done(4), Outcome(5, cell=1))
    pair.say("host", Vacate(6))
    pair.say("worker", Ended(6, unfit="a thread is left"))
    assert pair.phases == {Phase.CLOSED}


@requirement("7.3-turns")
def test_a_worker_is_not_vacated_before_all_is_answered_and_released() -> None:
    pair = Pair().open(reuse=True)
    pair.say("host", GetName(2, "x"))
    pair.say("worker", CallCapability(1, "tool"))
    pair.say("host", Vacate(3), Ping(4))
    pair.refuses("host", Interrupt(5), "the connection is vacating")
    pair.refuses("worker", Vacated(3), "requests of the .* have no answer: ")
    pair.say("worker", Returned(2))
    pair.refuses("worker", Vacated(3), "requests of the worker have no answer: CallCapability")
    pair.say("host", Handed(1, 1))
    pair.refuses("worker", Vacated(3), "objects of the host are in use")
    pair.say("worker", Release(1), Vacated(3), Pong(4))
    pair.refuses("worker", Output("s", 1, "stdout", "late"), "the connection is ready")


@requirement("7.3-turns")
def test_only_a_host_that_has_said_so_has_its_worker_vacated() -> None:
    Pair().open().refuses("host", Vacate(2), "it has not said that it would")
    pair = Pair().open(reuse=True)
    pair.say("host", Vacate(2))
    pair.say("worker", Failed(2, Failure("builtins.MemoryError")))
    assert pair.phases == {Phase.CLOSED}


# -- versions --------------------------------------------------------------------------------------


@requirement("7.3-versions")
def test_a_worker_that_knows_none_of_the_versions_says_so_and_ends() -> None:
    pair = Pair()
    pair.say("host", Hello((7, 8)))
    pair.say("worker", Refused((1,), "too new for me"))
    assert pair.phases == {Phase.CLOSED}


@requirement("7.3-versions")
def test_a_worker_cannot_choose_what_the_host_has_not_offered() -> None:
    pair = Pair()
    pair.say("host", Hello((1,), features=("a", "b")))
    pair.refuses("worker", Welcome(2), r"the host speaks \(1,\)")
    pair.refuses("worker", Welcome(1, features=("a", "c")), "the host knows the features")
    pair.say("worker", Welcome(1, features=("a",)))


# -- ids and answers -------------------------------------------------------------------------------


@requirement("7.3-turns")
def test_requests_are_answered_in_any_order_and_once() -> None:
    pair = Pair().open()
    pair.say("host", RunCell(2, 1, source="x"), GetName(3, "x"), RunCell(7, 2, source="y"))
    assert (
        pair.ends["host"].asked == pair.ends["worker"].owed == {2: RunCell, 3: GetName, 7: RunCell}
    )
    pair.say("worker", Returned(3), Started(7), Started(2), Outcome(7, cell=2))
    pair.refuses("worker", Outcome(7, cell=2), "no request with this id is unanswered")
    pair.refuses("worker", Started(7), "no request with this id is unanswered")
    pair.refuses("worker", Returned(2), "it does not answer RunCell")
    pair.refuses("worker", Outcome(99, cell=1), "no request with this id is unanswered")
    pair.say("worker", Outcome(2, cell=1))
    assert pair.ends["host"].asked == {}
    assert pair.ends["host"].next_id() == 8


@requirement("7.3-turns")
def test_an_id_is_used_once() -> None:
    pair = Pair().open()
    pair.say("host", GetName(5, "x"))
    pair.refuses("host", GetName(5, "x"), "ids go upwards, and the last one was 5")
    pair.say("worker", Returned(5))
    pair.refuses("host", GetName(4, "x"), "ids go upwards, and the last one was 5")


@requirement("7.3-turns")
def test_both_sides_count_for_themselves() -> None:
    pair = Pair().open()
    assert [pair.ends[side].next_id() for side in SIDES] == [2, 1]
    pair.say("host", RunCell(2, 1, source="x"))
    pair.say("worker", CallCapability(1, "tool"), CallCapability(2, "tool"))
    pair.say("host", Returned(2))
    pair.say("worker", Outcome(2, cell=1))
    assert pair.ends["host"].owed == pair.ends["worker"].asked == {1: CallCapability}


@requirement("7.3-turns")
def test_giving_up_names_a_request_that_was_made() -> None:
    pair = Pair().open()
    pair.refuses("host", Cancel(2), "there was no such request")
    pair.say("host", GetName(2, "x"), Cancel(2))
    pair.say("worker", Returned(2))
    pair.say("host", Cancel(2))  # it has crossed the answer
    pair.refuses("worker", Cancel(1), "there was no such request")


@requirement("7.3-turns")
def test_an_object_that_was_handed_out_is_good_until_it_is_released() -> None:
    pair = Pair().open()
    pair.say("worker", CallCapability(1, "rows"))
    pair.refuses("worker", Step(2, 1, "next"), "there is no such object")
    pair.say("host", Handed(1, 1, iterates=True))
    pair.say("worker", Step(2, 1, "next"))
    pair.refuses("host", Done(2), "does not answer Step|the connection is open")
    pair.say("host", Returned(2))
    pair.say("worker", Step(3, 1, "next"))
    pair.refuses("host", Handed(3, 1), "numbers of objects go upwards, and the last one was 1")
    pair.say("host", Exhausted(3))
    assert pair.ends["host"].objects == pair.ends["worker"].objects == {1}
    pair.say("worker", Release(1))
    pair.refuses("worker", Release(1), "there is no such object")
    pair.refuses("worker", Step(4, 1, "close"), "there is no such object")
    assert pair.ends["host"].objects == frozenset()


@requirement("7.3-turns")
def test_what_is_under_way_is_answered_while_the_session_closes() -> None:
    pair = Pair().open()
    pair.say("host", RunCell(2, 1, source="x"), Close(3))
    pair.say("worker", CallCapability(1, "tool"), Output("s", 1, "stdout", "bye"))
    pair.say("host", Returned(1), Interrupt(4), Cancel(2))
    pair.refuses("host", Inject(5, CapabilityDescription("late")), "the connection is closing")
    pair.say("worker", Outcome(2, cell=1, status="cancelled"), Ended(3))
    pair.refuses("worker", Output("s", 1, "stdout", "late"), "the connection is closed")
    assert pair.ends["host"].asked == {4: Interrupt}


# -- the end of the stream -------------------------------------------------------------------------


@requirement("7.3-turns")
@pytest.mark.parametrize("phase", Phase)
def test_who_may_leave_when(phase: Phase) -> None:
    pair = reached(phase)
    no_session = phase in (Phase.START, Phase.GREETED, Phase.READY)
    assert pair.ends["worker"].receive_end() == (no_session or phase is Phase.CLOSED)
    assert pair.ends["host"].receive_end() == (phase is Phase.CLOSED)
    assert pair.phases == {Phase.CLOSED}
