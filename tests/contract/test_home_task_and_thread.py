"""The home task and the home thread: what lives on from one cell to the next, and cancellation."""

# ruff: noqa: E501 (a cell in one string reads better than one that is wrapped)

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable

import pytest

from either_home import Flag, beside, error_name, until
from isthmus import (
    AnySession,
    AsyncExecutor,
    AsyncNamespaceManager,
    MemoryTransport,
    Session,
    SessionClosedError,
)
from support import (
    CONTEXTS,
    assert_as_expected,
    make_runner,
    on_one_loop,
    on_other_loops,
    wait_until,
)

requirement = pytest.mark.requirement

LOOP_CONTEXTS = ("async", "sync")


# -- context variables -----------------------------------------------------------------------------


@requirement("3.2-context-variables")
@pytest.mark.parametrize("wait", ["", "await asyncio.sleep(0)\n"], ids=["at once", "after await"])
async def test_a_context_variable_set_in_a_cell_is_set_in_the_next(
    session: AnySession, first: str, second: str, wait: str
) -> None:
    await session.execute("import contextvars\nvar = contextvars.ContextVar('var')", context=first)
    await session.execute(f"{wait}_t = var.set('set')", context=first)
    assert await session.execute(f"{wait}var.get('unset')", context=second) == "set"
    await session.execute(f"{wait}_t = var.set('again')", context=second)
    assert await session.execute("var.get('unset')", context=first) == "again"


@requirement("3.2-context-variables")
async def test_a_variable_set_by_an_awaited_coroutine_is_set_in_the_cell(
    session: AnySession, context: str
) -> None:
    code = (
        "import contextvars\nvar = contextvars.ContextVar('var', default=0)\n"
        "async def f():\n    var.set(var.get() + 1)\n    await asyncio.sleep(0)\n    var.set(var.get() + 1)\n"
        "await f()\nhere = var.get()\nawait f()\n(here, var.get())"
    )
    assert await session.execute(code, context=context) == (2, 4)


@requirement("3.2-context-variables")
async def test_variables_of_the_host_are_seen_and_cells_do_not_change_them(
    make_session: Callable[..., AnySession], context: str
) -> None:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var")
    var.set("host")
    session = make_session()
    session.update_namespace({"var": var})
    assert (
        await session.execute("seen = var.get()\n_t = var.set('cell')\nseen", context=context)
        == "host"
    )
    assert await session.execute("var.get()", context=context) == "cell"
    assert var.get() == "host"


@requirement("3.2-context-variables")
async def test_a_token_resets_a_variable_within_its_context(
    session: AnySession, context: str
) -> None:
    await session.execute("import contextvars; var = contextvars.ContextVar('var', default=0)")
    assert (
        await session.execute(
            "t = var.set(1)\nawait asyncio.sleep(0)\nvar.reset(t)\nvar.get()", context=context
        )
        == 0
    )
    await session.execute("t = var.set(2)", context=context)
    assert (
        await session.execute("await asyncio.sleep(0)\nvar.reset(t)\nvar.get()", context=context)
        == 0
    )
    assert await session.execute("var.get()", context="async") == 0


@requirement("3.4-concurrent")
async def test_a_concurrent_cell_has_a_copy_of_the_variables(
    session: AnySession, context: str
) -> None:
    await session.execute(
        "import contextvars; var = contextvars.ContextVar('var'); _t = var.set(1)"
    )
    assert (
        await session.execute(
            "seen = var.get(); _t = var.set(2); seen", context=context, concurrent=True
        )
        == 1
    )
    assert await session.execute("var.get()", context=context) == 1


# -- scopes over cells -------------------------------------------------------------------------------


@requirement("3.2-scopes")
async def test_a_task_group_is_entered_in_one_cell_and_left_in_another(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute(
        "done = []\nasync def work(n):\n    await asyncio.sleep(0)\n    done.append(n)"
    )
    await session.execute("group = asyncio.TaskGroup()\nawait group.__aenter__()", context=first)
    await session.execute(
        "_t = await asyncio.sleep(0)\nt1 = group.create_task(work(1))", context=first
    )
    await session.execute("await asyncio.sleep(0)\nt2 = group.create_task(work(2))", context=second)
    await session.execute("await group.__aexit__(None, None, None)", context=second)
    assert await session.get("done") == [1, 2]


@requirement("3.2-scopes")
async def test_a_timeout_entered_in_one_cell_expires_in_another(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute("scope = asyncio.timeout(0.02)\nawait scope.__aenter__()", context=first)
    result = await session.run("await asyncio.sleep(30)", context=second)
    assert error_name(result.error) == "CancelledError"
    code = (
        "import sys\nawait scope.__aexit__(asyncio.CancelledError, asyncio.CancelledError(), None)"
    )
    result = await session.run(code, context=second)
    assert error_name(result.error) == "TimeoutError", result
    assert (await session.run("await asyncio.sleep(0, 'on')", context=first)).value == "on"
    assert await session.execute("asyncio.current_task().cancelling()", context="async") == 0


@requirement("3.2-scopes")
async def test_a_timeout_left_in_time_leaves_no_trace(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute("scope = asyncio.timeout(30)\nawait scope.__aenter__()", context=first)
    leaving = "await asyncio.sleep(0)\nawait scope.__aexit__(None, None, None)\nscope.expired()"
    assert await session.execute(leaving, context=second) is False


@requirement("3.2-scopes")
async def test_an_exit_stack_is_entered_in_one_cell_and_left_in_another(
    session: AnySession, first: str, second: str
) -> None:
    code = """
import contextlib
log = []
@contextlib.asynccontextmanager
async def resource(name):
    await asyncio.sleep(0)
    log.append('open ' + name)
    yield name
    await asyncio.sleep(0)
    log.append('close ' + name)
stack = contextlib.AsyncExitStack()
await stack.__aenter__()
a = await stack.enter_async_context(resource('a'))
"""
    await session.execute(code, context=first)
    await session.execute("b = await stack.enter_async_context(resource('b'))", context=second)
    await session.execute("await stack.aclose()", context=second)
    assert await session.get("log") == ["open a", "open b", "close b", "close a"]


@requirement("3.2-scopes")
async def test_an_anyio_group_is_entered_in_one_cell_and_left_in_another(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute(
        "import anyio\ndone = []\nasync def work(n):\n    await anyio.sleep(0)\n    done.append(n)\n"
        "group = anyio.create_task_group()\nawait group.__aenter__()",
        context=first,
    )
    await session.execute("await asyncio.sleep(0)\ngroup.start_soon(work, 1)", context=first)
    await session.execute("await asyncio.sleep(0)\ngroup.start_soon(work, 2)", context=second)
    await session.execute("await group.__aexit__(None, None, None)", context=second)
    assert await session.get("done") == [1, 2]


@requirement("3.2-scopes")
async def test_an_anyio_scope_is_cancelled_in_a_later_cell(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute(
        "import anyio\nscope = anyio.CancelScope()\n_s = scope.__enter__()\nawait asyncio.sleep(0)",
        context=first,
    )
    result = await session.run("scope.cancel()\nawait anyio.sleep(30)", context=second)
    assert error_name(result.error) == "CancelledError"
    code = (
        "import sys\n"
        "try:\n    await anyio.sleep(30)\n"
        "except BaseException as e:\n    swallowed = scope.__exit__(type(e), e, e.__traceback__)\n"
        "swallowed"
    )
    assert await session.execute(code, context=second) is True
    assert await session.execute("await asyncio.sleep(0, 'on')", context=first) == "on"


@requirement("3.2-scopes")
async def test_a_group_whose_task_fails_between_cells_cancels_the_next_await(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute(
        "group = asyncio.TaskGroup()\nawait group.__aenter__()\n"
        "async def fail():\n    raise ValueError('in the group')\n"
        "t = group.create_task(fail())"
        if first == "async"
        else "group = asyncio.TaskGroup()\nawait group.__aenter__()\n"
        "async def fail():\n    raise ValueError('in the group')\n"
        "async def begin(): return group.create_task(fail())\nt = await begin()",
        context=first,
    )
    await until(session, "t.done()")
    result = await session.run("reached = 1\nawait asyncio.sleep(30)\nreached = 2", context=second)
    assert error_name(result.error) == "CancelledError"
    assert await session.get("reached") == 1
    code = "await group.__aexit__(asyncio.CancelledError, asyncio.CancelledError(), None)"
    result = await session.run(code, context=second)
    assert error_name(result.error) == "ExceptionGroup"
    assert "ValueError: in the group" in (result.traceback or "")
    assert await session.execute("await asyncio.sleep(0, 'on')", context=first) == "on"


@requirement("3.2-current-task")
async def test_the_current_task_is_the_same_in_every_awaiting_cell(
    session: AnySession, first: str, second: str
) -> None:
    code = "await asyncio.sleep(0)\ntasks.append(asyncio.current_task())"
    await session.execute("tasks = []")
    await session.execute(code, context=first)
    await session.execute(code, context=second)
    await session.execute(code, context="async")
    assert await session.execute("len(set(tasks)), tasks[0].done()") == (1, False)


# -- cancellation ------------------------------------------------------------------------------------


@requirement("3.2-cancel-ours")
async def test_interrupting_a_cell_cancels_what_it_does_and_not_the_task(
    session: AnySession, context: str
) -> None:
    cell = asyncio.ensure_future(
        session.run(
            "task = asyncio.current_task()\nstarted = True\nawait asyncio.sleep(30)"
            if context != "thread"
            else "started = True\nawait asyncio.sleep(30)",
            context=context,
        )
    )
    await until(session, "'started' in globals()")
    assert session.interrupt()
    result = await cell
    assert result.status == "cancelled"
    assert error_name(result.error) == "CancelledError"
    assert await session.execute("await asyncio.sleep(0, asyncio.current_task().cancelling())") == 0


@on_one_loop
@requirement("3.2-cancel-ours")
async def test_no_request_to_cancel_a_thread_cell_is_left_to_the_next_one(
    session: AnySession,
) -> None:
    """The task has to swallow it, and may hear of its next cell in the same moment."""
    for _ in range(20):
        code = "started = True\nawait asyncio.sleep(30)"
        waiting = asyncio.ensure_future(session.run(code, context="thread"))
        await until(session, "globals().pop('started', False)")
        assert session.interrupt()
        assert (await waiting).status == "cancelled"
        assert await session.execute("asyncio.current_task().cancelling()") == 0


@requirement("3.2-cancel-ours")
async def test_a_cell_may_swallow_its_cancellation_and_the_next_is_not_hit(
    session: AnySession, context: str
) -> None:
    code = (
        "try:\n    started = True\n    await asyncio.sleep(30)\n"
        "except asyncio.CancelledError:\n    pass\nawait asyncio.sleep(0, 'survived')"
    )
    cell = asyncio.ensure_future(session.run(code, context=context))
    await until(session, "'started' in globals()")
    session.interrupt()
    assert (await cell).value == "survived"
    for after in CONTEXTS:
        assert await session.execute("await asyncio.sleep(0, 'on')", context=after) == "on"


@requirement("3.2-cancel-ours")
async def test_cancelling_the_caller_cancels_the_cell_and_the_session_goes_on(
    session: AnySession, context: str
) -> None:
    code = "try:\n    started = True\n    await asyncio.sleep(30)\nfinally:\n    cleaned = True"
    caller = asyncio.ensure_future(session.run(code, context=context))
    await until(session, "'started' in globals()")
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert await session.get("cleaned")
    assert await session.execute("await asyncio.sleep(0, 'on')", context=context) == "on"


@requirement("3.2-cancel-ours")
async def test_cancelling_the_caller_of_a_waiting_cell_takes_it_out_of_the_queue(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute("go = asyncio.Event()")
    running = asyncio.ensure_future(session.run("await go.wait()", context=first))
    waiting = asyncio.ensure_future(session.run("ran = True", context=second))
    last = asyncio.ensure_future(session.run("'last'", context=first))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await beside(session, "go.set()")
    assert (await running).status == "ok"
    assert (await last).value == "last"
    assert "ran" not in await session.snapshot()


@requirement("3.2-cancel-ours")
async def test_a_wait_for_of_the_caller_ends_the_cell(session: AnySession, context: str) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(session.run("await asyncio.sleep(30)", context=context), 0.02)
    assert await session.execute("await asyncio.sleep(0, 'on')", context=context) == "on"


@requirement("3.2-cancel-stray")
@pytest.mark.parametrize("before", LOOP_CONTEXTS)
async def test_a_stray_cancel_is_absorbed_at_the_end_of_its_cell(
    session: AnySession, before: str, context: str
) -> None:
    await session.execute("asyncio.current_task().cancel()", context=before)
    assert await session.execute("await asyncio.sleep(0, 'on')", context=context) == "on"
    assert await session.execute("asyncio.current_task().cancelling()") == 0


@requirement("3.2-cancel-stray")
async def test_a_stray_cancel_reaches_the_next_await_of_its_own_cell(
    session: AnySession, context: str
) -> None:
    result = await session.run(
        "await asyncio.sleep(0)\nasyncio.current_task().cancel()\nreached = 1\n"
        "await asyncio.sleep(0)\nawait asyncio.sleep(0)\nreached = 2",
        context=context,
    )
    assert result.status == "cancelled"
    assert await session.get("reached") == 1
    assert await session.execute("await asyncio.sleep(0, 'on')", context=context) == "on"


@requirement("3.2-cancel-idle")
async def test_a_scopes_cancel_while_idle_stays_pending_without_spinning(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute("scope = asyncio.timeout(None)\nawait scope.__aenter__()", context=first)
    await beside(session, "scope.reschedule(asyncio.get_running_loop().time())")
    for _ in range(5):
        await asyncio.sleep(0.001)
    await _loop_sleeps_while(session)
    result = await session.run("await asyncio.sleep(30)", context=second)
    assert error_name(result.error) == "CancelledError", result
    code = "await scope.__aexit__(asyncio.CancelledError, asyncio.CancelledError(), None)"
    assert error_name((await session.run(code, context=second)).error) == "TimeoutError"


async def _loop_sleeps_while(session: AnySession) -> None:
    """An idle session schedules nothing: between two steps of ours the loop has nothing else ready.

    So it is here too where the home loop is a worker's.
    """
    loop = asyncio.get_running_loop()
    ready = getattr(loop, "_ready", None)
    if ready is None:  # uvloop keeps its own counsel
        return
    for _ in range(3):
        await asyncio.sleep(0)
        assert len(ready) == 0


@requirement("3.2-cancel-idle")
async def test_a_scope_cancelled_while_idle_and_left_at_once_cancels_nothing(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute(
        "import anyio\nscope = anyio.CancelScope()\n_s = scope.__enter__()\nawait asyncio.sleep(0)",
        context=first,
    )
    await beside(session, "scope.cancel()")
    for _ in range(5):
        await asyncio.sleep(0.001)
    code = "await asyncio.sleep(0)" if first == second == "none" else "x = 1"
    await session.execute(code, context=second)
    result = await session.run("scope.__exit__(None, None, None)", context="async")
    assert result.status == "ok", result
    assert await session.execute("await asyncio.sleep(0, 'on')", context=second) == "on"
    assert await session.execute("asyncio.current_task().cancelling()") == 0


@requirement("3.2-cancel-shutdown")
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_the_shutdown_of_the_loop_ends_the_session(flavour: str, context: str, busy: bool) -> None:
    session = Session()

    async def host() -> None:
        await session.execute("x = 1", context=context)
        if busy:
            code = (
                "try:\n    started = 1\n    await asyncio.sleep(30)\nfinally:\n    cleaned = True"
            )
            host.cell = asyncio.ensure_future(session.run(code, context=context))  # type: ignore[attr-defined]
            await until(session, "'started' in globals()")

    with make_runner(flavour) as runner:
        runner.run(host())
    assert session.namespace["x"] == 1
    wait_until(lambda: not busy or "cleaned" in session.namespace)  # a thread ends by itself
    session.manager.close()


@requirement("3.2-cancel-shutdown")
def test_a_session_that_a_shutdown_has_ended_says_so_in_the_next_loop(
    flavour: str, first: str, second: str
) -> None:
    session = Session()
    with make_runner(flavour) as runner:
        runner.run(session.execute("x = 1", context=first))
    with make_runner(flavour) as runner:
        with pytest.raises(SessionClosedError, match=r"(open|make) a new one"):
            runner.run(session.run("x = 2", context=second))
        runner.run(session.close())
    assert session.namespace["x"] == 1


@requirement("3.2-cancel-shutdown")
def test_a_namespace_that_has_run_nothing_can_change_its_loop(flavour: str, context: str) -> None:
    manager = AsyncNamespaceManager()
    with make_runner(flavour) as runner:
        manager.set_event_loop(runner.get_loop())
    with make_runner(flavour) as runner:
        result = runner.run(
            AsyncExecutor(manager).run("await asyncio.sleep(0, 1)", context=context)
        )  # type: ignore[arg-type]
        assert result.value == 1
        manager.close()
        runner.run(asyncio.sleep(0))


# -- the home thread -----------------------------------------------------------------------------------


@requirement("3.3-home-thread")
async def test_thread_cells_run_in_one_thread_that_is_not_the_loops(session: AnySession) -> None:
    code = "import threading\nthreading.get_ident()"
    one = await session.execute(code, context="thread")
    await session.execute("await asyncio.sleep(0)", context="async")
    assert await session.execute(code, context="thread") == one
    loops = await session.execute("threading.main_thread().ident")
    assert one != loops
    assert await session.execute(code, context="async") == loops
    assert await session.execute(code, context="sync") == loops


@requirement("3.3-home-thread")
async def test_thread_locals_persist_over_thread_cells(session: AnySession) -> None:
    await session.execute(
        "import threading; local = threading.local(); local.x = 5", context="thread"
    )
    await session.execute("await asyncio.sleep(0)", context="async")
    assert await session.execute("local.x", context="thread") == 5
    assert await session.execute("hasattr(local, 'x')", context="async") is False


@requirement("3.3-home-thread")
async def test_a_sqlite_connection_is_used_over_several_thread_cells(session: AnySession) -> None:
    await session.execute(
        "import sqlite3\ndb = sqlite3.connect(':memory:')\ndb.execute('create table t (n)')",
        context="thread",
    )
    await session.execute(
        "with db: db.executemany('insert into t values (?)', [(1,), (2,)])", context="thread"
    )
    await session.execute("await asyncio.sleep(0)", context="thread")
    assert await session.execute(
        "db.execute('select sum(n) from t').fetchone()", context="thread"
    ) == (3,)
    result = await session.run("db.execute('select 1')", context="sync")
    assert error_name(result.error) == "ProgrammingError"
    await session.execute("_ = __ = ___ = None; db.close()", context="thread")


@requirement("3.3-home-thread")
async def test_thread_cells_do_not_use_the_loops_default_executor(session: AnySession) -> None:
    loop = asyncio.get_running_loop()
    await session.execute("x = 1", context="thread")
    assert getattr(loop, "_default_executor", None) is None


AWAITING_IDIOMS: dict[str, tuple[str, object]] = {
    "timeout around several awaits": (
        "async with asyncio.timeout(30) as t:\n    a = await asyncio.sleep(0, 1)\n"
        "    b = await asyncio.sleep(0, 2)\n(a, b, t.expired())",
        (1, 2, False),
    ),
    "timeout that expires": (
        "r = []\ntry:\n    async with asyncio.timeout(0.02):\n        await asyncio.sleep(0)\n"
        "        await asyncio.sleep(30)\nexcept TimeoutError:\n    r.append('late')\n"
        "r.append(await asyncio.sleep(0, 'on'))\nr",
        ["late", "on"],
    ),
    "wait_for": ("await asyncio.wait_for(asyncio.sleep(0, 3), 30)", 3),
    "wait_for that is late": (
        "try:\n    await asyncio.wait_for(asyncio.sleep(30), 0.02)\nexcept TimeoutError:\n    r = 'late'\nr",
        "late",
    ),
    "gather over create_task": (
        "await asyncio.gather(asyncio.create_task(asyncio.sleep(0, 1)), asyncio.sleep(0, 2))",
        [1, 2],
    ),
    "wait": (
        "ts = [asyncio.create_task(asyncio.sleep(0, i)) for i in range(3)]\n"
        "done, pending = await asyncio.wait(ts)\nsorted(t.result() for t in done), len(pending)",
        ([0, 1, 2], 0),
    ),
    "as_completed": (
        "r = []\nfor f in asyncio.as_completed([asyncio.sleep(0.01, 'b'), asyncio.sleep(0, 'a')]):\n"
        "    r.append(await f)\nr",
        ["a", "b"],
    ),
    "task group": (
        "async with asyncio.TaskGroup() as g:\n    a = g.create_task(asyncio.sleep(0, 1))\n"
        "    b = g.create_task(asyncio.sleep(0, 2))\na.result() + b.result()",
        3,
    ),
    "task group that fails": (
        "async def bad():\n    raise ValueError('x')\n"
        "try:\n    async with asyncio.TaskGroup() as g:\n        g.create_task(bad())\n"
        "        await asyncio.sleep(30)\nexcept* ValueError as e:\n    r = [str(x) for x in e.exceptions]\nr",
        ["x"],
    ),
    "run_in_executor": (
        "import threading\nloop = asyncio.get_running_loop()\n"
        "await loop.run_in_executor(None, threading.get_ident) != threading.get_ident()",
        True,
    ),
    "to_thread": ("await asyncio.to_thread(max, 1, 2)", 2),
    "a future by hand": (
        "f = asyncio.get_running_loop().create_future()\n"
        "asyncio.get_running_loop().call_soon(f.set_result, 9)\nawait f",
        9,
    ),
    "call_later": (
        "f = asyncio.get_running_loop().create_future()\n"
        "h = asyncio.get_running_loop().call_later(0.001, f.set_result, 9)\nawait f",
        9,
    ),
    "a queue with two workers": (
        "q = asyncio.Queue()\nr = []\n"
        "async def worker():\n    while True:\n        r.append(await q.get())\n        q.task_done()\n"
        "ws = [asyncio.create_task(worker()) for _ in range(2)]\n"
        "for i in range(5):\n    await q.put(i)\n"
        "await q.join()\nfor w in ws:\n    w.cancel()\n"
        "await asyncio.gather(*ws, return_exceptions=True)\nsorted(r)",
        [0, 1, 2, 3, 4],
    ),
    "a semaphore and a lock": (
        "s = asyncio.Semaphore(1); l = asyncio.Lock()\nasync with s, l:\n    r = await asyncio.sleep(0, 4)\nr, l.locked()",
        (4, False),
    ),
    "shield": ("await asyncio.shield(asyncio.sleep(0, 6))", 6),
    "anyio group": (
        "import anyio\nr = []\nasync def f(n):\n    await anyio.sleep(0)\n    r.append(n)\n"
        "async with anyio.create_task_group() as g:\n    g.start_soon(f, 1)\n    g.start_soon(f, 2)\nsorted(r)",
        [1, 2],
    ),
    "anyio move_on_after": (
        "import anyio\nwith anyio.move_on_after(0.02) as s:\n    await anyio.sleep(0)\n    await anyio.sleep(30)\n"
        "s.cancelled_caught",
        True,
    ),
    "anyio to_thread": ("import anyio\nawait anyio.to_thread.run_sync(max, 1, 2)", 2),
    "an awaited task twice": (
        "t = asyncio.create_task(asyncio.sleep(0, 2))\n(await t) + (await t)",
        4,
    ),
    "a task that is cancelled": (
        "t = asyncio.create_task(asyncio.sleep(30))\nawait asyncio.sleep(0)\nt.cancel()\n"
        "try:\n    await t\nexcept asyncio.CancelledError:\n    r = 'cancelled'\nr",
        "cancelled",
    ),
    "an async exit stack": (
        "import contextlib\nasync with contextlib.AsyncExitStack() as s:\n"
        "    t = await s.enter_async_context(asyncio.timeout(30))\n    r = await asyncio.sleep(0, 1)\nr",
        1,
    ),
    "an error in an awaited coroutine": (
        "async def f():\n    await asyncio.sleep(0)\n    raise KeyError('k')\n"
        "try:\n    await f()\nexcept KeyError as e:\n    r = e.args\nr",
        ("k",),
    ),
    "the running loop": (
        "await asyncio.sleep(0)\nasyncio.get_running_loop() is asyncio.current_task().get_loop()",
        True,
    ),
    "subprocess": (
        "import sys\np = await asyncio.create_subprocess_exec(sys.executable, '-c', 'print(6)', "
        "stdout=asyncio.subprocess.PIPE)\n(await p.communicate())[0].split()",
        [b"6"],
    ),
    "streams": (
        "async def serve(r, w):\n    w.write(await r.readline())\n    await w.drain()\n    w.close()\n"
        "server = await asyncio.start_server(serve, '127.0.0.1', 0)\n"
        "async with server:\n"
        "    r, w = await asyncio.open_connection(*server.sockets[0].getsockname())\n"
        "    w.write(b'echo\\n')\n    await w.drain()\n    line = await r.readline()\n"
        "    w.close()\n    await w.wait_closed()\nline",
        b"echo\n",
    ),
}


def idioms_of_this_python() -> dict[str, tuple[str, object]]:
    """All of them, but on 3.11 for the subprocess: its child watcher has a thread of its own."""
    if sys.version_info >= (3, 12):
        return AWAITING_IDIOMS
    return {name: it for name, it in AWAITING_IDIOMS.items() if name != "subprocess"}


@on_one_loop
@requirement("3.3-awaits-in-home-task", "3.5-idioms")
@pytest.mark.parametrize("idiom", idioms_of_this_python())
@pytest.mark.parametrize("concurrent", [False, True], ids=["ordered", "concurrent"])
async def test_asyncio_idioms_mean_the_same_in_every_context(
    session: AnySession, context: str, idiom: str, concurrent: bool
) -> None:
    code, expected = AWAITING_IDIOMS[idiom]
    result = await session.run(code, context=context, concurrent=concurrent)
    assert result.error is None, result.error
    assert result.value == expected
    assert await session.execute("asyncio.current_task().cancelling()") == 0


@on_other_loops
@requirement("3.3-awaits-in-home-task", "3.5-idioms")
@pytest.mark.parametrize("concurrent", [False, True], ids=["ordered", "concurrent"])
async def test_asyncio_idioms_mean_the_same_one_after_another_on_every_loop(
    session: AnySession, context: str, concurrent: bool
) -> None:
    found = {}
    idioms = idioms_of_this_python()
    for idiom, (code, _) in idioms.items():
        result = await session.run(code, context=context, concurrent=concurrent)
        cancelling = await session.execute("asyncio.current_task().cancelling()")
        found[idiom] = result.value, result.error, cancelling
    expected = {idiom: (value, None, 0) for idiom, (_, value) in idioms.items()}
    assert_as_expected(found, expected)


@requirement("3.3-awaits-in-home-task")
async def test_what_a_thread_cell_awaits_runs_in_the_home_task(session: AnySession) -> None:
    await session.execute(
        "async def where():\n    await asyncio.sleep(0)\n    return asyncio.current_task()"
    )
    await session.execute("home = asyncio.current_task()")
    assert await session.execute("await where() is home", context="thread")
    assert await session.execute("await where() is home", context="sync")
    assert not await session.execute("await where() is home", context="thread", concurrent=True)


@requirement("3.3-awaits-in-home-task")
async def test_an_anyio_group_entered_by_a_thread_cell_is_left_by_an_async_one(
    session: AnySession,
) -> None:
    await session.execute(
        "import anyio\nr = []\nasync def f(n): r.append(n)\n"
        "g = anyio.create_task_group()\nawait g.__aenter__()\ng.start_soon(f, 1)",
        context="thread",
    )
    await session.execute(
        "g.start_soon(f, 2)\nawait g.__aexit__(None, None, None)", context="async"
    )
    assert await session.get("r") == [1, 2]


@requirement("3.5-plain-thread")
async def test_a_plain_thread_cell_sees_no_running_loop(session: AnySession) -> None:
    code = (
        "async def f(): return await asyncio.sleep(0, asyncio.get_running_loop())\n"
        "own = asyncio.new_event_loop()\n"
        "mine = own.run_until_complete(f())\nown.close()\n"
        "try:\n    asyncio.get_running_loop()\nexcept RuntimeError:\n    r = 'no loop'\nr"
    )
    assert await session.execute(code, context="thread") == "no loop"
    assert await session.execute("mine is own")


@requirement("3.5-plain-thread")
async def test_the_loop_is_as_before_after_a_thread_cell_that_awaited(session: AnySession) -> None:
    await session.execute("1")  # from here on the session's own hooks are in
    loop = asyncio.get_running_loop()
    own = set(getattr(loop, "__dict__", ()))
    current_task = asyncio.current_task
    await session.execute("await asyncio.sleep(0)", context="thread")
    assert set(getattr(loop, "__dict__", ())) == own
    assert asyncio.current_task is current_task


@requirement("3.5-thread-view")
async def test_the_loop_goes_on_while_a_thread_cell_blocks(
    session: AnySession, transport: MemoryTransport
) -> None:
    await session.execute("import threading; go = threading.Event()")
    blocked = Flag(session, "blocked")
    cell = asyncio.ensure_future(session.run("blocked(); go.wait(5)", context="thread"))
    await blocked.seen()
    await beside(session, "await asyncio.sleep(0.001)\ngo.set()")
    assert (await cell).value is True


@requirement("3.5-thread-view")
async def test_tasks_of_a_thread_cell_are_the_home_loops(session: AnySession) -> None:
    await session.execute(
        "await asyncio.sleep(0)\nt = asyncio.create_task(asyncio.sleep(0, 'of the thread'))",
        context="thread",
    )
    assert await session.execute("t.get_loop() is asyncio.get_running_loop()")
    assert await session.execute("await t", context="async") == "of the thread"


@requirement("4.4-loop-bound-objects")
async def test_loop_bound_objects_have_one_home(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute(
        "q = asyncio.Queue(); lock = asyncio.Lock()\nasync def put(n):\n    async with lock:\n        await q.put(n)\n"
        "await put(1)",
        context=first,
    )
    await session.execute("t = asyncio.ensure_future(put(2))\nawait t", context=second)
    assert await session.execute("[await q.get(), await q.get()]", context=second) == [1, 2]
