"""Threads and executor jobs that session code starts: output, context variables, run_sync."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from either_home import beside
from isthmus import (
    AnySession,
    DeadlockError,
    ForeignThreadError,
    MemoryTransport,
    Session,
    run_sync,
)
from isthmus.visitors import visiting
from support import WAIT_SECONDS, cell, eventually, run_in_child
from transports import texts

requirement = pytest.mark.requirement

COMMON = cell("""
    import concurrent.futures, contextvars, threading

    var = contextvars.ContextVar("var", default=0)
    names = []

    async def step(count):
        await asyncio.sleep(0)
        names.append(asyncio.current_task().get_name())
        var.set(var.get() + count)
        return var.get()

    def work():
        print("from", threading.current_thread().name)
        return [run_sync(step(1)), run_sync(step(10)), var.get()]

    def in_thread(function):
        found = []
        thread = threading.Thread(target=lambda: found.append(function()), name="mine")
        thread.start()
        return thread, found
    """)

THREAD = "thread, found = in_thread(work); await asyncio.to_thread(thread.join); found[0]"

POOL = cell("""
    with concurrent.futures.ThreadPoolExecutor(thread_name_prefix="pool") as pool:
        found = await asyncio.wrap_future(pool.submit(work))
    found
    """)


@requirement("3.3-other-threads")
@pytest.mark.parametrize("code", [THREAD, POOL, "await asyncio.to_thread(work)"])
async def test_such_a_thread_waits_in_a_task_of_its_own_with_the_callers_variables(
    session: AnySession, context: str, code: str
) -> None:
    await session.execute(COMMON + "\nvar.set(100)")
    result = await session.run(code, context=context)
    assert result.unwrap() == [101, 111, 111]
    assert result.stdout.startswith("from ")
    first, second = await session.get("names")
    assert first == second != f"isthmus {session.name}"
    assert await session.execute("var.get()") == 100, "a thread has a copy"


@requirement("3.3-other-threads")
async def test_a_scope_that_such_a_thread_enters_it_can_leave(session: AnySession) -> None:
    code = cell("""
        async def made():
            return asyncio.timeout(0)

        def scoped():
            scope = run_sync(made())
            run_sync(scope.__aenter__())
            try:
                run_sync(asyncio.sleep(30))
            except asyncio.CancelledError as error:
                try:
                    run_sync(scope.__aexit__(type(error), error, None))
                except TimeoutError:
                    return "timed out"

        thread, found = in_thread(scoped)
        await asyncio.to_thread(thread.join)
        found
        """)
    await session.execute(COMMON)
    assert await session.execute(code) == ["timed out"]


@requirement("3.3-other-threads")
async def test_an_error_arrives_there_as_itself(session: AnySession, context: str) -> None:
    code = cell("""
        async def fail():
            await asyncio.sleep(0)
            raise KeyError("there")

        def failing():
            try:
                run_sync(fail())
            except KeyError as error:
                return error.args

        thread, found = in_thread(failing)
        await asyncio.to_thread(thread.join)
        found
        """)
    await session.execute(COMMON)
    assert await session.execute(code, context=context) == [("there",)]


@requirement("3.3-other-threads")
async def test_a_capability_of_the_host_works_there(session: AnySession, context: str) -> None:
    event = asyncio.Event()

    async def wait_for_host() -> str:
        event.set()
        await asyncio.sleep(0)
        return "from the host"

    session.inject_capability("wait_for_host", wait_for_host)
    await session.execute(COMMON)
    code = THREAD.replace("work", "lambda: wait_for_host()")
    assert await session.execute(code, context=context) == "from the host"
    assert event.is_set()


@requirement("3.3-other-threads")
async def test_it_goes_on_after_its_cell_and_its_output_comes_late(
    make_session: Any, transport: MemoryTransport
) -> None:
    session: AnySession = make_session(transport=transport)
    await session.execute(f"{COMMON}\ngo_on = threading.Event()")
    await session.execute("thread, found = in_thread(lambda: (go_on.wait(5), work()))")
    await session.execute("'another cell'")
    await beside(session, "go_on.set()")
    await session.execute("await asyncio.to_thread(thread.join)")
    late = [event for event in transport if getattr(event, "text", "") == "from mine\n"]
    assert [event.cell for event in late] == [2]
    assert await session.execute("found[0][1]") == [1, 11, 11]


@requirement("3.3-other-threads")
async def test_closing_the_session_ends_its_wait(
    make_session: Any, transport: MemoryTransport
) -> None:
    session: AnySession = make_session(transport=transport)
    await session.execute(COMMON)
    code = cell("""
        import isthmus
        waits = threading.Event()

        async def for_ever():
            waits.set()
            await asyncio.Event().wait()

        def waiting():
            try:
                run_sync(for_ever())
            except BaseException as error:
                print(type(error).__name__)
            try:
                run_sync(for_ever())
            except (asyncio.CancelledError, isthmus.SessionClosedError):
                print("closed")  # or still closing

        thread, found = in_thread(waiting)
        await asyncio.to_thread(waits.wait)
        """)
    await session.execute(code)
    assert (await session.close()).clean
    assert "".join(texts(transport)) == "CancelledError\nclosed\n"


@requirement("4.5-deadlocks")
@pytest.mark.parametrize(
    "wait",
    [
        "thread, found = in_thread(guarded); thread.join(); found[0]",
        "with futures.ThreadPoolExecutor() as pool: found = pool.submit(guarded).result()\nfound",
        "with futures.ThreadPoolExecutor() as pool: found = [*pool.map(guarded, '1')][0]\nfound",
    ],
    ids=["join", "result", "map"],
)
@pytest.mark.parametrize("where", ["async", "sync"])
async def test_a_wait_for_each_other_is_refused_with_both_sides_named(
    session: AnySession, where: str, wait: str
) -> None:
    code = cell("""
        from concurrent import futures

        async def unreached():
            await asyncio.sleep(0)

        def guarded(*_):
            try:
                run_sync(unreached())
            except RuntimeError as error:
                return error
        """)
    await session.execute(COMMON + "\n" + code)
    result = await session.run(wait, context=where)
    assert isinstance(result.value, DeadlockError), result
    assert result.filename in str(result.value), "the loop's side"
    assert "thread '" in str(result.value), "the thread's side"
    assert await session.execute("await step(1)") == 1


@requirement("3.3-other-threads")
async def test_in_a_thread_cell_the_same_wait_is_none(session: AnySession) -> None:
    await session.execute(COMMON)
    code = "thread, found = in_thread(work); thread.join(); found[0]"
    assert await session.execute(code, context="thread") == [1, 11, 11]


@requirement("3.3-other-threads")
async def test_a_thread_that_a_library_keeps_works_for_whoever_calls_it(
    make_session: Any,
) -> None:
    import anyio.to_thread

    one, two = make_session("one"), make_session("two")
    code = "import anyio.to_thread\nawait anyio.to_thread.run_sync(work)"
    for session in (one, two, one):
        await session.execute(COMMON)
        assert await session.execute(code) == [1, 11, 11]

    def host() -> str:
        try:
            run_sync(asyncio.sleep(0))
        except ForeignThreadError as error:
            return str(error)
        return "served"

    assert "asyncio.run()" in await anyio.to_thread.run_sync(host)


@requirement("3.3-other-threads")
async def test_a_thread_of_the_host_is_left_alone(session: AnySession) -> None:
    await session.execute("1")
    found: list[Any] = []

    def host() -> None:
        try:
            run_sync(asyncio.sleep(0))
        except ForeignThreadError as error:
            found.append(error)

    thread = threading.Thread(target=host)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert len(found) == 1
    assert "run" not in vars(thread)


@requirement("6.5-hooks")
async def test_a_thread_is_as_it_was_when_it_runs(session: AnySession) -> None:
    code = cell("""
        import threading

        class Mine(threading.Thread):
            def run(self):
                self.found = "run" in vars(self), asyncio.iscoroutinefunction(self.run)

        thread = Mine()
        thread.start()
        await asyncio.to_thread(thread.join)
        try:
            thread.start()
        except RuntimeError as error:
            again = str(error)
        thread.found, again
        """)
    assert await session.execute(code) == ((False, False), "threads can only be started once")
    assert await session.execute("'run' in vars(thread)") is False


@requirement("3.3-other-threads")
async def test_without_hooks_a_copied_context_is_enough(make_session: Any) -> None:
    session: AnySession = make_session(hooks=False)
    await session.execute(COMMON)
    count = "len(asyncio.all_tasks())"
    before = await session.execute(count)
    assert await session.execute("await asyncio.to_thread(work)") == [1, 11, 11]
    await eventually(lambda: session.execute(f"{count} <= {before}"))


@requirement("3.3-other-threads")
async def test_a_thread_that_is_interrupted_while_it_waits_gives_its_wait_up(
    session: Session,
) -> None:
    """The wait of a visit that ends by an exception of the thread's own leaves no task."""
    await session.execute("1")
    home = session.manager.current_home
    assert home is not None
    begun, cancelled = threading.Event(), asyncio.Event()
    found: list[BaseException] = []

    async def for_ever() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    await session.execute("0")
    session.update_namespace(
        {"visiting": visiting, "home": home, "for_ever": for_ever, "found": found}
    )
    code = cell("""
        import ctypes, threading

        def wait():
            try:
                run_sync(for_ever())
            except KeyboardInterrupt as error:
                found.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        """)
    await session.execute(code)
    await asyncio.to_thread(begun.wait, WAIT_SECONDS)
    await session.execute(
        "ctypes.pythonapi.PyThreadState_SetAsyncExc("
        "ctypes.c_ulong(thread.ident), ctypes.py_object(KeyboardInterrupt))"
    )
    await asyncio.wait_for(cancelled.wait(), WAIT_SECONDS)
    await asyncio.to_thread(session.namespace["thread"].join, WAIT_SECONDS)
    assert [type(error) for error in found] == [KeyboardInterrupt]


@requirement("4.1-refusals")
def test_a_forked_child_is_refused_by_name_and_prints_as_ever() -> None:
    program = """
        import asyncio, os
        from isthmus import Session

        CELL = '''
        import os, sys

        def child():
            pid = os.fork()
            if pid:
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            try:
                run_sync(asyncio.sleep(0))
            except Exception as error:
                print("child:", type(error).__name__, flush=True)
            os._exit(asyncio.run(asyncio.sleep(0, 7)))

        child()
        '''

        async def main():
            async with Session() as session:
                for context in ("async", "thread", "sync"):
                    result = await session.run(CELL, context=context)
                    print(context, result.value, repr(result.stdout), result.error)
                assert await session.execute("await asyncio.sleep(0, 1)") == 1

        asyncio.run(main())
        """
    ended = run_in_child(program)
    assert ended.status == 0, ended
    assert ended.stdout.split("\n") == [
        "child: ForkedProcessError",
        "async 7 '' None",
        "child: ForkedProcessError",
        "thread 7 '' None",
        "child: ForkedProcessError",
        "sync 7 '' None",
        "",
    ], ended
