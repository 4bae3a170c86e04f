"""What a worker's cell may not outlive, and what its end tells."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from isthmus import CellTimeout, SessionClosedError, WorkerSession
from support import WAIT_SECONDS

requirement = pytest.mark.requirement


@requirement("7.1-same-interface")
async def test_a_cell_that_has_its_session_closed_ends_with_it_and_nothing_is_killed(
    context: str,
) -> None:
    session = WorkerSession()
    session.inject_capability("leave", session.close)
    result = await session.run("await leave()\n'goes on'", context=context)
    assert result.status == "cancelled"
    report = await asyncio.wait_for(session.close(), WAIT_SECONDS)
    assert report.clean and session.closed
    with pytest.raises(SessionClosedError):
        await session.run("1")


@requirement("7.1-same-interface")
async def test_two_that_close_it_at_once_wait_for_the_same_end() -> None:
    session = WorkerSession()
    await session.start()
    first, second = await asyncio.gather(session.close(), session.close())
    assert first is second is await session.close()
    assert session.pid is None


@requirement("7.1-same-interface")
async def test_a_cell_that_is_stopped_has_a_traceback_of_where() -> None:
    async with WorkerSession() as session:
        result = await session.run("def spin():\n    while True: pass\nspin()", timeout=0.05)
        assert result.status == "timeout"
        assert "in spin\n    while True: pass" in (result.traceback or "")
        assert "isthmus/" not in (result.traceback or "")
        with pytest.raises(CellTimeout):
            result.unwrap()


@requirement("7.4-values")
async def test_a_coroutine_that_is_refused_is_closed() -> None:
    async def work() -> None: ...

    async with WorkerSession() as session:
        coroutine = work()
        with pytest.raises(TypeError, match="'c' cannot be sent"):
            session.update_namespace({"c": coroutine})
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
