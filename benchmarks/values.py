"""What it costs to get a large value from a worker.

The floor is a file that is nothing but memory, filled, passed over a socket and mapped; for
``bytes`` also copied out once, as they must own their memory. What is measured is what both
processes spend, on one core.
"""

from __future__ import annotations

import importlib.util
import mmap
import os
import socket

from benchmarks import memory_child
from benchmarks.measure import Case, Figure, cpu_clock, interleaved
from benchmarks.worker_floors import SocketChild
from isthmus import WorkerSession

BYTES = 100_000_000
"""Of a ``bytes``."""

ARRAY_BYTES = 1_000_000_000
"""Of an array."""

ALLOWED = 1.3
"""Times the floor."""

ROUNDS = 9
"""At most: of a gigabyte each."""


class MemoryFloor(SocketChild):
    """A child that fills and passes memory.

    Arguments:
        size: Bytes.

    Attributes:
        size: The same.
    """

    def __init__(self, size: int) -> None:
        super().__init__(memory_child.__file__, str(size))
        self.size = size

    async def mapped(self) -> float:
        """Seconds until the memory is mapped."""
        return self._measured(copied=False)

    async def copied(self) -> float:
        """Seconds until it is copied."""
        return self._measured(copied=True)

    def _measured(self, *, copied: bool) -> float:
        start = self._clock()
        self._connection.send(b"m")
        _, (descriptor,), _, _ = socket.recv_fds(self._connection, 1, 1)
        value = mmap.mmap(descriptor, self.size, mmap.MAP_PRIVATE, mmap.PROT_READ)
        os.close(descriptor)
        assert len(bytes(memoryview(value)) if copied else value) == self.size
        return self._clock() - start


def _get(session: WorkerSession, size: int) -> Case:
    async def measure() -> float:
        clock = cpu_clock(session.pid or 0)
        start = clock()
        value = await session.get("value")
        seconds = clock() - start
        assert memoryview(value).nbytes == size
        return seconds

    return measure


async def values(rounds: int) -> list[Figure]:
    """``bytes``, and an array where numpy is installed."""
    figures = [await _bytes(rounds)]
    if importlib.util.find_spec("numpy") is not None:
        figures.append(await _array(min(rounds, ROUNDS)))
    return figures


async def _bytes(rounds: int) -> Figure:
    source, words = f"value = b'x' * {BYTES}", "memory filled, passed, mapped, copied out"
    floor = MemoryFloor(BYTES)
    return await _got("`bytes` of 100 MB", source, floor, floor.copied, words=words, rounds=rounds)


async def _array(rounds: int) -> Figure:
    source = f"import numpy; value = numpy.ones({ARRAY_BYTES}, 'b')"
    floor, words = MemoryFloor(ARRAY_BYTES), "memory filled, passed, mapped"
    return await _got(
        "array of numpy of 1 GB", source, floor, floor.mapped, words=words, rounds=rounds
    )


async def _got(
    what: str, source: str, floor: MemoryFloor, by_floor: Case, *, words: str, rounds: int
) -> Figure:
    """What it costs to get from a worker what *source* makes there, beside *by_floor*."""
    async with WorkerSession() as session:
        await session.execute(source)
        with floor:
            cases = {"floor": by_floor, "get": _get(session, floor.size)}
            samples = await interleaved(cases, rounds)
    work = f"{what}, host ← worker"
    return _figure(work, samples.median("get"), samples.median("floor"), words)


def _figure(work: str, measured: float, floor: float, words: str) -> Figure:
    note = f"{measured / floor:.2f} × floor"
    return Figure(work, measured / 1000, ALLOWED * floor / 1000, words, note, unit="ms")
