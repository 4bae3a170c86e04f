"""Interrupts that are raised again at each line. Owns one tool of ``sys.monitoring``.

Refuses to know: when an interrupt is ignored.

Code that swallows an exception once swallows it again. So, from Python 3.12 on, the code that is on
the job's stack gets local events for lines and jumps, whose callback raises in it, until the job's
code has ended. Other tools keep their events; what others run through the same functions passes by.

Guarantees: the tool's id is free again when no job is held.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from types import CodeType
from typing import Any

from isthmus.errors import CellInterrupted
from isthmus.frames import stack_from
from isthmus.jobs import Job, ancestry
from isthmus.stacks import job_of, may_be_struck

_TOOL_IDS = (4, 3, 5, 2, 1, 0)
"""In the order of preference: 3 and 4 belong to nobody, 0, 1, 2 and 5 to debuggers, coverage,
profilers and optimizers by convention, which take them only while they are at work."""

_TOOL_NAME = "isthmus"


class StickyInterrupts:
    """Which jobs are held, by the events of which code.

    Threads: any. The lock guards all fields and the calls of ``sys.monitoring``; innermost. The
    callback reads the table without it: it must not wait for a lock that its own thread holds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._codes: dict[Job, set[CodeType]] = {}
        self._tool: int | None = None

    def hold(self, job: Job, codes: Iterable[CodeType]) -> bool:
        """Raise :class:`CellInterrupted` at each line of *codes*, and of those before, in *job*.

        Returns:
            False where that cannot be: before Python 3.12, or when all tools' ids are taken.
        """
        monitoring: Any = getattr(sys, "monitoring", None)
        with self._lock:
            if monitoring is None or not self._take_tool(monitoring):
                return False
            held = self._codes.setdefault(job, set())
            for code in set(codes) - held:
                held.add(code)
                events = monitoring.events.LINE | monitoring.events.JUMP
                monitoring.set_local_events(self._tool, code, events)
            return True

    def release(self, job: Job) -> None:
        """Let *job* be. Idempotent."""
        with self._lock:
            codes = self._codes.pop(job, None)
            if codes is None:
                return
            monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
            for code in codes.difference(*self._codes.values()):
                monitoring.set_local_events(self._tool, code, 0)
            if not self._codes:
                self._give_tool_back(monitoring)

    def _take_tool(self, monitoring: Any) -> bool:
        """See to it that there is a tool."""
        if self._tool is not None:
            return True
        for number in _TOOL_IDS:
            try:
                monitoring.use_tool_id(number, _TOOL_NAME)
            except ValueError:  # somebody else has it
                continue
            self._tool = number
            monitoring.register_callback(number, monitoring.events.LINE, self._at_line)
            monitoring.register_callback(number, monitoring.events.JUMP, self._at_jump)
            return True
        return False

    def _give_tool_back(self, monitoring: Any) -> None:
        monitoring.register_callback(self._tool, monitoring.events.LINE, None)
        monitoring.register_callback(self._tool, monitoring.events.JUMP, None)
        monitoring.free_tool_id(self._tool)
        self._tool = None

    def _at_line(self, code: CodeType, line: int) -> None:
        self._strike()

    def _at_jump(self, code: CodeType, offset: int, target: int) -> None:
        self._strike()

    def _strike(self) -> None:
        """Raise in code of a job that is held."""
        stack = stack_from(sys._getframe(2))
        for job in ancestry(job_of(stack)[0]):
            if job in self._codes and may_be_struck(stack, on_loop=False):
                raise CellInterrupted(f"cell {job.number} was interrupted")


sticky_interrupts = StickyInterrupts()
"""The process has few tools' ids, so there is one of these."""
