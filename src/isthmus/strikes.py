"""Exceptions sent into the code of another thread. Owns their way, and that none goes astray.

Refuses to know: whose code it is, and where it may be struck; who sends one is asked.

CPython raises an asynchronous exception (``PyThreadState_SetAsyncExc``) at the next bytecode of a
thread at which it looks for one, whatever is running there by then: the end of the cell, the event
loop, the next cell. So there is a record of what is on its way, and whoever leaves the code of a
cell (a switch out of the portal, a wait for the loop, the cell's end) looks into it and settles:
the exception arrives there, at the latest. None is taken back: CPython 3.11 goes on to look for
it, whenever a function starts, and where there is a trace function it never ends to look.

Guarantees:
- Who sends says that it may arrive *after* it is on record. So either the one who leaves sees the
  record, and waits for the lock, or the sender sees that the code has been left.
- At most one is on its way to a thread. So while a thread settles at most one can arrive.

Assumes: the caller of :meth:`Strikes.settle` expects it to arrive there.
"""

from __future__ import annotations

import ctypes
import threading
from threading import get_ident
from types import FrameType
from typing import Protocol

from isthmus.errors import CellInterrupted

set_async_exception = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)
"""Have CPython raise a class in a thread. For a thread in which cells run: :class:`Strikes`."""


def _let_arrive() -> None:
    """Do nothing: an asynchronous exception is raised when a function starts, if not before."""


class Striker(Protocol):
    """Who sends."""

    arrived: bool
    """Whether what was sent last has been raised; nothing is on its way."""

    def may_strike(self, thread: int) -> bool:
        """Whether the code that runs in *thread* now is the one that is meant."""

    def arrive(self) -> CellInterrupted:
        """What to raise. Called in the struck thread, at that moment."""

    def come_out(self, frame: FrameType) -> None:
        """The code in *frame* goes on, after a call of what must not be struck. In its thread.

        Raises:
            CellInterrupted: It is the one that is meant.
        """


class Strikes:
    """What is on its way to which thread.

    Threads: any. The lock guards the table and CPython's own record of each thread's exception.
    Inside, :meth:`Striker.may_strike` is called, which takes no lock; and :meth:`Striker.arrive`,
    where the exception arrives just then, which takes the watchdog's.

    Attributes:
        on_their_way: Who has sent one to the thread with this identifier, until it has settled:
            what has arrived stays on record. Nearly always empty.
        put_off: Who wants to strike the code of the thread with this identifier. It may be in what
            must not be struck whenever somebody looks, and is asked as it comes out of there.
            Nearly always empty; each entry is set and taken in one step.
    """

    def __init__(self) -> None:
        self.on_their_way: dict[int, Striker] = {}
        self.put_off: dict[int, Striker] = {}
        self._lock = threading.Lock()

    def send(self, striker: Striker, thread: int) -> bool:
        """Have CPython raise what *striker* gives in *thread*; whether it is on its way there."""
        with self._lock:
            before = self.on_their_way.get(thread)
            if before is not None and not before.arrived:
                return before is striker
            striker.arrived = False
            self.on_their_way[thread] = striker
            if striker.may_strike(thread):
                set_async_exception(thread, ctypes.py_object(_Arriving))
                return True
            self.on_their_way.pop(thread, None)
            striker.arrived = True
            return False

    def settle(self) -> None:
        """Have nothing arrive any more in the calling thread, whose code leaves that of a cell.

        Raises:
            CellInterrupted: It arrives here. Then the caller has to settle again, if it goes on to
                leave the cell; no further one can come in between.
        """
        thread = get_ident()
        with self._lock:  # who is about to send one has sent it, or sees that the code is left
            striker = self.on_their_way.get(thread)
        if striker is not None and not striker.arrived:
            try:
                _let_arrive()
            except CellInterrupted:  # on Python 3.11 it is made here, and says that it has arrived
                raise
        self.on_their_way.pop(thread, None)

    def come_out(self, frame: FrameType) -> None:
        """The code in *frame*, of the calling thread, goes on after a call of ours.

        Raises:
            CellInterrupted: Somebody waits for that.
        """
        striker = self.put_off.get(get_ident())
        if striker is not None:
            striker.come_out(frame)

    def arriving(self) -> CellInterrupted:
        """What is raised in the calling thread now."""
        striker = self.on_their_way.get(get_ident())
        return striker.arrive() if striker is not None else CellInterrupted("interrupted")


strikes = Strikes()
"""A thread has one asynchronous exception, so there is one of these."""


class _Arriving(CellInterrupted):
    """What CPython is given: a class. Making an instance of it tells the striker, and asks it.

    That is when it is raised or, on Python 3.11, when the first handler catches it.
    """

    def __new__(cls) -> CellInterrupted:  # type: ignore[misc]  # believed by CPython as it is
        return strikes.arriving()
