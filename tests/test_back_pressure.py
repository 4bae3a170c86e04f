"""Transports that are full: who waits, what is dropped, and how that is told."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from isthmus import (
    CellFinished,
    Event,
    MemoryTransport,
    Output,
    OutputDropped,
    QueueTransport,
    Session,
)
from isthmus import live_output as module
from isthmus.live_output import EVENT_CHARS
from support import cell, eventually
from transports import Valve, texts

requirement = pytest.mark.requirement

NOTE = "bytes of output dropped"


@requirement("6.1-back-pressure")
async def test_a_thread_waits_for_room_and_loses_nothing(make_session: Any) -> None:
    valve = Valve()
    session: Session = make_session("waits", transport=valve)
    session.update_namespace({"valve": valve})
    code = "valve.shut()\nfor i in range(5_000): print(i)"
    running = asyncio.create_task(session.run(code, context="thread"))
    await eventually(valve.asked.is_set)
    assert texts(valve) == []
    valve.open()
    result = await running
    assert "".join(texts(valve)) == result.stdout == "".join(f"{i}\n" for i in range(5_000))
    assert valve.of_type(OutputDropped) == []


@requirement("6.1-back-pressure", "6.2-timeout")
async def test_a_thread_that_waits_for_room_can_be_stopped(make_session: Any) -> None:
    valve = Valve(is_open=False)
    session: Session = make_session("stopped", transport=valve)
    running = asyncio.create_task(session.run("print('x')\nprint('y')", context="thread"))
    await eventually(valve.asked.is_set)
    session.interrupt()
    result = await running
    assert (result.status, result.stopped) == ("interrupted", True)
    assert "".join(texts(valve)) == result.stdout == "x\n"  # at the end it goes out in any case


@requirement("6.1-back-pressure", "close")
async def test_a_thread_that_nobody_stops_waits_no_longer_than_its_session(
    make_session: Any,
) -> None:
    valve = Valve(is_open=False)
    session: Session = make_session("left", transport=valve)
    code = """
        import threading
        thread = threading.Thread(target=print, args=('late',))
        thread.start()
        """
    await session.run(cell(code))
    thread: threading.Thread = session.namespace["thread"]
    await eventually(valve.asked.is_set)
    await session.close()
    await asyncio.get_running_loop().run_in_executor(None, thread.join, 5)
    assert "".join(texts(valve)) == "late\n"


@requirement("6.1-back-pressure")
@pytest.mark.parametrize("on_loop", ["async", "sync"])
async def test_on_the_loop_the_excess_is_dropped_and_said_to_be(
    make_session: Any, on_loop: str
) -> None:
    valve = Valve()
    session: Session = make_session("dropped", transport=valve)
    session.update_namespace({"valve": valve})
    code = """
        print('begin', end='', flush=True)
        valve.shut()
        for i in range(3 * 1024):
            print('é')
        valve.open()
        print('end')
        """
    result = await session.run(cell(code), context=on_loop)
    assert result.stdout == "begin" + "é\n" * 3072 + "end\n"
    (dropped,) = valve.of_type(OutputDropped)
    sent = "".join(texts(valve))
    note = f"\n[{dropped.bytes} {NOTE}: the reader did not keep up]\n"
    before, said, after = sent.partition(note)
    assert said and dropped.stream == "stdout"
    assert len((before + after).encode()) + dropped.bytes == len(result.stdout.encode())
    assert before.startswith("begin") and after.endswith("é\nend\n")
    assert valve.events.index(dropped) < len(valve.events) - 2
    assert not valve.of_type(CellFinished)[0].error


@requirement("6.1-back-pressure")
async def test_a_gap_is_told_when_there_is_room_again(make_session: Any) -> None:
    valve = Valve()
    session: Session = make_session("gap", transport=valve)
    go_on = asyncio.Event()
    session.update_namespace({"valve": valve, "go_on": go_on})
    code = """
        import sys
        valve.shut()
        print('x' * 10_000)
        sys.stderr.write('y' * 10_000)
        display(5)
        await go_on.wait()
        """
    running = asyncio.create_task(session.run(cell(code)))
    await eventually(lambda: "go_on" in session.namespace and session.namespace["go_on"]._waiters)
    assert valve.of_type(Output) == []
    valve.open()
    await eventually(lambda: len(valve.of_type(OutputDropped)) == 2)
    go_on.set()
    await running
    # The display was held back, for it is small.
    assert [(it.stream, it.bytes) for it in valve.of_type(OutputDropped)] == [
        ("stdout", 10_001),
        ("stderr", 10_000),
    ]
    assert [type(event).__name__ for event in valve.events][-2:] == ["Display", "CellFinished"]


@requirement("6.1-back-pressure")
async def test_a_cell_may_drop_displays_and_the_rest_of_a_long_text(make_session: Any) -> None:
    transport = QueueTransport(limit=EVENT_CHARS + 1)
    session: Session = make_session("long", transport=transport)
    code = """
        print('x' * 1_000_000)
        display({'image/png': b'p' * 100_000}, raw=True)
        print('y' * 2_000)
        """
    result = await session.run(cell(code))
    assert len(result.stdout) == 1_002_002
    transport.close()
    events = [event async for event in transport]
    output = "".join(event.text for event in events if isinstance(event, Output))
    dropped = next(event for event in events if isinstance(event, OutputDropped))
    assert output.count("x") == EVENT_CHARS * 2
    assert dropped.bytes == 1_102_002 - EVENT_CHARS * 2
    assert isinstance(events[-1], CellFinished)


@requirement("6.1-back-pressure")
async def test_at_the_end_of_a_cell_the_rest_is_sent_in_any_case(
    make_session: Any, context: str
) -> None:
    valve = Valve()
    session: Session = make_session("rest", transport=valve)
    session.update_namespace({"valve": valve})
    code = "valve.shut()\nimport sys\nsys.stdout.buffer.write(b'rest\\xe2')\nNone"
    result = await session.run(code, context=context)
    assert result.stdout == "".join(texts(valve)) == "rest\ufffd"
    assert isinstance(valve.events[-1], CellFinished)


@requirement("6.1-back-pressure")
async def test_what_a_thread_waits_to_send_is_not_dropped_by_the_loop(make_session: Any) -> None:
    valve = Valve(is_open=False)
    session: Session = make_session("both", transport=valve)
    session.update_namespace({"valve": valve})
    code = """
        import threading
        thread = threading.Thread(target=print, args=('x' * 5_000,))
        thread.start()
        while not valve.asked.is_set():
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)     # a timer has come, and left all to the thread
        print('y' * 5_000)            # this one is dropped
        valve.open()
        await asyncio.to_thread(thread.join)
        """
    result = await session.run(cell(code))
    assert result.error is None
    assert set(result.stdout) == set("xy\n")
    dropped = sum(event.bytes for event in valve.of_type(OutputDropped))
    sent = "".join(text for text in texts(valve) if NOTE not in text)
    assert len(sent) + dropped == len(result.stdout)
    assert dropped >= 5_000


@requirement("6.1-back-pressure", "bad-transport")
async def test_a_transport_that_fails_when_asked_for_room_gets_its_events(
    make_session: Any, context: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemoryTransport):
        def wait_writable(self, timeout: float) -> bool:
            raise OSError("no idea")

    transport = Broken()
    session: Session = make_session("broken", transport=transport)
    await session.run("print('x')", context=context)
    assert texts(transport) == ["x\n"]
    assert session.executor.emitter.failures == 1
    assert "failed on wait_writable" in caplog.text


@requirement("6.1-back-pressure")
async def test_a_transport_that_waits_for_the_loop_does_not_hang_it(
    make_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOP_SECONDS", 0.01)
    loop, sending = asyncio.get_running_loop(), threading.Event()

    class Waiting(MemoryTransport):
        def send(self, event: Event) -> None:
            if threading.current_thread() is not threading.main_thread():
                sending.set()
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(5)
            super().send(event)

    transport = Waiting()
    session: Session = make_session("waiting", transport=transport)
    session.update_namespace({"sending": sending})
    code = """
        import threading
        thread = threading.Thread(target=print, args=('thread',))
        thread.start()
        sending.wait(5)               # it is in send, and wants the loop that waits here
        print('loop')
        await asyncio.to_thread(thread.join)
        """
    result = await session.run(cell(code))
    assert result.error is None
    assert "".join(texts(transport)) == "thread\nloop\n"
