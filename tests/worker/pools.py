"""Sessions of pools, used one after the other."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

from isthmus import WorkerPool


async def use(pool: WorkerPool, *sources: str, **options: Any) -> tuple[int | None, list[Any]]:
    """The number of the worker that a session had, and the values of its cells."""
    async with pool.session(**options) as session:
        return session.pid, [await session.execute(it) for it in sources]


async def rows() -> AsyncIterator[int]:
    """A function of the host whose result stays there."""
    for number in range(1000):
        yield number


def runs(pid: int | None) -> bool:
    """Whether there is such a process."""
    return os.path.exists(f"/proc/{pid}")
