"""Memory is kept for the outcome of a cell that has used up all there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus import WorkerSession
from isthmus.worker.reserve import PIECE_BYTES, PIECES
from support import NewWorker

requirement = pytest.mark.requirement

SLACK_BYTES = 2 << 20
"""What else may come and go meanwhile: an arena or two of CPython's allocator."""


def _mapped(session: WorkerSession) -> int:
    """The bytes of address space that a worker has."""
    lines = Path(f"/proc/{session.pid}/status").read_text().splitlines()
    line = next(it for it in lines if it.startswith("VmSize:"))
    return int(line.split()[1]) << 10


@requirement("7.5-faults")
async def test_the_reserve_goes_before_the_outcome_is_told_and_comes_back_with_the_next_cell(
    new_worker: NewWorker,
) -> None:
    async with new_worker() as session:
        await session.run("1 / 0")  # what telling of an error needs is there
        before = _mapped(session)
        for _ in range(2):
            await session.run("raise MemoryError")
            assert before - _mapped(session) > PIECES * PIECE_BYTES - SLACK_BYTES
            assert await session.execute("1") == 1
            assert abs(before - _mapped(session)) < SLACK_BYTES
