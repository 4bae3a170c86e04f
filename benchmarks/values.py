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
import subprocess
import sys
from types import TracebackType

from benchmarks import memory_child
from benchmarks.measure import Case, Figure, cpu_clock, interleaved
from isthmus import WorkerSession

BYTES = 100_000_000
"""Of a ``bytes``."""

ARRAY_BYTES = 1_000_000_000
"""Of an array."""

ALLOWED = 1.3
"""Times the floor."""

ROUNDS = 9
"""At most: of a gigabyte each."""


class MemoryFloor:
    """A child that fills and passes memory.

    Arguments:
        size: Bytes.
    """

    def __init__(self, size: int) -> None:
        self._size = size

    def __enter__(self) -> MemoryFloor:
        """Start it."""
        self._connection, theirs = socket.socketpair()
        number = theirs.fileno()
        command = [sys.executable, memory_child.__file__, str(number), str(self._size)]
        self._child = subprocess.Popen(command, pass_fds=[number])
        self._clock = cpu_clock(self._child.pid)
        theirs.close()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """End it."""
        self._connection.close()
        self._child.wait()

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
        value = mmap.mmap(descriptor, self._size, mmap.MAP_PRIVATE, mmap.PROT_READ)
        os.close(descriptor)
        assert len(bytes(memoryview(value)) if copied else value) == self._size
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
    async with WorkerSession() as session:
        await session.execute(f"value = b'x' * {BYTES}")
        with MemoryFloor(BYTES) as floor:
            cases = {"floor": floor.copied, "get": _get(session, BYTES)}
            samples = await interleaved(cases, rounds)
    return _figure(
        "`bytes` of 100 MB, host ← worker",
        samples.median("get"),
        samples.median("floor"),
        "memory filled, passed, mapped, copied out",
    )


async def _array(rounds: int) -> Figure:
    async with WorkerSession() as session:
        await session.execute(f"import numpy; value = numpy.ones({ARRAY_BYTES}, 'b')")
        with MemoryFloor(ARRAY_BYTES) as floor:
            cases = {"floor": floor.mapped, "get": _get(session, ARRAY_BYTES)}
            samples = await interleaved(cases, rounds)
    return _figure(
        "array of numpy of 1 GB, host ← worker",
        samples.median("get"),
        samples.median("floor"),
        "memory filled, passed, mapped",
    )


def _figure(work: str, measured: float, floor: float, words: str) -> Figure:
    note = f"{measured / floor:.2f} × floor"
    return Figure(work, measured / 1000, ALLOWED * floor / 1000, words, note, unit="ms")
