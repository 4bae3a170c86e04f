"""The benchmarks' own arithmetic; what they measure is no matter for tests."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.floors import (
    LoopThread,
    compile_cell,
    run_compiled,
    step_coroutine,
    switch_pairs,
    threadsafe_calls,
    trip,
)
from benchmarks.measure import Figure, interleaved, per_operation, table


def test_every_case_is_measured_in_every_round_and_begins_a_round_in_turn() -> None:
    order: list[str] = []

    def case(name: str, seconds: float):
        async def measure() -> float:
            order.append(name)
            return seconds

        return measure

    samples = asyncio.run(interleaved({"a": case("a", 1e-6), "b": case("b", 3e-6)}, rounds=2))
    assert order == ["a", "b", "a", "b", "b", "a"]
    assert samples.median("a") == 1.0 and samples.median("b") == 3.0


def test_a_figure_over_its_limit_is_marked() -> None:
    reached = Figure("work", 1.0, 2.0, "floor", "note")
    missed = Figure("slow work", 3.0, 2.0, "floor", "note")
    assert reached.reached and not missed.reached
    assert table([reached, missed]).count("**over**") == 1


def test_a_figure_without_a_limit_is_never_over_it() -> None:
    figure = Figure("work", 1.0, None, "floor", "note")
    assert figure.reached and "| 1.0 µs |  | floor |" in table([figure])


def test_the_floors_do_the_work_they_stand_for() -> None:
    names: dict[str, object] = {}
    assert run_compiled(*compile_cell("x = 1\nx + 1"), names) == 2 and names["x"] == 1
    assert asyncio.run(per_operation(trip, 2)) > 0


def test_the_floors_of_crossings_cross() -> None:
    tasks = []

    async def note() -> None:
        tasks.append(asyncio.current_task())

    async def one() -> int:
        return 1

    with LoopThread() as thread:
        assert threadsafe_calls(note, thread.loop, 2) > 0
    assert len(set(tasks)) == 2 and None not in tasks
    assert switch_pairs(2) > 0
    assert step_coroutine(one()) == 1
