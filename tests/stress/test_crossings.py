"""100,000 crossings of all kinds at once, and then a count of what is left: nothing."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import types
from collections import Counter
from collections.abc import AsyncIterator

import greenlet
import pytest

from isthmus import Session
from isthmus.portal import POOLED_RUNNERS
from support import cell, wait_until

requirement = pytest.mark.requirement

THREADS, TASKS = 8, 100
BY_THREAD, BY_TASK = 2_500, 800
"""Crossings of each thread and of each task: 100,000 in all."""

CROSSINGS = cell("""
    import contextvars, threading

    var = contextvars.ContextVar("var", default=0)

    async def plain(x):
        return x

    async def suspends(x):
        await asyncio.sleep(0)
        return x

    async def fails(x):
        await asyncio.sleep(0)
        raise ValueError(x)

    async def nested(x):
        return (lambda: run_sync(suspends(sync_tool(x))))()

    async def cancelled(x):
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 0)
        except TimeoutError:
            return x

    async def by_task(x):
        return await asyncio.create_task(suspends(x))

    def failing(x):
        try:
            run_sync(fails(x))
        except ValueError as error:
            return error.args[0]

    def variable(x):
        async def setting():
            var.set(x)
        run_sync(setting())
        return var.get()

    def over_generator(x):
        return [it for it in counted(x)][-1]

    def with_manager(x):
        with lent(x) as it:
            return it

    KINDS = [
        lambda x: run_sync(plain(x)),
        lambda x: run_sync(suspends(x)),
        lambda x: run_sync(nested(x)),
        lambda x: run_sync(cancelled(x)),
        lambda x: run_sync(by_task(x)),
        lambda x: run_sync(both(x)),
        lambda x: async_tool(x),
        lambda x: sync_tool(x),
        failing,
        variable,
        over_generator,
        with_manager,
    ]

    async def both(x):
        return (await asyncio.gather(suspends(x), plain(x)))[1]

    def cross(seed, count):
        choose = Random(seed).choice
        for number in range(count):
            kind = choose(KINDS)
            got = kind(number)
            assert got == number, (kind, number, got)
        done.append(count)

    async def crossing_task(seed, count):
        for part in range(count // 100):
            cross(f"{seed}.{part}", 100)
            await asyncio.sleep(0)
    """)

FROM_TASKS = cell("""
    async with asyncio.TaskGroup() as group:
        for number in range(TASKS):
            group.create_task(crossing_task(f"{seed} task {number}", BY_TASK))
    """)

FROM_THREADS = cell("""
    threads = [
        threading.Thread(target=cross, args=(f"{seed} thread {number}", BY_THREAD))
        for number in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    """)


async def async_tool(x: int) -> int:
    """A capability that suspends."""
    await asyncio.sleep(0)
    return x


def sync_tool(x: int) -> int:
    """A capability that does not."""
    return x


async def counted(x: int) -> AsyncIterator[int]:
    """A capability to iterate over."""
    for number in (x - 1, x):
        await asyncio.sleep(0)
        yield number


class lent:
    """A capability to enter."""

    def __init__(self, x: int) -> None:
        self.x = x

    async def __aenter__(self) -> int:
        await asyncio.sleep(0)
        return self.x

    async def __aexit__(self, *error: object) -> None:
        await asyncio.sleep(0)


def _alive() -> Counter[str]:
    """What there is of each kind that a crossing makes."""
    gc.collect()
    found = gc.get_objects()
    return Counter(
        {
            "coroutines": sum(isinstance(it, types.CoroutineType) for it in found),
            "tasks": sum(isinstance(it, asyncio.Task) and not it.done() for it in found),
            "greenlets": sum(isinstance(it, greenlet.greenlet) for it in found),
            "threads": threading.active_count(),
        }
    )


@requirement("4-stress")
def test_a_hundred_thousand_crossings_leave_nothing_behind() -> None:
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")  # pytest shows it when the test fails
    done: list[int] = []

    async def cross() -> None:
        async with Session(
            capabilities={
                "async_tool": async_tool,
                "sync_tool": sync_tool,
                "counted": counted,
                "lent": lent,
            }
        ) as session:
            names = {"Random": random.Random, "seed": seed, "done": done}
            numbers = {"TASKS": TASKS, "THREADS": THREADS}
            by = {"BY_TASK": BY_TASK, "BY_THREAD": BY_THREAD}
            session.update_namespace({**names, **numbers, **by})
            await session.execute(CROSSINGS)
            threads = asyncio.create_task(session.run(FROM_THREADS, context="thread"))
            tasks = await session.run(FROM_TASKS, concurrent=True)
            tasks.unwrap()
            (await threads).unwrap()

    before = _alive()
    asyncio.run(cross())
    assert sum(done) == 100_000
    wait_until(lambda: threading.active_count() <= before["threads"])
    after = _alive()
    kept = POOLED_RUNNERS + 1  # for the next cells; and the thread's own, which greenlet makes once
    assert after["greenlets"] - before["greenlets"] <= kept
    for kind in ("coroutines", "tasks", "threads"):
        assert after[kind] <= before[kind], (kind, before, after)
