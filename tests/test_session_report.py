"""What a session says of itself: the report for people, the tally, events and the log."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Callable

import pytest

from either_home import Flag, beside
from isthmus import AnySession, MemoryTransport, Session, SessionClosed, SessionReset
from support import cell

requirement = pytest.mark.requirement


@requirement("9-report")
async def test_the_report_tells_of_cells_names_what_was_made_and_memory(
    session: AnySession,
) -> None:
    await session.execute("big = bytes(5_000_000)\nsmall = 1")
    await session.run("import time; time.sleep(0.01)", context="thread")
    await session.run("1 / 0")
    await session.run("not python")
    await session.execute("task = asyncio.create_task(asyncio.sleep(60), name='asleep')")
    name, cells, names, made, left, memory = (await session.report()).splitlines()
    assert name == "session 'session'"
    assert cells.startswith("cells: 5 run, 2 error, 3 ok, 0 running, 0 waiting; 0.0")
    assert re.search(r"s in all, the longest 0\.\d+ s \(cell \d\)$", cells)
    assert re.match(
        r"names: 5, 5\.0 MB without what they refer to, of these big \(5\.0 MB\)", names
    )
    assert "1 task, 0 finished, 0 failed" in made and "0 threads" in made
    assert left == "  task 'asleep' of cell 5 (<session cell 5>, line 1): waiting"
    assert re.match(r"memory: [\d.]+ MB resident in the whole process", memory)


@requirement("9-report")
async def test_a_report_is_short_whatever_there_is(session: AnySession) -> None:
    assert "cells: 0 run, 0 running, 0 waiting; 0.000 s in all" in await session.report()
    await session.execute(
        cell(
            """
            class Odd:
                def __sizeof__(self): raise ValueError
            odd = Odd()
            tasks = [asyncio.create_task(asyncio.sleep(60)) for _ in range(1000)]
            """
        )
    )
    lines = (await session.report()).splitlines()
    assert len(lines) == 26
    assert lines[-2] == "  and 980 more"


@requirement("9-report")
async def test_a_closed_session_says_so_in_its_report(session: Session) -> None:
    await session.execute("1")
    await session.close()
    assert session.report().startswith("session 'session' (closed)\ncells: 1 run, 1 ok")


async def cells_of(session: AnySession) -> str:
    """What the report says of cells, but for their times."""
    return (await session.report()).splitlines()[1].partition(";")[0]


@requirement("9-report")
async def test_cells_that_run_that_wait_and_that_were_given_up_are_counted(
    session: AnySession,
) -> None:
    begun = Flag(session, "begun")
    await session.execute("import threading\nheld = threading.Event()")
    stuck = await session.run("held.wait()", context="thread", timeout=0.2)
    assert not stuck.stopped
    running = asyncio.create_task(session.run("begun()\nawait asyncio.Event().wait()"))
    await begun.seen()
    waiting = asyncio.create_task(session.run("1"))
    await asyncio.sleep(0)
    assert await cells_of(session) == (
        "cells: 2 run, 1 ok, 1 timeout, 1 running, 1 waiting, 1 given up"
    )
    running.cancel()
    await asyncio.wait([running])
    assert (await waiting).value == 1
    assert await cells_of(session) == (
        "cells: 4 run, 1 cancelled, 2 ok, 1 timeout, 0 running, 0 waiting, 1 given up"
    )
    await beside(session, "held.set()")


@requirement("9-log")
async def test_each_cell_can_be_logged_with_its_numbers(
    session: AnySession, caplog: pytest.LogCaptureFixture
) -> None:
    await session.execute("1")
    with caplog.at_level(logging.DEBUG, "isthmus.cells"):
        await session.run("1 / 0", context="sync")
    (record,) = caplog.records
    assert record.name == "isthmus.cells" and record.levelno == logging.DEBUG
    found = {name: vars(record)[name] for name in ("session", "cell", "context", "status")}
    assert found == {"session": "session", "cell": 2, "context": "sync", "status": "error"}
    assert vars(record)["duration"] > 0


@requirement("9-log")
async def test_a_nested_cell_is_logged_outside_of_the_cell_that_runs_it(
    session: AnySession, caplog: pytest.LogCaptureFixture
) -> None:
    session.inject_capability("nested", session.execute)
    handler = logging.StreamHandler()
    logger = logging.getLogger("isthmus.cells")
    logger.addHandler(handler)
    try:
        with caplog.at_level(logging.DEBUG, "isthmus.cells"):
            result = await session.run("await nested('1')")
    finally:
        logger.removeHandler(handler)
    assert (result.value, result.stderr, len(caplog.records)) == (1, "", 2)


@requirement("9-log", "5.5-reset", "5.5-close")
async def test_a_reset_and_the_end_are_events_and_in_the_log(
    make_session: Callable[..., AnySession],
    transport: MemoryTransport,
    caplog: pytest.LogCaptureFixture,
) -> None:
    session, idle = make_session(transport=transport), make_session("idle", transport=transport)
    held = threading.Event()
    await session.execute("1")
    with caplog.at_level(logging.DEBUG, "isthmus.session"):
        await session.reset()
        session.update_namespace({"held": held})
        await session.execute("import threading; threading.Thread(target=held.wait).start()")
        report = await session.reset(timeout=0.02)
        held.set()
        await session.close()
        await session.close()
        await idle.close()
    told = [it for it in transport if isinstance(it, SessionReset | SessionClosed)]
    assert told == [
        SessionReset("session", 0),
        SessionReset("session", 0, report.left),
        SessionClosed("session", 0),
        SessionClosed("idle", 0),
    ]
    assert len(report.left) == 1
    records = [it for it in caplog.records if it.name == "isthmus.session"]
    assert [it.levelname for it in records] == ["DEBUG", "WARNING", "DEBUG", "DEBUG"]
    assert vars(records[1])["left"] == report.left and vars(records[1])["session"] == "session"
