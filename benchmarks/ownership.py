"""What it costs that a session knows what its code has made, and whether anything of it stays."""

from __future__ import annotations

import gc
import statistics
import time

from benchmarks.measure import Case, Figure, interleaved, per_operation
from benchmarks.memory import resident_kb
from isthmus import Session

CELLS = 400
ALLOWED_MICROSECONDS = 5.0

SESSIONS = 5_000
FIRST = 500
"""The process's caches and free lists fill with the first ones."""

STEP = 250
"""Sessions between two looks at the memory."""

ALLOWED_BYTES = 100.0

TASKS = 1_000_000
FIRST_TASKS = 100_000

LEAVES = (
    (
        "async def wait(): await asyncio.sleep(600)\n"
        "async def numbers():\n    yield 1\n    yield 2\n"
        "task = asyncio.create_task(wait())\ncoroutine = wait()",
        "async",
    ),
    ("generator = numbers()\nawait anext(generator)", "sync"),
    (
        "import threading\nthread = threading.Thread(target=lambda: run_sync(wait()))\n"
        "thread.start()",
        "thread",
    ),
)
"""Three cells that leave a task, a coroutine, an async generator and a thread."""


def _cells(*, hooks: bool) -> Case:
    async def measure() -> float:
        async with Session("cells", hooks=hooks) as session:
            return await per_operation(lambda: session.run("x = 1"), CELLS, time.thread_time)

    return measure


async def trivial_cells(rounds: int) -> list[Figure]:
    """A cell that makes nothing and prints nothing, with the ledger and the routing of output."""
    samples = await interleaved(
        {"off": _cells(hooks=False), "on": _cells(hooks=True)},
        rounds,
    )
    on, off = samples.median("on"), samples.median("off")
    return [
        Figure(
            "cell `x = 1`, ledger and output routing on",
            on,
            off + ALLOWED_MICROSECONDS,
            "both off",
            f"floor + {on - off:.1f} µs",
        )
    ]


async def _use_and_close() -> None:
    async with Session("left") as session:
        for code, context in LEAVES:
            (await session.run(code, context=context)).unwrap()
        report = await session.close()
        assert report.clean, report


async def open_and_close(_rounds: int) -> list[Figure]:
    """Sessions that leave something of each kind; the slope of the memory, measured once."""
    looks: list[tuple[int, float]] = []
    for number in range(1, SESSIONS + 1):
        await _use_and_close()
        if number >= FIRST and number % STEP == 0:
            gc.collect()
            looks.append((number, resident_kb() * 1024))
    slope = statistics.linear_regression(*zip(*looks, strict=True)).slope
    name = f"a session opened, used and closed, {SESSIONS:,} times"
    note = f"after the first {FIRST}, each"
    return [Figure(name, slope, ALLOWED_BYTES, "resident memory", note, unit="bytes")]


async def many_tasks(_rounds: int) -> list[Figure]:
    """A million tasks of one session; what stays of them, measured once."""
    async with Session("tasks") as session:
        await session.execute(
            "async def nothing(): pass\n"
            "async def make(count):\n"
            "    for _ in range(count): await asyncio.create_task(nothing())"
        )
        await session.execute(f"await make({FIRST_TASKS})")
        gc.collect()
        before = resident_kb()
        await session.execute(f"await make({TASKS - FIRST_TASKS})")
        gc.collect()
        grown = resident_kb() - before
        assert session.ledger() == []
    name = f"{TASKS:,} tasks of one session"
    note = f"after the first {FIRST_TASKS:,}, all together"
    return [Figure(name, grown, 1024.0, "resident memory", note, unit="kB")]
