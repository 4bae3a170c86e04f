"""The same work in ipykernel, by jupyter_client's blocking client, where both are installed."""

from __future__ import annotations

import importlib.util
from types import TracebackType
from typing import Any

from benchmarks.measure import cpu_clock

SECONDS = 30.0
"""How long the kernel may take to start, and for a cell."""


def is_installed() -> bool:
    """Whether there is something to compare with."""
    return all(map(importlib.util.find_spec, ("ipykernel", "jupyter_client")))


class Kernel:
    """A running kernel."""

    def __enter__(self) -> Kernel:
        """Start it."""
        from jupyter_client.manager import KernelManager

        self._manager: Any = KernelManager()
        self._manager.start_kernel()
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=SECONDS)
        self._clock = cpu_clock(self._manager.provisioner.pid)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """End it."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)

    def one_by_one(self, source: str, count: int) -> float:
        """Seconds for each of *count* cells that wait for their answers."""
        start = self._clock()
        for _ in range(count):
            number = self._client.execute(source)
            while self._client.get_shell_msg(timeout=SECONDS)["parent_header"]["msg_id"] != number:
                pass
        return (self._clock() - start) / count
