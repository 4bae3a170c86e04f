"""Every kind of event comes from a worker as from a session in this process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import isthmus
from isthmus import Event, LoopBlocked, MemoryTransport, WorkerSession
from isthmus.transport import Emitter
from isthmus.worker.flight import Flight
from isthmus.worker.standstill import STACK, StandstillWatch
from support import NewWorker, cell, eventually

requirement = pytest.mark.requirement

BLOCKED_SECONDS = 0.05

CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "CellStarted": ("1", {"context": "async", "source": "1"}),
    "Output": ("print('hello')", {"stream": "stdout", "text": "hello\n"}),
    "Display": ("display(1)", {"data": {"text/plain": "1"}}),
    "CellFinished": ("x = 42; x", {"status": "ok", "value": "42", "bound": ("x",)}),
    "CoroutineAdopted": ("left = asyncio.sleep(0)", {"name": "left"}),
    "CoroutineSettled": (
        "left = asyncio.sleep(0)",
        {"cell": 0, "name": "left", "error": None},
    ),
    "TaskFailed": (
        """
        async def fail(): raise ValueError("no")
        asyncio.create_task(fail(), name="lookup")
        await asyncio.sleep(0.001)
        """,
        {"name": "lookup", "error": "ValueError: no"},
    ),
    "CoroutineDropped": (
        "async def fail(): pass\ndef forget(): fail()\nforget()",
        {"name": "fail", "line": 2},
    ),
    "ThreadDied": (
        """
        import threading
        thread = threading.Thread(target=lambda: 1 / 0, name="divider")
        thread.start()
        thread.join()
        """,
        {"name": "divider"},
    ),
    "LoopBlocked": ("import time; time.sleep(0.3)", {}),
}
"""What brings it about, and what it says besides the number of the cell."""

BESIDE_CELLS: dict[str, tuple[Callable[[WorkerSession], Awaitable[Any]], dict[str, Any]]] = {
    "NamespaceUpdated": (lambda it: it.set("y", 1), {"names": ("y",), "source_context": "host"}),
    "SessionReset": (lambda it: it.reset(), {"left": ()}),
    "SessionClosed": (lambda it: it.close(), {"left": ()}),
}

NOT_FROM_A_WORKER = {
    "OutputDropped": "the link makes who prints wait, and drops nothing",
}


def test_every_kind_of_event_is_met_here_or_cannot_be() -> None:
    kinds = {name for name in isthmus.__all__ if _is_event(getattr(isthmus, name))}
    assert kinds == {*CELLS, *BESIDE_CELLS, *NOT_FROM_A_WORKER}


def _is_event(it: Any) -> bool:
    return isinstance(it, type) and issubclass(it, Event) and it is not Event


@requirement("events", "7.1-same-interface")
async def test_every_kind_of_event_crosses(
    transport: MemoryTransport, new_worker: NewWorker
) -> None:
    async with new_worker(transport=transport, blocked_seconds=BLOCKED_SECONDS) as session:
        for number, (name, (source, expected)) in enumerate(CELLS.items(), 1):
            await session.run(cell(source))
            await _expect(transport, name, {"cell": number, **expected})
        for name, (action, expected) in BESIDE_CELLS.items():
            await action(session)
            await _expect(transport, name, {"cell": 0, **expected})


async def _expect(transport: MemoryTransport, name: str, fields: dict[str, Any]) -> None:
    kind, expected = getattr(isthmus, name), {"session": "session", **fields}

    def matching() -> list[Any]:
        found = transport.of_type(kind)
        return [it for it in found if {key: getattr(it, key) for key in expected} == expected]

    await eventually(matching)


@requirement("7.1-same-interface")
async def test_the_host_tells_of_a_standstill_that_the_worker_cannot_tell(
    transport: MemoryTransport, new_worker: NewWorker, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "gate")
    gate = os.open(tmp_path / "gate", os.O_RDWR)
    source = f"""
        import ctypes, os
        gate = os.open({str(tmp_path / "gate")!r}, os.O_RDWR)
        ctypes.PyDLL(None).read(gate, ctypes.create_string_buffer(1), 1)
        """
    async with new_worker(transport=transport, blocked_seconds=BLOCKED_SECONDS) as session:
        for number in (1, 2):
            running = asyncio.ensure_future(session.run(cell(source)))
            try:
                await _expect(transport, "LoopBlocked", {"cell": number, "stack": STACK})
            finally:
                os.write(gate, b"x")
            assert (await running).error is None
            await session.list_names()  # its loop has gone round; else it is the same standstill
    os.close(gate)


class Standstill:
    """A watch over a worker that never answers, and what it tells."""

    def __init__(self) -> None:
        self.transport, self.pings = MemoryTransport(), list[asyncio.Future[Any]]()
        self.flight = Flight("demo", Emitter(self.transport), 100, False)
        self.flight.add(7)
        self.watch = StandstillWatch(self.flight, "demo", 0.001, self.ping)
        self.watch.wake()

    def ping(self) -> asyncio.Future[Any]:
        self.pings.append(asyncio.get_running_loop().create_future())
        return self.pings[-1]


@requirement("7.1-same-interface")
async def test_a_standstill_is_told_once_and_again_after_an_answer() -> None:
    it = Standstill()
    await eventually(lambda: it.transport.of_type(LoopBlocked))
    event = it.transport.of_type(LoopBlocked)[0]
    assert (event.session, event.cell, event.stack) == ("demo", 7, STACK)
    for _ in range(3):
        await asyncio.sleep(0.001)
    assert len(it.pings) == len(list(it.transport)) == 1
    it.pings[0].set_result(None)
    await eventually(lambda: len(list(it.transport)) == 2)
    it.watch.close()


@requirement("7.1-same-interface")
async def test_what_the_worker_has_told_itself_the_host_does_not_tell() -> None:
    it = Standstill()
    it.flight.tell(LoopBlocked("demo", 7, 0.1, "in its code"))
    await eventually(lambda: it.pings)
    for _ in range(5):
        await asyncio.sleep(0.001)
    assert [event.stack for event in it.transport.of_type(LoopBlocked)] == ["in its code"]
    it.flight.drop(7)
    it.pings[0].set_result(None)
    await eventually(lambda: it.watch._timer is None)


@requirement("7.1-same-interface")
async def test_nobody_looks_for_a_standstill_without_need(
    transport: MemoryTransport, new_worker: NewWorker
) -> None:
    async with new_worker(transport=transport, blocked_seconds=None) as session:
        await session.run("import time\ntime.sleep(0.2)")
    assert transport.of_type(LoopBlocked) == []
