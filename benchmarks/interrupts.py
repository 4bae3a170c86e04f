"""How long it takes from an interrupt to the cell's outcome. Figures are bounds, not ratios: what
they are compared with is a promise, most of which is waiting.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time

from benchmarks.measure import Figure
from isthmus import Session

TIMEOUT_SECONDS = 0.05

SETTLE_SECONDS = 0.02
"""How long code goes on before it is interrupted, so that it is really there."""

LOOP = "import time\nat()\nx = 0\nwhile True: x += 1"
SLEEP = "import time\nat()\ntime.sleep(60)"

CASES = (
    ("an idle `await`", "at()\nawait asyncio.sleep(60)", "async", 5.0),
    ("a Python loop on the loop's thread", LOOP, "async", 20.0),
    ("`time.sleep(60)` on a loop in the main thread", SLEEP, "async", 20.0),
    ("a Python loop in a thread", LOOP, "thread", 20.0),
    ("a capability awaited from a thread", "at()\nidle()", "thread", 5.0),
)
"""What is interrupted, its code, where it runs, and the milliseconds that it may take."""


async def _idle() -> None:
    await asyncio.sleep(60)


async def _interrupted(code: str, context: str) -> float:
    """Seconds from the interrupt, by another thread, to the cell's result."""
    begun, moments = threading.Event(), []
    async with Session("interrupted") as session:
        session.inject_capability("idle", _idle)
        session.inject_capability("at", begun.set)

        def interrupt() -> None:
            begun.wait()
            time.sleep(SETTLE_SECONDS)
            moments.append(time.perf_counter())
            session.interrupt()

        thread = threading.Thread(target=interrupt)
        thread.start()
        result = await session.run(code, context=context)
        ended = time.perf_counter()
        thread.join()
    assert result.status in ("interrupted", "cancelled"), result
    return ended - moments[0]


async def _given_up() -> float:
    """Seconds from its deadline until a cell that sleeps in a thread is reported as running."""
    go = threading.Event()
    async with Session("given up") as session:
        session.update_namespace({"go": go})
        start = time.perf_counter()
        result = await session.run("go.wait(60)", context="thread", timeout=TIMEOUT_SECONDS)
        seconds = time.perf_counter() - start - TIMEOUT_SECONDS
        assert not result.stopped, result
        go.set()
    return seconds


async def interrupts(rounds: int) -> list[Figure]:
    """From an interrupt to the outcome, for each kind of code."""
    figures = []
    for name, code, context, allowed in CASES:
        samples = [await _interrupted(code, context) for _ in range(rounds)]
        figures.append(_figure(f"interrupt of {name}", samples, allowed, "the interrupt"))
    late = [await _given_up() for _ in range(rounds)]
    name = "a wait in C in a thread, reported as still running"
    return [*figures, _figure(name, late, 50.0, "its deadline")]


def _figure(work: str, samples: list[float], allowed: float, since: str) -> Figure:
    milliseconds = statistics.median(samples) * 1e3
    worst = f"at most {max(samples) * 1e3:.1f} ms"
    return Figure(work, milliseconds, allowed, since, worst, unit="ms")
