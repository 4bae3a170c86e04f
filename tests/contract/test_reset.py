"""reset(): everything that the session's code has made ends, and the namespace begins anew."""

from __future__ import annotations

import asyncio
import functools
import linecache
import threading
from collections.abc import Callable

import pytest

from either_home import error_name
from isthmus import (
    AnySession,
    MemoryTransport,
    SessionClosedError,
    TaskFailed,
)
from support import LoopThread, cell, eventually

requirement = pytest.mark.requirement

LEAVES = cell(
    """
    import contextvars, threading
    async def work(name, log=log):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            log(name)
            raise
    async def count(log=log):
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            log("generator")
    class Box: pass
    async def parent():
        child = asyncio.create_task(work("child"))
        await asyncio.sleep(0)
        await work("parent")
    task = asyncio.create_task(parent())
    left = work("left")
    many = [work("never")]
    box = Box()
    box.hidden = work("never")
    g = count()
    first = await anext(g)
    thread = threading.Thread(target=lambda: run_sync(work("thread")), name="leaves")
    thread.start()
    await asyncio.sleep(0.01)
    """
)


@requirement("5.5-reset")
async def test_what_the_code_has_made_ends_children_before_their_parents(
    session: AnySession, context: str
) -> None:
    log: list[str] = []
    session.inject_capability("log", log.append)
    result = await session.run(LEAVES, context=context)
    assert result.error is None
    report = await session.reset()
    assert report.clean and report.left == (), report
    assert sorted(log) == ["child", "generator", "left", "parent", "thread"]
    assert log.index("child") < log.index("parent")
    alive = "import threading; [it.name for it in threading.enumerate() if it.name == 'leaves']"
    assert await session.execute(alive) == []
    assert await session.ledger() == [] and set((await session.census()).values()) == {0}
    assert await session.pending_coroutines == {}
    assert (await session.run("1 + 1", context=context)).value == 2


@requirement("5.5-reset")
async def test_the_namespace_is_what_it_was_at_first(
    make_session: Callable[..., AnySession], context: str
) -> None:
    session = make_session("demo", capabilities={"tool": lambda: "told"})
    mapping, at_first = session.namespace, dict(session.namespace)
    code = (
        "from __future__ import annotations\nimport contextvars, threading\n"
        "var = contextvars.ContextVar('var', default='unset')\nvar.set('set')\n"
        "local = threading.local()\nlocal.x = 1\nasync def f(): pass\ndel asyncio\n"
        "tool = __name__ = 5\nwhere = threading.current_thread()\nvar"
    )
    result = await session.run(code, context=context)
    assert result.error is None
    var, where = result.value, await session.get("where")
    assert (await session.reset()).clean
    assert session.namespace is mapping == at_first
    assert session.manager.async_functions == {}
    assert not {name for name in linecache.cache if name.startswith("<demo")}
    await eventually(lambda: where is threading.current_thread() or not where.is_alive())
    session.update_namespace({"var": var})
    result = await session.run("def f(x: nothing): pass", context=context)
    assert error_name(result.error) == "NameError" and result.cell == 2
    assert await session.execute("var.get(), tool()", context=context) == ("unset", "told")
    assert isinstance((await session.run("___", context=context)).error, NameError)


@requirement("5.5-reset")
async def test_what_would_not_end_is_named(
    make_session: Callable[..., AnySession], transport: MemoryTransport
) -> None:
    session = make_session(transport=transport)
    release = threading.Event()
    session.update_namespace({"release": release, "go": asyncio.Event()})
    await session.execute(
        cell(
            """
            import threading, types
            async def stubborn(go=go):
                while not go.is_set():
                    try: await go.wait()
                    except asyncio.CancelledError: pass
            async def slow(stubborn=stubborn):
                try: yield 1
                finally: await stubborn()
            async def bad():
                try: yield 1
                finally: 1 / 0
            @types.coroutine
            def pause(): yield
            async def deaf():
                while True:
                    try: await pause()
                    except GeneratorExit: await pause(); return
            async def burst():
                try: await pause()
                finally: 1 / 0
            task = asyncio.create_task(stubborn())
            left = stubborn()
            generators = [slow(), bad()]
            for g in generators: await anext(g)
            coroutines = [deaf(), burst()]
            for c in coroutines: c.send(None)
            thread = threading.Thread(target=release.wait, name="waiter")
            thread.start()
            """
        )
    )
    deaf = (await session.get("coroutines"))[0]
    go, name = await session.get("go"), (await session.get("task")).get_name()
    stuck = await session.run("release.wait()", context="thread", timeout=0.2)
    try:
        report = await session.reset(timeout=0.05)
        assert not report.clean
        assert report.cells == (stuck.cell,)
        assert set(report.tasks) == {name, "left"}
        assert report.threads == ("waiter",)
        assert report.coroutines == ("deaf",)
        assert "slow" in report.async_generators
        assert len(report.left) == 5 + len(report.async_generators)
        assert await session.execute("1") == 1
        await eventually(lambda: len(transport.of_type(TaskFailed)) == 1)
        assert transport.of_type(TaskFailed)[0].name == "closing bad"
    finally:
        release.set()
        go.set()
        deaf.close()
        del deaf
    await session.close()
    await eventually(lambda: session.ledger() == [])


@requirement("5.5-reset", "5.5-close")
@pytest.mark.parametrize("end", ["reset", "close"])
async def test_a_thread_that_another_one_starts_as_it_ends_gets_its_answer_and_is_waited_for(
    session: AnySession, end: str
) -> None:
    heard: list[str] = []
    session.update_namespace({"heard": heard, "begun": asyncio.Event()})
    await session.execute(
        cell(
            """
            import threading
            def later(heard=heard, sleep=asyncio.sleep):
                try: run_sync(sleep(60))
                except BaseException as error: heard.append(type(error).__name__)
            async def wait(begun=begun, sleep=asyncio.sleep):
                begun.set()
                await sleep(60)
            def first(Thread=threading.Thread, heard=heard, wait=wait, later=later):
                try: run_sync(wait())
                finally:
                    heard.append("first")
                    Thread(target=later).start()
            threading.Thread(target=first).start()
            await begun.wait()
            """
        )
    )
    report = await getattr(session, end)()
    assert report.clean, report
    assert heard in (["first", "CancelledError"], ["first", "SessionClosedError"])
    assert session.closed or await session.ledger() == []


@requirement("5.5-reset")
async def test_a_reset_stops_what_runs_and_what_is_asked_for_meanwhile_runs_afterwards(
    session: AnySession, first: str, second: str
) -> None:
    begun, resetting = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def ending() -> None:
        resetting.set()
        for _ in range(5):
            await asyncio.sleep(0)

    session.inject_capability("wait", wait)
    session.inject_capability("ending", ending)
    code = "mine = 1\ntry: await wait()\nfinally: await ending()"
    running = asyncio.create_task(session.run(code, context=first))
    await begun.wait()
    waiting = asyncio.create_task(session.run("never = 1", context=first))
    await asyncio.sleep(0)
    reset = asyncio.create_task(session.reset())
    await resetting.wait()
    names = "sorted(it for it in globals() if it in ('mine', 'never'))"
    later = [session.run(names, context=second, concurrent=both) for both in (False, True)]
    results = await asyncio.gather(*later)
    assert reset.done() and (await reset).clean
    assert [(it.value, it.status) for it in results] == [([], "ok")] * 2, results
    assert (await running).status == (await waiting).status == "cancelled"
    assert "mine" not in await session.snapshot()


@requirement("5.5-reset")
async def test_a_cell_can_reset_its_session_and_goes_on_to_its_own_end(
    session: AnySession, first: str, second: str
) -> None:
    session.inject_capability("reset", session.reset)
    session.inject_capability("pause", functools.partial(asyncio.sleep, 0.01))
    code = "x = 1\nreport = await reset()\nawait pause()\ny = 2\n(report.clean, 'x' in globals())"
    calling = asyncio.create_task(session.run(code, context=first))
    await asyncio.sleep(0)
    behind = asyncio.create_task(session.run("y", context=second))
    result = await calling
    assert (result.value, result.status) == ((True, False), "ok"), result
    result = await session.run("y", context=second)
    assert result.value == 2, result
    assert (await behind).value in (2, None)
    assert (await session.run("y + 1", context=first)).value == 3


@requirement("5.5-reset")
async def test_a_nested_cell_can_reset_the_session(session: AnySession, context: str) -> None:
    session.inject_capability("reset", session.reset)
    session.inject_capability("nested", functools.partial(session.execute, context=context))
    code = "x = 1\nreport = await nested('(await reset()).clean')\n(report, 'x' in globals())"
    assert (await session.run(code, context=context)).value == (True, False)


@requirement("5.5-reset")
async def test_a_task_and_a_thread_can_reset_the_session(session: AnySession, context: str) -> None:
    session.inject_capability("reset", session.reset)
    code = "async def f(): return (await reset()).clean\nx = await asyncio.create_task(f())\nx"
    result = await session.run(code, context=context)
    assert (result.value, result.status) == (True, "ok"), result
    heard: list[bool] = []
    session.inject_capability("hear", heard.append)
    code = (
        "import threading\ndef begin(thread): thread.start(); return thread.join\n"
        "def leave(hear=hear): hear(reset(timeout=5).clean)\n"
        "await asyncio.to_thread(begin(threading.Thread(target=leave)))"
    )
    result = await session.run(code, context=context)
    assert heard == [True], (heard, result)
    assert result.status == "ok", result


@requirement("5.5-reset")
async def test_two_resets_at_once_and_one_from_another_loop(session: AnySession) -> None:
    await session.execute("x = 1\nt = asyncio.create_task(asyncio.sleep(60))")
    reports = await asyncio.gather(session.reset(), session.reset())
    assert all(it.clean for it in reports) and "x" not in await session.snapshot()
    await session.execute("x = 1\nt = asyncio.create_task(asyncio.sleep(60))")
    with LoopThread() as other:
        assert (await other.wait(session.reset())).clean
    assert "x" not in await session.snapshot()
    await session.close()
    with pytest.raises(SessionClosedError):
        await session.reset()


@requirement("5.5-reset")
async def test_a_session_without_a_loop_of_its_own_yet_can_be_reset(
    make_session: Callable[..., AnySession],
) -> None:
    session = make_session()
    session.update_namespace({"x": 1})
    assert (await session.reset()).clean
    assert "x" not in await session.snapshot()
    assert await session.execute("1") == 1
