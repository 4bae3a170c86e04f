"""Failures that nobody has asked for are told in the output of the cell that made what failed."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from isthmus import (
    AnySession,
    CoroutineDropped,
    MemoryTransport,
    Output,
    TaskFailed,
    ThreadDied,
)
from support import eventually

requirement = pytest.mark.requirement

FAIL = "async def fail():\n    await asyncio.sleep(0)\n    1 / 0\nasync def work(): pass\n"


@contextmanager
def no_collection() -> Iterator[None]:
    """What is dropped here goes at once or not at all."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def stderr_of(transport: MemoryTransport, cell: int) -> str:
    """What a cell has written, late output included."""
    texts = [it for it in transport.of_type(Output) if (it.cell, it.stream) == (cell, "stderr")]
    return "".join(it.text for it in texts)


@requirement("5.4-failures")
async def test_a_failed_task_that_is_dropped_is_told_in_the_output_of_its_cell(
    make_session: Callable[..., AnySession], transport: MemoryTransport, context: str
) -> None:
    session = make_session("demo", transport=transport)
    await session.execute(FAIL + "def begin(): asyncio.create_task(fail(), name='it')")
    with no_collection():
        await session.execute("await asyncio.sleep(0)\nbegin()", context=context)
        await session.execute("here = 1")
        await eventually(lambda: transport.of_type(TaskFailed))
    (event,) = transport.of_type(TaskFailed)
    assert (event.session, event.cell, event.error) == (
        "demo",
        2,
        "ZeroDivisionError: division by zero",
    )
    assert (event.filename, event.line) == ("<demo cell 1>", 5)
    assert event.name in ("it", "None")  # CPython 3.13.0 forgets a name where there is a factory
    text = stderr_of(transport, 2)
    assert text.startswith("Task exception was never retrieved") and "line 3, in fail" in text
    assert "isthmus" not in text and stderr_of(transport, 3) == ""


@requirement("5.4-failures")
async def test_a_failure_that_somebody_has_asked_for_is_told_to_nobody_else(
    make_session: Callable[..., AnySession], transport: MemoryTransport
) -> None:
    session = make_session(transport=transport)
    await session.execute(FAIL)
    await session.execute("t = asyncio.create_task(fail())\ntry: await t\nexcept Exception: pass")
    await session.execute("b = fail()")
    assert list((await session.await_pending_coroutines()).errors) == ["b"]
    await session.execute("del t, b")
    gc.collect()
    assert transport.of_type(TaskFailed) == []


@requirement("5.4-unawaited")
async def test_a_coroutine_that_nobody_awaits_is_told_in_the_output_of_its_cell(
    make_session: Callable[..., AnySession], transport: MemoryTransport, context: str
) -> None:
    session = make_session("demo", transport=transport)
    await session.execute(FAIL)
    result = await session.run("x = 1\nwork()\nasyncio.sleep(x)\nNone", context=context)
    events = transport.of_type(CoroutineDropped)
    assert [(it.cell, it.name, it.filename, it.line) for it in events] == [
        (2, "work", "<demo cell 2>", 2),
        (2, "sleep", "<demo cell 2>", 3),
    ]
    warning = "<demo cell 2>:2: RuntimeWarning: coroutine 'work' was never awaited\n  work()\n"
    assert warning in result.stderr == stderr_of(transport, 2)


@requirement("5.4-unawaited")
async def test_it_is_told_of_that_cell_when_a_later_one_drops_it(
    make_session: Callable[..., AnySession], transport: MemoryTransport, context: str
) -> None:
    session = make_session("demo", transport=transport)
    await session.execute(FAIL + "many = [work()]", context=context)
    await session.execute("many.clear()", context=context)
    (event,) = transport.of_type(CoroutineDropped)
    assert (event.cell, event.line) == (1, 5)
    assert "never awaited" in stderr_of(transport, 1) and stderr_of(transport, 2) == ""


@requirement("5.4-unawaited")
async def test_it_is_told_of_that_cell_when_the_collector_drops_it_in_another_session(
    make_session: Callable[..., AnySession], transport: MemoryTransport
) -> None:
    session, other = make_session("demo", transport=transport), make_session("other")
    await session.execute(FAIL + "class Node: pass\nnode = Node()\nnode.me, node.it = node, work()")
    with no_collection():
        await session.execute("del node")
        result = await other.run("import gc\ngc.collect()")
    assert result.stderr == ""
    assert [it.cell for it in transport.of_type(CoroutineDropped)] == [1]
    assert "never awaited" in stderr_of(transport, 1)


@requirement("5.4-unawaited")
async def test_a_cell_can_record_and_silence_the_warning(session: AnySession, context: str) -> None:
    await session.execute(FAIL + "import warnings")
    code = (
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n    work()\n"
        "with warnings.catch_warnings():\n    warnings.simplefilter('ignore')\n    work()\n"
        "[(str(it.message), it.lineno) for it in seen]"
    )
    result = await session.run(code, context=context)
    assert result.value == [("coroutine 'work' was never awaited", 3)]
    assert result.stderr == ""


@requirement("5.4-unawaited")
async def test_a_coroutine_of_the_host_warns_as_ever(
    make_session: Callable[..., AnySession], transport: MemoryTransport
) -> None:
    session = make_session(transport=transport)
    await session.execute("1")
    with pytest.warns(RuntimeWarning, match="'sleep' was never awaited"):
        asyncio.sleep(0)
    assert transport.of_type(CoroutineDropped) == []


@requirement("5.4-unawaited")
async def test_only_code_of_the_session_keeps_track_of_origins(session: AnySession) -> None:
    before = sys.get_coroutine_origin_tracking_depth()
    inside = max(before, 1)
    go = asyncio.Event()
    session.update_namespace({"go": go, "depth": sys.get_coroutine_origin_tracking_depth})
    running = asyncio.create_task(session.execute("a = depth()\nawait go.wait()\n(a, depth())"))
    await asyncio.sleep(0)
    assert sys.get_coroutine_origin_tracking_depth() == before
    go.set()
    assert await running == (inside, inside)
    assert await session.execute("depth()", context="thread") >= 1
    assert await session.execute("await asyncio.create_task(asyncio.to_thread(depth))") == 1
    assert await asyncio.to_thread(sys.get_coroutine_origin_tracking_depth) == 0
    assert sys.get_coroutine_origin_tracking_depth() == before


THREAD = (
    "import threading\nthread = threading.Thread(target={0}, name='T')\n"
    "thread.start()\nthread.join()"
)


@requirement("5.4-threads")
async def test_a_thread_that_dies_is_told_in_the_output_of_its_cell(
    make_session: Callable[..., AnySession], transport: MemoryTransport, context: str
) -> None:
    session = make_session(transport=transport)
    await session.execute("def burst():\n    1 / 0")
    result = await session.run(THREAD.format("burst"), context=context)
    (event,) = transport.of_type(ThreadDied)
    assert (event.cell, event.name, event.error) == (2, "T", "ZeroDivisionError: division by zero")
    assert result.stderr.startswith("Exception in thread T:\nTraceback")
    assert "line 2, in burst" in result.stderr and "isthmus" not in result.stderr


@requirement("5.4-threads")
async def test_without_a_transport_the_hook_of_the_host_hears_of_a_thread_too(
    session: AnySession, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: heard.append(args.exc_value))
    await session.execute("def burst(): 1 / 0")
    result = await session.run(THREAD.format("burst"))
    assert [type(it) for it in heard] == [ZeroDivisionError]
    assert "Exception in thread T" in result.stderr
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    result = await session.run(THREAD.format("burst"))
    assert result.stderr.count("ZeroDivisionError") == 1
    assert (await session.run("import sys\n" + THREAD.format("sys.exit"))).stderr == ""
