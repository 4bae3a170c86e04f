"""A loop that is used from a second thread for a while."""

from __future__ import annotations

import asyncio
import threading

import pytest

from isthmus import Session
from support import eventually

requirement = pytest.mark.requirement


@requirement("3.5-thread-view")
async def test_calls_of_a_cells_thread_hop_to_the_loops(session: Session) -> None:
    code = """
import threading
await asyncio.sleep(0)
loop = asyncio.get_running_loop()
where = []
def note(): where.append(threading.get_ident())
loop.call_soon(note)
handle = loop.call_later(0, note)
timer = loop.call_at(loop.time(), note)
cancelled = loop.call_later(30, note)
cancelled.cancel()
await asyncio.sleep(0.01)
mine = threading.get_ident()
"""
    await session.execute(code, context="thread")
    await eventually(lambda: len(session.namespace["where"]) == 3)
    assert set(session.namespace["where"]) == {threading.get_ident()}
    assert session.namespace["mine"] != threading.get_ident()


@requirement("3.5-thread-view")
async def test_other_threads_are_not_affected_while_a_cell_shares_the_loop(
    session: Session,
) -> None:
    go = threading.Event()
    session.update_namespace({"go": go})
    running = asyncio.ensure_future(
        session.run("await asyncio.sleep(0)\nready = True\ngo.wait(5)", context="thread")
    )
    await eventually(lambda: "ready" in session.namespace)
    me = asyncio.current_task()
    assert me is not None
    loop = asyncio.get_running_loop()
    called: list[int] = []
    loop.call_soon(called.append, 1)
    await asyncio.sleep(0)
    assert called == [1]
    assert await asyncio.create_task(asyncio.sleep(0, "task")) == "task"

    def elsewhere() -> str:
        async def inner() -> str:
            task = asyncio.current_task()
            assert task is not None
            await asyncio.sleep(0)
            return await asyncio.create_task(asyncio.sleep(0, "other loop"))

        return asyncio.run(inner())

    assert await asyncio.to_thread(elsewhere) == "other loop"
    assert asyncio.current_task() is me
    go.set()
    await running


@requirement("3.5-thread-view", "6.5-hooks")
async def test_a_patch_that_somebody_has_made_since_stays(session: Session) -> None:
    loop = asyncio.get_running_loop()
    go = threading.Event()
    session.update_namespace({"go": go})
    running = asyncio.ensure_future(
        session.run("await asyncio.sleep(0)\nready = True\ngo.wait(5)", context="thread")
    )
    await eventually(lambda: "ready" in session.namespace)

    def mine(*_: object) -> None:
        raise AssertionError

    loop.add_writer = mine  # type: ignore[method-assign, assignment]
    go.set()
    assert (await running).status == "ok"
    assert vars(loop)["add_writer"] is mine
    del loop.add_writer
    assert "add_reader" not in vars(loop)


@requirement("3.5-idioms")
async def test_errors_of_the_loops_calls_arrive_in_the_thread(session: Session) -> None:
    result = await session.run(
        "await asyncio.sleep(0)\nasyncio.get_running_loop().call_later('soon', print)",
        context="thread",
    )
    assert isinstance(result.error, TypeError)
    assert await session.execute("await asyncio.sleep(0, 'on')", context="thread") == "on"


@requirement("3.5-idioms")
async def test_two_concurrent_thread_cells_share_one_loop(session: Session) -> None:
    code = "await asyncio.gather(*(asyncio.create_task(asyncio.sleep(0, n)) for n in range(20)))"
    found = await asyncio.gather(
        *[session.execute(code, context="thread", concurrent=True) for _ in range(4)]
    )
    assert found == [list(range(20))] * 4
