"""The portal: sync code that waits for an awaitable while the event loop goes on."""

# ruff: noqa: E501 (a cell in one string reads better than one that is wrapped)

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import traceback
import warnings
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from either_home import error_name, listening, until
from isthmus import AnySession, CrossingError, ForeignTaskError, Session, can_run_sync, run_sync
from isthmus.portal import in_portal
from support import LoopThread, cell, run_in_child

requirement = pytest.mark.requirement


async def tick(value: Any = None) -> Any:
    """Really suspends once."""
    await asyncio.sleep(0)
    return value


# -- any depth -----------------------------------------------------------------------------------------


LATE = cell("""
    async def tick(value=None):
        await asyncio.sleep(0)
        return value

    class Late:
        "Waits wherever Python calls it."
        def __init__(self, value): self.value = run_sync(tick(value))
        @property
        def waited(self): return run_sync(tick(self.value))
        def __add__(self, other): return run_sync(tick(self.value)) + run_sync(tick(other.value))
        def __lt__(self, other): return run_sync(tick(self.value < other.value))
        def __getitem__(self, index): return run_sync(tick(self.value * index))
        def __call__(self): return run_sync(tick(self.value))
        def __enter__(self): return run_sync(tick(self.value))
        def __exit__(self, *_): run_sync(tick())

    def generator():
        for number in range(3):
            yield run_sync(tick(number))

    def in_with():
        with Late(6) as value:
            return value
    """)

DEPTHS: dict[str, tuple[str, object]] = {
    "the top": ("run_sync(tick(1))", 1),
    "a sorted key": ("sorted([3, 1, 2], key=lambda it: run_sync(tick(it)))", [1, 2, 3]),
    "a comparison": ("[it.value for it in sorted([Late(2), Late(1)])]", [1, 2]),
    "__init__": ("Late(4).value", 4),
    "a property": ("Late(5).waited", 5),
    "an operator": ("Late(1) + Late(2)", 3),
    "indexing": ("Late(3)[2]", 6),
    "a call": ("[Late(3)()][0]", 3),
    "a comprehension": ("[run_sync(tick(it)) for it in range(3)]", [0, 1, 2]),
    "a generator": ("list(generator())", [0, 1, 2]),
    "a generator expression": ("sum(run_sync(tick(it)) for it in range(4))", 6),
    "filter": ("list(filter(lambda it: run_sync(tick(it)), [0, 1]))", [1]),
    "max": ("max([1, 3, 2], key=lambda it: run_sync(tick(it)))", 3),
    "a with block": ("in_with()", 6),
    "a dict with a waiting hash": ("{run_sync(tick('k')): 1}['k']", 1),
    "str.format": ("f'{run_sync(tick(5))}'", "5"),
}


@requirement("4.1-run-sync")
@pytest.mark.parametrize("where", DEPTHS)
async def test_run_sync_works_in(where: str) -> None:
    expression, expected = DEPTHS[where]
    names: dict[str, Any] = {"asyncio": asyncio, "run_sync": run_sync}
    exec(f"{LATE}\ndef function(): return {expression}", names)
    assert await in_portal(names["function"]) == expected


@requirement("4.1-run-sync")
@pytest.mark.parametrize("where", DEPTHS)
async def test_run_sync_works_in_a_cell_of_every_context_in(
    session: AnySession, context: str, where: str
) -> None:
    expression, expected = DEPTHS[where]
    await session.execute(f"{LATE}\ndef function(): return {expression}")
    assert await session.execute("function()", context=context) == expected


@requirement("4.1-run-sync")
async def test_fifty_levels_of_sync_and_async_alternate() -> None:
    def down(level: int) -> int:
        return 0 if level == 0 else run_sync(again(level)) + 1

    async def again(level: int) -> int:
        await tick()
        return down(level - 1)

    assert await in_portal(lambda: down(50)) == 50


@requirement("4.1-run-sync")
async def test_fifty_levels_alternate_in_a_cell(session: AnySession, context: str) -> None:
    code = (
        "def down(n): return 0 if n == 0 else run_sync(again(n)) + 1\n"
        "async def again(n):\n    await asyncio.sleep(0)\n    return down(n - 1)\ndown(50)"
    )
    assert await session.execute(code, context=context) == 50


@requirement("4.1-run-sync")
async def test_a_sync_function_called_by_an_async_one_waits_in_tasks_of_a_cell(
    session: AnySession, context: str
) -> None:
    code = (
        "def sync(n): return run_sync(asyncio.sleep(0, n))\n"
        "async def work(n):\n    await asyncio.sleep(0)\n    return sync(n)\n"
        "await asyncio.gather(*(asyncio.ensure_future(work(n)) for n in range(5)))"
    )
    assert await session.execute(code, context=context) == [0, 1, 2, 3, 4]


@requirement("4.1-run-sync")
async def test_every_kind_of_awaitable_can_be_waited_for(session: AnySession, context: str) -> None:
    code = (
        "import types\n"
        "class Own:\n    def __await__(self): return (yield from asyncio.sleep(0, 'own').__await__())\n"
        "@types.coroutine\ndef old():\n    yield\n    return 'old'\n"
        "async def future():\n    f = asyncio.get_running_loop().create_future()\n"
        "    asyncio.get_running_loop().call_soon(f.set_result, 'future')\n    return await f\n"
        "async def task(): return await asyncio.create_task(asyncio.sleep(0, 'task'))\n"
        "async def agen():\n    yield 'asend'\n"
        "[run_sync(Own()), run_sync(old()), run_sync(future()), run_sync(task()), run_sync(agen().__anext__())]"
    )
    assert await session.execute(code, context=context) == ["own", "old", "future", "task", "asend"]


@requirement("4.1-run-sync")
async def test_an_awaitable_that_does_not_suspend_costs_no_step_of_the_loop() -> None:
    async def ready() -> int:
        return 5

    steps = []
    asyncio.get_running_loop().call_soon(steps.append, 1)
    assert await in_portal(lambda: run_sync(ready())) == 5
    assert steps == []


# -- variables, tasks --------------------------------------------------------------------------------------

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@requirement("4.1-portal-rules")
async def test_context_variables_pass_the_portal_both_ways() -> None:
    async def inner() -> str:
        seen = variable.get()
        await tick()
        variable.set("by the coroutine")
        return seen

    def outer() -> tuple[str, str, str]:
        seen = variable.get()
        token = variable.set("by the code")
        inside = run_sync(inner())
        after = variable.get()
        variable.reset(token)
        variable.set("at the end")
        return seen, inside, after

    variable.set("outside")
    assert await in_portal(outer) == ("outside", "by the code", "by the coroutine")
    assert variable.get() == "at the end"


@requirement("4.1-portal-rules")
async def test_a_context_that_code_runs_in_keeps_its_own_values() -> None:
    def within() -> str:
        variable.set("inner")
        run_sync(tick())
        return variable.get()

    def outer() -> tuple[str, str]:
        context = contextvars.copy_context()
        inner = context.run(within)
        return inner, variable.get()

    variable.set("outer")
    assert await in_portal(outer) == ("inner", "outer")


@requirement("4.1-portal-rules")
async def test_the_current_task_and_loop_are_right_everywhere() -> None:
    task = asyncio.current_task()

    async def inside() -> asyncio.Task[Any] | None:
        await tick()
        return asyncio.current_task()

    def code() -> list[object]:
        found = [asyncio.current_task(), run_sync(inside()), asyncio.current_task()]
        assert asyncio.get_running_loop() is task.get_loop()  # type: ignore[union-attr]
        return list(found)

    assert await in_portal(code) == [task] * 3


@requirement("4.1-portal-rules")
async def test_a_cancellation_arrives_at_the_call_with_its_message() -> None:
    seen: list[Any] = []

    def code() -> None:
        try:
            run_sync(asyncio.sleep(30))
        except asyncio.CancelledError as error:
            seen.append(error.args)
            seen.append(run_sync(tick("may wait in the handler")))
            raise

    async def driver() -> None:
        await in_portal(code)

    task = asyncio.ensure_future(driver())
    await tick()
    task.cancel("the message")
    with pytest.raises(asyncio.CancelledError, match="the message"):
        await task
    assert seen == [("the message",), "may wait in the handler"]
    assert task.cancelled()


@requirement("4.1-portal-rules")
async def test_a_cancellation_swallowed_twice_counts_twice() -> None:
    def code() -> int:
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                run_sync(asyncio.sleep(30))
        run_sync(tick())
        return asyncio.current_task().cancelling()  # type: ignore[union-attr]

    async def driver() -> int:
        return await in_portal(code)

    task = asyncio.ensure_future(driver())
    for _ in range(2):
        await tick()
        task.cancel()
    assert await task == 2


@requirement("4.1-portal-rules")
async def test_scopes_work_through_separate_calls() -> None:
    def code() -> str:
        stack = AsyncExitStack()
        run_sync(stack.__aenter__())
        scope = run_sync(stack.enter_async_context(asyncio.timeout(0.01)))
        try:
            run_sync(asyncio.sleep(30))
        except asyncio.CancelledError as error:
            with pytest.raises(TimeoutError):
                run_sync(stack.__aexit__(type(error), error, None))
        assert scope.expired()
        return run_sync(tick("on"))

    assert await in_portal(code) == "on"
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


# -- errors --------------------------------------------------------------------------------------------


@requirement("4.1-portal-rules")
async def test_an_error_keeps_the_frames_of_where_it_came_from() -> None:
    async def fail() -> None:
        await tick()
        raise KeyError("k")

    def code() -> None:
        run_sync(fail())

    with pytest.raises(KeyError) as caught:
        await in_portal(code)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-1] == "fail"
    assert "code" in names


@requirement("4.1-portal-rules")
async def test_an_error_thrown_into_a_wait_keeps_its_origin() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def origin() -> None:
        raise ValueError("from elsewhere")

    try:
        origin()
    except ValueError as error:
        asyncio.get_running_loop().call_soon(future.set_exception, error)

    async def wait() -> None:
        await future

    with pytest.raises(ValueError, match="elsewhere") as caught:
        await in_portal(lambda: run_sync(wait()))
    assert "origin" in [it.name for it in traceback.extract_tb(caught.value.__traceback__)]


@requirement("4.1-portal-rules")
async def test_the_exception_that_is_handled_does_not_leak_through_the_portal() -> None:
    async def inside() -> object:
        await tick()
        return sys.exc_info()[0]

    def code() -> object:
        assert sys.exc_info()[0] is None
        try:
            raise KeyError
        except KeyError:
            run_sync(inside())
            return sys.exc_info()[0]

    try:
        raise ValueError
    except ValueError:
        assert await in_portal(code) is KeyError
        assert sys.exc_info()[0] is ValueError


@requirement("4.1-portal-rules")
@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, GeneratorExit])
async def test_exceptions_of_the_protocols_of_generators_do_not_confuse_it(
    session: AnySession, kind: type[BaseException]
) -> None:
    code = f"def code():\n    run_sync(asyncio.sleep(0))\n    raise {kind.__name__}('mine')\ncode()"
    result = await session.run(code, context="sync")
    assert error_name(result.error) in (kind.__name__, "RuntimeError")
    assert await session.execute("await asyncio.sleep(0, 'on')") == "on"


@requirement("4.1-portal-rules")
async def test_a_greenlet_started_inside_a_cell_can_wait(session: AnySession, context: str) -> None:
    code = """
        import greenlet
        def both(): return run_sync(asyncio.sleep(0, 1)) + run_sync(asyncio.sleep(0, 2))
        greenlet.greenlet(both).switch() + greenlet.greenlet(both).switch()
        """
    assert await session.execute(cell(code), context=context) == 6


# -- the end of a task -----------------------------------------------------------------------------------


@requirement("4.1-portal-rules")
async def test_a_driver_that_is_closed_while_parked_runs_the_finally_and_refuses_more_waits() -> (
    None
):
    log: list[str] = []

    def code() -> None:
        try:
            run_sync(asyncio.sleep(30))
        except GeneratorExit:
            try:
                run_sync(tick())
            except CrossingError as error:
                log.append(str(error))
            raise
        finally:
            log.append("finally")

    driver = in_portal(code)
    driver.send(None)
    driver.close()
    assert log[-1] == "finally"
    assert "being destroyed" in log[0]


@requirement("4.1-portal-rules")
def test_leaving_with_a_parked_cell_does_not_crash() -> None:
    program = """
        import asyncio
        from isthmus import Session
        async def main():
            session = Session()
            await session.execute("async def f(): await asyncio.sleep(30)\\ndef g(): run_sync(f())")
            cell = asyncio.ensure_future(session.run("g()", context="sync"))
            await asyncio.sleep(0.01)
            loop.stop()
            await asyncio.sleep(30)
        loop = asyncio.new_event_loop()
        task = loop.create_task(main())
        loop.run_forever()
        loop.close()
        print("left")
        """
    ended = run_in_child(program)
    assert ended.status == 0, ended
    assert ended.stdout.strip() == "left"


@requirement("4.1-portal-rules")
def test_four_loops_in_four_threads_have_portals_of_their_own() -> None:
    def code(number: int) -> list[int]:
        return [run_sync(tick(number * 100 + it)) for it in range(50)]

    async def many(number: int) -> list[list[int]]:
        async def one() -> list[int]:
            return await in_portal(lambda: code(number))

        return await asyncio.gather(*(one() for _ in range(10)))

    threads = [LoopThread() for _ in range(4)]
    for thread in threads:
        thread.__enter__()
    calls = [thread.submit(many(number)) for number, thread in enumerate(threads)]
    for number, call in enumerate(calls):
        assert call.result(5) == [[number * 100 + it for it in range(50)]] * 10
    for thread in threads:
        thread.__exit__(None, None, None)


@requirement("4.1-portal-rules")
async def test_portals_of_many_tasks_interleave() -> None:
    async def one(number: int) -> list[int]:
        return await in_portal(lambda: [run_sync(tick(number)) for _ in range(10)])

    found = await asyncio.gather(*(one(number) for number in range(100)))
    assert found == [[number] * 10 for number in range(100)]


@requirement("4.1-portal-rules")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_a_task_started_eagerly_inside_a_portal_goes_on_from_the_loop() -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    tasks = set()

    async def inner() -> tuple[list[int], bool]:
        found = await in_portal(lambda: [run_sync(tick(number)) for number in range(3)])
        return found, asyncio.current_task() in tasks

    def code() -> list[tuple[list[int], bool]]:
        started = [asyncio.ensure_future(inner()) for _ in range(3)]
        tasks.update(started)
        me = asyncio.current_task()
        found = [run_sync(task) for task in started]
        assert asyncio.current_task() is me
        return found

    try:
        assert await in_portal(code) == [([0, 1, 2], True)] * 3
    finally:
        asyncio.get_running_loop().set_task_factory(None)


@requirement("4.1-portal-rules")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_a_task_of_the_host_started_eagerly_inside_a_portal_is_refused_there() -> None:
    loop = asyncio.get_running_loop()

    async def inner() -> None:
        assert not can_run_sync()
        with pytest.raises(ForeignTaskError):
            run_sync(asyncio.sleep(0))
        with pytest.raises(ForeignTaskError):
            run_sync(tick())

    def code() -> None:
        run_sync(asyncio.eager_task_factory(loop, inner()))  # type: ignore[attr-defined,unused-ignore]

    await in_portal(code)


@requirement("4.1-portal-rules")
async def test_a_loop_that_code_runs_within_its_own_is_not_left_in_the_middle() -> None:
    outer, inner = asyncio.get_running_loop(), asyncio.new_event_loop()

    async def wait() -> None:
        assert not can_run_sync()
        with pytest.raises(ForeignTaskError):
            run_sync(tick())

    def code() -> int:
        asyncio._set_running_loop(None)  # as nest_asyncio does it
        try:
            inner.run_until_complete(wait())
        finally:
            asyncio._set_running_loop(outer)
            inner.close()
        return run_sync(tick(1))

    assert await in_portal(code) == 1


@requirement("4.1-portal-rules")
async def test_a_pooled_greenlet_pins_nothing() -> None:
    class Big:
        pass

    import weakref

    big = Big()
    seen = weakref.ref(big)
    await in_portal(lambda held=big: run_sync(tick(held)))  # type: ignore[misc]
    del big
    gc.collect()
    assert seen() is None


@requirement("4.1-run-sync")
async def test_an_async_generator_is_driven_and_an_abandoned_one_is_closed(
    session: AnySession, context: str
) -> None:
    code = (
        "log = []\nasync def g():\n    try:\n        for i in range(9):\n            await asyncio.sleep(0)\n"
        "            yield i\n    finally:\n        await asyncio.sleep(0)\n        log.append('closed')\n"
        "it = g()\nfirst = [run_sync(it.__anext__()) for _ in range(3)]\ndel it\nfirst"
    )
    async with listening(session):
        assert await session.execute(code, context=context) == [0, 1, 2]
        await session.execute("import gc\n_ = gc.collect()")
        await until(session, "log == ['closed']")
    assert await session.execute("[str(it) for it in complaints]") == []


@requirement("4.1-refusals")
async def test_a_refusal_leaves_no_warning_behind() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CrossingError):
            run_sync(tick())
        gc.collect()


@requirement("4.1-portal-rules")
def test_a_session_closed_while_a_thread_waits_fails_the_wait() -> None:
    async def main() -> Any:
        session = Session()
        go = threading.Event()
        session.update_namespace({"go": go})
        running = asyncio.ensure_future(session.run("await asyncio.sleep(30)", context="thread"))
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert (await session.close()).clean
        return await running

    result = asyncio.run(main())
    assert result.error is not None


@requirement("5.4-failures")
async def test_the_failure_of_a_task_is_reported_when_the_task_is_dropped(
    session: AnySession,
) -> None:
    await session.execute("import gc\n_ = gc.collect()\ngc.disable()")
    async with listening(session):
        await session.execute("async def fail(): 1 / 0\nasyncio.create_task(fail())\nNone")
        await until(session, "complaints")
    await session.execute("gc.enable()")
    messages = await session.execute("[it['message'] for it in complaints]")
    assert messages == ["Task exception was never retrieved"]


async def test_what_was_awaited_is_not_left_to_the_garbage_collector(session: AnySession) -> None:
    code = """
        import gc, weakref
        class Value: pass
        def wait():
            future = asyncio.get_running_loop().create_future()
            value = Value()
            asyncio.get_running_loop().call_soon(future.set_result, value)
            return weakref.ref(future), run_sync(future) is value
        _ = gc.collect()
        gc.disable()
        """
    await session.execute(cell(code))
    await session.execute("ref, same = wait()")
    assert await session.execute("same, ref()") == (True, None)
    await session.execute("gc.enable()")
