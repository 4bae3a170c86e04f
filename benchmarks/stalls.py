"""How long the host's event loop stands still while sync cells wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from benchmarks.measure import SHORT_ROUNDS, Case, Figure, interleaved
from isthmus import Session

WAITING = 20
"""Cells, or tasks in the floor, that wait at once."""

WAITS = 5
"""How often each of them waits, a millisecond at a time. So a round is short, and in most rounds no
gap is due to another process that has got the core."""

ALLOWED_US = 10_000.0

WAITING_CELL = f"for _ in range({WAITS}): pause()"


async def _pause() -> None:
    await asyncio.sleep(0.001)


async def _pause_often() -> None:
    for _ in range(WAITS):
        await _pause()


async def _longest_gap(work: Coroutine[Any, Any, Any]) -> float:
    """Seconds of the longest turn of the loop until *work* has ended."""
    longest, task = 0.0, asyncio.ensure_future(work)
    last = time.perf_counter()
    while not task.done():
        await asyncio.sleep(0)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    await task
    return longest


def _case(waiting: Any) -> Case:
    return lambda: _longest_gap(_all(waiting))


async def _all(waiting: Any) -> None:
    await asyncio.gather(*(waiting() for _ in range(WAITING)))


async def longest_stall(rounds: int) -> list[Figure]:
    """The longest gap between two turns of the loop, the median over the rounds."""
    session = Session("stalls", capabilities={"pause": _pause})
    try:
        samples = await interleaved(
            {
                "tasks": _case(_pause_often),
                "cells": _case(lambda: session.run(WAITING_CELL, context="sync", concurrent=True)),
            },
            SHORT_ROUNDS * rounds,
        )
    finally:
        await session.close()
    cells, tasks = samples.median("cells"), samples.median("tasks")
    name = f"longest stall of the loop, {WAITING} sync cells waiting"
    note = f"{cells / tasks:.2f} × as long as with tasks"
    return [Figure(name, cells, ALLOWED_US, "tasks that wait as often", note)]
