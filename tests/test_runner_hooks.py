"""Who gets which ``asyncio.run``: code of a session, and everybody else."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from isthmus import Session
from isthmus.runner_hooks import RunnerHooks
from support import FLAVOURS, LoopThread, cell

requirement = pytest.mark.requirement

PYTHONS_OWN = r"asyncio\.run\(\) cannot be called from a running event loop"


def library(source: str) -> types.ModuleType:
    """A module that is not of any session."""
    module = types.ModuleType("library")
    exec(cell(source), vars(module))
    return module


def attributes(loop: asyncio.AbstractEventLoop) -> list[object]:
    """What the hooks may replace."""
    run, runner = asyncio.run, asyncio.Runner
    own = [vars(loop).get(name) for name in ("run_until_complete", "run_forever")]
    return [run, asyncio.runners.run, runner, runner.__init__, vars(runner).copy(), *own]


# -- everybody else --------------------------------------------------------------------------------


@requirement("10-asyncio-run")
async def test_the_host_gets_what_was_there_before(session: Session) -> None:
    signatures = [inspect.signature(it) for it in (asyncio.run, asyncio.Runner)]
    runner, names = asyncio.Runner, (asyncio.run.__name__, asyncio.run.__doc__)
    await session.execute("1")
    assert [inspect.signature(it) for it in (asyncio.run, asyncio.Runner)] == signatures
    assert (asyncio.Runner, asyncio.run.__name__, asyncio.run.__doc__) == (runner, *names)
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match=PYTHONS_OWN):
        asyncio.run(coroutine)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
    with pytest.raises(RuntimeError, match="already running"):
        asyncio.get_running_loop().run_until_complete(coroutine)
    coroutine.close()


@requirement("10-asyncio-run")
async def test_the_host_runs_loops_in_its_threads_meanwhile(session: Session) -> None:
    await session.execute("1")

    def elsewhere() -> tuple[object, ...]:
        async def main() -> asyncio.AbstractEventLoop:
            return asyncio.get_running_loop()

        with asyncio.Runner() as runner:
            return asyncio.run(main()), type(runner), runner.get_loop(), runner.run(main())

    by_run, kind, mine, by_runner = await asyncio.to_thread(elsewhere)
    assert kind is asyncio.Runner
    assert mine is by_runner
    assert len({by_run, by_runner, asyncio.get_running_loop()}) == 3


@requirement("10-asyncio-run")
async def test_a_library_below_a_cell_gets_pythons_own(session: Session, context: str) -> None:
    module = library("""
        import asyncio
        def run(coroutine): return asyncio.run(coroutine)
        def by_runner(coroutine):
            with asyncio.Runner() as runner:
                return type(runner) is asyncio.Runner, runner.run(coroutine)
        """)
    session.update_namespace({"library": module})
    code = cell("""
        async def loop(): return asyncio.get_running_loop()
        def told(call):
            coroutine = loop()
            try:
                return call(coroutine)
            except RuntimeError as error:
                coroutine.close()
                return str(error)
        """)
    await session.execute(code)
    result = await session.execute("told(library.run)", context=context)
    if context == "thread":  # which sees no loop, since the cell does not await
        assert isinstance(result, asyncio.AbstractEventLoop)
        assert result is not asyncio.get_running_loop()
        assert (await session.execute("told(library.by_runner)", context=context))[0] is True
    else:
        assert result == "asyncio.run() cannot be called from a running event loop"


@requirement("10-asyncio-run")
async def test_a_thread_that_session_code_starts_has_loops_of_its_own(
    session: Session, context: str
) -> None:
    code = cell("""
        import threading
        loops = []
        async def main(): return asyncio.get_running_loop()
        def other():
            loops.append(asyncio.run(main()))
            with asyncio.Runner() as runner:
                loops.append(runner.run(main()))
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        """)
    await session.execute(code, context=context)
    assert len({*session.namespace["loops"], asyncio.get_running_loop()}) == 3


@requirement("10-asyncio-run")
def test_functions_of_a_session_run_loops_where_none_runs() -> None:
    async def main() -> Any:
        async with Session() as session:
            await session.execute(
                "from asyncio import run\nasync def job(): return 'done'\n"
                "def f(): return asyncio.run(job()), run(job())\n"
                "def g():\n    with asyncio.Runner() as runner: return runner.run(job())"
            )
            elsewhere = await asyncio.to_thread(session.namespace["f"])
            return elsewhere, session.namespace["f"], session.namespace["g"]

    elsewhere, f, g = asyncio.run(main())
    assert (elsewhere, f(), g()) == (("done", "done"), ("done", "done"), "done")


@requirement("10-run-until-complete")
def test_the_host_runs_the_loop_again_and_again_with_a_session_on_it() -> None:
    loop = asyncio.new_event_loop()
    session = Session()
    try:
        code = "async def job(): return 5\ndef f(loop): return loop.run_until_complete(job())"
        loop.run_until_complete(session.execute(code))
        assert session.namespace["f"](loop) == 5  # the loop does not run: session code may run it
        assert loop.run_until_complete(session.execute("asyncio.run(job())")) == 5
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.run_until_complete(session.close())
    finally:
        loop.close()


@requirement("10-asyncio-run")
async def test_without_hooks_nothing_is_replaced(make_session: Callable[..., Session]) -> None:
    loop = asyncio.get_running_loop()
    before = attributes(loop)
    session = make_session(hooks=False)
    code = cell("""
        coroutine = asyncio.sleep(0)
        try:
            asyncio.run(coroutine)
        finally:
            coroutine.close()
        """)
    with pytest.raises(RuntimeError, match=PYTHONS_OWN):
        await session.execute(code)
    assert attributes(loop) == before
    # Nor is it for this session where another one has the hooks.
    await make_session().execute("asyncio.run(asyncio.sleep(0))")
    with pytest.raises(RuntimeError, match=PYTHONS_OWN):
        await session.execute(code)


@requirement("10-asyncio-run")
async def test_a_class_that_inherits_from_runner_is_left_alone(
    session: Session, context: str
) -> None:
    code = cell("""
        class Mine(asyncio.Runner): pass
        runner = Mine()
        type(runner) is Mine
        """)
    assert await session.execute(code, context=context) is True


# -- in and out ------------------------------------------------------------------------------------


@requirement("6.5-hooks")
@pytest.mark.parametrize("flavour", FLAVOURS, indirect=True)
async def test_the_attributes_are_what_they_were_after_the_last_session(
    make_session: Callable[..., Session], flavour: str
) -> None:
    loop = asyncio.get_running_loop()
    before = attributes(loop)
    one, two = make_session("one"), make_session("two")
    assert attributes(loop) == before
    await one.execute("asyncio.run(asyncio.sleep(0))")
    await two.execute("asyncio.run(asyncio.sleep(0))")
    await one.close()
    await two.execute("asyncio.run(asyncio.sleep(0))")
    with pytest.raises(RuntimeError, match=PYTHONS_OWN):
        one.namespace["asyncio"].run(None)
    await two.close()
    assert attributes(loop) == before


@requirement("6.5-hooks")
async def test_each_loop_has_its_own_replacements(session: Session) -> None:
    await session.execute("1")
    with LoopThread() as thread:
        theirs = Session("theirs")
        before = attributes(thread.loop)
        assert await thread.wait(theirs.execute("asyncio.run(asyncio.sleep(0, 5))")) == 5
        await thread.wait(theirs.close())
        assert attributes(thread.loop)[-2:] == before[-2:] == [None, None]
    assert await session.execute("asyncio.run(asyncio.sleep(0, 6))") == 6


@requirement("6.5-hooks")
async def test_what_somebody_has_replaced_since_stays(make_session: Callable[..., Session]) -> None:
    loop, session, pythons = asyncio.get_running_loop(), make_session(), asyncio.runners.run
    places: list[tuple[Any, str]] = [
        (asyncio, "run"), (asyncio.Runner, "__init__"), (loop, "run_forever")
    ]  # fmt: skip
    before = [vars(target).get(name) for target, name in places]
    await session.execute("1")
    theirs = [functools.partial(getattr(target, name)) for target, name in places]
    try:
        for (target, name), replacement in zip(places, theirs, strict=True):
            setattr(target, name, replacement)
        await session.close()
        assert [vars(target)[name] for target, name in places] == theirs
        assert asyncio.runners.run is pythons
        assert "run_until_complete" not in vars(loop)
    finally:
        for (target, name), original in zip(places, before, strict=True):
            if original is None:
                delattr(target, name)
            else:
                setattr(target, name, original)


@requirement("6.5-hooks")
async def test_a_method_that_is_replaced_on_the_loops_class_is_the_one_that_is_called(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    await session.execute("1")
    loop = asyncio.get_running_loop()
    with monkeypatch.context() as patched:
        patched.setattr(type(loop), "run_until_complete", lambda self, future: future)
        assert loop.run_until_complete("as given") == "as given"  # type: ignore[arg-type]


@requirement("6.5-hooks")
async def test_a_loop_with_a_method_of_its_own_gets_it_back(session: Session) -> None:
    loop = asyncio.get_running_loop()

    def mine(future: Any) -> Any:
        return "mine", future

    loop.run_until_complete = mine  # type: ignore[method-assign]
    try:
        await session.execute("1")
        assert loop.run_until_complete(5) == ("mine", 5)  # type: ignore[arg-type]
        await session.close()
        assert vars(loop)["run_until_complete"] is mine
    finally:
        del loop.run_until_complete  # type: ignore[method-assign]


@requirement("6.5-hooks")
async def test_a_dropped_session_takes_its_hooks_along() -> None:
    loop = asyncio.get_running_loop()
    before = attributes(loop)
    session = Session()
    await session.execute("asyncio.run(asyncio.sleep(0))")
    with pytest.warns(ResourceWarning, match="unclosed session"):
        del session
    assert attributes(loop) == before


class CollectingLoop(asyncio.SelectorEventLoop):
    """A loop at whose first look the collector finds a dropped session."""

    collect: Callable[[], None] | None = None

    def __getattribute__(self, name: str) -> Any:
        collect = super().__getattribute__("collect")
        if name == "run_until_complete" and collect is not None:
            self.collect = None
            collect()
        return super().__getattribute__(name)


@requirement("6.5-hooks")
def test_a_session_that_the_collector_ends_meanwhile_takes_nothing_from_the_next() -> None:
    hooks, first, second = RunnerHooks(), asyncio.new_event_loop(), CollectingLoop()
    before, pythons = (attributes(first), attributes(second)), asyncio.run
    try:
        hooks.install(first, 1)
        second.collect = lambda: hooks.remove(first, 1)
        hooks.install(second, 2)
        assert second.collect is None
        assert asyncio.run is not pythons
        assert {"run_until_complete", "run_forever"} <= set(vars(second))
        assert attributes(first)[-2:] == [None, None]
        hooks.remove(second, 2)
        assert (attributes(first), attributes(second)) == before
    finally:
        first.close()
        second.close()


# -- other libraries -------------------------------------------------------------------------------


@requirement("10-asyncio-run")
async def test_uvloops_run_is_a_librarys_own(session: Session, context: str) -> None:
    pytest.importorskip("uvloop")
    code = cell("""
        import uvloop
        async def kind(): return type(asyncio.get_running_loop())
        coroutine, told = kind(), None
        try:
            told = uvloop.run(coroutine)
        except RuntimeError as error:
            told = str(error)
        finally:
            coroutine.close()
        """)
    await session.execute("import warnings\nwarnings.simplefilter('ignore')")
    await session.execute(code, context=context)
    told = session.namespace["told"]
    if context == "thread":
        assert told.__module__ == "uvloop"
    else:
        assert "cannot be called from a running event loop" in told


@requirement("10-asyncio-run")
async def test_a_test_case_of_unittest_runs_in_a_thread_cell(session: Session) -> None:
    code = cell("""
        import io, unittest
        class Case(unittest.IsolatedAsyncioTestCase):
            async def test_it(self): await asyncio.sleep(0)
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(Case)
        unittest.TextTestRunner(io.StringIO()).run(suite).wasSuccessful()
        """)
    assert await session.execute(code, context="thread") is True
    assert sys.modules["unittest"]
