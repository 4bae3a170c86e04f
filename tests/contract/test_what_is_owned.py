"""The ledger: what the code of a session has made, with the cell and the line that made it."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable

import pytest

from isthmus import AnySession, LedgerCount, LedgerEntry
from support import LoopWatch, eventually

requirement = pytest.mark.requirement

DEFINITIONS = """\
import threading
go = asyncio.Event()
async def work():
    await go.wait()
async def count():
    for number in range(2):
        yield number
def begin():
    return asyncio.create_task(work(), name='helper')
class Pause:
    def __await__(self): yield
async def pause(): await Pause()
class Box: pass
"""

MAKES = """\
await asyncio.sleep(0)
t = asyncio.create_task(work(), name='mine')
h = begin()
left = work()
many = [1, {'k': work()}]
g = count()
first = await anext(g)
stop = threading.Event()
thread = threading.Thread(target=stop.wait, name='T')
thread.start()
"""


def made(entries: list[LedgerEntry]) -> set[tuple[str, str, int, str, int, str]]:
    """Entries as tuples, without names of tasks, which CPython 3.13.0 forgets."""
    return {
        (it.kind, "" if it.name == "None" else it.name, it.cell, it.filename, it.line, it.state)
        for it in entries
    }


async def by_kind(session: AnySession) -> dict[str, int]:
    counted = Counter(it.kind for it in await session.ledger())
    return {kind: counted[kind] for kind in ("coroutine", "task", "async generator", "thread")}


@requirement("5.1-ledger")
async def test_the_ledger_names_the_cell_and_the_line(
    make_session: Callable[..., AnySession], context: str
) -> None:
    session = make_session("demo")
    await session.execute(DEFINITIONS)
    result = await session.run(MAKES, context=context)
    assert result.error is None and await session.get("first") == 0
    here, there = "<demo cell 2>", "<demo cell 1>"
    kept = await session.execute("t.get_name()") == "mine"
    assert made(await session.ledger()) == {
        ("task", "mine" if kept else "", 2, here, 2, "waiting"),
        ("task", "helper" if kept else "", 2, there, 9, "waiting"),
        ("task", "left", 2, here, 4, "waiting"),
        ("coroutine", "many[1]['k']", 2, here, 5, "created"),
        ("async generator", "count", 2, here, 7, "waiting"),
        ("thread", "T", 2, here, 10, "running"),
    }
    assert await by_kind(session) == await session.census()
    await session.execute("stop.set()\nthread.join()\ngo.set()\nasync for number in g: pass")
    await session.execute("await many[1]['k']\nawait t\nawait h\nawait left")
    assert await session.ledger() == []
    assert set((await session.census()).values()) == {0}


@requirement("5.1-ledger")
async def test_what_the_census_has_found_is_in_the_ledger_afterwards(
    make_session: Callable[..., AnySession], context: str
) -> None:
    session = make_session("demo")
    await session.execute(DEFINITIONS)
    code = (
        "box = Box()\nbox.it = work()\nbox.begun = pause()\nbox.begun.send(None)\nbox.g = count()"
    )
    await session.execute(
        code + "\nawait Pause()\ninner = asyncio.create_task(work())", context=context
    )
    assert [it.kind for it in await session.ledger()] == ["task"]
    census = await session.census()
    assert (census["coroutine"], census["async generator"], census["task"]) == (2, 1, 1)
    assert made(await session.ledger()) >= {
        ("coroutine", "work", 2, "<demo cell 2>", 2, "created"),
        ("coroutine", "pause", 2, "<demo cell 2>", 3, "waiting"),
        ("async generator", "count", 1, "<demo cell 1>", 5, "waiting"),
    }
    assert await by_kind(session) == census == await session.census()
    await session.execute("box.it.close()\nbox.begun.close()\ndel box")
    gc.collect()
    assert [it.kind for it in await session.ledger()] == ["task"]


@requirement("5.1-ledger")
async def test_libraries_start_tasks_in_the_line_of_their_caller(
    make_session: Callable[..., AnySession], context: str
) -> None:
    session = make_session("demo")
    await session.execute(DEFINITIONS)
    code = "await Pause()\nmany = asyncio.gather(\n    work(), work())"
    await session.execute(code, context=context)
    await session.execute("group = await asyncio.TaskGroup().__aenter__()\nmine = begin()")
    await session.execute("await Pause()\ngroup.create_task(work())\nNone", context=context)
    places = [(it.cell, it.filename, it.line) for it in await session.ledger()]
    assert sorted(places) == [
        (2, "<demo cell 2>", 2),
        (2, "<demo cell 2>", 2),
        (3, "<demo cell 1>", 9),
        (4, "<demo cell 4>", 2),
    ]
    await session.execute("go.set()\nawait group.__aexit__(None, None, None)")


@requirement("5.1-ledger")
async def test_a_failed_task_stays_until_somebody_asks_for_its_error(
    session: AnySession, loop_watch: LoopWatch
) -> None:
    await session.execute("async def fail(): 1 / 0\nt = asyncio.create_task(fail())")
    await eventually((await session.get("t")).done)
    assert [(it.kind, it.state) for it in await session.ledger()] == [("task", "failed")]
    (await session.get("t")).exception()
    assert await session.ledger() == []
    await session.execute("t = asyncio.create_task(fail())")
    await eventually((await session.get("t")).done)
    await session.execute("del t")
    await eventually(lambda: loop_watch.complaints)
    assert await session.ledger() == []
    assert session.manager.ownership.counts["task"] == LedgerCount(2, 2, 2)


@requirement("5.1-weak")
async def test_what_has_ended_leaves_a_count_and_nothing_else(session: AnySession) -> None:
    code = (
        "async def work(): pass\nasync def count():\n    yield 1\n"
        "async def many(number):\n    for _ in range(number):\n"
        "        await asyncio.create_task(work())\n        async for _ in count(): pass\n"
    )
    await session.execute(code)
    for _ in range(4):
        await session.execute("await many(250)")
    ownership = session.manager.ownership
    assert ownership.counts["task"] == LedgerCount(1_000, 1_000, 0)
    assert ownership.counts["async generator"] == LedgerCount(1_000, 1_000, 0)
    assert await session.ledger() == [] and not ownership._made


@requirement("5.1-ledger")
async def test_code_of_the_host_makes_nothing_of_the_sessions(session: AnySession) -> None:
    async def count() -> object:
        yield 1

    await session.execute("1")
    task = asyncio.create_task(asyncio.sleep(0))
    async for _ in count():
        assert await session.ledger() == []
        assert set((await session.census()).values()) == {0}
    await task
