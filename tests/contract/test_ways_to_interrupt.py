"""``interrupt`` called from a thread, the loop, a signal handler and another loop."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import pytest

from either_home import Flag
from isthmus import AnySession, BlockingSession, CellInterrupted, WorkerSession
from support import LoopThread, on_one_loop

requirement = pytest.mark.requirement

WAITS = "begun()\nawait asyncio.sleep(60)"
COMPUTES = "import threading\nthreading.Thread(target=begun).start()\nwhile True: pass"

Interrupt = Callable[[], object]


class Waits(Protocol):
    """What says that a cell has begun."""

    def wait(self, seconds: float) -> bool:
        """Wait for it; whether it came in time."""


@contextmanager
def from_a_thread(interrupt: Interrupt, begun: Waits) -> Iterator[None]:
    thread = threading.Thread(target=lambda: begun.wait(10) and interrupt())
    thread.start()
    yield
    thread.join()


@contextmanager
def from_the_loop(interrupt: Interrupt, begun: Waits) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    with from_a_thread(lambda: loop.call_soon_threadsafe(interrupt), begun):
        yield


@contextmanager
def from_a_signal_handler(interrupt: Interrupt, begun: Waits) -> Iterator[None]:
    handled = threading.Event()

    def handle(*_: object) -> None:
        if not handled.is_set():
            handled.set()
            interrupt()

    def send() -> None:
        # Python does not see a signal that comes just before a loop goes to sleep until it wakes.
        while not handled.wait(0.05):
            os.kill(os.getpid(), signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        with from_a_thread(send, begun):
            yield
    finally:
        signal.signal(signal.SIGUSR1, previous)


@contextmanager
def from_another_loop(interrupt: Interrupt, begun: Waits) -> Iterator[None]:
    with LoopThread() as it, from_a_thread(lambda: it.loop.call_soon_threadsafe(interrupt), begun):
        yield


WAYS = {
    "a thread": from_a_thread,
    "the loop": from_the_loop,
    "a signal handler": from_a_signal_handler,
    "another loop": from_another_loop,
}


@requirement("6.2-interrupt")
@on_one_loop
@pytest.mark.parametrize("code", [WAITS, COMPUTES], ids=["waits", "computes"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("all_of_them", [True, False], ids=["all", "one"])
async def test_a_cell_is_interrupted_from(
    session: AnySession, context: Any, way: str, code: str, all_of_them: bool
) -> None:
    if way == "the loop" and code == COMPUTES and context != "thread":
        pytest.skip("the loop cannot call anything while a cell keeps it")
    begun, said = Flag(session, "begun"), list[object]()

    def interrupt() -> None:
        said.append(session.interrupt() if all_of_them else session.interrupt(1))

    with WAYS[way](interrupt, begun):
        result = await session.run(code, context=context, timeout=20)
    assert said == [True]
    is_at_the_flag = isinstance(session, WorkerSession) and result.status == "interrupted"
    if not is_at_the_flag:
        assert result.status == ("cancelled" if code == WAITS else "interrupted"), result
    assert isinstance(result.error, asyncio.CancelledError | CellInterrupted)
    assert result.stopped
    assert await session.execute("await asyncio.sleep(0, 'on')", context=context) == "on"


@requirement("6.2-interrupt")
@on_one_loop
@pytest.mark.parametrize("code", [WAITS, COMPUTES], ids=["waits", "computes"])
def test_a_cell_that_keeps_the_loop_of_a_blocking_session_is_interrupted(
    context: str, code: str
) -> None:
    begun = threading.Event()
    with BlockingSession() as session:
        session.update_namespace({"begun": begun.set})
        with from_a_thread(session.interrupt, begun):
            result = session.run(code, context=context, timeout=20)
        assert result.status in ("cancelled", "interrupted"), result
        assert result.stopped
        assert session.execute("await asyncio.sleep(0, 'on')") == "on"
