"""What a cell costs in each context."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

from benchmarks.floors import WaitingThread, compile_cell, run_compiled, trip
from benchmarks.measure import SHORT_ROUNDS, Case, Figure, Samples, interleaved, per_operation
from isthmus import AsyncExecutor, AsyncNamespaceManager

COUNT = 40
BURST = 100
NAMES = 1_000_000
NAMES_TO_COPY = 100_000

Operation = Callable[[], Awaitable[object]]


def _case(operation: Operation, count: int = COUNT) -> Case:
    return lambda: per_operation(operation, count)


async def _in_burst(operation: Operation) -> None:
    await asyncio.gather(*(operation() for _ in range(BURST)))


def _burst_case(operation: Operation) -> Case:
    async def measure() -> float:
        return await per_operation(lambda: _in_burst(operation), 1) / BURST

    return measure


class _New:
    """Gives text that was never seen before."""

    def __init__(self) -> None:
        self._count = itertools.count()

    def text(self) -> str:
        return f"x = {next(self._count)}"


async def cells(rounds: int) -> list[Figure]:
    """Cells of each kind against their floors."""
    manager = AsyncNamespaceManager("benchmark")
    executor = AsyncExecutor(manager)
    try:
        samples = await _cell_samples(executor, rounds)
    finally:
        manager.close()
    return _cell_figures(samples)


async def _cell_samples(executor: AsyncExecutor, rounds: int) -> Samples:
    names: dict[str, object] = {"fut": asyncio.get_running_loop().create_future()}
    names["fut"].set_result(1)  # type: ignore[attr-defined]
    executor.namespace.update_namespace(names)
    assignment, _ = compile_cell("x = 1")
    _, awaiting = compile_cell("await fut")
    assert assignment is not None and awaiting is not None
    code, awaiting_code, new = assignment, awaiting, _New()

    async def exec_only() -> None:
        exec(code, names)

    async def compile_and_exec() -> None:
        run_compiled(*compile_cell(new.text()), names)

    async def eval_and_await() -> None:
        await eval(awaiting_code, names)

    with WaitingThread(code, names) as thread:
        return await interleaved(
            {
                "trip": _case(trip),
                "exec": _case(exec_only),
                "compile": _case(compile_and_exec),
                "await": _case(eval_and_await),
                "hop": _case(thread.run),
                "hops": _burst_case(thread.run),
                "async cell": _case(lambda: executor.execute("x = 1")),
                "new cell": _case(lambda: executor.execute(new.text())),
                "await cell": _case(lambda: executor.execute("await fut")),
                "sync cell": _case(lambda: executor.execute_sync_in_async("x = 1")),
                "thread cell": _case(lambda: executor.execute_in_thread("x = 1")),
                "thread cells": _burst_case(lambda: executor.execute_in_thread("x = 1")),
            },
            SHORT_ROUNDS * rounds,
        )


def _cell_figures(samples: Samples) -> list[Figure]:
    us = samples.median
    trips = us("trip")

    def by_trips(work: str, case: str, floor: str, words: str, allowed: float) -> Figure:
        over = (us(case) - us(floor)) / trips
        return Figure(
            work, us(case), us(floor) + allowed * trips, words, f"floor + {over:.2f} trips"
        )

    def by_ratio(work: str, case: str, floor: str, words: str, allowed: float) -> Figure:
        return Figure(
            work, us(case), allowed * us(floor), words, f"{us(case) / us(floor):.2f} × floor"
        )

    exec_words, thread_words = "exec of the compiled code", "a waiting thread and its answer"
    return [
        by_trips("async cell `x = 1`, repeated", "async cell", "exec", exec_words, 2),
        by_trips("the same, new text each time", "new cell", "compile", "compile and exec", 2.5),
        by_trips("`await` of a finished future", "await cell", "await", "await eval", 2.5),
        by_trips("sync cell `x = 1`, repeated", "sync cell", "exec", exec_words, 2),
        by_ratio("thread cell `x = 1`, repeated", "thread cell", "hop", thread_words, 1.4),
        by_ratio("100 thread cells at once, each", "thread cells", "hops", thread_words, 2),
    ]


async def namespace_size(rounds: int) -> list[Figure]:
    """The same cells with few names and with very many."""
    small, large = AsyncNamespaceManager("small"), AsyncNamespaceManager("large")
    large.namespace.update({f"name_{number}": number for number in range(NAMES)})
    try:
        return await _size_figures(AsyncExecutor(small), AsyncExecutor(large), rounds)
    finally:
        small.close()
        large.close()


async def _size_figures(small: AsyncExecutor, large: AsyncExecutor, rounds: int) -> list[Figure]:
    cases: dict[str, Case] = {}
    new = _New()
    for size, executor in (("small", small), ("large", large)):
        cases[f"{size} async"] = _case(lambda it=executor: it.execute("x = 1"))  # type: ignore[misc]
        cases[f"{size} new"] = _case(lambda it=executor: it.execute(new.text()))  # type: ignore[misc]
        cases[f"{size} sync"] = _case(lambda it=executor: it.execute_sync_in_async("x = 1"))  # type: ignore[misc]
        cases[f"{size} thread"] = _case(lambda it=executor: it.execute_in_thread("x = 1"))  # type: ignore[misc]
    samples = await interleaved(cases, SHORT_ROUNDS * rounds)
    figures = []
    for kind in ("async", "new", "sync", "thread"):
        one, other = samples.median(f"large {kind}"), samples.median(f"small {kind}")
        figures.append(
            Figure(
                f"{kind} cell with {NAMES:,} names",
                one,
                1.1 * other,
                "the same with few names",
                f"{one / other:.2f} × floor",
            )
        )
    return figures


async def atomic_cells(rounds: int) -> list[Figure]:
    """Atomic cells, against a copy of the namespace and the same cells without one."""
    manager = AsyncNamespaceManager("atomic")
    manager.namespace.update({f"name_{number}": number for number in range(NAMES_TO_COPY)})
    try:
        samples = await _atomic_samples(AsyncExecutor(manager), rounds)
    finally:
        manager.close()
    return _atomic_figures(samples)


async def _atomic_samples(executor: AsyncExecutor, rounds: int) -> Samples:
    namespace, fails = executor.namespace.namespace, "x = 1; missing"

    async def copy() -> None:
        dict(namespace)

    async def compare() -> None:
        other = namespace.copy()
        [name for name, value in other.items() if value is not namespace[name]]

    return await interleaved(
        {
            "copy": _case(copy, 20),
            "compare": _case(compare, 5),
            "plain": _case(lambda: executor.run("x = 1"), 100),
            "atomic": _case(lambda: executor.run("x = 1", atomic=True), 20),
            "failing": _case(lambda: executor.run(fails), 100),
            "rolled back": _case(lambda: executor.run(fails, atomic=True), 5),
        },
        rounds,
    )


def _atomic_figures(samples: Samples) -> list[Figure]:
    us = samples.median
    figures = []
    for kind, atomic, plain, floor, words, allowed in (
        ("atomic cell", "atomic", "plain", "copy", "one `dict(namespace)`", 1.5),
        ("the same, failing", "rolled back", "failing", "compare", "a look at each name", 2.5),
    ):
        over = (us(atomic) - us(plain)) / us(floor)
        name = f"{kind}, {NAMES_TO_COPY:,} names"
        limit = us(plain) + allowed * us(floor)
        figures.append(Figure(name, us(atomic), limit, words, f"a cell + {over:.2f} × floor"))
    return figures
