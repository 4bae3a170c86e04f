"""The end of a session: from any loop, from its own cells, from several places at once."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable

import pytest

from isthmus import AnySession, CellResult, Session, SessionClosedError
from support import LoopThread, cell, eventually, on_one_loop

requirement = pytest.mark.requirement


@requirement("5.5-close")
async def test_another_loop_can_close_it(make_session: Callable[..., AnySession]) -> None:
    session = make_session()
    await session.execute("1")
    with LoopThread() as other:
        report = await other.wait(session.close())
    assert report.clean
    assert session.closed
    with pytest.raises(SessionClosedError):
        await session.execute("2")


@requirement("5.5-close")
async def test_a_cell_can_close_it_and_goes_on_to_its_own_end(
    make_session: Callable[..., AnySession], context: str
) -> None:
    session = make_session()
    session.inject_capability("leave", session.close)
    result = await session.run("report = await leave(); report.clean", context=context)
    assert (result.value, result.status, result.stopped) == (True, "ok", True), result
    assert session.closed
    assert (await session.close()).clean


@requirement("5.5-close")
async def test_a_nested_cell_can_close_it(
    make_session: Callable[..., AnySession], first: str, second: str
) -> None:
    session = make_session()
    session.inject_capability("leave", session.close)
    session.inject_capability("nested", functools.partial(session.execute, context=second))
    result = await session.run("await nested('(await leave()).clean')", context=first)
    assert (result.value, result.status) == (True, "ok"), result


@requirement("5.5-close")
async def test_two_that_close_it_at_once_get_one_report(
    make_session: Callable[..., AnySession], context: str
) -> None:
    session = make_session()
    begun = asyncio.Event()

    async def for_ever() -> None:
        begun.set()
        await asyncio.Event().wait()

    session.inject_capability("for_ever", for_ever)
    running = asyncio.create_task(session.run("await for_ever()", context=context))
    await begun.wait()
    first, second = await asyncio.gather(session.close(), session.close())
    assert first == second
    assert first.clean
    assert (await running).status == "cancelled"


@requirement("5.5-close")
async def test_closing_again_gives_the_first_report(session: AnySession) -> None:
    await session.execute("1")
    first = await session.close()
    assert await session.close() == first


@requirement("5.5-close")
async def test_a_session_that_never_ran_anything_is_closed_in_any_loop(
    make_session: Callable[..., AnySession],
) -> None:
    session = make_session()
    with LoopThread() as other:
        assert (await other.wait(session.close())).clean
    assert session.closed


SWALLOWS = cell(
    """
    async def swallows(gate=gate):
        while not gate.is_set():
            try: await gate.wait()
            except asyncio.CancelledError: pass
    """
)


@requirement("5.5-close", "6.2-given-up")
async def test_cells_that_were_given_up_and_still_run_are_named(context: str) -> None:
    session, gate, held = Session("closing"), asyncio.Event(), threading.Event()
    session.update_namespace({"gate": gate, "held": held})
    await session.execute(SWALLOWS)
    try:
        stuck = [await session.run("await swallows()", context=context, timeout=0.2)]
        stuck.append(await session.run("held.wait()", context="thread", timeout=0.2))
        assert [it.stopped for it in stuck] == [False, False]
        assert await session.execute("1", context=context) == 1
        report = await session.close(timeout=0.02)
        assert report.cells == tuple(it.cell for it in stuck) and not report.clean, report
    finally:
        gate.set()
        held.set()
    threads = [it for it in threading.enumerate() if it.name == "isthmus closing"]
    await eventually(lambda: not any(it.is_alive() for it in threads))


@requirement("5.5-close")
@on_one_loop
async def test_a_thousand_tasks_that_ignore_their_cancellation_are_named() -> None:
    session, gate = Session("closing"), asyncio.Event()
    session.update_namespace({"gate": gate})
    await session.execute(SWALLOWS)
    try:
        await session.execute(
            "tasks = [asyncio.create_task(swallows(), name=f'task {n}') for n in range(1000)]\n"
            "await asyncio.sleep(0)"
        )
        tasks = await session.get("tasks")
        report = await session.close(timeout=0.02)
        assert set(report.tasks) == {f"task {number}" for number in range(1000)}
        assert not report.clean and len(report.left) == 1000
    finally:
        gate.set()
    await eventually(lambda: all(task.done() for task in tasks))


@requirement("5.5-leaks")
@on_one_loop
async def test_the_report_names_what_others_still_hold_of_the_namespace() -> None:
    session = Session("closing")
    kept = [await session.execute("def kept(): pass\nkept")]
    report = await session.close()
    assert report.held_by() != ()
    del session
    assert report.held_by() == ("function kept",)
    kept.clear()
    assert report.held_by() == ()


@requirement("5.5-close")
@on_one_loop
async def test_one_that_comes_while_threads_are_waited_for_gets_the_same_report(
    make_session: Callable[..., AnySession],
) -> None:
    session, held = make_session(), threading.Event()
    session.update_namespace({"held": held})
    await session.execute("import threading; threading.Thread(target=held.wait).start()")
    first = asyncio.create_task(session.close(timeout=60))
    await eventually(lambda: session.closed)
    second = asyncio.create_task(session.close(timeout=60))
    await asyncio.sleep(0)
    assert not first.done() and not second.done()
    held.set()
    assert await first is await second is await session.close()


@requirement("5.5-close")
@on_one_loop
async def test_a_second_close_of_one_that_was_cancelled_ends_the_rest(
    make_session: Callable[..., AnySession],
) -> None:
    session, held = make_session(), threading.Event()
    session.update_namespace({"held": held})
    await session.execute("import threading; threading.Thread(target=held.wait).start()")
    closing = asyncio.create_task(session.close(timeout=60))
    await eventually(lambda: session.closed)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    held.set()
    assert (await session.close()).clean
    assert session.manager.current_home is None


@requirement("5.5-close")
@on_one_loop
def test_what_runs_on_in_threads_is_named_where_the_loop_has_ended_first() -> None:
    session, held = Session("closing"), threading.Event()
    session.update_namespace({"held": held})
    waiter = "import threading; threading.Thread(target=held.wait, name='waiter').start()"

    async def use() -> CellResult:
        await session.execute(waiter)
        return await session.run("held.wait()", context="thread", timeout=0.2)

    try:
        stuck = asyncio.run(use())
        assert not stuck.stopped
        report = asyncio.run(session.close())
        assert (report.cells, report.threads) == ((stuck.cell,), ("waiter",)), report
        assert asyncio.run(session.close()) is report
    finally:
        held.set()
