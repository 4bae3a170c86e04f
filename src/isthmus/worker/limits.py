"""What a worker may use of the machine. Owns the limits, and how a process puts them on itself.

They are the kernel's own (``setrlimit``), set by the child before it does anything else: a function
that runs between ``fork`` and ``exec`` would make starting slow, and unsafe beside threads.

Refuses to know: who starts a worker.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What a worker may use; None sets no bound of ours.

    Attributes:
        memory_bytes: Of address space. An allocation beyond it raises ``MemoryError`` in the cell.
            It counts what is mapped, not what is used: libraries map more than they use.
        cpu_seconds: Of processor time, all threads together, start included. A worker that has
            used them up is ended by the kernel.
        open_files: Descriptors, the few that the worker itself needs included.
        processes: Processes and threads of the user who runs the worker, all of them and not only
            the worker's: that is how the kernel counts. It does not hold for root.

    Raises:
        TypeError: One of them is no whole number.
        ValueError: One of them is not positive.
    """

    memory_bytes: int | None = None
    cpu_seconds: int | None = None
    open_files: int | None = None
    processes: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no limit."""
        for name in self.__slots__:
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} is a whole number or None, not {value!r}")
            if value <= 0:
                raise ValueError(f"{name} must be positive, not {value!r}")

    def to_argument(self) -> str:
        """The limits as the child's command line has them; empty where there are none."""
        return "" if self == WorkerLimits() else msgspec.json.encode(self).decode()

    @classmethod
    def from_argument(cls, text: str) -> WorkerLimits:
        """The limits that :meth:`to_argument` has written, of some."""
        return msgspec.json.decode(text, type=cls)

    def apply(self) -> None:
        """Put the limits on this process, as far as it may: one that is lower already stays.

        Raises:
            OSError: The system refuses one.
        """
        if sys.platform == "win32":
            raise OSError("Windows has no resource limits")
        import resource  # few workers have limits

        kinds = {
            resource.RLIMIT_AS: self.memory_bytes,
            resource.RLIMIT_CPU: self.cpu_seconds,
            resource.RLIMIT_NOFILE: self.open_files,
            resource.RLIMIT_NPROC: self.processes,
        }
        for kind, wanted in kinds.items():
            if wanted is None:
                continue
            hard = resource.getrlimit(kind)[1]
            bound = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(kind, (bound, bound))
