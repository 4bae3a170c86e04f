"""Cells without whose end control has gone back: who knows of them, and what the next ones do."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from isthmus import Session
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


def given_up(session: Session) -> list[int]:
    """Numbers of the cells that the session's home lists."""
    home = session.manager.current_home
    assert home is not None
    return sorted(job.number for job in home.given_up)


async def prepare(session: Session) -> asyncio.Event:
    """Let cells of *session* call a coroutine that no first cancellation ends, but the event."""
    gate = asyncio.Event()
    session.update_namespace({"gate": gate})
    await session.execute(SWALLOWS)
    return gate


async def check_that_all_contexts_work(session: Session) -> None:
    for context in ("thread", "async", "sync"):
        result = await session.run("await asyncio.sleep(0, 'on')", context=context)
        assert (result.status, result.value) == ("ok", "on"), result


@requirement("6.2-given-up")
@pytest.mark.parametrize("concurrent", [False, True], ids=["ordered", "concurrent"])
async def test_a_cell_that_is_given_up_is_known_until_its_code_ends(
    session: Session, context: str, concurrent: bool
) -> None:
    gate = await prepare(session)
    result = await session.run(
        "await swallows()", context=context, timeout=0.1, concurrent=concurrent
    )
    assert (result.status, result.stopped) == ("timeout", False), result
    assert given_up(session) == [result.cell]
    await check_that_all_contexts_work(session)
    assert given_up(session) == [result.cell]
    gate.set()
    await eventually(lambda: not given_up(session))


@requirement("6.2-given-up")
@pytest.mark.parametrize("concurrent", [False, True], ids=["ordered", "concurrent"])
async def test_a_thread_that_is_given_up_is_known_until_its_code_ends(
    session: Session, concurrent: bool
) -> None:
    gate = threading.Event()
    session.update_namespace({"gate": gate})
    result = await session.run("gate.wait()", context="thread", timeout=0.1, concurrent=concurrent)
    assert (result.status, result.stopped) == ("timeout", False), result
    assert given_up(session) == [result.cell]
    await check_that_all_contexts_work(session)
    gate.set()
    await eventually(lambda: not given_up(session))


@requirement("6.2-given-up")
async def test_the_task_that_serves_a_concurrent_thread_cell_does_not_outlive_it(
    session: Session,
) -> None:
    gate = threading.Event()
    session.update_namespace({"gate": gate})
    await session.execute("1")
    before = asyncio.all_tasks()
    await session.run("gate.wait()", context="thread", timeout=0.1, concurrent=True)
    await eventually(lambda: asyncio.all_tasks() == before)
    gate.set()
    await eventually(lambda: not given_up(session))


@requirement("6.2-given-up")
async def test_thread_cells_behind_one_that_is_given_up_go_to_a_new_thread(
    session: Session,
) -> None:
    gate = threading.Event()
    session.update_namespace({"gate": gate, "names": []})
    stuck = asyncio.ensure_future(session.run("gate.wait()", context="thread", timeout=0.1))
    note = "import threading; names.append(threading.get_ident())"
    behind = [session.run(note, context="thread") for _ in range(2)]
    results: list[Any] = await asyncio.gather(stuck, *behind)
    assert [it.status for it in results] == ["timeout", "ok", "ok"]
    assert len(set(session.namespace["names"])) == 1
    gate.set()
    await eventually(lambda: not given_up(session))


@requirement("6.2-given-up")
@pytest.mark.parametrize("outer", ["async", "sync"])
async def test_a_nested_thread_cell_of_a_loop_cell_is_given_up(
    session: Session, outer: str
) -> None:
    gate = threading.Event()
    session.update_namespace({"gate": gate})
    session.inject_capability("nested", session.run)
    code = "r = await nested('gate.wait()', context='thread', timeout=0.1); r.status, r.stopped"
    result = await session.run(code, context=outer)
    assert result.value == ("timeout", False), result
    await check_that_all_contexts_work(session)
    gate.set()
    await eventually(lambda: not given_up(session))


@requirement("6.2-given-up")
async def test_a_thread_cell_is_given_up_while_it_waits_for_a_nested_one(session: Session) -> None:
    gate = threading.Event()
    session.update_namespace({"gate": gate})
    session.inject_capability("nested", session.run)
    code = "await nested('gate.wait()', context='thread')"
    result = await session.run(code, context="thread", timeout=0.1)
    assert (result.status, result.stopped) == ("timeout", False), result
    await check_that_all_contexts_work(session)
    gate.set()
    await eventually(lambda: not given_up(session))


@requirement("6.2-given-up")
@pytest.mark.parametrize(("outer", "inner"), [("async", "async"), ("thread", "thread")])
async def test_a_nested_cell_on_its_callers_stack_is_waited_for(
    session: Session, monkeypatch: pytest.MonkeyPatch, outer: str, inner: str
) -> None:
    gate = await prepare(session)
    session.inject_capability("nested", session.run)
    tried, abandon = asyncio.Event(), Home.abandon

    def try_to_abandon(home: Home, job: Job) -> None:
        abandon(home, job)
        tried.set()

    monkeypatch.setattr(Home, "abandon", try_to_abandon)
    code = f"(await nested('await swallows()', context={inner!r}, timeout=0.1)).stopped"
    running = asyncio.ensure_future(session.run(code, context=outer))
    await asyncio.wait_for(tried.wait(), WAIT_SECONDS)
    assert not running.done() and not given_up(session)
    gate.set()
    assert (await running).value is True
