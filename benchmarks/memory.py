"""What an idle session weighs."""

from __future__ import annotations

import gc
from pathlib import Path

from benchmarks.measure import Figure
from isthmus import Session

SESSIONS = 2_000
ALLOWED_KB = 25.0


def resident_kb() -> float:
    """Resident memory of this process, in kB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1])
    raise RuntimeError("no VmRSS in /proc/self/status")


async def idle_session(_rounds: int) -> list[Figure]:
    """2,000 sessions open at once, each after a cell, without threads; measured once."""
    warm = [Session("warm") for _ in range(50)]
    for session in warm:
        await session.run("x = 1")
    gc.collect()
    before = resident_kb()
    sessions = [Session("idle") for _ in range(SESSIONS)]
    for session in sessions:
        await session.run("x = 1")
    gc.collect()
    each = (resident_kb() - before) / SESSIONS
    for session in [*warm, *sessions]:
        await session.close()
    name = f"idle session, {SESSIONS:,} of them"
    return [Figure(name, each, ALLOWED_KB, "resident memory", "each", unit="kB")]
