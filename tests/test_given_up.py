"""Cells without whose end control has gone back: who knows of them, and what the next ones do."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from either_home import beside
from isthmus import AnySession, Session
from isthmus.home import Home
from isthmus.jobs import Job
from support import WAIT_SECONDS, cell, eventually

requirement = pytest.mark.requirement

SWALLOWS = cell(
    """
    async def swallows():
        for _ in range(2):
            try:
                await gate.wait()
            except asyncio.CancelledError:
                pass
    """
)


HELD_THREAD = "import threading\ngate = threading.Event()"
"""Before cells in threads that are given up, which wait for this."""


async def given_up(session: AnySession) -> int:
    """How many cells the session knows of that have been left behind."""
    found = re.search(r"(\d+) given up", await session.report())
    return int(found[1]) if found else 0


async def let_go(session: AnySession) -> None:
    """Open the gate, and wait until no cell is left behind."""
    await beside(session, "gate.set()")

    async def are_gone() -> bool:
        return await given_up(session) == 0

    await eventually(are_gone)


async def prepare(session: AnySession) -> None:
    """Let cells of *session* call a coroutine that no first cancellation ends, but the gate."""
    await session.execute(f"gate = asyncio.Event()\n{SWALLOWS}")


async def check_that_all_contexts_work(session: AnySession) -> None:
    for context in ("thread", "async", "sync"):
        result = await session.run("await asyncio.sleep(0, 'on')", context=context)
        assert (result.status, result.value) == ("ok", "on"), result


@requirement("6.2-given-up")
@pytest.mark.parametrize("concurrent", [False, True], ids=["ordered", "concurrent"])
async def test_a_cell_that_is_given_up_is_known_until_its_code_ends(
    session: AnySession, context: str, concurrent: bool
) -> None:
    await prepare(session)
    result = await session.run(
        "await swallows()", context=context, timeout=0.1, concurrent=concurrent
    )
    assert (result.status, result.stopped) == ("timeout", False), result
    assert await given_up(session) == 1
    await check_that_all_contexts_work(session)
    assert await given_up(session) == 1
    await let_go(session)


@requirement("6.2-given-up")
@pytest.mark.parametrize("concurrent", [False, True], ids=["ordered", "concurrent"])
async def test_a_thread_that_is_given_up_is_known_until_its_code_ends(
    session: AnySession, concurrent: bool
) -> None:
    await session.execute(HELD_THREAD)
    result = await session.run("gate.wait()", context="thread", timeout=0.1, concurrent=concurrent)
    assert (result.status, result.stopped) == ("timeout", False), result
    assert await given_up(session) == 1
    await check_that_all_contexts_work(session)
    await let_go(session)


@requirement("6.2-given-up")
async def test_the_task_that_serves_a_concurrent_thread_cell_does_not_outlive_it(
    session: Session,
) -> None:
    await session.execute(HELD_THREAD)
    before = asyncio.all_tasks()
    await session.run("gate.wait()", context="thread", timeout=0.1, concurrent=True)
    await eventually(lambda: asyncio.all_tasks() == before)
    await let_go(session)


@requirement("6.2-given-up")
async def test_thread_cells_behind_one_that_is_given_up_go_to_a_new_thread(
    session: AnySession,
) -> None:
    await session.execute(HELD_THREAD)
    stuck = asyncio.ensure_future(session.run("gate.wait()", context="thread", timeout=0.1))
    note = "threading.get_ident()"
    behind = [session.run(note, context="thread") for _ in range(2)]
    results: list[Any] = await asyncio.gather(stuck, *behind)
    assert [it.status for it in results] == ["timeout", "ok", "ok"]
    assert results[1].value == results[2].value
    await let_go(session)


@requirement("6.2-given-up")
@pytest.mark.parametrize("outer", ["async", "sync"])
async def test_a_nested_thread_cell_of_a_loop_cell_is_given_up(
    session: AnySession, outer: str
) -> None:
    await session.execute(HELD_THREAD)
    session.inject_capability("nested", session.run)
    code = "r = await nested('gate.wait()', context='thread', timeout=0.1); r.status, r.stopped"
    result = await session.run(code, context=outer)
    assert result.value == ("timeout", False), result
    await check_that_all_contexts_work(session)
    await let_go(session)


@requirement("6.2-given-up")
async def test_a_thread_cell_is_given_up_while_it_waits_for_a_nested_one(
    session: AnySession,
) -> None:
    await session.execute(HELD_THREAD)
    session.inject_capability("nested", session.run)
    code = "await nested('gate.wait()', context='thread')"
    result = await session.run(code, context="thread", timeout=0.1)
    assert (result.status, result.stopped) == ("timeout", False), result
    await check_that_all_contexts_work(session)
    await let_go(session)


@requirement("6.2-given-up")
@pytest.mark.parametrize(("outer", "inner"), [("async", "async"), ("thread", "thread")])
async def test_a_nested_cell_on_its_callers_stack_is_waited_for(
    session: Session, monkeypatch: pytest.MonkeyPatch, outer: str, inner: str
) -> None:
    await prepare(session)
    session.inject_capability("nested", session.run)
    tried, abandon = asyncio.Event(), Home.abandon

    def try_to_abandon(home: Home, job: Job) -> None:
        abandon(home, job)
        tried.set()

    monkeypatch.setattr(Home, "abandon", try_to_abandon)
    code = f"(await nested('await swallows()', context={inner!r}, timeout=0.1)).stopped"
    running = asyncio.ensure_future(session.run(code, context=outer))
    await asyncio.wait_for(tried.wait(), WAIT_SECONDS)
    assert not running.done() and not await given_up(session)
    await beside(session, "gate.set()")
    assert (await running).value is True
