"""The end of a session: from any loop, from its own cells, from several places at once."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

import pytest

from isthmus import Session, SessionClosedError
from support import LoopThread

requirement = pytest.mark.requirement


@requirement("5.5-close")
async def test_another_loop_can_close_it(make_session: Callable[..., Session]) -> None:
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
    make_session: Callable[..., Session], context: str
) -> None:
    session = make_session()
    session.inject_capability("leave", session.close)
    result = await session.run("report = await leave(); report.clean", context=context)
    assert (result.value, result.status, result.stopped) == (True, "ok", True), result
    assert session.closed
    assert (await session.close()).clean


@requirement("5.5-close")
async def test_a_nested_cell_can_close_it(
    make_session: Callable[..., Session], first: str, second: str
) -> None:
    session = make_session()
    session.inject_capability("leave", session.close)
    session.inject_capability("nested", functools.partial(session.execute, context=second))
    result = await session.run("await nested('(await leave()).clean')", context=first)
    assert (result.value, result.status) == (True, "ok"), result


@requirement("5.5-close")
async def test_two_that_close_it_at_once_get_one_report(
    make_session: Callable[..., Session], context: str
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
    assert first is second
    assert first.clean
    assert (await running).status == "cancelled"


@requirement("5.5-close")
async def test_closing_again_gives_the_first_report(session: Session) -> None:
    await session.execute("1")
    first = await session.close()
    assert await session.close() is first


@requirement("5.5-close")
async def test_a_session_that_never_ran_anything_is_closed_in_any_loop(
    make_session: Callable[..., Session],
) -> None:
    session = make_session()
    with LoopThread() as other:
        assert (await other.wait(session.close())).clean
    assert session.closed
