"""Measuring. Owns rounds, medians and the table; knows nothing of what is measured.

Machines are shared and noisy, so a figure is never a time alone: every case is measured in the same
rounds as its floor, one after the other, and what is compared are medians over the rounds.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

SHORT_ROUNDS = 10
"""Rounds for each one that is asked for. A sample is short, so that most samples lie between two
moments at which the system gives the core to another process, and medians are not of those."""

Case = Callable[[], Awaitable[float]]
"""Measures once; gives seconds for one operation."""


@dataclass(slots=True)
class Figure:
    """One line of the table.

    Attributes:
        name: What is measured.
        measured: Its median, in microseconds unless *unit* says otherwise.
        allowed: At most this, in the same unit; None where no limit is set.
        floor: What it is compared with, in words.
        note: The same as a ratio, in words.
    """

    name: str
    measured: float
    allowed: float | None
    floor: str
    note: str
    unit: str = "µs"

    @property
    def reached(self) -> bool:
        """Whether it is within what is allowed."""
        return self.allowed is None or self.measured <= self.allowed


@dataclass(slots=True)
class Samples:
    """Seconds for one operation, by case."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """The median of one case, in microseconds."""
        return statistics.median(self.seconds[name]) * 1e6


def cpu_clock(child: int) -> Callable[[], float]:
    """A clock of what this process and its *child* spend.

    Where both share one core, and take turns, that is the time that passes, but for what other
    programs take of it. Elsewhere than on Linux it is the time that passes.
    """
    if sys.platform != "linux":
        return time.perf_counter
    clock = ~child << 3 | 2  # as clock_getcpuclockid(3) makes it
    return lambda: time.process_time() + time.clock_gettime(clock)


async def per_operation(
    operation: Callable[[], Awaitable[object]],
    count: int,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Seconds for one *operation*, awaited *count* times, on *clock*."""
    start = clock()
    for _ in range(count):
        await operation()
    return (clock() - start) / count


async def interleaved(cases: dict[str, Case], rounds: int) -> Samples:
    """Measure all *cases* in turn, round by round, beginning with another one each round."""
    samples = Samples({name: [] for name in cases})
    names = list(cases)
    for name in names:  # warm up: caches fill, threads start
        await cases[name]()
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            samples.seconds[name].append(await cases[name]())
    return samples


def table(figures: list[Figure]) -> str:
    """The figures as a Markdown table."""
    rows = ["| work | measured | allowed | floor | |", "| --- | ---: | ---: | --- | --- |"]
    for it in figures:
        mark = "" if it.reached else "**over**"
        allowed = "" if it.allowed is None else f"{it.allowed:.1f} {it.unit}"
        rows.append(
            f"| {it.name} | {it.measured:.1f} {it.unit} | {allowed} | {it.floor} "
            f"| {it.note} {mark} |"
        )
    return "\n".join(rows)
