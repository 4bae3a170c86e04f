"""Transports, and the emitter that survives them."""

from __future__ import annotations

import logging

import pytest

from isthmus import CellStarted, Event, MemoryTransport, Output
from isthmus.transport import Emitter

requirement = pytest.mark.requirement


@requirement("events")
def test_a_memory_transport_gives_copies() -> None:
    transport = MemoryTransport()
    transport.send(Output("s", 1, "stdout", "x"))
    events = transport.events
    events.clear()
    assert len(transport.events) == 1
    for _ in transport:
        transport.send(Output("s", 2, "stdout", "y"))
    assert [it.text for it in transport.of_type(Output)] == ["x", "y"]
    assert transport.of_type(CellStarted) == []


@requirement("bad-transport")
def test_an_emitter_counts_and_logs_what_a_transport_refuses(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        def send(self, event: Event) -> None:
            raise OSError("full")

    emitter = Emitter(Broken())
    with caplog.at_level(logging.ERROR):
        emitter.emit(Output("s", 1, "stdout", "x"))
    assert emitter.failures == 1
    assert "failed on Output" in caplog.text
    assert "full" in caplog.text


@requirement("events")
def test_without_a_transport_nothing_is_sent() -> None:
    emitter = Emitter(None)
    assert not emitter.active
    emitter.emit(Output("s", 1, "stdout", "x"))
    assert emitter.failures == 0


@requirement("bad-transport")
@pytest.mark.parametrize("value", [5, object(), "text", type("T", (), {"send": 5})()])
def test_what_has_no_send_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=r"method send\(event\)"):
        Emitter(value)  # type: ignore[arg-type]
