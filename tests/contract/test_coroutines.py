"""Coroutines that cells leave behind: adopted, awaited, reported, cleaned up."""

# ruff: noqa: E501 (a cell in one string reads better than one that is wrapped)

from __future__ import annotations

import asyncio
import gc
import inspect
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from either_home import beside, error_name, raises_there, until
from isthmus import (
    AnySession,
    AsyncExecutor,
    AsyncNamespaceManager,
    CoroutineAdopted,
    CoroutineSettled,
    LoopError,
    MemoryTransport,
    NamespaceSynchronizer,
)
from support import LoopThread, eventually

requirement = pytest.mark.requirement

SLOW = """
go = asyncio.Event()
started = []
async def slow(name='slow', result='done'):
    started.append(name)
    await go.wait()
    return result
async def fail():
    await asyncio.sleep(0)
    raise ValueError('failed')
"""


@pytest.fixture
def host_coroutine() -> Callable[..., Any]:
    """Makes a coroutine of the host."""

    async def work(result: object = "done") -> object:
        await asyncio.sleep(0)
        return result

    return work


# -- adoption ----------------------------------------------------------------------------------------


@requirement("5.2-adoption")
async def test_a_bare_coroutine_becomes_a_task_under_its_name(
    session: AnySession, context: str
) -> None:
    await session.execute(SLOW)
    result = await session.run("c = slow()", context=context)
    assert await session.execute("isinstance(c, asyncio.Task)")
    assert await session.execute("c.get_loop() is asyncio.get_running_loop()")
    assert result.adopted == ("c",)
    assert list(await session.pending_coroutines) == ["c"]
    await until(session, 'started == ["slow"]')
    assert await session.execute("go.set()\nawait c") == "done"


@requirement("5.2-adoption")
async def test_an_adopted_task_is_awaited_from_every_context_any_number_of_times(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute(SLOW + "go.set()")
    await session.execute("c = slow()", context=first)
    assert await session.execute("[await c, await c]", context=second) == ["done", "done"]
    assert await session.execute("await c", context=first) == "done"


@requirement("5.2-adoption")
async def test_all_names_of_one_coroutine_become_one_task(
    session: AnySession, context: str
) -> None:
    await session.execute(SLOW + "go.set()")
    result = await session.run("a = b = slow(); c = a", context=context)
    assert await session.execute("isinstance(a, asyncio.Task) and a is b is c")
    assert result.adopted == ("a", "b", "c")
    assert dict(await session.await_pending_coroutines()) == dict.fromkeys("abc", "done")
    assert await session.execute("(a, b, c)") == ("done",) * 3
    assert await session.get("started") == ["slow"]


@requirement("5.2-adoption")
async def test_the_value_of_a_cell_counts_as_a_name(session: AnySession, context: str) -> None:
    await session.execute(SLOW + "go.set()")
    result = await session.run("slow()", context=context)
    assert result.adopted == ("_",)
    assert await session.execute("await _", context=context) == "done"


@requirement("5.2-adoption")
async def test_the_value_counts_where_history_is_off_too(
    make_session: Callable[..., AnySession], context: str
) -> None:
    session = make_session(history=False)
    await session.execute(SLOW + "go.set()")
    value = await session.execute("slow()", context=context)
    assert await value == "done"


@requirement("5.2-adoption")
async def test_a_value_that_is_also_bound_is_one_task(session: AnySession, context: str) -> None:
    await session.execute(SLOW + "go.set()")
    result = await session.run("c = slow(); c", context=context)
    assert result.value is await session.get("c")
    assert isinstance(result.value, asyncio.Task)
    assert await result.value == "done"


@requirement("5.2-adoption")
async def test_a_coroutine_bound_by_a_global_statement_is_adopted(
    session: AnySession, context: str
) -> None:
    await session.execute(SLOW + "go.set()")
    result = await session.run("def f():\n    global c\n    c = slow()\nf()", context=context)
    assert result.adopted == ("c",)
    assert await session.execute("await c") == "done"


@requirement("5.2-adoption")
async def test_a_coroutine_that_has_started_or_has_a_task_is_left_alone(
    session: AnySession, context: str
) -> None:
    await session.execute(SLOW)
    code = (
        "class Once:\n    def __await__(self): yield\nasync def one(): await Once()\n"
        "started_one = one()\nx = started_one.send(None)\n"
        "coroutine = slow('two')\nasync def begin(): return asyncio.create_task(coroutine)\n"
        "task = run_sync(begin())"
    )
    result = await session.run(code, context=context)
    assert result.error is None, result.error
    assert result.adopted == ()
    assert await session.execute("import inspect; inspect.iscoroutine(started_one)")
    assert await session.execute("started_one.close()\ngo.set()\nawait task") == "done"


@requirement("5.2-adoption")
async def test_a_failed_cells_coroutines_are_adopted_too(session: AnySession, context: str) -> None:
    await session.execute(SLOW + "go.set()")
    result = await session.run("c = slow()\n1 / 0", context=context)
    assert error_name(result.error) == "ZeroDivisionError"
    assert result.adopted == ("c",)
    assert await session.execute("await c") == "done"


@requirement("5.2-adopted-tasks-accepted")
async def test_session_code_may_treat_an_adopted_task_as_the_coroutine(
    session: AnySession, context: str
) -> None:
    await session.execute(SLOW + "go.set()")
    await session.execute("a = slow(); b = slow(); c = slow(); d = slow()", context=context)
    code = (
        "async def start(): return asyncio.create_task(a)\n"
        "[await (await start()), await asyncio.ensure_future(b), run_sync(c), *(await asyncio.gather(d, a))]"
    )
    assert await session.execute(code, context=context) == ["done"] * 5
    assert await session.get("started") == ["slow"] * 4


@requirement("5.2-adopted-tasks-accepted")
async def test_create_task_of_an_adopted_coroutine_in_a_cell(session: AnySession) -> None:
    await session.execute(SLOW + "go.set()")
    for context in ("async", "thread"):
        await session.execute("a = slow()", context=context)
        code = "await asyncio.sleep(0)\nt = asyncio.create_task(a)\nassert t is a\nawait t"
        assert await session.execute(code, context=context) == "done"


@requirement("5.2-containers")
async def test_coroutines_in_containers_are_recorded_and_not_started(
    session: AnySession, context: str
) -> None:
    await session.execute(SLOW)
    code = "many = [slow(), (slow(), {'key': slow()})]\nfar = [[[[slow()]]]]"
    result = await session.run(code, context=context)
    assert result.adopted == ()
    assert await session.get("started") == []
    assert await session.pending_coroutines == {}
    recorded = {it.name for it in await session.ledger() if it.kind == "coroutine"}
    assert recorded == {"many[0]", "many[1][0]", "many[1][1]['key']"}
    far = (await session.get("far"))[0][0][0][0]
    await session.manager.cleanup_coroutines()
    assert inspect.getcoroutinestate((await session.get("many"))[0]) == inspect.CORO_CLOSED
    far.close()


@requirement("5.2-containers")
async def test_recorded_coroutines_can_be_awaited_by_a_later_cell(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute(SLOW + "go.set()")
    await session.execute("many = [slow(result=n) for n in range(3)]", context=first)
    assert await session.execute("await asyncio.gather(*many)", context=second) == [0, 1, 2]


# -- policies ----------------------------------------------------------------------------------------


@requirement("5.2-policies")
async def test_hold_only_records(make_session: Callable[..., AnySession], context: str) -> None:
    session = make_session(coroutine_policy="hold")
    await session.execute(SLOW + "go.set()")
    result = await session.run("c = slow()", context=context)
    assert result.adopted == ()
    assert await session.execute("import inspect; inspect.iscoroutine(c)")
    assert list(await session.pending_coroutines) == ["c"]
    assert await session.execute("await c", context=context) == "done"


@requirement("5.2-policies")
async def test_close_closes(make_session: Callable[..., AnySession], context: str) -> None:
    session = make_session(coroutine_policy="close")
    await session.execute(SLOW)
    await session.execute("c = slow()", context=context)
    assert await session.execute("c.cr_frame is None")
    assert await session.pending_coroutines == {}


@requirement("5.2-policies")
def test_another_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="'keep'"):
        AsyncNamespaceManager(coroutine_policy="keep")  # type: ignore[arg-type]


# -- update_namespace and late loops ---------------------------------------------------------------------


@requirement("5.2-late-loop")
async def test_update_namespace_adopts_at_once_on_the_loop(
    session: AnySession, host_coroutine: Callable[..., Any], context: str
) -> None:
    await session.execute("x = 1", context=context)
    session.update_namespace({"c": host_coroutine()})
    assert isinstance(await session.get("c"), asyncio.Task)
    assert await session.execute("await c", context=context) == "done"


@requirement("5.2-late-loop")
async def test_update_namespace_from_another_thread_adopts_soon(
    session: AnySession, host_coroutine: Callable[..., Any], context: str
) -> None:
    await session.execute("x = 1", context=context)
    await asyncio.to_thread(session.update_namespace, {"c": host_coroutine()})
    await eventually(lambda: isinstance(session.namespace["c"], asyncio.Task))
    assert await session.execute("await c", context=context) == "done"


@requirement("5.2-late-loop")
async def test_update_namespace_from_another_loop_adopts_on_the_home_loop(
    session: AnySession, host_coroutine: Callable[..., Any]
) -> None:
    await session.execute("x = 1")

    async def update() -> None:
        session.update_namespace({"c": host_coroutine()})

    with LoopThread() as other:
        await other.wait(update())
        await eventually(lambda: isinstance(session.namespace["c"], asyncio.Task))
    assert (await session.get("c")).get_loop() is asyncio.get_running_loop()


@requirement("5.2-late-loop")
def test_without_a_loop_a_coroutine_is_kept_and_adopted_once_there_is_one(
    host_coroutine: Callable[..., Any], context: str
) -> None:
    manager = AsyncNamespaceManager()
    coroutine = host_coroutine()
    manager.update_namespace({"c": coroutine})
    assert manager.namespace["c"] is coroutine
    assert "c" in manager.pending_coroutines

    async def later() -> None:
        executor = AsyncExecutor(manager)
        result = await executor.run("await c", context=context)  # type: ignore[arg-type]
        assert result.value == "done", result
        assert isinstance(manager.namespace["c"], asyncio.Task)
        await manager.cleanup_coroutines()
        manager.close()
        await asyncio.sleep(0)

    asyncio.run(later())


@requirement("5.2-late-loop")
async def test_set_event_loop_after_the_fact_adopts(host_coroutine: Callable[..., Any]) -> None:
    manager = AsyncNamespaceManager()
    await asyncio.to_thread(manager.update_namespace, {"c": host_coroutine()})
    assert inspect.iscoroutine(manager.namespace["c"])
    manager.set_event_loop(asyncio.get_running_loop())
    assert isinstance(manager.namespace["c"], asyncio.Task)
    assert dict(await manager.await_pending_coroutines()) == {"c": "done"}
    manager.close()


@requirement("5.2-late-loop")
async def test_set_event_loop_from_another_thread_adopts_soon(
    host_coroutine: Callable[..., Any],
) -> None:
    manager = AsyncNamespaceManager()
    loop = asyncio.get_running_loop()

    def elsewhere() -> None:
        manager.update_namespace({"c": host_coroutine()})
        manager.set_event_loop(loop)

    await asyncio.to_thread(elsewhere)
    await eventually(lambda: isinstance(manager.namespace["c"], asyncio.Task))
    assert await manager.namespace["c"] == "done"
    await manager.await_pending_coroutines()
    manager.close()


@requirement("bad-closed-loop")
async def test_a_closed_loop_is_refused_and_the_binding_stays(
    session: AnySession, context: str
) -> None:
    await session.execute("x = 1", context=context)
    closed = asyncio.new_event_loop()
    closed.close()
    with pytest.raises(LoopError, match="closed"):
        session.manager.set_event_loop(closed)
    assert session.manager.loop is asyncio.get_running_loop()
    assert await session.execute("x", context=context) == 1


@requirement("bad-closed-loop")
async def test_another_loop_is_refused_while_the_session_lives(session: AnySession) -> None:
    await session.execute("x = 1")
    other = asyncio.new_event_loop()
    try:
        with pytest.raises(LoopError, match="lives on"):
            session.manager.set_event_loop(other)
    finally:
        other.close()
    assert await session.execute("x") == 1


# -- settling ----------------------------------------------------------------------------------------


@requirement("5.3-settle")
async def test_settling_gives_results_by_name_and_rebinds_them(
    session: AnySession, context: str
) -> None:
    await session.execute(SLOW + "go.set()")
    await session.execute("a = slow(result=1); b = slow(result=None)", context=context)
    settled = await session.await_pending_coroutines()
    assert dict(settled) == {"a": 1, "b": None}
    assert (await session.get("a"), await session.get("b")) == (1, None)
    assert settled.errors == {}
    assert settled.unfinished == ()
    assert await session.pending_coroutines == {}
    assert dict(await session.await_pending_coroutines()) == {}


@requirement("5.3-settle")
async def test_a_name_that_was_rebound_meanwhile_keeps_its_new_value(
    session: AnySession, context: str
) -> None:
    await session.execute(SLOW)
    await session.execute("a = slow()", context=context)
    await session.execute("a = 'mine'", context=context)
    settling = asyncio.ensure_future(session.await_pending_coroutines())
    await asyncio.sleep(0)
    await session.execute("go.set()")
    settled = await settling
    assert dict(settled) == {"a": "done"}
    assert await session.get("a") == "mine"


@requirement("5.3-settle")
async def test_a_timeout_leaves_the_unfinished_ones_pending(
    session: AnySession, context: str
) -> None:
    await session.execute(SLOW)
    await session.execute("a = slow()\nasync def quick(): return 1\nb = quick()", context=context)
    settled = await session.await_pending_coroutines(timeout=0.05)
    assert dict(settled) == {"b": 1}
    assert settled.unfinished == ("a",)
    assert set(await session.pending_coroutines) == {"a"}
    await beside(session, "go.set()")
    assert dict(await session.await_pending_coroutines(timeout=5)) == {"a": "done"}


@requirement("5.3-failures")
async def test_a_failure_is_reported_and_never_stored_as_a_value(
    session: AnySession, context: str
) -> None:
    await session.execute(SLOW + "go.set()")
    await session.execute("good = slow(); bad = fail()", context=context)
    settled = await session.await_pending_coroutines()
    assert dict(settled) == {"good": "done"}
    assert error_name(settled.errors["bad"]) == "ValueError"
    assert await session.execute("isinstance(bad, asyncio.Task) and bad.done()")
    with pytest.raises(BaseExceptionGroup) as caught:
        settled.raise_errors()
    assert caught.value.exceptions[0].__notes__ == ["in the coroutine left behind as 'bad'"]
    with raises_there(ValueError, match="failed"):
        await session.execute("await bad", context=context)


@requirement("5.3-failures")
async def test_a_cancelled_coroutine_is_an_error_too(session: AnySession, context: str) -> None:
    await session.execute(SLOW)
    await session.execute("a = slow()", context=context)
    await session.execute("a.cancel()")
    settled = await session.await_pending_coroutines()
    assert error_name(settled.errors["a"]) == "CancelledError"


@requirement("5.3-failures")
async def test_settlements_become_events(
    make_session: Callable[..., AnySession], transport: MemoryTransport, context: str
) -> None:
    session = make_session("events", transport=transport)
    await session.execute(SLOW + "go.set()")
    await session.execute("good = slow(); bad = fail()", context=context)
    await session.await_pending_coroutines()
    await asyncio.sleep(0)
    assert [it.name for it in transport.of_type(CoroutineAdopted)] == ["bad", "good"]
    settled = {it.name: it.error for it in transport.of_type(CoroutineSettled)}
    assert settled == {"good": None, "bad": "ValueError: failed"}


@requirement("5.3-settle")
async def test_a_cell_may_settle_its_own_session(session: AnySession, context: str) -> None:
    async def settle() -> dict[str, Any]:
        return dict(await session.await_pending_coroutines())

    session.inject_capability("settle", settle)
    await session.execute(SLOW + "go.set()")
    await session.execute("a = slow()", context=context)
    assert await session.execute("await settle()", context=context) == {"a": "done"}


@requirement("5.3-settle")
async def test_settling_from_another_loop(session: AnySession, context: str) -> None:
    await session.execute(SLOW + "go.set()")
    await session.execute("a = slow()", context=context)
    with LoopThread() as other:
        assert dict(await other.wait(session.await_pending_coroutines())) == {"a": "done"}


@requirement("5.3-own-tasks")
async def test_tasks_of_create_task_are_never_replaced(session: AnySession, context: str) -> None:
    await session.execute(SLOW + "go.set()")
    await session.execute(
        "await asyncio.sleep(0)\nt = asyncio.create_task(slow())", context=context
    )
    await session.execute("_task = t\nawait t")
    await session.execute("t2 = t\nx = 1", context=context)
    settled = await session.await_pending_coroutines()
    assert dict(settled) == {}
    assert await session.execute("t is _task and t2 is _task")


@requirement("5.3-own-tasks")
async def test_tasks_are_replaced_when_the_synchroniser_is_asked_to(context: str) -> None:
    manager = AsyncNamespaceManager()
    executor = AsyncExecutor(manager)
    executor.synchronizer = NamespaceSynchronizer(manager, unwrap_tasks=True)
    code = (
        "async def f(): return 5\nasync def bad(): 1 / 0\nawait asyncio.sleep(0)\n"
        "t = asyncio.create_task(f())\nb = asyncio.create_task(bad())\nawait asyncio.wait([t, b])"
    )
    result = await executor.run(code, context=context)  # type: ignore[arg-type]
    assert result.error is None
    assert manager.namespace["t"] == 5
    assert isinstance(manager.namespace["b"], asyncio.Task)
    assert isinstance(manager.namespace["b"].exception(), ZeroDivisionError)
    manager.close()


# -- cleaning up -------------------------------------------------------------------------------------


@requirement("5-cleanup")
async def test_cleanup_cancels_adopted_coroutines_and_waits_for_them(
    session: AnySession, context: str
) -> None:
    await session.execute(SLOW)
    await session.execute(
        "async def tidy():\n    try:\n        await go.wait()\n    finally:\n"
        "        await asyncio.sleep(0)\n        started.append('tidied')\na = tidy()",
        context=context,
    )
    await asyncio.sleep(0)
    assert await session.manager.cleanup_coroutines() == ()
    assert await session.get("started") == ["tidied"]
    assert (await session.get("a")).cancelled()
    assert await session.pending_coroutines == {}
    assert await session.execute("'on'", context=context) == "on"


@requirement("5-cleanup")
async def test_what_would_not_end_is_reported_and_stays_pending(
    session: AnySession, context: str
) -> None:
    await session.execute(
        "go = asyncio.Event()\nasync def stubborn():\n    while not go.is_set():\n"
        "        try:\n            await go.wait()\n        except asyncio.CancelledError: pass\n"
    )
    await session.execute("a = stubborn()", context=context)
    await asyncio.sleep(0)
    assert await session.manager.cleanup_coroutines(timeout=0.02) == ("a",)
    assert set(await session.pending_coroutines) == {"a"}
    await beside(session, "go.set()")
    await session.await_pending_coroutines()


@requirement("5-cleanup")
async def test_held_coroutines_are_closed_at_cleanup_and_at_close(
    make_session: Callable[..., AnySession], context: str
) -> None:
    session = make_session(coroutine_policy="hold")
    await session.execute(SLOW)
    await session.execute("a = slow()", context=context)
    await session.manager.cleanup_coroutines()
    assert inspect.getcoroutinestate(await session.get("a")) == inspect.CORO_CLOSED
    await session.execute("b = slow()", context=context)
    await session.close()
    assert inspect.getcoroutinestate(session.namespace["b"]) == inspect.CORO_CLOSED


# -- bookkeeping ---------------------------------------------------------------------------------------


@requirement("5.1-weak")
async def test_finished_coroutines_that_no_name_holds_are_forgotten(
    session: AnySession, context: str
) -> None:
    await session.execute(SLOW + "go.set()")
    await session.execute("c = slow()", context=context)
    task = weakref.ref(await session.get("c"))
    await session.execute("del c", context=context if context != "thread" else "sync")
    await eventually(lambda: "c" not in session.pending_coroutines)
    await asyncio.sleep(0)
    gc.collect()
    assert task() is None


@requirement("5.1-weak")
async def test_a_row_of_coroutines_under_one_name_leaves_nothing_behind(
    session: AnySession, context: str
) -> None:
    await session.execute(SLOW + "go.set()")
    for _ in range(20):
        await session.execute("c = slow()", context=context)
    settled = await session.await_pending_coroutines()
    assert dict(settled) == {"c": "done"}
    assert await session.pending_coroutines == {}
    await until(session, "len(started) == 20")


@requirement("5.2-validation")
async def test_validation_reports_what_lies_about(session: AnySession, context: str) -> None:
    executor = session.executor
    await session.execute(SLOW)
    await session.execute("many = [slow()]\na = slow()\nb = fail()", context=context)
    (await session.get("a")).cancel()
    await asyncio.wait([await session.get("b"), await session.get("a")])
    with pytest.warns(RuntimeWarning, match=r"'many\[0\]' was never awaited"):
        report = executor.synchronizer.validate()
    assert report.unawaited == ("many[0]",)
    assert report.cancelled == ("a",)
    assert isinstance(report.failed["b"], ValueError)
    assert not report.clean
    await executor.synchronizer.clean_up()


@requirement("5.2-adoption")
async def test_a_coroutine_bound_in_an_earlier_thread_is_adopted_by_its_cell(
    session: AnySession,
) -> None:
    await session.execute(SLOW + "go.set()\nimport threading")
    code = "def put():\n    global c\n    c = slow()\nt = threading.Thread(target=put)\nt.start(); t.join()"
    result = await session.run(code, context="thread")
    assert result.adopted == ("c",)
    assert await session.execute("await c") == "done"
