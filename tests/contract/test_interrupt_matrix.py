"""Stopping cells: every kind of code, in each context, on a loop in the main thread and elsewhere.

What can be stopped in-process is stopped at the deadline. What cannot be is given up where control
can come back without it, or seen (``LoopBlocked``) and late where it keeps the loop itself.
"""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import queue
import socket
import sys
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from isthmus import (
    CellInterrupted,
    CellResult,
    Event,
    ForkServer,
    LoopBlocked,
    MemoryTransport,
    Session,
    WorkerDied,
    WorkerSession,
)
from support import CONTEXTS, LoopThread, cell, eventually, on_one_loop

requirement = pytest.mark.requirement
pytestmark = on_one_loop  # what differs with the loop is shown at the end

Place = Literal["main thread", "other thread"]
Ending = Literal["stopped", "given up", "late", "unheard"]
"""At its deadline; never, but control is back; when its code lets the loop go, which is reported;
when it lets go of the interpreter, without which nobody can do anything."""

TIMEOUT_SECONDS = 0.03
BLOCKED_SECONDS = 0.06

BEFORE_3_12 = sys.version_info < (3, 12)


class Gate(MemoryTransport):
    """What cells block on, opened when the loop is reported to stand still, or by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = False
        self.lock = threading.Lock()
        self.lock.acquire()
        self.queue: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.event = threading.Event()
        self.inner, self.outer = socket.socketpair()
        self.libc = ctypes.CDLL(None)
        self.mutex = ctypes.create_string_buffer(128)  # more than any system's; zeros are unlocked
        self.libc.pthread_mutex_lock(self.mutex)

    def send(self, event: Event) -> None:
        """Keep *event*; a report of a blocked loop opens the gate."""
        super().send(event)
        if isinstance(event, LoopBlocked):
            self.open()

    def open(self) -> None:
        """Let everybody go on, who waits or will wait."""
        if not self.opened:
            self.opened = True
            self.lock.release()
            self.queue.put(None)
            self.event.set()
            self.libc.pthread_mutex_unlock(self.mutex)
            self.outer.send(b"x")

    def close(self) -> None:
        """Open it for good."""
        self.open()
        self.inner.close()
        self.outer.close()


@dataclass(frozen=True)
class Kind:
    """A kind of code, and how it ends: in a thread, and where the loop is in another thread.

    On a loop in the main thread all but the last two kinds are stopped.
    """

    code: str
    in_thread: Ending = "stopped"
    on_other_loop: Ending = "stopped"
    on_main_loop: Ending = "stopped"

    def ending(self, context: str, place: Place) -> Ending:
        """What becomes of it."""
        if context == "thread":
            return self.in_thread
        return self.on_main_loop if place == "main thread" else self.on_other_loop


def python(code: str) -> Kind:
    """Code that is stopped everywhere."""
    return Kind(cell(code))


def blocking(code: str) -> Kind:
    """A call in C that waits: a signal breaks it, which only the main thread hears."""
    return Kind(cell(code), in_thread="given up", on_other_loop="late")


LOOP = "x = 0\nwhile True: x += 1"

SWALLOWS = """
    x = 0
    while not gate.opened:
        try:
            while not gate.opened: x += 1
        except {}:
            pass
"""

KINDS = {
    "an idle await": python("await asyncio.sleep(30)"),
    "an await in a portal": python("def f(): run_sync(asyncio.sleep(30))\nf()"),
    "an await of a coroutine": python("async def f(): await asyncio.sleep(30)\nawait f()"),
    "a Python loop": python(LOOP),
    "a Python loop in a function": python("def f():\n    while True: pass\nf()"),
    "a Python loop in a coroutine": python("async def f():\n    while True: pass\nawait f()"),
    "a Python loop in a task": python(
        "async def f():\n    while True: pass\nawait asyncio.create_task(f())"
    ),
    "awaits that never suspend": python("async def f(): pass\nwhile True: await f()"),
    "a loop that prints": python("while True: print('x')"),
    "time.sleep": blocking("import time; time.sleep(0.3)"),
    "lock.acquire": blocking("gate.lock.acquire()"),
    "queue.get": blocking("gate.queue.get()"),
    "event.wait": blocking("gate.event.wait()"),
    "a socket read": blocking("gate.inner.recv(1)"),
    "a blocking function of the host": blocking("wait_for_gate()"),
    "C code that holds the interpreter": Kind(
        "sum(range(2_000_000))",
        in_thread="unheard",
        on_main_loop="unheard",
        on_other_loop="unheard",
    ),
    "C code that releases it and hears no signal": Kind(
        "gate.libc.pthread_mutex_lock(gate.mutex)",
        in_thread="given up",
        on_main_loop="late",
        on_other_loop="late",
    ),
    "code that swallows Exception": python(SWALLOWS.format("Exception")),
    "code that swallows BaseException in a loop": Kind(
        cell(SWALLOWS.format("BaseException")),
        in_thread="given up" if BEFORE_3_12 else "stopped",
        on_main_loop="late" if BEFORE_3_12 else "stopped",
        on_other_loop="late" if BEFORE_3_12 else "stopped",
    ),
    "an await with a finally block that awaits": python(
        """
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.001)
            cleaned = await asyncio.sleep(0, True)
        """
    ),
    "a Python loop with a finally block that awaits": python(
        """
        def f():
            while True: pass
        try:
            f()
        finally:
            await asyncio.sleep(0.001)
            cleaned = await asyncio.sleep(0, True)
        """
    ),
    "an await whose cancellation is swallowed once": python(
        """
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            pass
        """
    ),
}


async def stop(kind: Kind, context: str, place: Place, gate: Gate) -> CellResult:
    """Run code of one kind to its deadline, then the next cell; the result of the first."""
    ending = kind.ending(context, place)
    blocked_seconds = BLOCKED_SECONDS if ending == "late" else None
    async with Session(transport=gate, blocked_seconds=blocked_seconds) as session:
        session.update_namespace({"gate": gate})
        session.inject_capability("wait_for_gate", gate.event.wait)
        result = await session.run(kind.code, context=context, timeout=TIMEOUT_SECONDS)
        home = session.manager.current_home
        assert home is not None
        assert [job.number for job in home.given_up] == [1] * (ending == "given up")
        gate.open()
        after = await session.run("await asyncio.sleep(0, 'on')", context=context)
        assert (after.status, after.value) == ("ok", "on"), after
        await eventually(lambda: not home.given_up)
    return result


async def in_place(place: Place, work: Coroutine[Any, Any, Any]) -> Any:
    """Await *work* on this loop, which is the main thread's, or on one in another thread."""
    if place == "main thread":
        return await work
    with LoopThread() as other:
        return await other.wait(work)


@requirement("6.2-matrix")
@pytest.mark.filterwarnings("ignore:coroutine 'f' was never awaited")  # interrupted just before
@pytest.mark.parametrize("place", ["main thread", "other thread"])
@pytest.mark.parametrize("name", KINDS)
async def test_code_of_every_kind_is_stopped_given_up_or_seen(
    name: str, context: str, place: Place
) -> None:
    kind, gate = KINDS[name], Gate()
    ending = kind.ending(context, place)
    try:
        result = await in_place(place, stop(kind, context, place, gate))
    finally:
        gate.close()
    if name.endswith("swallowed once"):
        assert (result.status, result.stopped) == ("ok", True), result
        return
    assert result.stopped is (ending != "given up"), result
    if ending in ("late", "unheard"):  # it may have come to its end before it heard
        assert result.status in ("timeout", "ok"), result
        assert ending == "unheard" or gate.of_type(LoopBlocked)
        return
    assert result.status == "timeout", result
    if ending == "stopped":
        assert isinstance(result.error, asyncio.CancelledError | CellInterrupted)
        assert ("cleaned" in result.bound) == ("finally" in name)
        assert not gate.of_type(LoopBlocked)


# -- in a worker ---------------------------------------------------------------------------------
#
# Each kind once, in one of the contexts in turn: the worker's loop is on its main thread, and what
# stops the code is the same. What is only seen there, and late, ends with the worker here.

IN_A_WORKER = [(name, CONTEXTS[number % 3]) for number, name in enumerate(KINDS)]
GATE_OF_A_WORKER = (
    "import ctypes, queue, socket, threading\n"
    "from isthmus import Event, LoopBlocked, MemoryTransport\n"
    f"{inspect.getsource(Gate)}\n"
    "gate = Gate()\n"
    "wait_for_gate = gate.event.wait\n"
)


@requirement("6.2-matrix", "7.1-same-interface")
@pytest.mark.parametrize(("name", "where"), IN_A_WORKER, ids=list(KINDS))
async def test_code_of_every_kind_is_stopped_given_up_or_ended_in_a_worker(
    name: str, where: Any, fork_server: ForkServer
) -> None:
    kind = KINDS[name]
    ending = kind.ending(where, "main thread")
    async with WorkerSession(fork_server=fork_server, grace_seconds=0.5) as session:
        await session.execute(GATE_OF_A_WORKER)
        result = await session.run(kind.code, context=where, timeout=TIMEOUT_SECONDS)
        if isinstance(result.error, WorkerDied):
            assert result.status == "timeout" and ending in ("late", "unheard"), result
            await session.restart()
        else:
            assert ending != "late" and result.stopped is (ending != "given up"), result
            await session.execute("gate.open()", concurrent=True)
        after = await session.run("await asyncio.sleep(0, 'on')", context=where)
        assert (after.status, after.value) == ("ok", "on"), after
    if name.endswith("swallowed once"):
        assert result.status == "ok", result
    elif ending == "stopped":
        assert result.status == "timeout", result
        assert isinstance(result.error, asyncio.CancelledError | CellInterrupted)
        assert ("cleaned" in result.bound) == ("finally" in name)
