"""What it costs to have a worker: from a pool, forked, and started as a program.

What is measured is how long a user waits, in seconds of the clock: it is work of three processes,
which the host only waits for. All are on one core, as everywhere here.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Figure, Samples, interleaved
from benchmarks.pool_floors import cached_environment, fork_and_ask, start_interpreter
from isthmus import ForkServer, WorkerPool, WorkerSession

SOURCE = "x = 1"

IDLE = 10
"""Workers that wait while their memory is measured."""

OF_FORK, OF_INTERPRETER = 3.0, 1.5
"""Times the floor."""

ALLOWED_MB = 10.0

START_ROUNDS = 7
"""An interpreter's start takes as long as a hundred forks."""


async def pool(rounds: int) -> list[Figure]:
    """Checkout from a warm pool and return, a forked worker, and the memory of one that waits."""
    with ForkServer() as server:
        async with (
            WorkerPool(min_idle=1, fork_server=server) as workers,
            WorkerPool(min_idle=1, max_size=1, on_return="reset", fork_server=server) as kept,
        ):
            samples = await interleaved(
                {
                    "floor": _forked_floor,
                    "checkout": lambda: _checkout(workers),
                    "replaced": lambda: _cycle(workers),
                    "reset": lambda: _cycle(kept),
                    "forked": lambda: _first_result(WorkerSession(fork_server=server)),
                },
                rounds,
            )
        memory = await _memory(server)
    floor = "os.fork, ping-pong"
    return [
        _figure("warm pool: checkout to first result", "checkout", OF_FORK, samples, floor),
        _figure("pool: checkout, a cell, return with reset", "reset", OF_FORK, samples, floor),
        _figure("pool: the same with replacement", "replaced", None, samples, floor),
        _figure("forked worker: start to first result", "forked", None, samples, floor),
        Figure(
            f"idle worker of a pool, {IDLE} of them", memory, ALLOWED_MB,
            "proportional set size", "each", unit="MB",
        ),
    ]  # fmt: skip


async def cold_start(rounds: int) -> list[Figure]:
    """A worker that is started as a program, compiled modules being there."""
    with tempfile.TemporaryDirectory() as folder:
        env = cached_environment(folder)

        async def floor() -> float:
            return start_interpreter(env)

        async def cold() -> float:
            return await _first_result(WorkerSession(env=env))

        samples = await interleaved({"floor": floor, "cold": cold}, min(rounds, START_ROUNDS))
    name = "cold start to first result"
    return [_figure(name, "cold", OF_INTERPRETER, samples, "import asyncio, greenlet, msgspec")]


def _figure(name: str, case: str, times: float | None, samples: Samples, floor_name: str) -> Figure:
    measured, floor = samples.median(case) / 1e3, samples.median("floor") / 1e3
    note = f"{measured / floor:.2f} × ({floor:.1f} ms)"
    allowed = None if times is None else times * floor
    return Figure(name, measured, allowed, floor_name, note, unit="ms")


async def _forked_floor() -> float:
    return fork_and_ask(SOURCE)


async def _checkout(workers: WorkerPool) -> float:
    """Seconds from asking for a worker that waits to the result of its first cell."""
    await _warm(workers)
    return await _first_result(workers.session())


async def _cycle(workers: WorkerPool) -> float:
    """The same, until the worker has been given back."""
    await _warm(workers)
    start = time.perf_counter()
    await _first_result(workers.session())
    return time.perf_counter() - start


async def _warm(workers: WorkerPool) -> None:
    """Wait until a worker waits, and its process sleeps."""
    await _until(lambda: workers.stats().idle and not workers.stats().in_use)
    await asyncio.sleep(0.02)


async def _first_result(session: WorkerSession) -> float:
    start = time.perf_counter()
    async with session:
        await session.run(SOURCE)
        return time.perf_counter() - start


async def _memory(server: ForkServer) -> float:
    """Proportional set size of a worker that waits, in MB."""
    async with WorkerPool(min_idle=IDLE, max_size=IDLE, fork_server=server) as workers:
        await _until(lambda: workers.stats().idle == IDLE)
        return _mean_proportional_mb(server.pid)


async def _until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 (nobody but a benchmark waits for a pool to be full)
        await asyncio.sleep(0.001)


def _mean_proportional_mb(parent: int | None) -> float:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return sum(map(_proportional_kb, children)) / len(children) / 1024


def _proportional_kb(pid: str) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return float(line.split()[1])
    raise RuntimeError(f"no Pss in /proc/{pid}/smaps_rollup")
