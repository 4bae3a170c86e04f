"""What tasks and threads write when their cell has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from either_home import Flag, beside, raises_there
from isthmus import AnySession, MemoryTransport, Output, Session
from support import cell

requirement = pytest.mark.requirement

LATE = """
    import threading
    go_on, spoken = asyncio.Event(), asyncio.Event()
    async def speak():
        await go_on.wait()
        print('task')
        thread = threading.Thread(target=print, args=('thread',))
        thread.start()
        await asyncio.to_thread(thread.join)
        display(5)
        spoken.set()
    task = asyncio.create_task(speak())
    {first}
    """


async def speak_late(session: AnySession) -> None:
    """Have the task speak while no cell runs, and wait until it has."""
    host = asyncio.Event()
    session.inject_capability("host_says_so", host.wait)
    spoken = Flag(session, "spoken_of")
    code = """
        async def tell():
            await host_says_so()
            go_on.set()
            await spoken.wait()
            spoken_of()
        teller = asyncio.create_task(tell())
        """
    await beside(session, cell(code))
    host.set()
    await spoken.seen()


@pytest.fixture(params=["origin", "current"])
def policy(request: pytest.FixtureRequest) -> Iterator[str]:
    """Whose late output is."""
    yield request.param


@requirement("6.1-late-output")
@pytest.mark.parametrize("first", ["", "print('first')"])
async def test_late_output_goes_where_the_session_says(
    make_session: Any, transport: MemoryTransport, policy: str, first: str
) -> None:
    session: AnySession = make_session("late", transport=transport, late_output=policy)
    one = await session.run(cell(LATE.format(first=first)))
    assert one.stdout == ("first\n" if first else "")
    two = await session.run("print('second'); go_on.set(); await spoken.wait()", context="thread")
    current = policy == "current"
    assert two.stdout == ("second\ntask\nthread\n" if current else "second\n")
    assert len(two.displays) == int(current)
    late = [
        event for event in transport.events if getattr(event, "text", "") in ("task\n", "thread\n")
    ]
    assert {event.cell for event in late} == ({2} if current else {1})


@requirement("6.1-late-output")
async def test_late_output_of_a_quiet_session_is_its_origins(
    make_session: Any, transport: MemoryTransport, policy: str
) -> None:
    session: AnySession = make_session("quiet", transport=transport, late_output=policy)
    await session.run(cell(LATE.format(first="")))
    await session.run("print('second')")
    with raises_there(SyntaxError):
        await session.execute("no cell at all")
    await speak_late(session)
    assert [(event.cell, event.text) for event in transport.of_type(Output)] == [
        (2, "second\n"),
        (1, "task\n"),
        (1, "thread\n"),
    ]


@requirement("6.1-late-output")
async def test_a_value_that_prints_in_its_repr_is_not_late(
    make_session: Any, transport: MemoryTransport, policy: str
) -> None:
    session: AnySession = make_session("repr", transport=transport, late_output=policy)
    code = "class A:\n    def __repr__(self):\n        print('asked')\n        return 'A'\nA()"
    assert (await session.run(code)).stdout == "asked\n"
    assert [event.cell for event in transport.of_type(Output)] == [1]


@requirement("6.1-late-output")
async def test_late_output_without_a_transport(make_session: Any, policy: str) -> None:
    session: AnySession = make_session("no transport", late_output=policy)
    await session.run(cell(LATE.format(first="print('first')")))
    two = await session.run("go_on.set(); await spoken.wait()")
    assert two.stdout == ("task\nthread\n" if policy == "current" else "")


@requirement("6.1-late-output")
async def test_a_cell_that_was_given_up_gets_no_late_output(
    make_session: Any, transport: MemoryTransport
) -> None:
    session: AnySession = make_session("given up", transport=transport, late_output="current")
    await session.run(cell(LATE.format(first="") + "leave = threading.Event()"))
    code = """
        print('stuck')
        while not leave.is_set():
            try:
                leave.wait(5)
            except BaseException:
                pass
        """
    stuck = await session.run(cell(code), context="thread", timeout=0.05)
    assert not stuck.stopped
    await speak_late(session)
    await beside(session, "leave.set()")
    assert [event.cell for event in transport.of_type(Output)] == [2, 1, 1]


@requirement("6.1-late-output")
def test_a_policy_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="'origin' or 'current'"):
        Session(late_output="elsewhere")  # type: ignore[arg-type]
