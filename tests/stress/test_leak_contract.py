"""The leak contract: of a session that was closed nothing is left, whatever its cells have made."""

from __future__ import annotations

import asyncio
import gc
import json
import linecache
import os
import statistics
import sys
import threading
import tracemalloc
import weakref
from types import AsyncGeneratorType, CoroutineType

import pytest

from isthmus import Session
from support import cell, eventually, run_in_child

requirement = pytest.mark.requirement

SESSIONS = 40
WARM_UP = 50
BATCHES = 8
"""Caches and free lists of the process fill in steps, with the first sessions and later ones. What
a session leaves behind shows in every batch: so one batch without growth is enough."""

BYTES = 100
"""What one session may leave behind, in bytes: less than its smallest object weighs."""

MANY_SESSIONS = 5_000
MANY_STEP = 500
"""Between two looks; the process settles during the first step."""

_COROUTINES = (CoroutineType, AsyncGeneratorType)

LEAVES = (
    cell(
        """
        class Planted: pass
        planted = Planted()
        planted.itself = planted
        gate = asyncio.Event()
        async def wait(): await gate.wait()
        async def numbers():
            yield 1
            yield 2
        task = asyncio.create_task(wait())
        generator = numbers()
        await anext(generator)
        """
    ),
    "coroutine = wait()\nheld = [wait()]\nplanted",
    "import threading\nthread = threading.Thread(target=lambda: run_sync(wait()))\nthread.start()",
)


async def use_and_close(*, count: bool = True) -> weakref.ref[object]:
    """Have one session leave a task, coroutines, an async generator and a thread, and close it.

    Arguments:
        count: compare its ledger with a sweep of the whole heap, which takes longer than the rest.
    """
    async with Session("leak") as session:
        for source, context in zip(LEAVES, ("async", "sync", "thread"), strict=True):
            result = await session.run(source, context=context)
            assert result.error is None, result
        planted = weakref.ref(session.namespace["planted"])
        if count:
            assert {it.kind for it in session.ledger()} == set(session.census())
        report = await session.close()
        assert report.clean, report
    return planted


def left_in_the_process() -> dict[str, int]:
    """How much there is of what a session could leave behind."""
    return {
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "sources": len(linecache.cache),
        "modules": len(sys.modules),
    }


async def use_and_close_many(sessions: int, *, count: bool = True) -> None:
    """Do so one after the other; what was planted in each is dead in the end."""
    planted = [await use_and_close(count=count) for _ in range(sessions)]
    await eventually(lambda: _all_gone(planted), lambda: "the end of all that the sessions held")


async def traced_bytes(sessions: int) -> int:
    """What Python has allocated once *sessions* more have been used and closed."""
    await use_and_close_many(sessions)
    return tracemalloc.get_traced_memory()[0]


async def check_batches() -> None:
    """Use and close sessions until those of one batch have left nothing."""
    tracemalloc.start()
    sizes = [await traced_bytes(WARM_UP)]
    before, grown = left_in_the_process(), []
    while len(grown) < BATCHES and min(grown, default=BYTES) >= BYTES:
        sizes.append(await traced_bytes(SESSIONS))
        grown.append((sizes[-1] - sizes[-2]) / SESSIONS)
    assert min(grown) < BYTES, grown
    await eventually(lambda: left_in_the_process() == before, lambda: f"{before} again")


def in_a_small_heap(work: str) -> str:
    """What *work*, a coroutine function of this module, prints in a process of its own.

    The heap that is swept for each session has none of the tests' objects there.
    """
    program = f"import asyncio, test_leak_contract as it; asyncio.run(it.{work}())"
    ended = run_in_child(program, seconds=360)
    assert ended.status == 0, ended
    return ended.stdout


@requirement("5.5-leaks")
@pytest.mark.timeout(400)
def test_sessions_that_are_opened_used_and_closed_leave_nothing_behind() -> None:
    in_a_small_heap("check_batches")


async def show_many_sessions() -> None:
    """Print, after each step, how many blocks of memory Python holds, and what there is beside."""
    for _ in range(MANY_SESSIONS // MANY_STEP):
        await use_and_close_many(MANY_STEP, count=False)
        coroutines = sum(isinstance(it, _COROUTINES) for it in gc.get_objects())
        print(json.dumps([sys.getallocatedblocks(), coroutines, left_in_the_process()]), flush=True)


@requirement("5.5-leaks")
@pytest.mark.timeout(400)
def test_five_thousand_sessions_leave_no_objects_behind() -> None:
    shown = in_a_small_heap("show_many_sessions").splitlines()
    blocks, coroutines, left = zip(*map(json.loads, shown), strict=True)
    assert set(coroutines) == {1}, coroutines  # that which counts
    assert left == left[:1] * (MANY_SESSIONS // MANY_STEP)
    slope = statistics.linear_regression(range(len(blocks)), blocks).slope / MANY_STEP
    assert slope < 1, blocks  # one object that stays of each session would be a block or more


def _all_gone(planted: list[weakref.ref[object]]) -> bool:
    """A thread holds its last objects until the system has ended it."""
    gc.collect()
    return not any(it() for it in planted)
