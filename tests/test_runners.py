"""``asyncio.run``, ``asyncio.Runner`` and ``run_until_complete`` in code of a session."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable

import pytest

from either_home import Flag, beside, error_name, frames_of, message_of
from isthmus import AnySession, CrossingError, Session
from support import FLAVOURS, LoopThread, cell

requirement = pytest.mark.requirement

PLACES = {
    "the top level": "asyncio.run(job())",
    "a top level that awaits": "await asyncio.sleep(0)\nasyncio.run(job())",
    "a function": "def f(): return asyncio.run(job())\nf()",
    "a nested function": "def f():\n    def g(): return asyncio.run(job())\n    return g()\nf()",
    "a comprehension": "[asyncio.run(job()) for _ in range(1)][0]",
    "a sorted key": "sorted([job], key=lambda it: asyncio.run(it()))[0] and 'done'",
    "an async function": "async def f(): return asyncio.run(job())\nawait f()",
    "a function that an async one calls": (
        "def f(): return asyncio.run(job())\nasync def g(): return f()\nawait g()"
    ),
    "a task": "async def f(): return asyncio.run(job())\nawait asyncio.create_task(f())",
    "another asyncio.run": "async def f(): return asyncio.run(job())\nasyncio.run(f())",
    "a name of its own": "from asyncio import run\nrun(job())",
    "asyncio.runners": "import asyncio.runners\nasyncio.runners.run(job())",
    "map": "list(map(asyncio.run, [job()]))[0]",
    "a Runner": "with asyncio.Runner() as runner: it = runner.run(job())\nit",
    "run_until_complete": (
        "await asyncio.sleep(0)\nasyncio.get_running_loop().run_until_complete(job())"
    ),
}
"""Where code of a session runs a coroutine to its end; each gives what ``job()`` returns."""


# -- asyncio.run ---------------------------------------------------------------------------------


@requirement("10-asyncio-run")
@pytest.mark.parametrize("where", PLACES)
async def test_a_coroutine_runs_to_its_end_in(
    session: AnySession, context: str, where: str
) -> None:
    await session.execute("async def job():\n    await asyncio.sleep(0)\n    return 'done'")
    assert await session.execute(PLACES[where], context=context) == "done"


@requirement("10-asyncio-run")
@pytest.mark.parametrize("flavour", FLAVOURS, indirect=True)
async def test_main_is_a_task_of_its_own_on_the_home_loop(
    session: AnySession, context: str, flavour: str
) -> None:
    await session.execute("import threading\nloop = asyncio.get_running_loop()")
    code = cell("""
        def sync(): return run_sync(asyncio.sleep(0, "waited"))
        async def main():
            await asyncio.sleep(0)
            is_home = threading.current_thread() is threading.main_thread()
            is_home = is_home and asyncio.get_running_loop() is loop
            return is_home, asyncio.current_task().get_name(), sync()
        asyncio.run(main())
        """)
    result = await session.run(code, context=context)
    assert result.unwrap() == (True, f"asyncio.run of cell {result.cell}", "waited")


@requirement("10-asyncio-run")
@pytest.mark.parametrize("flavour", FLAVOURS, indirect=True)
async def test_the_loop_goes_on_meanwhile(session: AnySession, context: str, flavour: str) -> None:
    begun = Flag(session, "begun")
    await session.execute(
        "event = asyncio.Event()\nasync def main():\n    begun()\n    return await event.wait()"
    )
    running = asyncio.ensure_future(session.run("asyncio.run(main())", context=context))
    await begun.seen()
    await beside(session, "await asyncio.sleep(0)")
    assert not running.done()
    await beside(session, "event.set()")
    assert (await running).unwrap() is True


@requirement("10-asyncio-run")
async def test_main_has_a_copy_of_the_context_variables(session: AnySession, context: str) -> None:
    code = cell("""
        import contextvars
        user = contextvars.ContextVar("user", default="nobody")
        user.set("ada")
        async def main():
            seen = user.get()
            user.set("bob")
            return seen
        asyncio.run(main()), user.get()
        """)
    assert await session.execute(code, context=context) == ("ada", "ada")


@requirement("10-asyncio-run")
async def test_what_main_prints_is_its_cells(session: AnySession, context: str) -> None:
    code = "async def main(): print('here')\nasyncio.run(main())"
    assert (await session.run(code, context=context)).stdout == "here\n"


@requirement("10-asyncio-run")
async def test_an_error_of_main_comes_out_with_the_users_frames_only(
    session: AnySession, context: str
) -> None:
    code = "async def main():\n    await asyncio.sleep(0)\n    return 1 / 0\nasyncio.run(main())"
    result = await session.run(code, context=context)
    assert error_name(result.error) == "ZeroDivisionError"
    assert frames_of(result) == ["<module>", "main"]


NO_COROUTINES = ["5", "job", "None", "loop.create_future()"]


@requirement("10-asyncio-run")
@pytest.mark.parametrize("what", NO_COROUTINES)
async def test_something_that_is_no_coroutine_gets_the_error_of_python(
    session: AnySession, context: str, what: str
) -> None:
    await session.execute("async def job(): pass\nloop = asyncio.get_running_loop()")
    for call in ("asyncio.run(it)", "asyncio.Runner().run(it)"):
        error = (await session.run(f"it = {what}\n{call}", context=context)).error
        expected = "a coroutine was expected, got " + await session.execute("repr(it)")
        assert (error_name(error), message_of(error)) == ("ValueError", expected)


@requirement("10-asyncio-run")
@pytest.mark.parametrize("call", ["asyncio.run()", "asyncio.run(job(), 1)", "asyncio.run(it=1)"])
async def test_wrong_arguments_are_a_type_error(
    session: AnySession, context: str, call: str
) -> None:
    await session.execute("class job:\n    pass")
    assert error_name((await session.run(call, context=context)).error) == "TypeError"


@requirement("10-asyncio-run", "5.2-adopted-tasks-accepted")
async def test_a_coroutine_that_an_earlier_cell_has_left_behind_is_accepted(
    session: AnySession, context: str
) -> None:
    await session.execute("async def job(): return 'late'\nfirst, second = job(), job()")
    code = "name = first.get_name()\nasyncio.run(first), first.get_name() == name"
    assert await session.execute(code, context=context) == ("late", True)
    code = "with asyncio.Runner() as runner: it = runner.run(second)\nit"
    assert await session.execute(code, context=context) == "late"


@requirement("10-asyncio-run")
async def test_runs_nest_to_any_depth(session: AnySession, context: str) -> None:
    code = cell("""
        def down(n): return 0 if n == 0 else asyncio.run(again(n)) + 1
        async def again(n):
            await asyncio.sleep(0)
            return down(n - 1)
        down(50)
        """)
    assert await session.execute(code, context=context) == 50


@requirement("10-asyncio-run")
async def test_many_tasks_run_something_to_its_end_at_once(
    session: AnySession, context: str
) -> None:
    code = cell("""
        async def one(n):
            await asyncio.sleep(0.001)
            return n
        async def run(n): return asyncio.run(one(n))
        await asyncio.gather(*[run(n) for n in range(100)])
        """)
    assert await session.execute(code, context=context) == list(range(100))


# -- cancelling ------------------------------------------------------------------------------------

CLEANS_UP = cell("""
    async def main():
        task = asyncio.create_task(other())
        try:
            started()
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0)
            print("main")
    async def other():
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0)
            print("other")
    """)

RUNS = {
    "asyncio.run": "asyncio.run(main())",
    "a Runner": "with asyncio.Runner() as runner:\n    runner.run(main())",
}


@requirement("10-asyncio-run")
@pytest.mark.parametrize("flavour", FLAVOURS, indirect=True)
@pytest.mark.parametrize("how", RUNS)
async def test_cancelling_the_cell_cancels_main_and_waits_for_all_of_it(
    session: AnySession, context: str, how: str, flavour: str
) -> None:
    started = Flag(session, "started")
    await session.execute(CLEANS_UP)
    running = asyncio.ensure_future(session.run(RUNS[how], context=context))
    await started.seen()
    session.interrupt()
    result = await running
    assert (result.status, result.stdout) == ("cancelled", "main\nother\n")


@requirement("10-asyncio-run")
async def test_a_timeout_around_asyncio_run_cancels_main(session: AnySession, context: str) -> None:
    code = cell("""
        try:
            async with asyncio.timeout(0.01):
                asyncio.run(asyncio.sleep(30))
        except TimeoutError:
            it = "in time"
        it
        """)
    assert await session.execute(code, context=context) == "in time"


@requirement("10-asyncio-run")
async def test_a_session_that_is_closed_ends_what_runs_inside(
    make_session: Callable[[], AnySession], context: str
) -> None:
    async with make_session() as session:
        started = Flag(session, "started")
        await session.execute(CLEANS_UP)
        running = asyncio.ensure_future(session.run("asyncio.run(main())", context=context))
        await started.seen()
        await beside(session, "await asyncio.sleep(0)")  # it has come back from that call
    result = await running
    assert (result.status, result.stdout) == ("cancelled", "other\nmain\n")  # children first


# -- options ---------------------------------------------------------------------------------------

CAUGHT = cell("""
    import warnings
    def caught(function, **options):
        with warnings.catch_warnings(record=True) as log:
            warnings.simplefilter("always")
            function(**options)
        return [(it.category.__name__, str(it.message), it.filename) for it in log]
    def by_run(**options): asyncio.run(asyncio.sleep(0), **options)
    def by_runner(**options): asyncio.Runner(**options)
    """)


@requirement("10-asyncio-run")
@pytest.mark.parametrize("how", ["by_run", "by_runner"])
async def test_what_cannot_be_done_on_the_hosts_loop_is_warned_of(
    session: AnySession, context: str, how: str
) -> None:
    filename = (await session.run(CAUGHT)).filename
    (told,) = await session.execute(f"caught({how}, debug=True)", context=context)
    assert told[0] == "RuntimeWarning"
    assert told[1].startswith("debug=True is not done") and "the host's to set" in told[1]
    assert told[2] == filename
    assert await session.execute(f"caught({how}, debug=False)", context=context) == []
    assert await session.execute(f"caught({how}, debug=None)", context=context) == []


@requirement("10-asyncio-run")
async def test_a_loop_factory_is_not_called_and_warned_of_where_the_loop_is_of_another_kind(
    session: AnySession, context: str
) -> None:
    await session.execute(CAUGHT)
    kinds = """
        def never(): raise AssertionError
        class Other(asyncio.SelectorEventLoop): "A kind of loop that the session's is not."
        same = type(asyncio.get_running_loop())
        """
    await session.execute(cell(kinds))
    for name, count in {"never": 1, "Other": 1, "same": 0, "asyncio.new_event_loop": 0}.items():
        told = await session.execute(f"caught(by_runner, loop_factory={name})", context=context)
        assert [it[0] for it in told] == ["RuntimeWarning"] * count, name


@requirement("10-asyncio-run")
async def test_asyncio_run_has_the_parameters_of_its_version(
    session: AnySession, context: str
) -> None:
    result = await session.run(
        "asyncio.run(job, loop_factory=asyncio.new_event_loop)", context=context
    )
    assert error_name(result.error) == "NameError"
    await session.execute("job = None")
    result = await session.run(
        "asyncio.run(job, loop_factory=asyncio.new_event_loop)", context=context
    )
    expected = "TypeError" if sys.version_info < (3, 12) else "ValueError"
    assert error_name(result.error) == expected


# -- asyncio.Runner --------------------------------------------------------------------------------


@requirement("10-asyncio-run")
@pytest.mark.parametrize("flavour", FLAVOURS, indirect=True)
async def test_the_runs_of_a_runner_share_a_context_and_their_tasks_end_with_it(
    session: AnySession, context: str, flavour: str
) -> None:
    code = cell("""
        import contextvars
        user = contextvars.ContextVar("user", default="nobody")
        async def begin():
            user.set("ada")
            return asyncio.create_task(asyncio.sleep(30))
        async def seen(): return user.get()
        with asyncio.Runner() as runner:
            task = runner.run(begin())
            inside = runner.run(seen()), task.done(), runner.get_loop() is loop
        inside, task.cancelled(), user.get(), isinstance(runner, asyncio.Runner)
        """)
    await session.execute("loop = asyncio.get_running_loop()")
    expected = (("ada", False, True), True, "nobody", True)
    assert await session.execute(code, context=context) == expected


@requirement("10-asyncio-run")
async def test_a_runner_goes_on_over_cells_and_contexts(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute("runner = asyncio.Runner()\nevent = asyncio.Event()")
    await session.execute("runner.run(asyncio.sleep(0, event.set()))", context=first)
    assert await session.execute("runner.run(event.wait())", context=second) is True
    await session.execute("runner.close()", context=first)


@requirement("10-asyncio-run")
async def test_a_run_can_have_a_context_of_its_own(session: AnySession, context: str) -> None:
    code = cell("""
        import contextvars
        user = contextvars.ContextVar("user", default="nobody")
        async def name(it): user.set(it)
        async def seen(): return user.get()
        mine = contextvars.copy_context()
        before = len(mine)
        with asyncio.Runner() as runner:
            runner.run(name("ada"), context=mine)
            both = runner.run(seen()), runner.run(seen(), context=mine)
        both, mine[user], len(mine) - before
        """)
    assert await session.execute(code, context=context) == (("nobody", "ada"), "ada", 1)


@requirement("10-asyncio-run")
async def test_a_closed_runner_refuses_as_in_python_and_closes_the_coroutine(
    session: AnySession, context: str
) -> None:
    code = cell("""
        import inspect
        runner = asyncio.Runner()
        runner.close()
        with runner:
            runner.run(asyncio.sleep(0))
        runner.close()
        coroutine, told = asyncio.sleep(0), []
        for call in (lambda: runner.run(coroutine), runner.get_loop, runner.__enter__):
            try:
                call()
            except RuntimeError as error:
                told.append(str(error))
        told, inspect.getcoroutinestate(coroutine)
        """)
    expected = (["Runner is closed"] * 3, "CORO_CLOSED")
    assert await session.execute(code, context=context) == expected


@requirement("10-asyncio-run")
async def test_a_runner_that_runs_something_refuses_a_second_run_and_to_close(
    session: AnySession, context: str
) -> None:
    code = cell("""
        async def main():
            told = []
            for call in (lambda: runner.run(asyncio.sleep(0)), runner.close):
                try:
                    call()
                except RuntimeError as error:
                    told.append(str(error))
            return told
        with asyncio.Runner() as runner:
            told = runner.run(main())
        told
        """)
    run, close = await session.execute(code, context=context)
    assert run == "Runner.run() cannot be called while the runner runs something"
    assert close == "Runner.close() cannot be called while the runner runs something"


# -- run_until_complete ----------------------------------------------------------------------------


@requirement("10-run-until-complete")
@pytest.mark.parametrize("flavour", FLAVOURS, indirect=True)
async def test_run_until_complete_waits_and_what_was_started_goes_on(
    session: AnySession, context: str, flavour: str
) -> None:
    await session.execute("loop, go = asyncio.get_running_loop(), asyncio.Event()")
    code = cell("""
        async def main():
            global task
            task = asyncio.create_task(go.wait())
            return asyncio.current_task().get_name()
        name = loop.run_until_complete(main())
        done = task.done()
        call_on_loop(go.set)
        name, done, loop.run_until_complete(task)
        """)
    name, done, background = await session.execute(code, context=context)
    assert (done, background) == (False, True)
    assert not name.startswith("isthmus")


@requirement("10-run-until-complete")
async def test_run_until_complete_waits_for_futures_and_awaitable_objects(
    session: AnySession, context: str
) -> None:
    await session.execute(
        "loop = asyncio.get_running_loop()\nfuture = loop.create_future()\n"
        "timer = loop.call_later(0.001, future.set_result, 'future')"
    )
    code = cell("""
        class Awaitable:
            def __await__(self): return asyncio.sleep(0, "object").__await__()
        loop.run_until_complete(future), loop.run_until_complete(Awaitable())
        """)
    assert await session.execute(code, context=context) == ("future", "object")


@requirement("10-run-until-complete", "6.2-no-exit-of-host-loop")
async def test_an_exit_comes_out_of_run_until_complete(session: AnySession, context: str) -> None:
    await session.execute("loop = asyncio.get_running_loop()")
    code = "import sys\nasync def main(): sys.exit(3)\nloop.run_until_complete(main())"
    assert type((await session.run(code, context=context)).error) is SystemExit


@requirement("10-run-until-complete")
async def test_what_cannot_be_waited_for_is_refused_as_in_python(
    session: AnySession, context: str
) -> None:
    await session.execute(
        "loop, other = asyncio.get_running_loop(), asyncio.new_event_loop()\n"
        "theirs = other.create_future()"
    )
    error = (await session.run("loop.run_until_complete(5)", context=context)).error
    assert error_name(error) == "TypeError"
    error = (await session.run("loop.run_until_complete(theirs)", context=context)).error
    assert error_name(error) == "ValueError"
    assert "different loop" in message_of(error)
    await session.execute("other.close()")


@requirement("10-run-until-complete")
async def test_the_loop_of_another_session_is_refused_by_name(
    session: Session, context: str
) -> None:
    code = cell("""
        import inspect
        coroutine = asyncio.sleep(0)
        try:
            theirs.run_until_complete(coroutine)
        except RuntimeError as error:
            told = type(error).__name__, str(error)
        *told, inspect.getcoroutinestate(coroutine)
        """)
    with LoopThread() as thread:
        theirs = await thread.wait(_open_session())
        session.update_namespace({"theirs": thread.loop})
        kind, message, state = await session.execute(code, context=context)
        await thread.wait(theirs.close())
    assert (kind, state) == ("ForeignLoopError", "CORO_CLOSED")
    assert "asyncio.run_coroutine_threadsafe" in message


async def _open_session() -> Session:
    session = Session("theirs")
    await session.execute("1")
    return session


@requirement("10-run-until-complete")
async def test_run_forever_is_refused_by_name(session: AnySession, context: str) -> None:
    await session.execute("loop = asyncio.get_running_loop()")
    error = (await session.run("loop.run_forever()", context=context)).error
    assert type(error) is CrossingError
    assert "run_forever() cannot be called in a session" in str(error)


@requirement("10-run-until-complete")
async def test_cancelling_the_cell_cancels_what_run_until_complete_waits_for(
    session: AnySession, context: str
) -> None:
    started = Flag(session, "started")
    await session.execute(f"{CLEANS_UP}\nloop = asyncio.get_running_loop()")
    running = asyncio.ensure_future(session.run("loop.run_until_complete(main())", context=context))
    await started.seen()
    session.interrupt()
    result = await running
    assert (result.status, result.stdout) == ("cancelled", "main\n")


# -- where nobody can wait -------------------------------------------------------------------------

CALLS = {
    "asyncio.run": "asyncio.run(coroutine)",
    "a Runner": "asyncio.Runner().run(coroutine)",
    "run_until_complete": "asyncio.get_running_loop().run_until_complete(coroutine)",
}


@requirement("10-asyncio-run", "4.1-refusals")
@pytest.mark.parametrize("how", CALLS)
async def test_a_callback_of_the_loop_is_refused_and_the_coroutine_closed(
    session: AnySession, how: str
) -> None:
    code = cell(f"""
        import inspect
        coroutine = asyncio.sleep(0)
        got = asyncio.get_running_loop().create_future()
        def callback():
            try:
                {CALLS[how]}
            except RuntimeError as error:
                got.set_result((type(error).__name__, str(error)))
        asyncio.get_running_loop().call_soon(callback)
        *await got, inspect.getcoroutinestate(coroutine)
        """)
    kind, message, state = await session.execute(code)
    assert (kind, state) == ("CallbackError", "CORO_CLOSED")
    assert "callback of the event loop" in message


@requirement("10-asyncio-run", "4.1-refusals")
async def test_a_finalizer_that_runs_on_the_loop_is_refused(session: AnySession) -> None:
    code = cell("""
        class Holder:
            def __del__(self):
                try:
                    asyncio.run(asyncio.sleep(0))
                except RuntimeError as error:
                    told.append(type(error).__name__)
        told, held = [], [Holder()]
        asyncio.get_running_loop().call_soon(held.clear)
        await asyncio.sleep(0)
        told
        """)
    assert await session.execute(code) == ["CallbackError"]


@requirement("10-asyncio-run", "4.1-refusals")
async def test_a_function_that_the_host_calls_in_a_task_of_its_own_is_refused(
    session: Session,
) -> None:
    await session.execute("def f(coroutine): return asyncio.run(coroutine)")
    coroutine = asyncio.sleep(0)
    with pytest.raises(CrossingError, match="make the function async"):
        session.namespace["f"](coroutine)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


@requirement("10-asyncio-run")
async def test_closing_a_runner_where_nobody_can_wait_changes_nothing(session: AnySession) -> None:
    code = cell("""
        runner = asyncio.Runner()
        async def begin(): return asyncio.create_task(asyncio.sleep(30))
        task = runner.run(begin())
        got = asyncio.get_running_loop().create_future()
        def callback():
            try:
                runner.close()
            except RuntimeError as error:
                got.set_result(type(error).__name__)
        asyncio.get_running_loop().call_soon(callback)
        refused = await got, task.cancelled()
        runner.close()
        refused, task.cancelled()
        """)
    assert await session.execute(code) == (("CallbackError", False), True)
