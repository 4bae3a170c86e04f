"""The table of faults: however a worker ends, in each state of the protocol, who waits hears of it.

Each row is a process that comes to its end in one way and in one state. What ends in a named error
here is told in docs/worker.md. That nothing is left, no process, descriptor, thread or task, is
checked after each test by the census of all tests.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from isthmus import ForkServer, MemoryTransport, Output, WorkerDied, WorkerLimits, WorkerSession
from support import eventually

requirement = pytest.mark.requirement

BOUND = 2.0
"""Seconds until all who wait have heard: a hundred times what it takes."""

FALL = """
import ctypes, os, signal, sys, time
loop = asyncio.get_running_loop()
def fall(number, frame):
    {}
signal.signal(signal.SIGUSR1, fall)
"""
"""What a worker does that is told to end: in its main thread, whatever that is at."""

WAYS: dict[str, tuple[str, tuple[str | None, int | None]]] = {
    "kill -9": ("os.kill(os.getpid(), signal.SIGKILL)", ("SIGKILL", None)),
    "SIGSEGV": ("ctypes.string_at(0)", ("SIGSEGV", None)),
    "os._exit": ("os._exit(7)", (None, 7)),
    "sys.exit": ("loop.call_soon_threadsafe(sys.exit, 3)", (None, 3)),  # in a cell it is the cell's
    "abort": ("os.abort()", ("SIGABRT", None)),  # as C++ does that finds no memory
}
"""How it ends, and the signal and the exit code that are then said."""

SYNC_CALL = "def call():\n    return hang()\ncall()"

STATES: dict[str, list[tuple[str, str]]] = {
    "idle": [],
    "an async cell runs": [("print('in')\nawait asyncio.sleep(60)", "async")],
    "a thread cell runs": [("print('in')\ntime.sleep(60)", "thread")],
    "a sync cell runs": [("print('in')\nwhile True: pass", "sync")],
    "the loop streams": [("while True: print('in')\n", "async")],
    "a thread streams": [("while True: print('in')\n", "thread")],
    "an async cell calls": [("await hang()", "async")],
    "a thread cell calls": [("await hang()", "thread")],
    "a sync cell calls": [(SYNC_CALL, "sync")],
    "sync code of a thread cell calls": [(SYNC_CALL, "thread")],
    "many wait": [
        ("await hang()", "async"),
        ("1", "async"),
        ("1", "thread"),
        ("1", "sync"),
    ],
}
"""What the worker does then: cells, in their contexts."""

KEEPS_THE_LOOP = {"a sync cell runs", "the loop streams"}
"""Where a callback of the loop never has its turn."""

ROWS = [
    (way, state)
    for way in WAYS
    for state in STATES
    if not (way == "sys.exit" and state in KEEPS_THE_LOOP)
]


class Hang:
    """A capability that never returns, and says so."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self) -> None:
        self.called.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


async def is_there(hang: Hang, transport: MemoryTransport) -> None:
    """Wait until the worker has said that it has come where it was to come."""

    def said() -> bool:
        return hang.called.is_set() or any("in" in it.text for it in transport.of_type(Output))

    await eventually(said, lambda: "the state of the row")


async def errors_of(waiting: list[asyncio.Future[Any]]) -> list[Any]:
    """What those get who wait, within the bound."""
    return await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), BOUND)


@requirement("7.5-faults")
@pytest.mark.parametrize(("way", "state"), ROWS)
async def test_a_worker_that_ends_in_any_state_is_a_named_death_for_all_who_wait(
    way: str, state: str, transport: MemoryTransport, fork_server: ForkServer
) -> None:
    source, expected = WAYS[way]
    hang = Hang()
    async with WorkerSession(
        capabilities={"hang": hang}, transport=transport, fork_server=fork_server
    ) as session:
        await session.execute(FALL.format(source))
        waiting: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(session.run(source, context=context))  # type: ignore[arg-type]
            for source, context in STATES[state]
        ]
        if waiting:
            await is_there(hang, transport)
        assert session.pid is not None
        os.kill(session.pid, signal.SIGUSR1)
        if not waiting:
            waiting = [asyncio.ensure_future(session.run("await asyncio.sleep(60)"))]
        waiting.append(asyncio.ensure_future(session.get("never")))
        deaths = await errors_of(waiting)
        for death in deaths:
            assert isinstance(death, WorkerDied), deaths
            assert (death.signal, death.exit_code) == expected, death
            assert (death.signal or f"exit code {death.exit_code}") in str(death)
            assert len(death.cells) == len(waiting) - 1
            assert death.output.count("in") or hang.called.is_set() or state == "idle"
        assert len({id(it) for it in deaths}) == len(deaths)
        assert session.pid is None
        if hang.called.is_set():  # what the worker has called ends with it
            await asyncio.wait_for(hang.ended.wait(), BOUND)
        with pytest.raises(WorkerDied):
            await session.run("1")


STUBBORN = """
async def stubborn():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("in")
task = asyncio.create_task(stubborn())
await asyncio.sleep(0)
"""


@requirement("7.5-faults")
@pytest.mark.parametrize("way", ["kill -9", "os._exit"])
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_worker_that_ends_while_its_session_does_is_not_waited_for(
    way: str, end: str, transport: MemoryTransport, fork_server: ForkServer
) -> None:
    async with WorkerSession(transport=transport, fork_server=fork_server) as session:
        await session.execute(FALL.format(WAYS[way][0]))
        await session.execute(STUBBORN)
        pid = session.pid
        ending: asyncio.Future[Any] = asyncio.ensure_future(getattr(session, end)(60.0))
        await is_there(Hang(), transport)
        assert pid is not None
        os.kill(pid, signal.SIGUSR1)
        (ended,) = await errors_of([ending])
        if end == "reset":
            assert isinstance(ended, WorkerDied)
        else:
            assert ended.clean  # nothing is left of what would not end
            assert session.closed


@requirement("7.5-faults")
async def test_what_a_cell_and_a_thread_exit_is_theirs_and_the_worker_goes_on(
    fork_server: ForkServer,
) -> None:
    async with WorkerSession(fork_server=fork_server) as session:
        for context in ("async", "thread", "sync"):
            result = await session.run("import sys; sys.exit(3)", context=context)  # type: ignore[arg-type]
            assert (result.status, repr(result.error)) == ("error", "SystemExit(3)")
        source = "import threading\nt = threading.Thread(target=sys.exit)\nt.start(); t.join()"
        assert (await session.run(source)).status == "ok"
        assert await session.execute("1 + 1") == 2


@requirement("7.5-faults")
async def test_memory_that_runs_out_is_an_error_of_the_cell_however_little_is_left() -> None:
    limits = WorkerLimits(memory_bytes=400 << 20)
    async with WorkerSession(limits=limits) as session:
        for name, amount in (("a", "bytearray(1 << 20)"), ("b", "'b' * 1000"), ("c", "object()")):
            result = await session.run(f"{name} = []\nwhile True: {name}.append({amount})")
            assert "MemoryError" in str(result.error)
            assert await session.execute("1 + 1") == 2
        result = await session.run("1 + 1", context="thread")
        assert result.value == 2 or "new thread" in str(result.error)
        await session.execute("a.clear()")
        assert await session.execute("1 + 1", context="thread") == 2
