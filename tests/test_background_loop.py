"""An event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest

from isthmus import CellCancelled, SessionClosedError, ThreadAwareLoop
from isthmus.background_loop import BackgroundLoop, Errand
from isthmus.portal import Runner, in_portal, run_sync
from support import WAIT_SECONDS

requirement = pytest.mark.requirement


async def nothing() -> None:
    """What there is to do at the end."""


@pytest.fixture
def background() -> Iterator[BackgroundLoop]:
    """A loop that has ended, with its thread, when the test has."""
    loop = BackgroundLoop("background")
    yield loop
    loop.end(nothing)
    assert loop.join(WAIT_SECONDS) and loop.loop.is_closed()


@requirement("8-blocking-session")
def test_work_is_awaited_in_its_thread_with_the_callers_variables(
    background: BackgroundLoop,
) -> None:
    user = contextvars.ContextVar("user", default="nobody")
    user.set("ada")

    async def work() -> tuple[object, str, int, bool]:
        await asyncio.sleep(0)
        here = asyncio.get_running_loop()
        seen = here, user.get(), threading.get_ident(), background.runs_here
        user.set("bob")
        return seen

    loop, name, thread, runs_here = background.run(work())
    assert loop is background.loop and type(loop) is ThreadAwareLoop
    assert (name, user.get(), runs_here, background.runs_here) == ("ada", "ada", True, False)
    assert thread != threading.get_ident()


@requirement("8-blocking-session")
def test_an_error_arrives_as_itself_and_is_not_kept(background: BackgroundLoop) -> None:
    class Failure(Exception):
        def __init__(self) -> None:
            made.append(weakref.ref(self))

    made: list[weakref.ref[Failure]] = []

    async def work() -> None:
        raise Failure

    gc.disable()  # what is left is in a cycle then
    try:
        try:
            background.run(work())
        except Failure as error:
            assert error is made[0]()
        background.run(nothing())
        assert made[0]() is None
    finally:
        gc.enable()


@requirement("8-blocking-session")
def test_work_that_is_cancelled_on_the_loop_is_an_error_of_its_own(
    background: BackgroundLoop,
) -> None:
    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(600)

    with pytest.raises(CellCancelled, match="cancelled by code"):
        background.run(work())


@requirement("8-blocking-session")
def test_what_a_signals_handler_raises_in_the_waiting_thread_cancels_the_work(
    background: BackgroundLoop,
) -> None:
    class Alarm(Exception):
        pass

    def handler(*_: object) -> None:
        raise Alarm

    stopped = threading.Event()

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0)
            stopped.set()

    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(Alarm):
            background.run(work())
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert stopped.is_set()  # by then


@requirement("8-blocking-session")
def test_work_that_was_withdrawn_before_it_began_never_begins(background: BackgroundLoop) -> None:
    async def work() -> None:
        raise AssertionError

    errand = Errand(work())
    errand.withdraw()
    errand.start(background.loop)
    assert isinstance(errand.exception(), asyncio.CancelledError)


@requirement("8-blocking-session")
def test_its_thread_leaves_no_greenlet_and_no_work_for_the_exit() -> None:
    def left() -> tuple[int, int]:
        gc.collect()
        runners = sum(isinstance(it, Runner) for it in gc.get_objects())
        return runners, len(weakref.finalize._registry)  # type: ignore[attr-defined]

    before = left()
    for _ in range(3):
        background = BackgroundLoop("background")
        background.run(in_portal(lambda: run_sync(asyncio.sleep(0))))
        background.end(nothing)
        assert background.join(WAIT_SECONDS)
    assert left() == before


@requirement("8-blocking-session")
def test_the_last_work_is_the_last(background: BackgroundLoop) -> None:
    order: list[str] = []

    async def last(name: str) -> str:
        order.append(name)
        return name

    ending = background.end(functools.partial(last, "last"))
    assert background.end(functools.partial(last, "later")) is ending
    assert ending.result(WAIT_SECONDS) == "last" and background.ending
    with pytest.raises(SessionClosedError):
        background.run(last("too late"))
    assert order == ["last"]


@requirement("8-blocking-session")
def test_who_waits_when_the_loop_ends_hears_of_it(background: BackgroundLoop) -> None:
    outcomes: list[str] = []
    started = threading.Event()

    async def work() -> None:
        started.set()
        await asyncio.sleep(600)

    def wait() -> None:
        try:
            background.run(work())
        except SessionClosedError as error:
            outcomes.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    assert started.wait(WAIT_SECONDS)
    background.end(nothing)
    thread.join(WAIT_SECONDS)
    assert outcomes == ["the session was closed while the call was waiting"]


@requirement("8-blocking-session")
@pytest.mark.parametrize("way", ["stop", "exit", "interrupt"])
def test_nothing_but_the_last_work_ends_it(background: BackgroundLoop, way: str) -> None:
    def leave(error: type[BaseException]) -> None:
        raise error

    ways: dict[str, Callable[[], None]] = {
        "stop": background.loop.stop,
        "exit": functools.partial(leave, SystemExit),
        "interrupt": functools.partial(leave, KeyboardInterrupt),
    }
    background.loop.call_soon_threadsafe(ways[way])
    background.run(nothing())
    background.run(nothing())


@requirement("8-blocking-session")
def test_a_last_work_that_fails_ends_it_too(background: BackgroundLoop) -> None:
    async def fail() -> None:
        raise ValueError("no end")

    with pytest.raises(ValueError, match="no end"):
        background.end(fail).result(WAIT_SECONDS)
    assert background.join(WAIT_SECONDS)
