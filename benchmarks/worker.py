"""What a cell costs in a process of its own.

The floors are processes that only do what has to be done; see :mod:`benchmarks.worker_floors`. What
is measured is what both processes spend, on one core.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from benchmarks.floor_child import LINE
from benchmarks.jupyter import Kernel, is_installed
from benchmarks.measure import Case, Figure, Samples, cpu_clock, interleaved, per_operation
from benchmarks.worker_floors import Lines, Loops, PingPong
from isthmus import Event, Output, WorkerSession

COUNT = 40
"""Cells one after another."""

BURST = 100
"""Cells at once."""

CALLS = 40
"""Of a capability, one after another in one cell."""

LINES = 100_000
LINE_ROUNDS = 7
"""Of so many lines each."""

KERNEL_ROUNDS = 5

ALLOWED = 2.5
"""Times the floor."""

OF_KERNEL = 0.1
"""At most this part of what ipykernel takes."""

SOURCE = "x = 1"

FUNCTIONS = """
async def awaited_calls(count):
    for _ in range(count):
        await nothing()

def plain_calls(count):
    for _ in range(count):
        nothing()
"""

PRINTING = f"for _ in range({LINES}): print(line)"

WORDS = {"floor": "ping-pong, compile, exec", "floors": "the same, sent at once"}

CONTEXTS = ("async", "sync", "thread")


Operation = Callable[[], Awaitable[object]]


async def nothing() -> None:
    """Do not suspend."""


class Counter:
    """A transport that counts what has come."""

    def __init__(self) -> None:
        self.characters = 0

    def send(self, event: Event) -> None:
        """Count *event*."""
        if isinstance(event, Output):
            self.characters += len(event.text)


async def worker(rounds: int) -> list[Figure]:
    """Cells, calls of capabilities and output."""
    return [*await _cells(rounds), *await _output(min(rounds, LINE_ROUNDS))]


def _blocking(measure: Callable[[], float]) -> Case:
    async def measured() -> float:
        return measure()

    return measured


async def _cells(rounds: int) -> list[Figure]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(WorkerSession(capabilities=[nothing]))
        floor = stack.enter_context(PingPong())
        loops = stack.enter_context(Loops())
        await session.execute(FUNCTIONS)
        cases = {
            "floor": _blocking(lambda: floor.one_by_one(SOURCE, COUNT)),
            "floors": _blocking(lambda: floor.at_once(SOURCE, BURST)),
            "loops": lambda: loops.one_by_one(SOURCE, COUNT),
            "cells": _burst(session),
        }
        for context in CONTEXTS:
            cases[context] = _one_by_one(session, context)
            cases[f"{context} call"] = _calls(session, context)
        samples = await interleaved(cases, rounds)
        return _cell_figures(samples) + _kernel_figures(samples, min(rounds, KERNEL_ROUNDS))


def _one_by_one(session: WorkerSession, context: str) -> Case:
    return _timed(session, lambda: session.run(SOURCE, context=context), COUNT)  # type: ignore[arg-type]


def _timed(session: WorkerSession, operation: Operation, count: int = 1) -> Case:
    return lambda: per_operation(operation, count, cpu_clock(session.pid or 0))


def _burst(session: WorkerSession) -> Case:
    async def at_once() -> None:
        await asyncio.gather(*(session.run(SOURCE) for _ in range(BURST)))

    return _each(_timed(session, at_once), BURST)


def _calls(session: WorkerSession, context: str) -> Case:
    call = f"await awaited_calls({CALLS})" if context == "async" else f"plain_calls({CALLS})"
    return _each(_timed(session, lambda: session.execute(call, context=context)), CALLS)


def _each(case: Case, count: int) -> Case:
    """The part of one of *count*."""

    async def measure() -> float:
        return await case() / count

    return measure


def _cell_figures(samples: Samples) -> list[Figure]:
    def figure(work: str, case: str, floor: str = "floor", allowed: float | None = None) -> Figure:
        measured, least = samples.median(case), samples.median(floor)
        limit = None if allowed is None else allowed * least
        return Figure(work, measured, limit, WORDS[floor], f"{measured / least:.2f} × floor")

    return [
        figure("cell `x = 1` in a worker", "async", allowed=ALLOWED),
        figure(f"{BURST} of them at once, each", "cells", "floors", ALLOWED),
        figure("capability awaited in an async cell", "async call", allowed=ALLOWED),
        figure("ping-pong, compile, exec between two event loops", "loops"),
        *(
            figure(f"{kind} in a {context} cell", case)
            for context in CONTEXTS[1:]
            for kind, case in (("`x = 1`", context), ("capability", f"{context} call"))
        ),
    ]


def _kernel_figures(samples: Samples, rounds: int) -> list[Figure]:
    measured, work = samples.median("async"), "cell `x = 1` in a worker"
    if not is_installed():
        return [Figure(work, measured, None, "ipykernel", "not installed")]
    with Kernel() as kernel:
        seconds = [kernel.one_by_one(SOURCE, COUNT) for _ in range(rounds + 1)][1:]
    theirs = Samples({"kernel": seconds}).median("kernel")
    note = f"{measured / theirs:.3f} × {theirs:.0f} µs"
    return [Figure(work, measured, OF_KERNEL * theirs, "ipykernel, jupyter_client", note)]


async def _output(rounds: int) -> list[Figure]:
    counter = Counter()
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(WorkerSession(transport=counter))
        floor = stack.enter_context(Lines(LINES))
        await session.set("line", LINE.decode().strip())
        cases: dict[str, Case] = {"pipe": _blocking(floor.read)}
        for context in CONTEXTS[1:]:
            cases[context] = _printed(session, counter, context)
        samples = await interleaved(cases, rounds)
    size = LINES * len(LINE) // 1_000_000
    return [
        Figure(
            f"{LINES:,} lines ({size} MB) printed in a {context} cell",
            samples.median(context) / 1000,
            allowed * samples.median("pipe") / 1000 if allowed else None,
            "a pipe, one write for each line",
            f"{samples.median(context) / samples.median('pipe'):.2f} × floor",
            "ms",
        )
        for context, allowed in (("sync", 1.0), ("thread", None))
    ]


def _printed(session: WorkerSession, counter: Counter, context: str) -> Case:
    async def measure() -> float:
        counter.characters, clock = 0, cpu_clock(session.pid or 0)
        start = clock()
        result = await session.run(PRINTING, context=context)  # type: ignore[arg-type]
        seconds = clock() - start
        assert counter.characters == len(result.stdout) == LINES * len(LINE)
        return seconds

    return measure
