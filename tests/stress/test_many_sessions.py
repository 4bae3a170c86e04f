"""Many sessions in one loop: each line stays with its cell, and nothing is left over."""

from __future__ import annotations

import asyncio
import gc
import linecache
import sys
import threading
import weakref
from collections import defaultdict
from typing import Literal, get_args

import pytest

from isthmus import MemoryTransport, Output, Session

Context = Literal["async", "thread", "sync"]
CONTEXTS: tuple[Context, ...] = get_args(Context)

PRINTING = """
async def say_{cell}(line):
    print(f"{label} said {{line}}")
    await asyncio.sleep(0)
    print(f"{label} said {{line}} again")

import sys
print("{label} begins")
await say_{cell}(1)
await asyncio.gather(say_{cell}(2), asyncio.create_task(say_{cell}(3)))
print("{label}", end=" ")
await asyncio.sleep(0)
print("ends", file=sys.stdout)
print("{label} fails", file=sys.stderr)
"""


def expected_lines(label: str) -> list[str]:
    spoken = [f"{label} said {n}{again}" for n in (1, 2, 3) for again in ("", " again")]
    return sorted([f"{label} begins", *spoken, f"{label} ends"])


async def check_output_of_cells(number: int, cells: int) -> None:
    """Send *cells* cells to one session at once, in all contexts; every fifth is concurrent."""
    transport = MemoryTransport()
    async with Session(f"many_{number}", transport=transport) as session:
        labels = [f"session {number} cell {cell}" for cell in range(cells)]
        results = await asyncio.gather(
            *(
                session.run(
                    PRINTING.format(label=label, cell=cell),
                    context=CONTEXTS[(number + cell) % 3],
                    concurrent=cell % 5 == 0,
                )
                for cell, label in enumerate(labels)
            )
        )
    sent: dict[tuple[int, str], str] = defaultdict(str)
    for event in transport.of_type(Output):
        assert event.session == f"many_{number}"
        sent[event.cell, event.stream] += event.text
    for label, result in zip(labels, results, strict=True):
        assert result.error is None
        assert sorted(result.stdout.splitlines()) == expected_lines(label)
        assert result.stderr == f"{label} fails\n"
        assert sent[result.cell, "stdout"] == result.stdout
        assert sent[result.cell, "stderr"] == result.stderr


@pytest.mark.timeout(180)
def test_each_line_of_4000_cells_of_200_sessions_at_once_is_at_its_own_cell(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(check_output_of_cells(number, 20))

    asyncio.run(main())
    assert capfd.readouterr() == ("", "")


def entries_of_sessions() -> set[str]:
    """What the process holds under the names of sessions."""
    modules = {name for name in sys.modules if name.startswith("isthmus_")}
    return modules | {name for name in linecache.cache if name.startswith("<many")}


async def use(session: Session, number: int) -> None:
    """Leave behind what a session can: a class, a task, a coroutine; some use a thread."""
    context: Context = "thread" if number % 20 == 0 else CONTEXTS[number % 2 * 2]
    source = (
        "class A:\n    def f(self): return 1\ntask = asyncio.ensure_future(asyncio.sleep(60))\n"
    )
    source += "left = asyncio.sleep(60)\n"
    result = await session.run(source + "value = A().f()\nawait asyncio.sleep(0)", context=context)
    assert result.error is None
    assert session.snapshot()["value"] == 1


@pytest.mark.timeout(180)
def test_2000_sessions_open_at_once_leave_nothing_when_they_are_closed() -> None:
    async def main() -> list[weakref.ref[object]]:
        tasks_before = asyncio.all_tasks()
        sessions = [Session(f"many_{number}") for number in range(2_000)]
        for start in range(0, len(sessions), 100):
            group = range(start, start + 100)
            await asyncio.gather(*(use(sessions[number], number) for number in group))
        assert len({session.namespace["__name__"] for session in sessions}) == 2_000
        assert len(entries_of_sessions() - entries) >= 4_000
        reports = await asyncio.gather(*(session.close() for session in sessions))
        assert all(report.clean for report in reports)
        assert asyncio.all_tasks() == tasks_before
        return [weakref.ref(it) for session in sessions for it in (session, session.manager)]

    entries, threads = entries_of_sessions(), set(threading.enumerate())
    streams = sys.stdout, sys.stderr
    held = asyncio.run(main())
    assert entries_of_sessions() == entries
    assert set(threading.enumerate()) == threads
    assert (sys.stdout, sys.stderr) == streams
    gc.collect()
    assert [it() for it in held if it() is not None] == []
