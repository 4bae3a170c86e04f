"""Tasks that session code starts: how they fail, and how they look."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from isthmus import CellAborted, CellError, CellExit, CellInterrupted, Session
from support import LoopWatch, cell, eventually, run_in_child

requirement = pytest.mark.requirement

EXITS: dict[str, tuple[str, type[CellError], type[BaseException]]] = {
    "sys.exit(3)": ("import sys; sys.exit(3)", CellExit, SystemExit),
    "SystemExit": ("raise SystemExit('text')", CellExit, SystemExit),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", CellAborted, KeyboardInterrupt),
}


@requirement("6.2-no-exit-of-host-loop")
@pytest.mark.parametrize("how", EXITS)
async def test_a_task_that_exits_fails_and_the_hosts_loop_goes_on(
    session: Session, context: str, how: str
) -> None:
    code, kind, cause = EXITS[how]
    await session.execute(
        f"async def leave():\n    await asyncio.sleep(0)\n    {code}\n"
        "task = asyncio.create_task(leave())\nawait asyncio.wait([task])",
        context=context,
    )
    error = session.namespace["task"].exception()
    assert type(error) is kind
    assert type(error.__cause__) is cause
    assert session.namespace["task"].get_name() in str(error)
    assert await session.execute("1", context=context) == 1


@requirement("6.2-no-exit-of-host-loop")
@pytest.mark.parametrize("how", EXITS)
async def test_a_cell_that_awaits_such_a_task_gets_the_cells_own_error_for_it(
    session: Session, context: str, how: str
) -> None:
    code, kind, cause = EXITS[how]
    result = await session.run(
        f"async def leave():\n    {code}\nawait asyncio.create_task(leave())", context=context
    )
    assert result.status == "error"
    assert type(result.error) is kind
    assert type(result.error.__cause__) is cause
    with pytest.raises(kind) as caught:
        result.unwrap()
    assert caught.value is result.error
    if isinstance(caught.value, CellExit):
        assert caught.value.code == result.error.__cause__.code  # type: ignore[union-attr]


@requirement("6.2-no-exit-of-host-loop")
async def test_a_task_group_treats_an_exit_as_a_failure(session: Session, context: str) -> None:
    code = cell("""
        import sys
        async def leave(): sys.exit(3)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(leave())
                sibling = group.create_task(asyncio.sleep(30))
        except* Exception as failed:
            errors = failed.exceptions
        [type(it).__name__ for it in errors], sibling.cancelled()
        """)
    assert await session.execute(code, context=context) == (["CellExit"], True)


@requirement("6.2-no-exit-of-host-loop")
async def test_an_adopted_coroutine_that_exits_is_a_failed_one(
    session: Session, context: str
) -> None:
    await session.execute(
        "import sys\nasync def leave(): sys.exit(4)\nlate = leave()", context=context
    )
    settled = await session.await_pending_coroutines()
    error: Any = settled.errors["late"]
    assert (type(error), error.code, type(error.__cause__)) == (CellExit, 4, SystemExit)


@requirement("6.2-no-exit-of-host-loop")
async def test_a_task_that_nobody_awaits_is_complained_of_once(
    session: Session, context: str, loop_watch: LoopWatch
) -> None:
    code = cell("""
        import sys
        async def leave(): sys.exit(5)
        asyncio.create_task(leave())
        await asyncio.sleep(0)
        """)
    await session.execute(code, context=context)
    await eventually(lambda: gc.collect() >= 0 and loop_watch.complaints)
    (complaint,) = loop_watch.complaints
    assert complaint["message"] == "Task exception was never retrieved"
    assert type(complaint["exception"]) is CellExit


@requirement("6.2-no-exit-of-host-loop", "6.2-interrupt")
async def test_an_interrupt_of_code_in_a_task_reaches_who_awaits_the_task(
    session: Session,
) -> None:
    result = await session.run(
        "async def hog():\n    while True: pass\nawait asyncio.create_task(hog())", timeout=0.1
    )
    assert result.status == "timeout"
    assert isinstance(result.error, CellInterrupted)


@requirement("6.2-no-exit-of-host-loop")
def test_a_task_of_the_host_that_exits_ends_the_hosts_loop_as_ever() -> None:
    program = """
        import asyncio
        from isthmus import Session

        async def leave():
            raise SystemExit(7)

        async def main():
            async with Session() as session:
                await session.execute("1")
                asyncio.create_task(leave())
                await asyncio.sleep(30)

        asyncio.run(main())
        """
    assert run_in_child(program).status == 7


async def test_a_task_is_shown_by_the_name_of_its_coroutine(session: Session, context: Any) -> None:
    await session.execute(
        "async def work(): await asyncio.sleep(0)\n"
        "task = asyncio.create_task(work())\nshown = repr(task)\nawait task",
        context=context,
    )
    assert "coro=<work() " in session.namespace["shown"]
    assert session.namespace["task"].get_coro().__qualname__ == "work"
