"""What it costs that output is routed: to the cell that prints, and to nobody when none does."""

from __future__ import annotations

import io
import time

from benchmarks.measure import Case, Figure, interleaved, per_operation
from isthmus import MemoryTransport, Session, Transport

LINES = 1_000_000
ROUNDS = 3
"""Of a million lines each: the median of few such rounds is steady."""

CELLS = 400

PRINTING = f"for _ in range({LINES}): print('line')"
INTO_FILE = compile(f"for _ in range({LINES}): print('line', file=file)", "<floor>", "exec")


async def _into_file() -> float:
    start = time.perf_counter()
    exec(INTO_FILE, {"file": io.StringIO()})
    return (time.perf_counter() - start) / LINES


def _in_cell(transport: type[MemoryTransport] | None) -> Case:
    async def measure() -> float:
        sink: Transport | None = transport() if transport is not None else None
        async with Session("printing", transport=sink) as session:
            start = time.perf_counter()
            result = await session.run(PRINTING)
            seconds = time.perf_counter() - start
            assert len(result.stdout) == LINES * len("line\n")
            return seconds / LINES

    return measure


def _cells(code: str, *, hooks: bool) -> Case:
    async def measure() -> float:
        async with Session("cells", hooks=hooks) as session:
            return await per_operation(lambda: session.run(code), CELLS)

    return measure


async def output(rounds: int) -> list[Figure]:
    """``print`` in cells, and cells that print nothing."""
    lines = await interleaved(
        {
            "file": _into_file,
            "cell": _in_cell(None),
            "sent": _in_cell(MemoryTransport),
        },
        min(rounds, ROUNDS),
    )
    cells = await interleaved(
        {
            "off": _cells("x = 1", hooks=False),
            "on": _cells("x = 1", hooks=True),
            "prints": _cells("print('line')", hooks=True),
        },
        rounds,
    )
    file, words = lines.median("file"), "`print` into a `StringIO`"
    off = cells.median("off")
    return [
        _figure(
            f"`print` in a cell, each of {LINES:,} lines", lines.median("cell"), file, 2.2, words
        ),
        _figure("the same with a transport", lines.median("sent"), file, 3, words),
        _figure(
            "cell `x = 1`, output routed", cells.median("on"), off, 1.15, "the same without hooks"
        ),
        _figure("cell that prints one line", cells.median("prints"), off, 2, "cell `x = 1`"),
    ]


def _figure(work: str, measured: float, floor: float, times: float, words: str) -> Figure:
    return Figure(work, measured, times * floor, words, f"{measured / floor:.2f} × floor")
