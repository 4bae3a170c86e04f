"""Whether the garbage collector is at work in this thread. Owns the collector's callback.

Refuses to know: what is done about it.

While it runs finalizers (``__del__``, callbacks of weak references) the collector keeps the lists
of what it has found on the C stack. A greenlet that is left in that state takes the lists with it:
whatever frees one of their objects meanwhile writes into the stack of somebody else (reproduced: a
crash on CPython 3.11). CPython cannot be asked, but it calls :data:`gc.callbacks` before and after.
"""

from __future__ import annotations

import gc
import threading
from typing import Any

from isthmus.hooks import Hook


class CollectorWatch:
    """Tells whether a collection is going on; there is never more than one in the process.

    Attributes:
        thread: The identifier of the thread in which it is, or None; quicker to ask than
            :attr:`at_work`, and nearly always None. None as long as the hook is not in.
    """

    thread: int | None = None

    @property
    def at_work(self) -> bool:
        """Whether it is going on in the thread that asks."""
        return self.thread == threading.get_ident()

    def note(self, phase: str, info: dict[str, Any]) -> None:
        """The collector's callback."""
        self.thread = threading.get_ident() if phase == "start" else None


collector = CollectorWatch()
"""The process has one collector, so there is one of these; and one hook."""


class CollectorHook(Hook):
    """The callback in :data:`gc.callbacks`."""

    def __init__(self) -> None:
        super().__init__()
        self._callback = collector.note

    def _put_in(self) -> None:
        gc.callbacks.append(self._callback)

    def _take_out(self) -> None:
        if self._callback in gc.callbacks:
            gc.callbacks.remove(self._callback)
        collector.thread = None  # taken out by a finalizer, it would not hear of the end


collector_hook = CollectorHook()
