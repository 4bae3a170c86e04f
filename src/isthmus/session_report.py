"""What there is to say of a session, as text for people. Owns the text.

Refuses to know: how any of it comes to be. Programs ask for the numbers themselves.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from isthmus.async_namespace import AsyncNamespaceManager
from isthmus.ownership import LedgerEntry, Ownership
from isthmus.tally import CellTally

LISTED = 20
"""Entries of the ledger in the report; more would hide the rest of it."""

LARGEST = 3
"""Names whose sizes the report gives; from the air."""


def session_report(manager: AsyncNamespaceManager, tally: CellTally) -> str:
    """Cells, times, names, the ledger and memory of one session. Threads: any."""
    lines = [
        f"session {manager.name!r}{' (closed)' if manager.closed else ''}",
        f"cells: {_cells(manager, tally)}",
        f"names: {_names(manager)}",
        f"made: {_made(manager.ownership)}",
        *_left(manager.ownership.entries()),
        f"memory: {_memory()}",
    ]
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _cells(manager: AsyncNamespaceManager, tally: CellTally) -> str:
    home = manager.current_home
    states = [job.state for job in home.jobs()] if home is not None else []
    waiting = states.count("queued")
    parts = [f"{sum(tally.ended.values()):,} run"]
    parts += [f"{number:,} {status}" for status, number in sorted(tally.ended.items())]
    parts += [f"{len(states) - waiting} running", f"{waiting} waiting"]
    if home is not None and home.given_up:
        parts.append(f"{len(home.given_up)} given up")
    seconds, cell = tally.longest
    longest = f", the longest {seconds:.3f} s (cell {cell})" if cell else ""
    return f"{', '.join(parts)}; {tally.seconds:.3f} s in all{longest}"


def _names(manager: AsyncNamespaceManager) -> str:
    sizes = {name: _size(value) for name, value in manager.snapshot().items()}
    largest = sorted(sizes, key=lambda name: sizes[name], reverse=True)[:LARGEST]
    words = [f"{name} ({_bytes(sizes[name])})" for name in largest]
    of_these = f", of these {', '.join(words)}" if words else ""
    return f"{len(sizes):,}, {_bytes(sum(sizes.values()))} without what they refer to{of_these}"


def _size(value: object) -> int:
    """What *value* itself weighs, in bytes; 0 where it does not say."""
    try:
        return sys.getsizeof(value)
    except Exception:  # a boundary: __sizeof__ of the user's object
        return 0


def _made(ownership: Ownership) -> str:
    return "; ".join(
        f"{_count(it.made, kind)}, {it.finished:,} finished, {it.failed:,} failed"
        for kind, it in ownership.counts.items()
    )


def _left(entries: list[LedgerEntry]) -> Iterator[str]:
    for it in entries[:LISTED]:
        place = f" ({it.filename}, line {it.line})" if it.line else ""
        yield f"  {it.kind} {it.name!r} of cell {it.cell}{place}: {it.state}"
    if len(entries) > LISTED:
        yield f"  and {len(entries) - LISTED:,} more"


def _memory() -> str:
    try:
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[1])
    except OSError:  # pragma: no cover (no Linux)
        return "not known on this system"
    return f"{_bytes(pages * os.sysconf('SC_PAGE_SIZE'))} resident in the whole process"


def _bytes(number: int) -> str:
    if number >= 1_000_000:
        return f"{number / 1e6:,.1f} MB"
    return f"{number / 1e3:.1f} kB" if number >= 1_000 else f"{number} bytes"
