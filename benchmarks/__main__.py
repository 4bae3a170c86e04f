"""``python -m benchmarks``: measure everything and print one table."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys

from benchmarks.cells import cells, namespace_size
from benchmarks.measure import Figure, table
from benchmarks.memory import idle_session


async def measure(rounds: int) -> list[Figure]:
    """All figures, memory first: later cases leave memory that the allocator keeps."""
    return [*await idle_session(), *await cells(rounds), *await namespace_size(rounds)]


def use_one_core() -> None:
    """Stay on one core, where the system lets a process choose: two share caches as luck has it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main() -> int:
    """Print the table. With ``--check`` the status is 1 when a figure is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a figure is missed")
    parser.add_argument("--rounds", type=int, default=21, help="rounds to take medians over")
    options = parser.parse_args()
    use_one_core()
    figures = asyncio.run(measure(options.rounds))
    print(f"CPython {platform.python_version()}, {platform.system()} {platform.machine()}\n")
    print(table(figures))
    missed = [figure.name for figure in figures if not figure.reached]
    if missed:
        print(f"\nover: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
