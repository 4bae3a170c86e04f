"""Each crossing that cannot work: its own error, nothing left, and the session goes on."""

from __future__ import annotations

import asyncio
import inspect
import threading

import greenlet
import pytest

import isthmus
from either_home import error_name, message_of
from isthmus import (
    AlreadyAwaitedError,
    AnySession,
    CallbackError,
    CrossingError,
    ForeignGreenletError,
    ForeignLoopError,
    ForeignTaskError,
    ForeignThreadError,
    Session,
    SessionClosedError,
    TaskDestroyedError,
    can_run_sync,
    run_sync,
)
from isthmus.portal import in_portal
from support import WAIT_SECONDS, LoopThread, cell

requirement = pytest.mark.requirement


async def unreached() -> None:
    """A coroutine that must be closed, and not warn."""
    raise AssertionError("it must not run")


def refusal(kind: type[CrossingError], way_out: str) -> CrossingError:
    """What ``run_sync`` raises here; the coroutine that it was given must be closed."""
    coroutine = unreached()
    assert not can_run_sync()
    with pytest.raises(kind, match=way_out) as raised:
        run_sync(coroutine)
    assert type(raised.value) is kind
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    return raised.value


@requirement("4.1-refusals")
def test_in_a_thread_that_no_session_knows() -> None:
    refusal(ForeignThreadError, r"from a cell.*asyncio\.run\(\)")


@requirement("4.1-refusals")
async def test_in_a_task_of_the_host() -> None:
    asyncio.current_task().set_name("of the host")  # type: ignore[union-attr]
    refusal(ForeignTaskError, r"'of the host'.*make the function async")


@requirement("4.1-refusals", "4.5-deadlocks")
async def test_in_a_callback_of_the_loop(session: AnySession, context: str) -> None:
    code = cell("""
        answered = asyncio.get_running_loop().create_future()

        def callback():
            try:
                answered.set_result(refusal())
            except BaseException as error:
                answered.set_exception(error)

        asyncio.get_running_loop().call_soon(callback)
        await answered
        """)
    refuse = lambda: refusal(CallbackError, r"create_task")  # noqa: E731
    session.update_namespace({"refusal": refuse})
    assert isinstance(await session.execute(code, context=context), isthmus.DeadlockError)


@requirement("4.1-refusals")
async def test_in_a_greenlet_that_does_not_come_from_the_cell(session: AnySession) -> None:
    main = greenlet.getcurrent()

    def elsewhere() -> CrossingError:
        mine = greenlet.getcurrent()
        refuse = lambda: mine.switch(refusal(ForeignGreenletError, "the cell's own code"))  # noqa: E731
        return greenlet.greenlet(refuse, parent=main).switch()

    session.update_namespace({"elsewhere": elsewhere})
    assert isinstance(await session.execute("elsewhere()", context="sync"), CrossingError)
    assert await session.execute("run_sync(asyncio.sleep(0, 'on'))", context="sync") == "on"


@requirement("4.1-refusals")
async def test_for_a_future_of_another_loop(session: AnySession, context: str) -> None:
    with LoopThread() as other:
        foreign = other.loop.create_future()
        session.update_namespace({"foreign": foreign})
        result = await session.run("run_sync(foreign)", context=context)
        assert isinstance(result.error, ForeignLoopError), result
        assert "run_coroutine_threadsafe" in str(result.error)
        other.loop.call_soon_threadsafe(foreign.set_result, "done")
        assert other.submit(asyncio.wait_for(foreign, WAIT_SECONDS)).result() == "done"
        code = "run_sync(foreign)"
        assert await session.execute(code, context=context) == "done", "nothing to wait for"


@requirement("4.1-refusals")
@pytest.mark.parametrize("state", ["ended", "awaited", "running"])
async def test_for_a_coroutine_that_has_begun(
    session: AnySession, context: str, state: str
) -> None:
    code = cell("""
        gate = asyncio.Event()

        async def waits():
            await gate.wait()
            return 1

        async def itself():
            run_sync(mine)

        def crossed(state):
            global mine
            if state == "running":
                mine = itself()
                return run_sync(mine)
            mine = waits()
            gate.set()
            if state == "ended":
                run_sync(mine)
                return run_sync(mine)
            gate.clear()
            task = asyncio.create_task(awaits(mine))
            run_sync(asyncio.sleep(0))
            run_sync(asyncio.sleep(0))
            try:
                return run_sync(mine)
            finally:
                gate.set()
                assert run_sync(task) == 1

        async def awaits(coroutine):
            return await coroutine
        """)
    await session.execute(code)
    result = await session.run(f"await asyncio.sleep(0); crossed({state!r})", context=context)
    assert isinstance(result.error, AlreadyAwaitedError), result
    assert "make a task of it" in str(result.error)


@requirement("4.1-refusals")
async def test_in_a_task_that_is_being_destroyed() -> None:
    found: list[CrossingError] = []

    def code() -> None:
        try:
            run_sync(asyncio.sleep(30))
        except GeneratorExit:
            assert not can_run_sync()
            coroutine = asyncio.sleep(1)
            try:
                run_sync(coroutine)
            except TaskDestroyedError as error:
                assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
                found.append(error)
            raise

    driver = in_portal(code)
    driver.send(None)
    driver.close()
    assert len(found) == 1


AFTER_THE_END = cell("""
    import threading

    def code():
        held.set()
        try:
            go_on.wait(5)
        except BaseException as error:  # closing interrupts what computes
            pass
        try:
            run_sync(unreached())
        except BaseException as error:
            found.append(error)
        ended.set()
    """)


@requirement("4.1-refusals")
@pytest.mark.parametrize(
    ("start", "kind"),
    [
        ("threading.Thread(target=code).start()", SessionClosedError),
        ("code()", asyncio.CancelledError),  # a cell that was given up
    ],
    ids=["in a thread that it started", "in a cell that still runs"],
)
async def test_after_the_session_was_closed(start: str, kind: type[BaseException]) -> None:
    session = Session()
    held, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    found: list[BaseException] = []
    session.update_namespace(
        {"held": held, "go_on": go_on, "ended": ended, "found": found, "unreached": unreached}
    )
    await session.execute(AFTER_THE_END)
    running = asyncio.create_task(session.run(start, context="thread"))
    await asyncio.to_thread(held.wait, WAIT_SECONDS)
    await session.close(timeout=0.01)
    await running
    go_on.set()
    assert await asyncio.to_thread(ended.wait, WAIT_SECONDS)
    assert type(found[0]) is kind


@requirement("4.1-refusals")
async def test_something_that_cannot_be_awaited(session: AnySession, context: str) -> None:
    result = await session.run("run_sync(5)", context=context)
    assert error_name(result.error) == "TypeError"
    assert message_of(result.error) == "object int can't be used in 'await' expression"


@requirement("4.1-refusals")
def test_each_refusal_has_a_paragraph_in_the_documentation() -> None:
    from pathlib import Path

    text = (Path(__file__).parents[2] / "docs" / "crossing.md").read_text()
    missing = [
        name
        for name in isthmus.__all__
        if inspect.isclass(kind := getattr(isthmus, name))
        and issubclass(kind, CrossingError)
        and f"`{name}`" not in text
    ]
    assert missing == []
