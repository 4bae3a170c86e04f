"""Whose turn it is: ordered, concurrent and nested cells, other loops, deadlines."""

# ruff: noqa: E501 (a cell in one string reads better than one that is wrapped)

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from either_home import Flag, beside, error_name, raises_there, until
from isthmus import (
    AnySession,
    AsyncExecutor,
    AsyncNamespaceManager,
    CellTimeout,
    LoopError,
    Session,
    SessionClosedError,
)
from support import CONTEXTS, LoopThread, Sequencer, eventually

requirement = pytest.mark.requirement


# -- ordered -----------------------------------------------------------------------------------------


@requirement("3.4-order")
async def test_cells_run_first_come_first_served_over_all_contexts(session: AnySession) -> None:
    await session.execute("log = []")
    wait = {"async": "await asyncio.sleep(0)", "thread": "await asyncio.sleep(0)", "sync": "pass"}
    contexts = [context for context in CONTEXTS for _ in range(20)]
    random.Random(20).shuffle(contexts)
    codes = [
        f"log.append(('in', {number}))\n{wait[context] if number % 2 else 'pass'}\nlog.append(('out', {number}))"
        for number, context in enumerate(contexts)
    ]
    await asyncio.gather(
        *[
            session.execute(code, context=context)
            for code, context in zip(codes, contexts, strict=True)
        ]
    )
    expected = [(way, number) for number in range(60) for way in ("in", "out")]
    assert await session.get("log") == expected


@requirement("3.4-order")
async def test_a_cell_waits_for_the_one_before_it(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute("go = asyncio.Event(); log = []")
    one = asyncio.ensure_future(session.run("await go.wait()\nlog.append(1)", context=first))
    two = asyncio.ensure_future(session.run("log.append(2)", context=second))
    for _ in range(5):
        await asyncio.sleep(0.001)
    assert await session.get("log") == []
    await beside(session, "go.set()")
    await asyncio.gather(one, two)
    assert await session.get("log") == [1, 2]


@requirement("3.4-order")
async def test_executors_of_one_namespace_share_its_order(context: str) -> None:
    manager = AsyncNamespaceManager()
    one, two = AsyncExecutor(manager), AsyncExecutor(manager)
    await one.execute("go = asyncio.Event(); log = []")
    first = asyncio.ensure_future(one.run("await go.wait()\nlog.append(1)", context=context))  # type: ignore[arg-type]
    second = asyncio.ensure_future(two.run("log.append(2)", context=context))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    manager.namespace["go"].set()
    await asyncio.gather(first, second)
    assert manager.namespace["log"] == [1, 2]
    manager.close()


@requirement("3.4-order")
async def test_a_failed_cell_does_not_stop_those_behind_it(
    session: AnySession, first: str, second: str
) -> None:
    results = await asyncio.gather(
        session.run("1 / 0", context=first),
        session.run("await asyncio.sleep(0)\n1 / 0", context=second),
        session.run("'on'", context=first),
    )
    assert [error_name(it.error) for it in results] == [
        "ZeroDivisionError",
        "ZeroDivisionError",
        None,
    ]


@requirement("3.4-order")
async def test_the_loop_goes_round_while_a_row_of_cells_runs(
    session: AnySession, context: str
) -> None:
    rounds, going = 0, True

    async def beat() -> None:
        nonlocal rounds
        while going:
            rounds += 1
            await asyncio.sleep(0)

    beating = asyncio.ensure_future(beat())
    prompt = context != "thread" and isinstance(session, Session)  # a busy loop starves others
    for _ in range(500 if prompt else 50):
        await session.execute("x = 1", context=context)
    going = False
    await beating
    assert rounds > 2


# -- concurrent --------------------------------------------------------------------------------------


@requirement("3.4-concurrent")
async def test_a_concurrent_cell_overtakes_one_that_waits(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute("go = asyncio.Event()")
    waiting = asyncio.ensure_future(session.run("await go.wait()\n'waited'", context=first))
    for _ in range(3):
        await asyncio.sleep(0)
    await session.execute(
        "await asyncio.sleep(0)\ngo.set()"
        if second != "thread"
        else "async def f(): go.set()\nawait f()",
        context=second,
        concurrent=True,
    )
    assert (await waiting).value == "waited"


@requirement("3.4-concurrent")
async def test_many_concurrent_cells_wait_for_each_other(session: AnySession) -> None:
    await session.execute("meet = asyncio.Barrier(9)")
    async with asyncio.timeout(5):
        results = await asyncio.gather(
            *[
                session.execute(
                    "await meet.wait()\n'met'", context=CONTEXTS[n % 3], concurrent=True
                )
                for n in range(9)
            ]
        )
    assert results == ["met"] * 9


@requirement("3.4-concurrent")
async def test_concurrent_thread_cells_have_threads_of_their_own(session: AnySession) -> None:
    code = "import threading\nawait meet.wait()\nthreading.get_ident()"
    await session.execute("import threading\nmeet = asyncio.Barrier(3)")
    home = await session.execute("threading.get_ident()", context="thread")
    loops = await session.execute("threading.get_ident()")
    found = await asyncio.gather(
        *[session.execute(code, context="thread", concurrent=True) for _ in range(3)]
    )
    assert len({*found, home, loops}) == 5


# -- nested ------------------------------------------------------------------------------------------


@requirement("3.4-nested")
async def test_a_cell_runs_a_cell_of_its_own_session(
    session: AnySession, first: str, second: str
) -> None:
    session.inject_capability("nested", session.execute)
    code = f"inner = await nested('x = 20; x + 1', context={second!r})\n(inner, x)"
    assert await session.execute(code, context=first) == (21, 20)


@requirement("3.4-nested")
async def test_a_nested_cell_may_wait(session: AnySession, first: str, second: str) -> None:
    session.inject_capability("nested", session.execute)
    code = (
        f"await nested('await asyncio.sleep(0)\\ny = await asyncio.sleep(0, 5)', context={second!r})\n"
        "await asyncio.sleep(0)\ny"
    )
    assert await session.execute(code, context=first) == 5


@requirement("3.4-nested")
async def test_nesting_goes_several_levels_deep(
    session: AnySession, first: str, second: str
) -> None:
    session.inject_capability("nested", session.execute)
    await session.execute(
        "async def descend(n, a, b):\n"
        "    if n == 0: return ['bottom']\n"
        "    deeper = await nested(f'await descend({n - 1}, {b!r}, {a!r})', context=a)\n"
        "    return [n, *deeper]"
    )
    code = f"await descend(6, {second!r}, {first!r})"
    assert await session.execute(code, context=first) == [6, 5, 4, 3, 2, 1, "bottom"]


@requirement("3.4-nested")
async def test_the_parents_outcome_waits_for_a_nested_cell_that_it_left_running(
    session: AnySession, first: str, second: str
) -> None:
    inner = "begun.set()\nawait asyncio.sleep(0)\nawait go.wait()\nlog.append('inner')"
    session.inject_capability("nested", session.execute)
    session.update_namespace({"log": [], "inner": inner})
    code = (
        "go, begun = asyncio.Event(), asyncio.Event()\n"
        f"async def start(): return await nested(inner, context={second!r})\n"
        "started = asyncio.ensure_future(start())\n"
        "while not begun.is_set(): await asyncio.sleep(0)\nlog.append('outer')"
    )
    outer = asyncio.ensure_future(session.run(code, context=first))
    await until(session, 'log == ["outer"]')
    for _ in range(5):
        await asyncio.sleep(0.001)
    assert not outer.done()
    await beside(session, "go.set()")
    result = await outer
    assert result.error is None
    assert await session.get("log") == ["outer", "inner"]


@requirement("3.4-nested")
async def test_a_nested_cell_goes_before_those_that_wait_in_the_queue(
    session: AnySession, first: str, second: str
) -> None:
    session.inject_capability("nested", session.execute)
    session.update_namespace({"log": []})
    await session.execute("go = asyncio.Event()")
    outer = asyncio.ensure_future(
        session.run(
            f"await go.wait()\nawait nested('log.append(1)', context={second!r})",
            context=first,
        )
    )
    queued = asyncio.ensure_future(session.run("log.append(2)", context=second))
    for _ in range(5):
        await asyncio.sleep(0)
    await beside(session, "go.set()")
    await asyncio.gather(outer, queued)
    assert await session.get("log") == [1, 2]


@requirement("3.4-nested")
async def test_a_nested_cells_error_arrives_in_its_parent(
    session: AnySession, first: str, second: str
) -> None:
    session.inject_capability("nested", session.execute)
    code = (
        f"try:\n    await nested('1 / 0', context={second!r})\n"
        "except Exception as e:\n    r = str(e)\nr"
    )
    assert (await session.execute(code, context=first)).endswith("division by zero")


@requirement("3.4-nested")
async def test_the_context_stack_tells_where_code_runs(first: str, second: str) -> None:
    manager = AsyncNamespaceManager()
    executor = AsyncExecutor(manager)
    manager.update_namespace({"executor": executor, "stack": lambda: executor.bridge.context_stack})
    assert executor.bridge.context_stack == ()
    code = f"before = stack()\nr = (await executor.run('stack()', context={second!r})).value\n(before, r, stack())"
    result = await executor.run(code, context=first)  # type: ignore[arg-type]
    assert result.value == ((first,), (first, second), (first,))
    assert executor.bridge.context_stack == ()
    manager.close()


@requirement("3.4-nested")
async def test_context_variables_of_a_nested_cell_reach_its_parent_in_the_same_task(
    session: AnySession, context: str
) -> None:
    session.update_namespace({"session": session})
    await session.execute("import contextvars; var = contextvars.ContextVar('var', default=0)")
    code = f"_t = var.set(1)\nseen = await session.execute('var.get()', context={context!r})\nseen"
    assert await session.execute(code, context="async") == 1


@requirement("3.4-nested")
async def test_two_tasks_of_a_cell_run_nested_cells_at_once(
    session: AnySession, first: str, second: str
) -> None:
    session.inject_capability("nested", session.execute)
    code = (
        "meet = asyncio.Barrier(2)\n"
        f"await asyncio.gather(*(nested('await meet.wait()\\n\"met\"', context={second!r}) for _ in range(2)))"
    )
    assert await session.execute(code, context=first) == ["met", "met"]


# -- routing -----------------------------------------------------------------------------------------


@requirement("3.6-routing")
async def test_auto_means_async_when_the_cell_awaits_and_else_thread(session: AnySession) -> None:
    cases = {
        "x = 1": "thread",
        "await asyncio.sleep(0)": "async",
        "async def f():\n    await g()": "thread",
        "[i async for i in ticks()]": "async",
        "'await in a string'": "thread",
        "async with asyncio.timeout(1): pass": "async",
    }
    await session.execute("async def ticks():\n    yield 1")
    for code, expected in cases.items():
        assert (await session.run(code, context="auto")).context == expected, code


@requirement("3.6-routing")
async def test_async_is_the_default_and_a_session_may_choose_another(
    make_session: Callable[..., AnySession], context: str
) -> None:
    assert (await make_session().run("x = 1")).context == "async"
    session = make_session(context=context)
    assert (await session.run("x = 1")).context == context
    assert (await session.run("x = 1", context="async")).context == "async"


@requirement("3.6-routing")
async def test_a_context_that_does_not_exist_is_refused(session: AnySession) -> None:
    with pytest.raises(ValueError, match="'process'"):
        await session.run("x = 1", context="process")  # type: ignore[arg-type]
    assert "x" not in await session.snapshot()


# -- other loops ---------------------------------------------------------------------------------------


@requirement("3-other-loop")
async def test_a_cell_is_run_from_another_loop_in_another_thread(
    session: AnySession, context: str
) -> None:
    await session.execute("x = 1\nhere = asyncio.get_running_loop()")
    with LoopThread() as other:
        code = "await asyncio.sleep(0)\nx += 1\nasyncio.get_running_loop() is here"
        assert await other.wait(session.execute(code, context=context)) is True
    assert await session.get("x") == 2


@requirement("3-other-loop")
async def test_an_error_crosses_to_the_other_loop(session: AnySession, context: str) -> None:
    await session.execute("x = 1")
    with LoopThread() as other, raises_there(ZeroDivisionError):
        await other.wait(session.execute("1 / 0", context=context))


@requirement("3-other-loop")
async def test_cancelling_on_the_other_loop_cancels_the_cell(
    session: AnySession, context: str
) -> None:
    await session.execute("x = 1")
    code = "try:\n    started = 1\n    await asyncio.sleep(30)\nfinally:\n    cleaned = 1"
    with LoopThread() as other:
        call = other.submit(session.run(code, context=context))
        await until(session, "'started' in globals()")
        call.cancel()
        await until(session, "'cleaned' in globals()")
    assert await session.execute("await asyncio.sleep(0, 'on')", context=context) == "on"


@requirement("3-other-loop")
async def test_a_session_whose_loop_does_not_run_says_so(context: str) -> None:
    manager = AsyncNamespaceManager()
    other = asyncio.new_event_loop()
    manager.set_event_loop(other)
    executor = AsyncExecutor(manager)
    with pytest.raises(LoopError, match="does not run"):
        await executor.run("x = 1", context=context)  # type: ignore[arg-type]
    manager.close()
    other.close()


@requirement("bad-two-loops")
async def test_two_sessions_live_on_two_loops_in_two_threads(sequencer: Sequencer) -> None:
    async def work(name: str) -> list[Any]:
        async with Session(name) as session:
            found = []
            for number in range(30):
                context = CONTEXTS[number % 3]
                code = f"x = {number}\nawait asyncio.sleep(0)\nprint('{name}', x)\n('{name}', x)"
                result = await session.run(code, context=context)
                assert result.stdout == f"{name} {number}\n"
                found.append(result.value)
            return found

    with LoopThread() as one, LoopThread() as two:
        found = await asyncio.gather(one.wait(work("one")), two.wait(work("two")))
    for name, values in zip(("one", "two"), found, strict=True):
        assert values == [(name, number) for number in range(30)]


# -- deadlines ---------------------------------------------------------------------------------------


@requirement("6.2-timeout")
async def test_a_cell_that_awaits_too_long_ends_at_its_deadline(
    session: AnySession, context: str
) -> None:
    await session.execute("ready = 1", context=context)
    code = "try:\n    await asyncio.sleep(30)\nfinally:\n    cleaned = True"
    result = await session.run(code, context=context, timeout=0.1)
    assert (result.status, result.stopped) == ("timeout", True)
    assert await session.get("cleaned")
    assert result.duration < 5
    with pytest.raises(CellTimeout, match="deadline"):
        result.unwrap()
    assert await session.execute("await asyncio.sleep(0, 'on')", context=context) == "on"


@requirement("6.2-timeout")
async def test_a_timeout_is_a_timeout_error_for_the_host(session: AnySession, context: str) -> None:
    with pytest.raises(TimeoutError):
        await session.execute("await asyncio.sleep(30)", context=context, timeout=0.02)


@requirement("6.2-timeout")
async def test_a_cell_that_computes_too_long_ends_at_its_deadline(
    session: AnySession, context: str
) -> None:
    result = await session.run("x = 1\nwhile True: x += 1", context=context, timeout=0.05)
    assert (result.status, result.stopped) == ("timeout", True), result
    assert await session.execute("x > 1", context=context)


@requirement("6.2-timeout")
async def test_a_cell_that_ends_in_time_is_not_touched(session: AnySession, context: str) -> None:
    for _ in range(20):
        result = await session.run("await asyncio.sleep(0, 'in time')", context=context, timeout=5)
        assert (result.status, result.value) == ("ok", "in time")


@requirement("6.2-timeout")
async def test_a_session_has_a_timeout_of_its_own(
    make_session: Callable[..., AnySession], context: str
) -> None:
    session = make_session(timeout=0.02)
    assert (await session.run("await asyncio.sleep(30)", context=context)).status == "timeout"
    assert (
        await session.run("await asyncio.sleep(0.03, 1)", context=context, timeout=5)
    ).value == 1


@requirement("6.2-timeout")
async def test_a_thread_cell_that_blocks_in_c_is_left_behind_and_reported(
    session: AnySession,
) -> None:
    await session.execute("import threading; go = threading.Event()")
    result = await session.run("go.wait(30)", context="thread", timeout=0.3)  # it has begun by then
    assert (result.status, result.stopped) == ("timeout", False)
    assert await session.execute("'a new thread'", context="thread") == "a new thread"
    await session.execute("go.set()")


@requirement("6.2-timeout")
async def test_a_timeout_of_a_waiting_cell_takes_it_out_of_the_queue(
    session: AnySession, context: str
) -> None:
    await session.execute("go = asyncio.Event()")
    running = asyncio.ensure_future(session.run("await go.wait()", context="async"))
    await asyncio.sleep(0)
    result = await session.run("ran = True", context=context, timeout=0.02)
    assert result.status == "timeout"
    await beside(session, "go.set()")
    assert (await running).status == "ok"
    assert "ran" not in await session.snapshot()


@requirement("6.2-interrupt")
async def test_an_interrupt_from_another_thread_stops_code_that_computes(
    session: AnySession, context: str
) -> None:
    stopped: list[bool] = []

    def stop() -> None:
        started.wait()
        stopped.append(session.interrupt())

    started = Flag(session, "started")
    thread = threading.Thread(target=stop)
    thread.start()
    beginning = "import threading\nthreading.Thread(target=started).start()\n"
    result = await session.run(beginning + "while True: pass", context=context)
    thread.join(5)
    assert stopped == [True]
    assert result.status == "interrupted"
    assert await session.execute("await asyncio.sleep(0, 'on')", context=context) == "on"


@requirement("6.2-interrupt")
async def test_an_interrupt_of_nothing_says_so(session: AnySession, context: str) -> None:
    assert session.interrupt() is False
    result = await session.run("1", context=context)
    assert session.interrupt(result.cell) is False
    assert await session.execute("2", context=context) == 2


# -- the end ------------------------------------------------------------------------------------------


@requirement("bad-after-close")
async def test_nothing_runs_after_close(session: AnySession, context: str) -> None:
    await session.execute("x = 1", context=context)
    await session.close()
    with pytest.raises(SessionClosedError, match="closed"):
        await session.run("x = 2", context=context)
    with pytest.raises(SessionClosedError):
        session.update_namespace({"x": 3})
    with pytest.raises(SessionClosedError):
        async with session:
            pass
    assert session.closed


@requirement("bad-after-close")
async def test_the_mapping_can_be_read_after_close(session: AnySession, context: str) -> None:
    await session.execute("x = 1", context=context)
    await session.close()
    assert session.namespace["x"] == 1


@requirement("close")
async def test_close_ends_what_runs_and_is_idempotent(
    make_session: Callable[..., AnySession], context: str
) -> None:
    session = make_session()
    code = "try:\n    started = 1\n    await asyncio.sleep(30)\nfinally:\n    print('cleaned')"
    running = asyncio.ensure_future(session.run(code, context=context))
    queued = asyncio.ensure_future(session.run("print('ran')", context=context))
    await until(session, "'started' in globals()")
    report = await session.close()
    assert report.clean
    assert await session.close() == report
    result = await running
    assert (result.status, result.stdout) == ("cancelled", "cleaned\n")
    outcome = (await asyncio.gather(queued, return_exceptions=True))[0]
    if not isinstance(outcome, SessionClosedError):
        assert (outcome.status, outcome.stdout) == ("cancelled", "")


@requirement("close")
async def test_close_cancels_tasks_that_cells_have_started(
    make_session: Callable[..., AnySession], context: str
) -> None:
    session, log = make_session(), list[str]()
    session.inject_capability("log", log.append)
    code = (
        "async def forever():\n    try:\n        await asyncio.sleep(30)\n"
        "    finally:\n        log('cancelled')\n"
        "t = asyncio.ensure_future(forever())\nc = forever()\nawait asyncio.sleep(0)"
    )
    await session.execute(code, context=context)
    await asyncio.sleep(0)
    assert (await session.close()).clean
    assert log == ["cancelled"] * 2


@requirement("close")
async def test_a_session_dropped_without_close_warns_and_is_collected(context: str) -> None:
    import gc
    import weakref

    session = Session("dropped")
    await session.execute("x = 1\nawait asyncio.sleep(0)", context=context)
    seen = weakref.ref(session.manager)
    with pytest.warns(ResourceWarning, match="unclosed session 'dropped'"):
        del session
        gc.collect()
    await eventually(lambda: (gc.collect() and False) or seen() is None)
