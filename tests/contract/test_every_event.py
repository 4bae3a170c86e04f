"""Each kind of event, brought about as a user would meet it, and what it says."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import isthmus
from isthmus import Event, Session
from support import cell, eventually, on_one_loop
from transports import Valve

requirement = pytest.mark.requirement


async def run_a_cell(session: Session) -> None:
    await session.run("print('hello')\ndisplay(1)\nx = 40 + 2\nx")


async def update(session: Session) -> None:
    session.update_namespace({"x": 1})


async def leave_a_coroutine(session: Session) -> None:
    await session.run("async def f(): return 1\nleft = f()")
    await session.await_pending_coroutines()


async def fail_unobserved(session: Session) -> None:
    code = """
        import threading
        async def fail(): raise ValueError("no")
        asyncio.create_task(fail(), name="lookup")
        def forget(): fail()
        forget()
        thread = threading.Thread(target=lambda: 1 / 0, name="divider")
        thread.start()
        thread.join()
        await asyncio.sleep(0.001)
        """
    await session.run(cell(code))
    gc.collect()


async def print_while_nobody_reads(session: Session) -> None:
    await session.run("valve.shut()\nfor _ in range(5000): print('x')\nvalve.open()")


async def keep_the_loop(session: Session) -> None:
    session.executor.blocked_seconds = 0.02
    await session.run("import time\ntime.sleep(0.2)")


async def begin_again(session: Session) -> None:
    await session.reset()


async def end(session: Session) -> None:
    await session.close()


Action = Callable[[Session], Awaitable[None]]

ACTIONS: dict[str, tuple[Action, dict[str, Any]]] = {
    "CellStarted": (run_a_cell, {"cell": 1, "context": "async", "filename": "<session cell 1>"}),
    "Output": (run_a_cell, {"cell": 1, "stream": "stdout", "text": "hello\n"}),
    "OutputDropped": (print_while_nobody_reads, {"cell": 1, "stream": "stdout"}),
    "Display": (run_a_cell, {"cell": 1, "data": {"text/plain": "1"}}),
    "CellFinished": (run_a_cell, {"cell": 1, "status": "ok", "value": "42", "bound": ("x",)}),
    "NamespaceUpdated": (update, {"cell": 0, "names": ("x",), "source_context": "host"}),
    "CoroutineAdopted": (leave_a_coroutine, {"cell": 1, "name": "left"}),
    "CoroutineSettled": (leave_a_coroutine, {"name": "left", "error": None}),
    "TaskFailed": (fail_unobserved, {"cell": 1, "name": "lookup", "error": "ValueError: no"}),
    "CoroutineDropped": (fail_unobserved, {"cell": 1, "name": "fail", "line": 4}),
    "ThreadDied": (fail_unobserved, {"cell": 1, "name": "divider"}),
    "LoopBlocked": (keep_the_loop, {"cell": 1}),
    "SessionReset": (begin_again, {"cell": 0, "left": ()}),
    "SessionClosed": (end, {"cell": 0, "left": ()}),
}


def test_there_is_an_action_for_each_kind_of_event() -> None:
    kinds = {name for name in isthmus.__all__ if _is_event(getattr(isthmus, name))}
    assert kinds == set(ACTIONS)


def _is_event(it: Any) -> bool:
    return isinstance(it, type) and issubclass(it, Event) and it is not Event


@requirement("events")
@on_one_loop
@pytest.mark.parametrize("name", ACTIONS)
async def test_every_kind_of_event_is_met(name: str) -> None:
    action, expected = ACTIONS[name]
    kind, transport = getattr(isthmus, name), Valve()
    async with Session(transport=transport) as session:
        session.namespace["valve"] = transport
        await action(session)
        await eventually(lambda: transport.of_type(kind))
    event = transport.of_type(kind)[0]
    assert event.session == "session"
    assert {key: getattr(event, key) for key in expected} == expected
