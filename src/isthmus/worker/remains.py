"""What code can leave in a process that nobody can take back for it. Owns how it is found.

Refuses to know: sessions; what can be put back (:mod:`isthmus.worker.process_state`).

Threads: the loop's.
"""

from __future__ import annotations

import _thread
import asyncio
import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

JOIN_SECONDS = 0.5
"""How long a thread may take to end that was told to: it takes microseconds; from the air."""

_DESCRIPTORS = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"


class Remains:
    """What the process has when this is made, against which to look for more."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._count = _thread._count()
        self._tasks = asyncio.all_tasks()
        self._descriptors = _descriptors()
        self._children_used = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._rights = _rights()

    def running(self) -> Iterator[str]:
        """What runs that did not before, in words.

        Waits a moment for threads that are about to end. The task that calls is left out.
        """
        yield from self._threads_left()
        for task in asyncio.all_tasks() - self._tasks - {asyncio.current_task()}:
            yield f"task {task.get_name()!r} has not ended"
        if self._has_children():
            yield "child processes are left"

    def changed(self) -> Iterator[str]:
        """What is not as it was, in words."""
        for number, _ in sorted(_descriptors().items() ^ self._descriptors.items()):
            yield f"descriptor {number} was opened, closed or replaced"
        if _rights() != self._rights:
            yield "limits or rights of the process were changed"

    def _threads_left(self) -> Iterator[str]:
        latest = time.monotonic() + JOIN_SECONDS
        for thread in set(threading.enumerate()) - self._threads:
            thread.join(max(0.0, latest - time.monotonic()))
            if thread.is_alive():
                yield f"thread {thread.name!r} has not ended"
        if _thread._count() > self._count:
            yield "a thread that threading does not know of has not ended"

    def _has_children(self) -> bool:
        """Whether a process is left that was started here, or by one that was."""
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
            return True
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        if used == self._children_used:  # there has been none
            return False
        self._children_used = used
        return _has_company()


def _descriptors() -> dict[int, tuple[int, int]]:
    """Which file each descriptor of this process is open for."""
    found = {}
    for name in os.listdir(_DESCRIPTORS):
        with suppress(OSError):  # that of the listing itself
            status = os.fstat(int(name))
            found[int(name)] = status.st_dev, status.st_ino
    return found


def _has_company() -> bool:
    """Whether another process belongs to the session of processes that this one leads.

    Where the system does not tell, there may be one.
    """
    if not os.path.isdir("/proc/self"):
        return True
    own, session = str(os.getpid()), str(os.getsid(0))
    return any(
        _session_of(it) == session for it in os.listdir("/proc") if it.isdigit() and it != own
    )


def _session_of(pid: str) -> str:
    """As the kernel shows it; the name of the program, in brackets, may hold anything."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[3]
    except OSError:  # it has ended meanwhile
        return ""


def _rights() -> tuple[object, ...]:
    """What this process may do: some of it can be taken away, and not given back."""
    kinds = sorted(it for it in vars(resource) if it.startswith("RLIMIT_"))
    limits = tuple(resource.getrlimit(getattr(resource, it)) for it in kinds)
    users = os.getuid(), os.geteuid(), os.getgid(), os.getegid()
    processors = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return limits, users, os.nice(0), processors
