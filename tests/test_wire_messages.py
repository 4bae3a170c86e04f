"""Messages: the catalogue, the way to bytes and back, what newer peers may add, old frames."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from isthmus import CloseReport, MessageTooLargeError, ProtocolError, events
from isthmus.context_bridge import RequestedContext as SessionContext
from isthmus.errors import IsthmusError
from isthmus.executor import LateOutput
from isthmus.ledger import CoroutinePolicy
from isthmus.wire import callbacks, handshake, replies, requests
from isthmus.wire.catalogue import ANSWERS, EVENTS, INTERIM, SENT_BY, SIDES, other_side
from isthmus.wire.codec import ESCAPED, Encoder, message_decoder
from isthmus.wire.handshake import VERSIONS, Hello, agreed_version
from isthmus.wire.limits import Limits
from isthmus.wire.parts import RequestedContext, Value
from isthmus.wire.replies import Done, Ended, Outcome, Reported
from isthmus.wire.requests import GetName, Open, RunCell, UpdateNames
from wire_messages import KINDS, full, required

requirement = pytest.mark.requirement

OLD_FRAMES = tomllib.loads(
    (Path(__file__).parent / "data" / "frames_of_version_1.toml").read_text()
)


def sender_of(kind: type[Any]) -> Any:
    return next(side for side in SIDES if kind in SENT_BY[side])


def there(message: Any, sender: Any = None) -> Any:
    """*message*, as the other side gets it."""
    decoder = message_decoder(other_side(sender or sender_of(type(message))))
    decoder.feed(Encoder().encode(message))
    received = decoder.next_frame()
    assert received is not None and received.buffers == []
    return received.message


# -- the catalogue ---------------------------------------------------------------------------------


@requirement("7.3-messages")
def test_every_event_is_a_message_of_the_worker() -> None:
    declared = {it for it in vars(events).values() if inspect.isclass(it)}
    assert {it for it in declared if issubclass(it, events.Event)} - {events.Event} == EVENTS


@requirement("7.3-messages")
def test_every_message_that_is_declared_is_sent_by_somebody() -> None:
    bases = {requests.Request, requests.CellRequest, replies.Reply}
    declared = {
        it
        for module in (handshake, requests, callbacks, replies)
        for it in vars(module).values()
        if inspect.isclass(it) and it.__module__ == module.__name__
    }
    assert declared - bases == (SENT_BY["host"] | SENT_BY["worker"]) - EVENTS


@requirement("7.3-messages")
def test_requests_have_ids_and_one_last_answer_at_least() -> None:
    for kind, answers in ANSWERS.items():
        assert "id" in kind.__struct_fields__
        assert answers - INTERIM
        assert replies.Failed in answers
        assert all("id" in answer.__struct_fields__ for answer in answers)


@requirement("7.3-messages")
def test_words_that_a_session_knows_are_those_of_the_protocol() -> None:
    assert set(get_args(RequestedContext)) == {
        it for part in get_args(SessionContext) for it in (get_args(part) or (part,))
    }
    types = {it.name: it.type for it in msgspec.structs.fields(Open)}
    assert get_args(types["late_output"]) == get_args(LateOutput)
    assert get_args(types["coroutine_policy"]) == get_args(CoroutinePolicy)


@requirement("7.3-messages")
def test_an_outcome_has_the_fields_of_a_result() -> None:
    fields = set(events.CellResult.__dataclass_fields__)
    assert set(Outcome.__struct_fields__) - {"id"} == fields


@requirement("7.3-messages")
def test_the_end_of_a_session_has_the_fields_of_a_report() -> None:
    here = {"loop", "canary"}  # of a session's own process
    there = {"id", "unfit"}  # of the worker
    assert set(Ended.__struct_fields__) - there == set(CloseReport.__dataclass_fields__) - here


# -- there and back --------------------------------------------------------------------------------


@requirement("7.3-messages")
@pytest.mark.parametrize("name", KINDS)
def test_a_message_arrives_as_it_was_sent(name: str) -> None:
    for message in (required(KINDS[name]), full(KINDS[name])):
        assert there(message) == message


@requirement("7.3-messages")
def test_what_has_its_default_is_not_sent() -> None:
    assert Encoder().encode(RunCell(1, 1, source="x = 1"))[8:] == msgspec.msgpack.encode(
        {"type": "RunCell", "id": 1, "cell": 1, "source": "x = 1"}
    )


@requirement("7.3-messages")
def test_surrogates_arrive_whatever_the_field() -> None:
    messages = [
        RunCell(1, 1, source="'\udcff' + '\\ud800 \\\\'", title="\ud83d\ude00 \\"),
        Outcome(1, cell=1, stdout="\udcff\n", displays=(), value=Value(data=b"\xff\\")),
        events.Display("s", 1, {"text/plain": "\ud800", "x\udfff": [b"\\", None, {"\\": 1.5}]}),
    ]
    for message in messages:
        assert there(message) == message
        assert Encoder().encode(message)[1] == ESCAPED


@requirement("7.3-messages")
def test_long_integers_of_a_display_arrive_as_doubles() -> None:
    shown = events.Display("s", 1, {"application/json": [2**64, -(2**70), 10**400, -(10**400), 3]})
    expected = [2.0**64, -(2.0**70), float("inf"), float("-inf"), 3]
    assert there(shown).data == {"application/json": expected}


@requirement("7.3-messages")
def test_a_message_with_buffers_arrives_with_them() -> None:
    update = UpdateNames(1, {"x": Value(buffers=(0,)), "\ud800": Value(buffers=(1,))})
    sent = Encoder().encode_with_buffers(update, [b"first", bytearray(b"second")])
    decoder = message_decoder("worker")
    for part in sent:
        decoder.feed(part)
    received = decoder.next_frame()
    assert received is not None
    assert received.message == update
    assert received.buffers == [b"first", b"second"]


@requirement("7.3-limits")
def test_a_message_that_the_peer_does_not_take_is_not_sent() -> None:
    encoder = Encoder()
    encoder.limits = Limits(body_bytes=100)
    with pytest.raises(MessageTooLargeError, match="the 100 that the other process takes"):
        encoder.encode(GetName(1, "x" * 100))
    with pytest.raises(MessageTooLargeError):
        encoder.encode(GetName(1, "\ud800" * 100))
    with pytest.raises(MessageTooLargeError):
        encoder.encode_with_buffers(GetName(1, "x" * 100), [b""])


@requirement("7.3-malformed")
def test_a_message_nested_without_end_is_malformed() -> None:
    for deep in (b"\x91" * 100_000, b"\x81\xa1a" * 50_000):
        body = (
            b"\x84\xa4type\xa7Display\xa7session\xa1s\xa4cell\x01\xa4data\x81\xa1a" + deep + b"\xc0"
        )
        for flags in (0, ESCAPED):
            decoder = message_decoder("host")
            decoder.feed(b"\xc1" + bytes([flags]) + b"\0\0" + len(body).to_bytes(4, "big") + body)
            with pytest.raises(ProtocolError, match="recursion"):
                decoder.next_frame()


# -- other versions --------------------------------------------------------------------------------


@requirement("7.3-messages")
@pytest.mark.parametrize("name", KINDS)
def test_fields_that_a_newer_peer_adds_are_skipped(name: str) -> None:
    message = required(KINDS[name])
    fields = msgspec.to_builtins(message, builtin_types=(bytes,))
    body = msgspec.msgpack.encode(
        {"added": [{"x": 1}], **fields, "also": msgspec.msgpack.Ext(5, b"")}
    )
    decoder = message_decoder(other_side(sender_of(KINDS[name])))
    decoder.feed(b"\xc1\0\0\0" + len(body).to_bytes(4, "big") + body)
    received = decoder.next_frame()
    assert received is not None and received.message == message


@requirement("7.3-messages")
@pytest.mark.parametrize("name", KINDS)
def test_frames_of_version_1_can_be_read_and_are_still_sent(name: str) -> None:
    old = {kind: bytes.fromhex(OLD_FRAMES[kind][name]) for kind in ("required", "full")}
    for data, make in ((old["required"], required), (old["full"], full)):
        decoder = message_decoder(other_side(sender_of(KINDS[name])))
        decoder.feed(data)
        received = decoder.next_frame()
        assert received is not None and received.message == make(KINDS[name])
        assert Encoder().encode(received.message) == data


@requirement("7.3-versions")
def test_the_version_is_the_first_one_of_the_host_that_the_worker_knows() -> None:
    assert agreed_version((3, 2, 1), known=(1, 2)) == 2
    assert agreed_version((3,), known=(1, 2)) is None
    assert agreed_version(()) is None
    assert agreed_version(VERSIONS) == 1


@requirement("7.3-versions")
def test_a_greeting_of_any_later_version_can_be_read() -> None:
    later = Hello((9, 8), features=("teleport",), limits=Limits(1, 2), software="isthmus 9")
    assert there(later) == later


@requirement("7.3-malformed")
def test_errors_of_the_wire_are_the_peers_fault() -> None:
    assert issubclass(ProtocolError, IsthmusError)
    assert not issubclass(ProtocolError, MessageTooLargeError)
    assert there(Done(1)) == Done(1) and there(Reported(1, "x")).text == "x"
