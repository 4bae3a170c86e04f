"""Transports for tests, and what they have been sent."""

from __future__ import annotations

import threading

from isthmus import MemoryTransport, Output


def texts(transport: MemoryTransport, stream: str = "stdout") -> list[str]:
    """The text of each event of one stream."""
    return [event.text for event in transport.of_type(Output) if event.stream == stream]


class Valve(MemoryTransport):
    """Keeps events, and is full while it is shut."""

    def __init__(self, *, is_open: bool = True) -> None:
        super().__init__()
        self._open = threading.Event()
        self.asked = threading.Event()
        if is_open:
            self._open.set()

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def wait_writable(self, timeout: float) -> bool:
        if timeout:
            self.asked.set()
        return self._open.wait(timeout)
