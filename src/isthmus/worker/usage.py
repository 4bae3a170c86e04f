"""What a worker uses of the machine, and what the system says of its end. Owns the reading of both.

Refuses to know: limits, who asks.
"""

from __future__ import annotations

import os
import re
import resource
import sys
from dataclasses import dataclass

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes of one unit of ``ru_maxrss``."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process uses.

    Attributes:
        memory_bytes: What it holds in memory; 0 where it is not known.
        peak_memory_bytes: The most that it has held.
        cpu_seconds: What it has spent, in user and system time.
    """

    memory_bytes: int
    peak_memory_bytes: int
    cpu_seconds: float


def own_usage() -> Usage:
    """What this process uses."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(_resident_bytes(), peak_memory(used), used.ru_utime + used.ru_stime)


def peak_memory(used: resource.struct_rusage) -> int:
    """The most memory that a process has held, in bytes."""
    return used.ru_maxrss * _RSS_UNIT


def _resident_bytes() -> int:
    try:
        pages = int(_text("/proc/self/statm").split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * resource.getpagesize()


class OutOfMemoryCount:
    """How often the kernel has ended a process of a control group because its memory was used up.

    Arguments:
        pid: Of a process in the group.
        root: What stands before every path; tests have one of their own.

    Where there is no control group, or it does not tell, the count is never seen to rise.
    """

    def __init__(self, pid: int, root: str = "") -> None:
        self._path = _events_file(pid, root)
        self._before = self._read()

    def has_risen(self) -> bool:
        """Whether it has happened since this object was made."""
        return self._read() > self._before

    def _read(self) -> int:
        try:
            text = _text(self._path) if self._path is not None else ""
        except OSError:
            return 0
        found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
        return int(found[1]) if found else 0


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _events_file(pid: int, root: str) -> str | None:
    """Where the kernel counts, in either version of control groups."""
    try:
        text = _text(f"{root}/proc/{pid}/cgroup")
    except OSError:
        return None
    for line in text.splitlines():
        _, kinds, group = line.split(":", 2)
        if not kinds:
            return _nearest(f"{root}/sys/fs/cgroup", group, "memory.events")
        if "memory" in kinds.split(","):
            return _nearest(f"{root}/sys/fs/cgroup/memory", group, "memory.oom_control")
    return None


def _nearest(mounted: str, group: str, name: str) -> str | None:
    """The file *name* of *group*, or else of what is around it.

    A container may see the path that a group has outside, and nothing but its own group mounted.
    """
    folder = f"{mounted}{group.rstrip('/')}"
    while not os.path.exists(f"{folder}/{name}"):
        if folder == mounted:
            return None
        folder = os.path.dirname(folder)
    return f"{folder}/{name}"
