"""What begins inside one ``asyncio.run``, and ends with it: tasks, async generators, exits."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

from either_home import Flag, listening
from isthmus import AnySession, CellAborted, CellExit, CellInterrupted
from support import FLAVOURS, cell

requirement = pytest.mark.requirement

SHUTDOWN = "unhandled exception during asyncio.run() shutdown"


# -- tasks ---------------------------------------------------------------------------------------

TASKS = cell("""
    log = []
    async def sleeper(name):
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0)
            log.append(name)
    async def parent():
        global grandchild
        grandchild = asyncio.create_task(sleeper("grandchild"))
        await sleeper("child")
    """)


@requirement("10-asyncio-run")
@pytest.mark.parametrize("flavour", FLAVOURS, indirect=True)
async def test_tasks_begun_inside_are_cancelled_and_awaited_and_no_others(
    session: AnySession, context: str, flavour: str
) -> None:
    await session.execute(TASKS)
    await session.execute("before = asyncio.create_task(sleeper('before'))\nawait asyncio.sleep(0)")
    beside = asyncio.ensure_future(asyncio.Event().wait())
    code = cell("""
        async def main():
            global child
            child = asyncio.create_task(parent())
            for _ in range(3):
                await asyncio.sleep(0)
            return "done"
        asyncio.run(main()), sorted(log), child.cancelled(), grandchild.cancelled(), before.done()
        """)
    result = await session.execute(code, context=context)
    assert result == ("done", ["child", "grandchild"], True, True, False)
    assert not beside.done()
    beside.cancel()


@requirement("10-asyncio-run")
async def test_spawned_tasks_and_those_of_task_groups_are_begun_inside_too(
    session: AnySession, context: str
) -> None:
    code = cell("""
        async def main():
            global task, group
            task = spawn(asyncio.sleep(30))
            asyncio.get_running_loop().call_soon(later)
            await asyncio.sleep(0)
        def later():
            global from_callback
            from_callback = asyncio.ensure_future(asyncio.sleep(30))
        asyncio.run(main())
        task.cancelled(), from_callback.cancelled()
        """)
    assert await session.execute(code, context=context) == (True, True)


@requirement("10-asyncio-run")
async def test_what_fails_when_it_is_cancelled_is_told_to_the_loop(
    session: AnySession, context: str
) -> None:
    code = cell("""
        async def fails():
            try:
                await asyncio.sleep(30)
            finally:
                raise KeyError("at the end")
        async def main():
            global task
            task = asyncio.create_task(fails())
            await asyncio.sleep(0)
        asyncio.run(main())
        """)
    async with listening(session):
        await session.execute(code, context=context)
    said = "[(it['message'], it['task'] is task, it['exception'].args) for it in complaints]"
    assert await session.execute(said) == [(SHUTDOWN, True, ("at the end",))]


@requirement("10-asyncio-run")
async def test_what_tasks_begin_when_they_are_cancelled_is_cancelled_too_but_not_for_ever(
    session: AnySession, context: str
) -> None:
    code = cell("""
        tasks = []
        async def again():
            tasks.append(asyncio.current_task())
            try:
                await asyncio.sleep(30)
            finally:
                asyncio.create_task(again())
                await asyncio.sleep(0)
        async def main():
            asyncio.create_task(again())
            await asyncio.sleep(0)
        asyncio.run(main())
        [it.done() for it in tasks]
        """)
    assert await session.execute(code, context=context) == [True, True, False]
    await session.execute("async def again(): pass")


@requirement("10-asyncio-run")
async def test_an_inner_run_ends_only_what_is_its_own(session: AnySession, context: str) -> None:
    code = cell("""
        async def inner():
            global mine
            mine = asyncio.create_task(asyncio.sleep(30))
            await asyncio.sleep(0)
        async def outer():
            global others
            others = asyncio.create_task(asyncio.sleep(30))
            await asyncio.sleep(0)
            asyncio.run(inner())
            return mine.cancelled(), others.done()
        asyncio.run(outer()), others.cancelled()
        """)
    assert await session.execute(code, context=context) == ((True, False), True)


@requirement("10-asyncio-run", "10-run-until-complete")
async def test_what_run_until_complete_leaves_running_ends_with_the_run_around_it(
    session: AnySession, context: str
) -> None:
    await session.execute("loop = asyncio.get_running_loop()")
    code = cell("""
        async def numbers():
            try:
                yield 1
            finally:
                closed.append(1)
        async def inner():
            global task, generator
            task, generator = asyncio.create_task(asyncio.sleep(30)), numbers()
            await anext(generator)
        async def outer():
            loop.run_until_complete(inner())
            await asyncio.sleep(0)
            return task.done(), list(closed)
        closed = []
        asyncio.run(outer()), task.cancelled(), closed
        """)
    assert await session.execute(code, context=context) == ((False, []), True, [1])


@requirement("10-asyncio-run")
async def test_a_task_begun_inside_can_close_the_runner_between_two_runs(
    session: AnySession, context: str
) -> None:
    code = cell("""
        runner, go = asyncio.Runner(), asyncio.Event()
        async def closes():
            await go.wait()
            runner.close()
            return "closed", other.cancelled()
        async def begin():
            global other
            other = asyncio.create_task(asyncio.sleep(30))
            return asyncio.create_task(closes())
        task = runner.run(begin())
        call_on_loop(go.set)
        run_sync(task)
        """)
    assert await session.execute(code, context=context) == ("closed", True)


# -- async generators ------------------------------------------------------------------------------

GENERATORS = cell("""
    closed = []
    async def numbers(name):
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(name)
    async def begin(name):
        generator = numbers(name)
        await anext(generator)
        return generator
    """)


@requirement("10-asyncio-run")
@pytest.mark.parametrize("flavour", FLAVOURS, indirect=True)
async def test_async_generators_begun_inside_are_closed_and_no_others(
    session: AnySession, context: str, flavour: str
) -> None:
    at_first = sys.get_asyncgen_hooks()
    await session.execute(GENERATORS)
    hooks = sys.get_asyncgen_hooks()
    code = cell("""
        outside = await begin("outside")
        inside = asyncio.run(begin("inside"))
        now = list(closed)
        now, await anext(outside), await anext(inside, "ended")
        """)
    assert await session.execute(code, context=context) == (["inside"], 2, "ended")
    assert sys.get_asyncgen_hooks() == hooks
    await session.execute("await outside.aclose()")
    await session.close()
    assert sys.get_asyncgen_hooks() == at_first


@requirement("10-asyncio-run")
async def test_generators_that_others_begin_meanwhile_are_not_closed(
    session: AnySession, context: str
) -> None:
    started, begin = Flag(session, "started"), "mine = numbers()\nawait anext(mine)"
    await session.execute(
        "go = asyncio.Event()\nasync def numbers():\n    yield 1\n    yield 2\n"
        "async def main():\n    started()\n    await go.wait()"
    )
    running = asyncio.ensure_future(session.run("asyncio.run(main())", context=context))
    await started.seen()

    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    mine = numbers()
    assert await anext(mine) == 1
    assert await session.execute(begin, concurrent=True) == 1
    await session.execute("go.set()", concurrent=True)
    (await running).unwrap()
    assert [await anext(mine, None) for _ in range(2)] == [2, None]
    assert await session.execute("await anext(mine), await anext(mine, None)") == (2, None)


@requirement("10-asyncio-run")
async def test_a_loop_without_hooks_for_generators_is_served_too(session: AnySession) -> None:
    await session.execute(GENERATORS)
    await session.execute(
        "import sys\nbefore = sys.get_asyncgen_hooks()\nsys.set_asyncgen_hooks(None, None)"
    )
    await session.execute("inside = asyncio.run(begin('inside'))")
    code = cell("""
        first, last = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(*before)
        getattr(first, "previous", "theirs"), last, closed
        """)
    assert await session.execute(code) == (None, None, ["inside"])


@requirement("10-asyncio-run")
async def test_a_generator_that_fails_when_it_is_closed_is_told_to_the_loop(
    session: AnySession, context: str
) -> None:
    code = cell("""
        async def fails():
            try:
                yield 1
            finally:
                raise KeyError("at the end")
        async def main():
            global generator
            generator = fails()
            await anext(generator)
        asyncio.run(main())
        """)
    async with listening(session):
        await session.execute(code, context=context)
    said = "[(it['message'], it['asyncgen'] is generator) for it in complaints]"
    ((message, is_of_the_generator),) = await session.execute(said)
    assert "an error occurred during closing of asynchronous generator" in message
    assert is_of_the_generator


@requirement("10-asyncio-run")
async def test_a_hook_that_is_set_meanwhile_stays(session: AnySession) -> None:
    await session.execute(
        "import sys\nbefore = sys.get_asyncgen_hooks()\ndef mine(generator): pass\n"
        "async def main(): sys.set_asyncgen_hooks(firstiter=mine)"
    )
    code = cell("""
        asyncio.run(main())
        stayed = sys.get_asyncgen_hooks().firstiter is mine
        sys.set_asyncgen_hooks(*before)
        stayed
        """)
    assert await session.execute(code)


# -- exits -----------------------------------------------------------------------------------------

EXITS = {
    "main": "async def main(): leave()",
    "a task that main awaits": cell("""
        async def child(): leave()
        async def main(): await asyncio.create_task(child())
        """),
    "a task that main does not await": cell("""
        async def child(): leave()
        async def main():
            task = asyncio.create_task(child())
            await asyncio.sleep(30)
        """),
    "a task whose end main ignores": cell("""
        async def child(): leave()
        async def main():
            try:
                await asyncio.create_task(child())
            except asyncio.CancelledError:
                return "not this"
        """),
    "a task whose failure main handles": cell("""
        async def child(): leave()
        async def main():
            try:
                await asyncio.create_task(child())
            except Exception:
                await asyncio.sleep(30)
        """),
    "two tasks": cell("""
        async def child(): leave()
        async def main():
            await asyncio.gather(child(), child())
        """),
    "an inner run": cell("""
        async def inner(): leave()
        async def main(): asyncio.run(inner())
        """),
    "a task that is cancelled at the end": cell("""
        async def child():
            try:
                await asyncio.sleep(30)
            finally:
                leave()
        async def main():
            task = asyncio.create_task(child())
            await asyncio.sleep(0)
        """),
}


@requirement("10-asyncio-run", "6.2-no-exit-of-host-loop")
@pytest.mark.parametrize("who", EXITS)
async def test_an_exit_comes_out_of_asyncio_run_and_not_of_the_hosts_loop(
    session: AnySession, context: str, who: str
) -> None:
    await session.execute("import sys\ndef leave(): sys.exit(3)\n" + EXITS[who])
    code = "try:\n    asyncio.run(main())\nexcept SystemExit as exit:\n    code = exit.code\ncode"
    assert await session.execute(code, context=context) == 3
    with pytest.raises(CellExit) as caught:
        await session.execute("asyncio.run(main())", context=context)
    assert caught.value.code == 3


@requirement("10-run-until-complete", "6.2-no-exit-of-host-loop")
async def test_a_task_that_exits_when_nobody_waits_for_its_run_fails_as_any_other(
    session: AnySession, context: str
) -> None:
    await session.execute("loop, go = asyncio.get_running_loop(), asyncio.Event()")
    code = cell("""
        import sys
        async def child():
            await go.wait()
            sys.exit(3)
        async def begin(): return asyncio.create_task(child())
        task = loop.run_until_complete(begin())
        call_on_loop(go.set)
        run_sync(asyncio.wait([task]))
        type(task.exception()).__name__
        """)
    assert await session.execute(code, context=context) == "CellExit"


@requirement("10-asyncio-run")
async def test_nobody_is_told_that_an_exit_that_came_out_was_not_retrieved(
    session: AnySession, context: str
) -> None:
    code = cell("""
        import gc, sys
        async def child(): sys.exit(3)
        async def main():
            asyncio.create_task(child())
            await asyncio.sleep(30)
        try:
            asyncio.run(main())
        except SystemExit:
            pass
        """)
    async with listening(session):
        await session.execute(code, context=context)
        await session.execute("_ = gc.collect()")
    assert await session.execute("[str(it) for it in complaints]") == []


@requirement("10-asyncio-run", "6.2-no-exit-of-host-loop")
@pytest.mark.parametrize("flavour", FLAVOURS, indirect=True)
async def test_a_keyboard_interrupt_of_main_is_the_cells(
    session: AnySession, context: str, flavour: str
) -> None:
    await session.execute(
        "async def main():\n    await asyncio.sleep(0)\n    raise KeyboardInterrupt"
    )
    result = await session.run("asyncio.run(main())", context=context)
    assert type(result.error) is KeyboardInterrupt
    with pytest.raises(CellAborted):
        result.unwrap()


@requirement("10-asyncio-run")
async def test_what_fails_because_of_an_exit_is_told_to_the_loop(
    session: AnySession, context: str
) -> None:
    code = cell("""
        import sys
        async def child(): sys.exit(3)
        async def main():
            task = asyncio.create_task(child())
            try:
                await task
            finally:
                raise KeyError("main")
        asyncio.run(main())
        """)
    async with listening(session):
        result = await session.run(code, context=context)
    assert type(result.error) is SystemExit
    assert await session.execute("[it['message'] for it in complaints]") == [SHUTDOWN]


@requirement("10-asyncio-run", "6.2-interrupt")
async def test_code_of_main_that_hogs_the_loop_is_interrupted(session: AnySession) -> None:
    code = "async def main():\n    while True: pass\nasyncio.run(main())"
    result = await session.run(code, timeout=0.1)
    assert result.status == "timeout"
    assert isinstance(result.error, CellInterrupted)
