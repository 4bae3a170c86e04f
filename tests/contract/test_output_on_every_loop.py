"""Output on every kind of event loop: where it goes, in which order, and when."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from either_home import beside
from isthmus import AnySession, CellFinished, Display, MemoryTransport, Output, Session
from support import cell, eventually

requirement = pytest.mark.requirement


@requirement("6.1-swapped-streams", "6.1-batches")
async def test_two_sessions_redirect_and_print_at_once(
    make_session: Any, transport: MemoryTransport, context: str
) -> None:
    code = """
        import contextlib, io
        print('open', end='')
        with contextlib.redirect_stdout(io.StringIO()) as f:
            for i in range(3):
                print(name, i)
                await asyncio.sleep(0.001)
        print(' closed')
        f.getvalue()
        """
    sessions: list[Session] = [make_session(name, transport=transport) for name in "ab"]
    for session in sessions:
        session.update_namespace({"name": session.name})
    results = await asyncio.gather(*(it.run(cell(code), context=context) for it in sessions))
    for session, result in zip(sessions, results, strict=True):
        assert result.value == "".join(f"{session.name} {i}\n" for i in range(3))
        sent = [it.text for it in transport.of_type(Output) if it.session == session.name]
        assert "".join(sent) == result.stdout == "open closed\n"


@requirement("6.1-batches", "6.1-display", "6.1-late-output")
async def test_output_comes_in_order_before_the_outcome_and_late_output_after(
    make_session: Any, transport: MemoryTransport, context: str
) -> None:
    session: AnySession = make_session("order", transport=transport)
    await session.execute("gate, late = asyncio.Event(), asyncio.Event()")
    code = """
        import sys
        async def speak():
            await late.wait()
            print('late')
        task = asyncio.create_task(speak())
        print('held back', end='')
        await gate.wait()
        sys.stderr.write('error')
        display(1)
        print('end', end='')
        """
    running = asyncio.create_task(session.run(cell(code), context=context))
    await eventually(lambda: transport.of_type(Output))
    await beside(session, "gate.set()")
    result = await running
    await session.execute("late.set()\nawait task")
    kinds = [
        event.text if isinstance(event, Output) else type(event)
        for event in transport.events
        if isinstance(event, Output | Display | CellFinished) and event.cell == result.cell
    ]
    assert kinds == ["held back", "error", Display, "end", CellFinished, "late\n"]
    assert (result.stdout, result.stderr) == ("held backend", "error")
