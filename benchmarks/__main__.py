"""``python -m benchmarks``: measure everything, or one group, and print one table."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
from collections.abc import Awaitable, Callable

from benchmarks.cells import atomic_cells, cells, namespace_size
from benchmarks.crossing import crossing
from benchmarks.interrupts import interrupts
from benchmarks.measure import Figure, table
from benchmarks.memory import idle_session
from benchmarks.output import output
from benchmarks.ownership import many_tasks, open_and_close, trivial_cells
from benchmarks.pool import cold_start, pool
from benchmarks.stalls import longest_stall
from benchmarks.values import values
from benchmarks.worker import worker

GROUPS: dict[str, tuple[Callable[[int], Awaitable[list[Figure]]], ...]] = {
    "memory": (idle_session,),
    "cells": (cells, namespace_size, atomic_cells),
    "crossing": (crossing, longest_stall),
    "output": (output,),
    "interrupts": (interrupts,),
    "ownership": (trivial_cells, many_tasks, open_and_close),
    "values": (values,),
    "pool": (pool, cold_start),
    "worker": (worker,),
}
"""Memory first: later cases leave memory that the allocator keeps."""


async def measure(rounds: int, groups: list[str]) -> list[Figure]:
    """All figures of *groups*, in their order."""
    chosen = [group for name, group in GROUPS.items() if name in groups]
    return [figure for group in chosen for measured in group for figure in await measured(rounds)]


def use_one_core() -> None:
    """Stay on one core, where the system lets a process choose: two share caches as luck has it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main() -> int:
    """Print the table. With ``--check`` the status is 1 when a figure is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a figure is missed")
    parser.add_argument("--rounds", type=int, default=21, help="rounds to take medians over")
    parser.add_argument("--only", choices=GROUPS, action="append", help="measure this group alone")
    options = parser.parse_args()
    use_one_core()
    figures = asyncio.run(measure(options.rounds, options.only or list(GROUPS)))
    print(f"CPython {platform.python_version()}, {platform.system()} {platform.machine()}\n")
    print(table(figures))
    missed = [figure.name for figure in figures if not figure.reached]
    if missed:
        print(f"\nover: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
