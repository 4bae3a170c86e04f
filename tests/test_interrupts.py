"""Stopping code that computes: by signal on the main thread, by exception in a thread."""

# ruff: noqa: E501 (a cell in one string reads better than one that is wrapped)

from __future__ import annotations

import asyncio
import signal
import threading

import pytest

from either_home import beside, until
from isthmus import AnySession, CellInterrupted, Session
from isthmus.interrupts import Pursuit
from isthmus.jobs import Job
from isthmus.strikes import strikes
from support import run_in_child

requirement = pytest.mark.requirement


@requirement("6.5-hooks")
async def test_the_handler_of_the_host_is_put_back_and_called_meanwhile() -> None:
    calls: list[int] = []
    before = signal.signal(signal.SIGURG, lambda number, _frame: calls.append(number))
    mine = signal.getsignal(signal.SIGURG)
    try:
        async with Session() as session:
            await session.execute("1")
            assert signal.getsignal(signal.SIGURG) is not mine
            signal.raise_signal(signal.SIGURG)
            await asyncio.sleep(0)
            assert calls == [signal.SIGURG]
        assert signal.getsignal(signal.SIGURG) is mine
    finally:
        signal.signal(signal.SIGURG, before)


@requirement("6.5-hooks")
async def test_a_handler_that_somebody_has_installed_since_stays() -> None:
    before = signal.getsignal(signal.SIGURG)

    def mine(*_: object) -> None:
        pass

    try:
        async with Session() as session:
            await session.execute("1")
            signal.signal(signal.SIGURG, mine)
        assert signal.getsignal(signal.SIGURG) is mine
    finally:
        signal.signal(signal.SIGURG, before)


@requirement("6.2-interrupt")
@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(30)",
        "import threading; threading.Event().wait(30)",
        "import threading; l = threading.Lock(); l.acquire(); l.acquire()",
        "import socket; a, b = socket.socketpair()\ntry:\n    a.recv(1)\nfinally:\n    a.close(); b.close()",
        "while True: pass",
        "async def f():\n    while True: pass\nawait f()",
        "import time\nasync def f():\n    time.sleep(30)\nawait asyncio.ensure_future(f())",
    ],
    ids=["sleep", "event", "lock", "socket", "loop", "coroutine", "task"],
)
@pytest.mark.parametrize("loop_context", ["async", "sync"])
async def test_a_deadline_breaks_code_that_blocks_the_loop_on_the_main_thread(
    session: AnySession, loop_context: str, code: str
) -> None:
    result = await session.run(code, context=loop_context, timeout=0.05)
    assert (result.status, result.stopped) == ("timeout", True), result
    assert await session.execute("await asyncio.sleep(0, 'on')") == "on"


@requirement("6.2-interrupt")
async def test_the_interrupted_code_may_clean_up(session: AnySession, context: str) -> None:
    code = "try:\n    x = 1\n    while True: x += 1\nfinally:\n    cleaned = True"
    result = await session.run(code, context=context, timeout=0.05)
    assert isinstance(result.error, CellInterrupted | asyncio.CancelledError)
    assert await session.get("cleaned")


@requirement("6.2-interrupt")
async def test_except_exception_does_not_swallow_an_interrupt(
    session: AnySession, context: str
) -> None:
    code = "while True:\n    try:\n        while True: pass\n    except Exception:\n        pass"
    result = await session.run(code, context=context, timeout=0.05)
    assert result.status == "timeout"
    assert result.stopped


@requirement("6.2-interrupt")
async def test_an_interrupt_that_comes_late_hits_nobody(session: AnySession, context: str) -> None:
    for number in range(50):
        session.interrupt()
        result = await session.run(f"sum(range({number * 100}))", context=context)
        assert result.status == "ok", result
        session.interrupt(result.cell)


@requirement("6.2-interrupt")
async def test_interrupts_that_race_with_cells_hit_the_right_one_or_none(
    session: AnySession, context: str
) -> None:
    numbers: list[int] = []
    stop = threading.Event()

    def pester() -> None:
        while not stop.is_set():
            for number in numbers[-1:]:
                session.interrupt(number)

    thread = threading.Thread(target=pester)
    thread.start()
    try:
        for turn in range(50):
            numbers.append(2 * turn + 1)
            wanted = await session.run("x = 0\nwhile x < 3000: x += 1", context=context)
            assert wanted.cell == numbers[-1]
            assert wanted.status in ("ok", "interrupted", "cancelled")
            other = await session.run("x = 0\nwhile x < 300: x += 1", context=context)
            assert other.status == "ok", other
    finally:
        stop.set()
        await asyncio.to_thread(thread.join, 5)


@requirement("6.2-interrupt")
async def test_interrupting_one_number_leaves_the_others_alone(
    session: AnySession, context: str
) -> None:
    await session.execute("go = asyncio.Event(); log = []")
    code = "log.append({0})\nawait go.wait()\n{0}"
    one = asyncio.ensure_future(session.run(code.format(1), context=context, concurrent=True))
    two = asyncio.ensure_future(session.run(code.format(2), context=context, concurrent=True))
    await asyncio.sleep(0)  # they have their numbers
    await until(session, "len(log) == 2")
    assert session.interrupt(2)
    assert (await one).status == "cancelled"
    await beside(session, "go.set()")
    assert (await two).value == 2


@requirement("6.2-interrupt")
def test_ctrl_c_reaches_a_host_as_it_always_did() -> None:
    program = """
        import asyncio
        from isthmus import Session
        async def main():
            async with Session() as session:
                await session.execute("x = 1")
                print("ready")
                await session.run("await asyncio.sleep(30)")
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """
    ended = run_in_child(program, interrupt_at="ready")
    assert ended.status == 0, ended
    assert ended.stdout.split() == ["ready", "interrupted"]


@requirement("6.2-interrupt")
async def test_a_loop_in_another_thread_bounds_what_awaits(flavour: str) -> None:
    from support import LoopThread

    async def work() -> str:
        async with Session() as session:
            return (await session.run("await asyncio.sleep(30)", timeout=0.02)).status

    with LoopThread() as other:
        assert await other.wait(work()) == "timeout"


class EndsMeanwhile(Pursuit):
    """Its job's code ends while the watchdog is about to strike it."""

    def _strike(self, thread: int) -> bool:
        self.job.left = True
        self.end()
        return super()._strike(thread)


@requirement("6.2-interrupt")
def test_a_strike_that_comes_too_late_leaves_no_trace() -> None:
    """What holds the job would hold the whole session."""
    job = Job(1, "thread", awaits=False)
    job.thread = threading.get_ident()
    pursuit = EndsMeanwhile(job)
    assert pursuit.strike() is False
    assert job.thread not in strikes.put_off
    assert job.thread not in strikes.on_their_way
