"""Where failures are told when nobody listens, and the places where Python reports them."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from isthmus import Session
from support import LoopWatch, eventually, run_in_child

requirement = pytest.mark.requirement


@requirement("5.4-unawaited", "5.4-threads", "5.4-failures")
def test_without_a_transport_what_no_cell_would_show_goes_to_the_process() -> None:
    program = """
        import asyncio
        from isthmus import Session

        CELL = '''
        import threading
        async def work(): pass
        async def fail(): 1 / 0
        held, begin = [work()], threading.Event()
        thread = threading.Thread(target=lambda: 1 / begin.wait(5) / 0)
        thread.start()
        asyncio.create_task(fail())
        None
        '''

        async def main():
            async with Session("demo") as session:
                await session.run("task = asyncio.create_task(asyncio.sleep(60))")
                await session.run(CELL)
                result = await session.run("held.clear(); begin.set(); thread.join(); work(); None")
                print(result.stderr, end="")
                await asyncio.sleep(0)

        asyncio.run(main())
        """
    ended = run_in_child(program)
    assert ended.stdout == (
        "<demo cell 3>:1: RuntimeWarning: coroutine 'work' was never awaited\n"
        "  held.clear(); begin.set(); thread.join(); work(); None\n"
    )
    assert "<demo cell 2>:5: RuntimeWarning: coroutine 'work' was never awaited" in ended.stderr
    assert ended.stderr.count("Task exception was never retrieved") == 1
    assert ended.stderr.count("Exception in thread Thread-1") == 1
    assert ended.stderr.count("ZeroDivisionError: ") == 2


@requirement("6.5-hooks", "5.4-failures")
async def test_the_loops_handler_is_wrapped_as_long_as_a_session_runs_there(
    make_session: Callable[..., Session], loop_watch: LoopWatch
) -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    first, second = make_session(), make_session()
    await first.execute("1")
    await second.execute("1")
    assert loop.get_exception_handler() is not before
    loop.call_exception_handler({"message": "of the host"})
    assert [it["message"] for it in loop_watch.complaints] == ["of the host"]
    await first.close()
    assert loop.get_exception_handler() is not before
    await second.close()
    assert loop.get_exception_handler() is before


@requirement("6.5-hooks")
async def test_a_handler_that_the_host_sets_meanwhile_stays_and_hears(
    make_session: Callable[..., Session],
) -> None:
    loop, heard = asyncio.get_running_loop(), list[dict[str, Any]]()
    session = make_session()
    await session.execute("1")
    own = lambda loop, context: heard.append(context)  # noqa: E731
    loop.set_exception_handler(own)
    await session.execute("async def fail(): 1 / 0\nasyncio.create_task(fail())\nNone")
    await eventually(lambda: heard)
    assert isinstance(heard[0]["exception"], ZeroDivisionError)
    await session.close()
    assert loop.get_exception_handler() is own


@requirement("6.5-hooks")
async def test_a_function_that_the_host_sets_for_unawaited_coroutines_stays(
    make_session: Callable[..., Session],
) -> None:
    heard: list[str] = []
    name = "_warn_unawaited_coroutine"
    plain = getattr(warnings, name)
    session = make_session()
    await session.execute("async def work(): pass")
    assert getattr(warnings, name) is not plain
    setattr(warnings, name, lambda coroutine: heard.append(coroutine.__name__))
    try:
        result = await session.run("work()\nNone")
        await session.close()
        asyncio.sleep(0)
    finally:
        setattr(warnings, name, plain)
    assert (heard, result.stderr) == (["work", "sleep"], "")
