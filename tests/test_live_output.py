"""Output on its way to a transport: batches, their timing, and interrupts."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from either_home import beside
from isthmus import (
    AnySession,
    CellFinished,
    CellStarted,
    Event,
    MemoryTransport,
    Output,
    Session,
)
from isthmus import live_output as module
from isthmus.jobs import Job, current_job
from isthmus.live_output import EVENT_CHARS, LINES_AT_ONCE, LiveOutput, Ticker
from isthmus.output import BIG_CHARS, PIECES
from isthmus.transport import Emitter
from support import cell, eventually
from transports import texts

requirement = pytest.mark.requirement

# -- batches and their timing ----------------------------------------------------------------------


@requirement("6.1-batches")
async def test_a_lone_line_is_sent_at_once(
    make_session: Any, transport: MemoryTransport, context: str
) -> None:
    session: AnySession = make_session("lone", transport=transport)
    session.inject_capability("sent", lambda: texts(transport))
    code = """
        import sys
        print('one')
        first = sent()
        sys.stdout.buffer.write(b'two\\n')
        first, sent()
        """
    assert await session.execute(cell(code), context=context) == (["one\n"], ["one\n", "two\n"])


@requirement("6.1-batches")
async def test_lines_that_come_fast_come_together(
    make_session: Any, transport: MemoryTransport, context: str
) -> None:
    session: AnySession = make_session("fast", transport=transport)
    result = await session.run("for i in range(6_000): print(i)", context=context)
    sent = texts(transport)
    assert "".join(sent) == result.stdout == "".join(f"{i}\n" for i in range(6_000))
    assert len(sent) < 1_200
    assert isinstance(transport.events[-1], CellFinished)


@requirement("6.1-batches")
async def test_what_is_held_back_is_sent_while_the_cell_waits(
    make_session: Any, transport: MemoryTransport, context: str
) -> None:
    session: AnySession = make_session("waits", transport=transport)
    session.update_namespace({"count": LINES_AT_ONCE * 2})
    await session.execute("go_on = asyncio.Event()")
    code = "for i in range(count): print(i)\nprint('partial', end='\\r')\nawait go_on.wait()"
    running = asyncio.create_task(session.run(code, context=context))
    await eventually(lambda: texts(transport) and texts(transport)[-1].endswith("partial\r"))
    # The timer is gone, and the next line goes at once.
    await beside(session, "go_on.set()")
    assert (await running).stdout == "".join(texts(transport))


@requirement("6.1-batches")
async def test_a_thread_that_blocks_has_its_output_sent_by_the_loop(
    make_session: Any, transport: MemoryTransport
) -> None:
    session: AnySession = make_session("blocks", transport=transport)
    await session.execute("import threading\ngo_on = threading.Event()")
    code = "print('partial', end='')\ngo_on.wait(5)"
    running = asyncio.create_task(session.run(code, context="thread"))
    await eventually(lambda: texts(transport) == ["partial"])
    await beside(session, "go_on.set()")
    assert (await running).value is True


@requirement("6.1-batches")
async def test_a_flush_passes_on_what_there_is(
    make_session: Any, transport: MemoryTransport, context: str
) -> None:
    session: AnySession = make_session("flush", transport=transport)
    session.inject_capability("sent", lambda: texts(transport))
    code = """
        import sys
        seen = []
        for percent in (10, 20, 30):
            print(f'\\r{percent} %', end='', flush=True)
            sys.stdout.flush()
            seen.append(len(sent()))
        seen
        """
    assert await session.execute(cell(code), context=context) == [1, 2, 3]
    assert texts(transport) == ["\r10 %", "\r20 %", "\r30 %"]


@requirement("6.1-batches")
async def test_both_streams_keep_the_order_in_which_they_were_written(
    make_session: Any, transport: MemoryTransport, context: str
) -> None:
    session: AnySession = make_session("order", transport=transport)
    code = """
        import sys
        for i in range(500):
            print(i, end=' ')
            sys.stderr.write(f'{i}\\n' if i % 3 else f'{i} ')
            if i % 50 == 0:
                sys.stderr.buffer.write(b'! ')
        """
    assert (await session.run(cell(code), context=context)).error is None
    merged = "".join(event.text for event in transport.of_type(Output)).replace("! ", "")
    assert merged.split() == [str(i) for i in range(500) for _ in range(2)]
    assert len(transport.of_type(Output)) > 2


class Clock:
    """The time, when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class BusyLoop:
    """A home loop that never comes round: keeps what it was to call."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []
        self.closed = False

    def call_soon_threadsafe(self, callback: Callable[[], object], *, context: Any) -> None:
        if self.closed:
            raise RuntimeError("closed")
        self.calls.append(callback)

    def call_later(self, delay: float, callback: Callable[[], object], *, context: Any) -> Any:
        self.calls.append(callback)

    def come_round(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that windows are measured by."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def make_output(transport: Any, loop: Any) -> LiveOutput:
    return LiveOutput(Emitter(transport), "s", 1, Ticker(loop), 1_000_000)


@requirement("6.1-batches")
def test_a_window_lets_some_lines_through_and_gathers_the_rest(
    clock: Clock, transport: MemoryTransport
) -> None:
    output = make_output(transport, loop := BusyLoop())
    for number in range(LINES_AT_ONCE * 2):
        output.write_to("stdout", f"{number}\n")
    assert len(texts(transport)) == LINES_AT_ONCE
    loop.come_round()  # it was asked to start the timer
    loop.come_round()  # the timer's time has come
    sent = texts(transport)
    assert len(sent) == LINES_AT_ONCE + 1
    assert "".join(sent) == "".join(f"{it}\n" for it in range(LINES_AT_ONCE * 2))
    assert loop.calls == []
    output.write_to("stdout", "next\n")  # a new window
    assert texts(transport)[-1] == "next\n"


@requirement("6.1-batches")
def test_where_the_loop_is_kept_busy_the_next_writes_see_that_a_window_is_over(
    clock: Clock, transport: MemoryTransport
) -> None:
    output = make_output(transport, BusyLoop())
    for number in range(LINES_AT_ONCE * 2):
        output.write_to("stdout", f"{number}\n")
    clock.now += 1.0
    for _ in range(module.STEP):
        output.write_to("stdout", "slow\n")
    assert "".join(texts(transport)).endswith(f"{LINES_AT_ONCE * 2 - 1}\n" + "slow\n" * module.STEP)


@requirement("6.1-batches")
def test_a_batch_is_sent_when_it_is_big(clock: Clock, transport: MemoryTransport) -> None:
    output = make_output(transport, BusyLoop())
    for _ in range(PIECES * 3):
        output.write_to("stdout", "x")
        assert len(output.pieces) <= PIECES + module.STEP
    assert len(texts(transport)) >= 2
    output.write_to("stdout", big := "y" * (BIG_CHARS + 1))
    assert texts(transport)[-1].endswith(big)
    output.write_to("stderr", "z" * (EVENT_CHARS * 2 + 1))
    assert [len(text) for text in texts(transport, "stderr")] == [EVENT_CHARS, EVENT_CHARS, 1]


@requirement("6.1-batches")
def test_a_loop_that_is_closed_holds_nothing_back(clock: Clock, transport: MemoryTransport) -> None:
    loop = BusyLoop()
    loop.closed = True
    output = make_output(transport, loop)
    output.write_to("stdout", "partial")
    assert texts(transport) == ["partial"]


@requirement("6.1-batches")
def test_what_a_transport_writes_to_the_cell_itself_comes_later(clock: Clock) -> None:
    """A transport that runs code in the cell's context would send in the middle of a send."""

    class Echo(MemoryTransport):
        def send(self, event: Event) -> None:
            super().send(event)
            if isinstance(event, Output) and event.text == "first\n":
                output.write_to("stderr", "echo\n")

    transport, loop = Echo(), BusyLoop()
    output = make_output(transport, loop)
    output.write_to("stdout", "first\n")
    assert texts(transport) == ["first\n"]
    loop.come_round()
    loop.come_round()
    assert texts(transport, "stderr") == ["echo\n"]


@requirement("6.1-output", "bad-transport")
async def test_what_a_transport_prints_is_the_hosts(
    make_session: Any,
    context: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Printing:
        wants_room = 0

        def send(self, event: Event) -> None:
            print(type(event).__name__)
            assert current_job.get() is None

    session: AnySession = make_session("printing", transport=Printing())
    result = await session.run("print('hello')", context=context)
    assert result.stdout == "hello\n"
    assert capsys.readouterr().out == "CellStarted\nOutput\nCellFinished\n"
    assert [it for it in caplog.records if it.levelno >= logging.WARNING] == []  # it did not fail


@requirement("6.1-output")
async def test_a_repr_that_prints_does_so_before_the_outcome(
    make_session: Any, transport: MemoryTransport, context: str
) -> None:
    session: AnySession = make_session("repr", transport=transport)
    code = (
        "class A:\n    def __repr__(self):\n        print('asked', end='')\n        return 'A'\nA()"
    )
    await session.run(code, context=context)
    kinds = [type(event) for event in transport.events]
    assert kinds == [CellStarted, Output, CellFinished]


# -- interrupts ------------------------------------------------------------------------------------


@requirement("6.1-batches", "6.2-interrupt")
@pytest.mark.parametrize("attempt", range(8))
async def test_an_interrupted_thread_has_sent_what_its_result_holds(
    make_session: Any, transport: MemoryTransport, attempt: int
) -> None:
    session: AnySession = make_session("interrupted", transport=transport)
    code = "i = 0\nwhile True:\n    print(i)\n    i += 1"
    result = await session.run(code, context="thread", timeout=0.01 + attempt * 0.001)
    assert (result.status, result.stopped) == ("timeout", True)
    lines = result.stdout.splitlines()
    assert lines[:-1] == [str(i) for i in range(len(lines) - 1)]
    assert "".join(texts(transport)) == result.stdout


@requirement("6.2-interrupt")
async def test_an_interrupt_waits_until_the_transport_has_taken_an_event(
    make_session: Any,
) -> None:
    class Slow(MemoryTransport):
        def __init__(self) -> None:
            super().__init__()
            self.entered, self.leave = threading.Event(), threading.Event()

        def send(self, event: Event) -> None:
            if isinstance(event, Output):
                self.entered.set()
                for _ in itertools.count():  # code in Python, where an interrupt could arrive
                    if self.leave.wait(0.001):
                        break
            super().send(event)

    transport = Slow()
    session: Session = make_session("slow", transport=transport)
    code = "try:\n    print('x')\n    while True: pass\nfinally:\n    print('y')"
    running = asyncio.create_task(session.run(code, context="thread"))
    await eventually(transport.entered.is_set)
    assert session.interrupt()
    home = session.manager.current_home
    assert home is not None
    pursuit: Any = home.jobs()[0].pursuit
    await eventually(lambda: pursuit._wanted_in)
    assert session.interrupt()
    transport.leave.set()
    result = await running
    assert (result.status, result.stdout) == ("interrupted", "x\ny\n")
    assert texts(transport) == ["x\n", "y\n"]


@requirement("6.2-interrupt")
def test_what_had_to_wait_for_the_host_comes_when_the_cells_code_goes_on() -> None:
    calls: list[object] = []

    class Pursued(Job):
        def __init__(self, name: str) -> None:
            super().__init__(1, "thread", awaits=False)
            self.name = name
            self.pursuit = self  # type: ignore[assignment]

        def pass_by(self) -> None:
            calls.append(self.name)

    class Listening(MemoryTransport):
        def send(self, event: Event) -> None:
            calls.append(current_job.get())
            Emitter(MemoryTransport()).emit(event)  # code of the host, which leads back to us

    def emit() -> None:
        job = Pursued("nested")
        job.parent = Pursued("parent")
        current_job.set(job)
        Emitter(Listening()).emit(Event("s", 1))
        assert current_job.get() is job

    contextvars.copy_context().run(emit)
    assert calls == [None, "nested", "parent"]
