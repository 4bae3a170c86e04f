"""A loop that stands still: who is told, of what, and when nobody is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from isthmus import BlockingSession, LoopBlocked, MemoryTransport, Session
from isthmus.loop_watch import LoopWatch
from support import LoopThread, eventually

requirement = pytest.mark.requirement

DELAY_SECONDS = 0.02
GATE = "gate.wait(30)"
"""Keeps the loop until the report has come: see ``Listener``."""


class Listener(MemoryTransport):
    """Opens a gate when it hears that the loop stands still."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def send(self, event: object) -> None:
        """Keep *event*, then open the gate."""
        super().send(event)  # type: ignore[arg-type]
        if isinstance(event, LoopBlocked):
            self.gate.set()

    @property
    def blockages(self) -> list[LoopBlocked]:
        """What it has heard of."""
        return self.of_type(LoopBlocked)


@pytest.fixture
def listener() -> Listener:
    """A transport that lets the loop go on when it has heard that it stands still."""
    return Listener()


@pytest.fixture
def watched(make_session: Callable[..., Session], listener: Listener) -> Session:
    """A session whose loop may stand still for a short time."""
    session = make_session(transport=listener, blocked_seconds=DELAY_SECONDS)
    session.update_namespace({"gate": listener.gate})
    return session


@requirement("6.2-loop-blocked")
@pytest.mark.parametrize("loop_context", ["async", "sync"])
async def test_a_cell_that_keeps_the_loop_is_reported_with_its_stack(
    watched: Session, listener: Listener, loop_context: str
) -> None:
    await watched.execute("def keep(): " + GATE)
    result = await watched.run("1\nkeep()", context=loop_context)
    (event,) = listener.blockages
    assert event.cell == result.cell == 2
    assert event.seconds >= DELAY_SECONDS
    assert "line 2, in <module>" in event.stack and "in keep" in event.stack
    assert "isthmus" not in event.stack.replace("isthmus_", "")


@requirement("6.2-loop-blocked")
async def test_what_a_task_keeps_waiting_is_its_cells_after_the_cells_end_too(
    watched: Session, listener: Listener
) -> None:
    code = (
        f"async def later():\n    await go.wait()\n    {GATE}\ntask = asyncio.create_task(later())"
    )
    await watched.execute("go = asyncio.Event()")
    made = await watched.run(code)
    watched.namespace["go"].set()
    await watched.namespace["task"]
    assert [event.cell for event in listener.blockages] == [made.cell]
    assert "in later" in listener.blockages[0].stack


@requirement("6.2-loop-blocked")
async def test_a_host_that_keeps_the_loop_is_reported_while_a_cell_is_alive(
    watched: Session, listener: Listener
) -> None:
    await watched.execute("go = asyncio.Event()")
    running = asyncio.ensure_future(watched.run("await go.wait()", context="thread"))
    await eventually(lambda: watched.manager.current_home and watched.manager.current_home.jobs())
    listener.gate.wait(30)
    watched.namespace["go"].set()
    await running
    (event,) = listener.blockages
    assert event.cell == 0
    assert "listener.gate.wait(30)" in event.stack


@requirement("6.2-loop-blocked")
async def test_a_blockage_is_reported_once_and_the_next_one_again(
    watched: Session, listener: Listener
) -> None:
    for count in (1, 2):
        listener.gate.clear()
        await watched.execute("import threading\n" + GATE + "\nthreading.Event().wait(0.05)")
        assert len(listener.blockages) == count


@requirement("6.2-loop-blocked")
async def test_a_loop_in_another_thread_is_watched_too(listener: Listener) -> None:
    async def work() -> None:
        async with Session(transport=listener, blocked_seconds=DELAY_SECONDS) as session:
            session.update_namespace({"gate": listener.gate})
            await session.execute(GATE)

    with LoopThread() as other:
        await other.wait(work())
    assert [event.cell for event in listener.blockages] == [1]


@requirement("6.2-loop-blocked")
def test_a_blocking_sessions_own_loop_is_watched_too(listener: Listener) -> None:
    with BlockingSession(transport=listener, blocked_seconds=DELAY_SECONDS) as session:
        session.update_namespace({"gate": listener.gate})
        session.execute(GATE)
    assert [event.cell for event in listener.blockages] == [1]


@requirement("6.2-loop-blocked")
async def test_nobody_looks_when_nothing_of_the_session_is_alive(
    watched: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float | None] = []
    look = LoopWatch.look

    def counted(watch: LoopWatch) -> float | None:
        looks.append(look(watch))
        return looks[-1]

    monkeypatch.setattr(LoopWatch, "look", counted)
    await watched.execute("1")
    await eventually(lambda: looks and looks[-1] is None)
    count = len(looks)
    await watched.execute("2")
    await eventually(lambda: len(looks) > count and looks[-1] is None)


@requirement("6.2-loop-blocked")
async def test_nobody_looks_where_nobody_listens_or_a_host_does_not_want_it(
    make_session: Callable[..., Session],
) -> None:
    silent = make_session("silent", blocked_seconds=DELAY_SECONDS)
    unwanted = make_session("unwanted", transport=MemoryTransport(), blocked_seconds=None)
    for session in (silent, unwanted):
        await session.execute("1")
        home = session.manager.current_home
        assert home is not None and home.loop_watches == []


@requirement("6.2-loop-blocked")
def test_a_delay_is_a_number_of_seconds() -> None:
    with pytest.raises(ValueError, match="blocked_seconds"):
        Session(blocked_seconds=-1)
    with pytest.raises(TypeError, match="blocked_seconds"):
        Session(blocked_seconds="1")  # type: ignore[arg-type]
