"""``spawn`` and ``call_on_loop``: starting and calling things on the home loop, from any thread."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable

import pytest

from either_home import error_name, message_of, names
from isthmus import (
    AnySession,
    CellExit,
    CrossingError,
    MemoryTransport,
    ReservedNameError,
    Session,
    call_on_loop,
    spawn,
)
from support import FLAVOURS, WAIT_SECONDS, cell, eventually
from transports import texts

requirement = pytest.mark.requirement

AWAITING = ("await asyncio.sleep(0)\n", "")
"""What makes a cell one that awaits, and so a thread cell one that sees the loop; and nothing."""


# -- spawn ---------------------------------------------------------------------------------------


@requirement("3.5-spawn")
@pytest.mark.parametrize("flavour", FLAVOURS, indirect=True)
async def test_spawn_starts_a_task_of_the_home_loop(
    session: AnySession, context: str, flavour: str
) -> None:
    code = cell("""
        import threading
        async def job():
            await asyncio.sleep(0)
            return threading.get_ident(), asyncio.current_task()
        task = spawn(job(), name="mine")
        """)
    await session.execute(code, context=context)
    assert await session.execute("type(task) is asyncio.Task, task.get_name()") == (True, "mine")
    assert await session.execute("await task == (threading.main_thread().ident, task)")


@requirement("3.5-spawn")
@pytest.mark.parametrize("awaiting", AWAITING, ids=["awaits", "does not await"])
async def test_a_spawned_task_begins_while_its_thread_computes_on(
    session: AnySession, awaiting: str
) -> None:
    await session.execute("import threading\nbegun = threading.Event()")
    session.update_namespace({"seconds": WAIT_SECONDS})
    code = cell("""
        async def job():
            begun.set()
            return "done"
        task = spawn(job())
        waited = begun.wait(seconds)
        waited, run_sync(task)
        """)
    assert await session.execute(awaiting + code, context="thread") == (True, "done")


@requirement("3.5-spawn")
async def test_a_spawned_task_of_the_loops_thread_begins_when_its_code_waits(
    session: AnySession,
) -> None:
    code = cell("""
        begun = []
        async def job(): begun.append(1)
        task = spawn(job())
        before = list(begun)
        run_sync(asyncio.sleep(0))
        before, begun
        """)
    assert await session.execute(code) == ([], [1])


@requirement("3.5-spawn")
@pytest.mark.parametrize("hooks", [True, False])
async def test_sync_code_in_a_spawned_task_can_wait(
    make_session: Callable[..., AnySession], context: str, hooks: bool
) -> None:
    code = cell("""
        def sync(): return run_sync(asyncio.sleep(0, "waited"))
        async def job(): return sync()
        run_sync(spawn(job()))
        """)
    assert await make_session(hooks=hooks).execute(code, context=context) == "waited"


@requirement("3.5-spawn")
async def test_a_factory_that_somebody_has_set_meanwhile_makes_the_task(
    session: AnySession, context: str
) -> None:
    await session.execute(
        cell("""
        made, loop = [], asyncio.get_running_loop()
        def factory(loop, coro, **kwargs):
            made.append(asyncio.Task(coro, loop=loop, **kwargs))
            return made[-1]
        ours = loop.get_task_factory()
        loop.set_task_factory(factory)
        """)
    )
    code = "def sync(): return run_sync(asyncio.sleep(0, 5))\nasync def job(): return sync()"
    await session.execute(f"{code}\ntask = spawn(job())", context=context)
    assert await session.execute("await task, task in made") == (5, True)
    await session.execute("loop.set_task_factory(ours)")


@requirement("3.5-spawn")
async def test_a_spawned_task_is_the_sessions_and_ends_with_it(
    make_session: Callable[..., AnySession], transport: MemoryTransport, context: str
) -> None:
    code = cell("""
        async def job():
            try:
                await asyncio.sleep(30)
            finally:
                print("cancelled" if task.cancelling() else "why?")
        task = spawn(job())
        """)
    async with make_session(transport=transport) as session:
        await session.execute(code, context=context)
        assert await session.execute("await asyncio.sleep(0)\ntask.done()") is False
        assert texts(transport) == []
    assert texts(transport) == ["cancelled\n"]


@requirement("3.5-spawn", "5.2-adopted-tasks-accepted")
async def test_spawn_accepts_what_an_earlier_cell_has_left_behind(
    session: AnySession, context: str
) -> None:
    await session.execute("late = asyncio.sleep(0, 'late')", context=context)
    code = "task = spawn(late, name='late')\ntask is late, run_sync(task)"
    assert await session.execute(code, context=context) == (True, "late")


@requirement("3.5-spawn")
async def test_a_spawned_task_has_a_copy_of_the_callers_context_variables(
    session: AnySession, context: str
) -> None:
    code = cell("""
        import contextvars
        user = contextvars.ContextVar("user", default="nobody")
        user.set("ada")
        async def job():
            seen = user.get()
            user.set("bob")
            return seen
        run_sync(spawn(job())), user.get()
        """)
    assert await session.execute(code, context=context) == ("ada", "ada")


@requirement("3.5-spawn")
async def test_what_a_spawned_task_prints_is_its_cells(session: AnySession, context: str) -> None:
    code = "async def job(): print('here')\nrun_sync(spawn(job()))"
    assert (await session.run(code, context=context)).stdout == "here\n"


@requirement("3.5-spawn")
async def test_spawn_refuses_what_is_no_coroutine_as_create_task_does(
    session: AnySession, context: str
) -> None:
    with pytest.raises(TypeError) as plain:
        asyncio.get_running_loop().create_task(5)  # type: ignore[arg-type]
    result = await session.run("spawn(5)", context=context)
    assert error_name(result.error) == "TypeError"
    assert message_of(result.error) == str(plain.value)


@requirement("3.5-spawn")
async def test_spawn_works_in_a_callback_of_the_loop(session: AnySession) -> None:
    code = cell("""
        got = asyncio.get_running_loop().create_future()
        def callback(): got.set_result(spawn(asyncio.sleep(0, "from a callback")))
        asyncio.get_running_loop().call_soon(callback)
        await (await got)
        """)
    assert await session.execute(code) == "from a callback"


@requirement("3.5-spawn")
async def test_code_of_no_session_is_refused_by_name_and_its_coroutine_closed() -> None:
    coroutine = asyncio.sleep(0)
    with pytest.raises(CrossingError, match=r"spawn\(\) needs the event loop of a session"):
        spawn(coroutine)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    with pytest.raises(CrossingError, match=r"call_on_loop\(\) needs the event loop of a session"):
        call_on_loop(print, "never")


@requirement("3.5-spawn")
async def test_a_cell_that_was_cancelled_while_it_computed_spawns_nothing(
    session: Session,
) -> None:
    computing, go = threading.Event(), threading.Event()
    session.update_namespace({"computing": computing, "go": go})
    code = cell("""
        coroutine = asyncio.sleep(0)
        computing.set()
        go.wait(5)
        spawn(coroutine)
        """)
    running = asyncio.ensure_future(session.run(code, context="thread"))
    await eventually(computing.is_set)
    home = session.manager.current_home
    assert home is not None
    for job in home.jobs():
        home.cancel(job)
    go.set()
    assert (await running).status == "cancelled"
    coroutine = session.namespace["coroutine"]
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


@requirement("3.5-spawn", "3.5-call-on-loop")
async def test_a_thread_that_outlives_its_session_is_refused() -> None:
    computing, go = threading.Event(), threading.Event()
    session = Session()
    session.update_namespace({"computing": computing, "go": go})
    code = cell("""
        coroutine, errors = asyncio.sleep(0), []
        computing.set()
        go.wait(5)
        for call in (lambda: spawn(coroutine), lambda: call_on_loop(print)):
            try:
                call()
            except RuntimeError as error:
                errors.append(type(error).__name__)
        """)
    running = asyncio.ensure_future(session.run(code, context="thread"))
    await eventually(computing.is_set)
    session.manager.close()
    go.set()
    await running  # whether it is given up, or ends in time, is a race
    await eventually(lambda: len(session.namespace["errors"]) == 2)
    assert session.namespace["errors"] == ["SessionClosedError", "SessionClosedError"]
    coroutine = session.namespace["coroutine"]
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


# -- call_on_loop --------------------------------------------------------------------------------


@requirement("3.5-call-on-loop")
@pytest.mark.parametrize("flavour", FLAVOURS, indirect=True)
@pytest.mark.parametrize("awaiting", AWAITING, ids=["awaits", "does not await"])
async def test_a_function_is_called_on_the_loops_thread_and_its_result_comes_back(
    session: AnySession, context: str, awaiting: str, flavour: str
) -> None:
    code = awaiting + cell("""
        import threading
        def where(*values): return threading.current_thread() is threading.main_thread(), values
        call_on_loop(where, 1, "two")
        """)
    assert await session.execute(code, context=context) == (True, (1, "two"))


@requirement("3.5-call-on-loop")
async def test_objects_of_the_loop_are_used_safely_from_a_thread(session: AnySession) -> None:
    await session.execute("queue, event = asyncio.Queue(), asyncio.Event()")
    await session.execute("taker = asyncio.create_task(queue.get())")
    code = cell("""
        call_on_loop(queue.put_nowait, "item")
        call_on_loop(event.set)
        task = call_on_loop(asyncio.create_task, asyncio.sleep(0, "task"))
        """)
    await session.execute(code, context="thread")
    code = "await taker, event.is_set(), await task"
    assert await session.execute(code, timeout=WAIT_SECONDS) == ("item", True, "task")


@requirement("3.5-call-on-loop")
async def test_on_the_loops_thread_it_is_a_plain_call(session: AnySession) -> None:
    code = cell("""
        import sys
        def caller(): return sys._getframe(2).f_code.co_name
        def outer(): return call_on_loop(caller)
        outer()
        """)
    assert await session.execute(code) == "outer"
    assert await session.execute(code, context="sync") == "outer"


@requirement("3.5-call-on-loop")
@pytest.mark.parametrize("error", ["KeyError", "StopIteration", "asyncio.CancelledError"])
async def test_what_the_function_raises_comes_back(
    session: AnySession, context: str, error: str
) -> None:
    code = cell(f"""
        def fail(): raise {error}("from the loop")
        try:
            call_on_loop(fail)
        except {error} as caught:
            got = caught.args
        got
        """)
    assert await session.execute(code, context=context) == ("from the loop",)


@requirement("3.5-call-on-loop", "6.2-no-exit-of-host-loop")
async def test_a_function_that_exits_ends_the_cell(session: AnySession, context: str) -> None:
    with pytest.raises(CellExit) as caught:
        await session.execute("import sys\ncall_on_loop(sys.exit, 3)", context=context)
    assert caught.value.code == 3


@requirement("3.5-call-on-loop")
async def test_context_variables_go_along_and_come_back(session: AnySession, context: str) -> None:
    code = cell("""
        import contextvars
        user = contextvars.ContextVar("user", default="nobody")
        user.set("ada")
        def rename():
            seen = user.get()
            user.set("bob")
            return seen
        call_on_loop(rename), user.get()
        """)
    assert await session.execute(code, context=context) == ("ada", "bob")


@requirement("3.5-call-on-loop")
async def test_the_function_can_wait_for_awaitables(session: AnySession, context: str) -> None:
    code = "def wait(): return run_sync(asyncio.sleep(0, 'waited'))\ncall_on_loop(wait)"
    assert await session.execute(code, context=context) == "waited"


@requirement("3.5-call-on-loop")
async def test_an_async_function_gives_its_coroutine(session: AnySession, context: str) -> None:
    code = "async def f(): return 5\nrun_sync(call_on_loop(f))"
    assert await session.execute(code, context=context) == 5


# -- both ----------------------------------------------------------------------------------------


@requirement("3.5-spawn", "3.5-call-on-loop")
async def test_a_thread_that_a_cell_starts_reaches_the_loop(
    session: AnySession, context: str
) -> None:
    code = cell("""
        import contextvars, threading
        got = []
        async def job(): return threading.get_ident()
        def other():
            try:
                got.append(run_sync(spawn(job())))
                got.append(call_on_loop(threading.get_ident))
            except RuntimeError as error:
                got.append(error)
        thread = threading.Thread(target=contextvars.copy_context().run, args=(other,))
        thread.start()
        await asyncio.to_thread(thread.join)
        """)
    await session.execute(code, context=context)
    assert await session.execute("got == [threading.main_thread().ident] * 2 or got") is True


@requirement("3.5-spawn", "3.5-call-on-loop")
@pytest.mark.parametrize("name", ["spawn", "call_on_loop"])
async def test_the_names_are_the_runtimes_own(session: AnySession, context: str, name: str) -> None:
    with pytest.raises(ReservedNameError, match=name):
        session.inject_capability(name, print)
    assert await session.execute(f"import isthmus\n{name} is isthmus.{name}", context=context)
    assert name not in await names(session)
