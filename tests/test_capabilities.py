"""Capabilities: what can be one, where it runs, how it ends, and bad input."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import inspect
import pydoc
import sys
import threading
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest

import isthmus
from async_functions import Adder, Later, add, returns_coroutine, returns_future
from either_home import error_name, message_of
from isthmus import (
    AnySession,
    AsyncNamespaceManager,
    CapabilityRevoked,
    LoopError,
    NamespaceManager,
    NoInputError,
    ReservedNameError,
    Session,
    capability,
)
from support import LoopThread, cell, eventually

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="nothing")


KINDS = {
    "async function": add,
    "partial": functools.partial(add, step=1),
    "partial of a partial": functools.partial(functools.partial(add), step=1),
    "async __call__": Adder(),
    "bound method": Adder().method,
    "function that returns a coroutine": returns_coroutine,
    "lambda that returns an awaitable": lambda number, step=1: Later(number),
    "class whose instances are awaitable": Later,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["own loop", "interceptors", "other loop"])
async def test_every_kind_of_async_function(
    session: AnySession, context: Any, kind: str, how: str
) -> None:
    async def pass_on(call: Any, proceed: Any) -> Any:
        return await proceed()

    with LoopThread() as host:
        options: dict[str, Any] = {"interceptors": [pass_on]} if how == "interceptors" else {}
        if how == "other loop":
            options["on_loop"] = host.loop
        session.inject_capability("tool", KINDS[kind], **options)
        code = "async def f(i): return await tool(i)\ndef g(i): return tool(i)"
        await session.execute(code)
        for _ in range(2):  # what the first call returned is remembered
            assert await session.execute("tool(20), g(1)", context=context) == (21, 2)
            assert await session.execute("await tool(20), await f(1)", context=context) == (21, 2)
            gathered = await session.execute(
                "await asyncio.gather(tool(1), tool.aio(2))", context=context
            )
            assert gathered == [2, 3]
            assert await session.execute("await f(1), tool.now(2)", context=context) == (2, 3)


async def test_a_function_that_returns_a_future(session: AnySession) -> None:
    session.inject_capability("tool", returns_future)
    for context in ("async", "sync"):
        assert await session.execute("tool(1), run_sync(tool.aio(1))", context=context) == (2, 2)  # type: ignore[arg-type]
    code = "await tool(1), tool.now(1)"
    assert await session.execute(code, context="thread") == (2, 2)


async def test_a_sync_capability_runs_in_the_calling_thread(
    session: AnySession, context: Any
) -> None:
    session.inject_capability("where", threading.get_ident)
    there = await session.execute(
        "import threading\nwhere() == threading.get_ident()", context=context
    )
    assert there is True


# -- iterators and managers --------------------------------------------------------------------


def make_counter(log: list[str]) -> Any:
    async def count(end: int) -> AsyncIterator[int]:
        """Count."""
        try:
            for number in range(end):
                await asyncio.sleep(0)
                yield number
        finally:
            await asyncio.sleep(0)
            log.append(f"closed in {asyncio.current_task() is not None}")

    return count


def make_manager(log: list[str]) -> Any:
    @contextlib.asynccontextmanager
    async def manage(value: str) -> AsyncIterator[str]:
        """Manage."""
        async with asyncio.timeout(30):  # needs one task for both ends
            try:
                yield value
            except KeyError as error:
                log.append(f"caught {error}")
            finally:
                await asyncio.sleep(0)
                log.append("left")

    return manage


@pytest.fixture(params=["own loop", "other loop"])
def host(request: pytest.FixtureRequest) -> Any:
    """The loop to register on: None, or one in another thread."""
    if request.param == "own loop":
        yield None
    else:
        with LoopThread() as thread:
            yield thread.loop


async def test_async_generators(session: AnySession, context: Any, host: Any) -> None:
    log: list[str] = []
    session.inject_capability("count", make_counter(log), on_loop=host)
    for code in (
        "list(count(3))",
        "[x for x in count(3)]",
        "[x async for x in count(3)]",
        "async def f(): return [x async for x in count(3)]\nawait f()",
        "def f(): return list(count(3))\nf()",
        "def f(): return list(count(3))\nawait asyncio.sleep(0); f()",
        "it = count(3)\n[next(it), *[x async for x in it]]",
        "it = count(3)\n[await anext(it), *it]",
    ):
        assert await session.execute(code, context=context) == [0, 1, 2], code
    assert len(log) == 8


async def test_an_async_generator_is_closed(session: AnySession, context: Any, host: Any) -> None:
    log: list[str] = []
    session.inject_capability("count", make_counter(log), on_loop=host)
    code = """
        import contextlib
        with contextlib.closing(count(3)) as numbers:
            first = next(numbers)
        async with contextlib.aclosing(count(3)) as numbers:
            second = await anext(numbers)
        first, second
        """
    assert await session.execute(cell(code), context=context) == (0, 0)
    assert len(log) == 2
    await session.execute("for x in count(3): break", context=context)
    gc.collect()
    if host is None:
        await eventually(lambda: len(log) == 3)


async def test_async_context_managers(session: AnySession, context: Any, host: Any) -> None:
    log: list[str] = []
    session.inject_capability("manage", make_manager(log), on_loop=host)
    code = """
        with manage("a") as a:
            pass
        with manage("b"):
            raise KeyError("swallowed")
        async with manage("c") as c:
            await asyncio.sleep(0)
        def f():
            with manage("d") as d:
                return d
        async def g():
            async with manage("e") as e:
                return e
        a, c, f(), await g()
        """
    assert await session.execute(cell(code), context=context) == ("a", "c", "d", "e")
    assert log == ["left", "caught 'swallowed'", "left", "left", "left", "left"]
    result = await session.run("with manage(1): raise ValueError('mine')", context=context)
    assert (error_name(result.error), message_of(result.error)) == ("ValueError", "mine")


class Client:
    """A client such as libraries have: only for ``async with``, and more than that."""

    url = "http://here"

    async def __aenter__(self) -> Client:
        """Open."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""


async def test_an_object_for_async_with_stays_what_it_is(session: AnySession, context: Any) -> None:
    session.inject_capability("client", Client)
    session.update_namespace({"Client": Client})
    code = """
        with client() as c:
            pass
        isinstance(c, Client), c.url, repr(c).split()[0]
        """
    said = await session.execute(cell(code), context=context)
    assert said == (True, "http://here", "<test_capabilities.Client")


# -- where it runs -----------------------------------------------------------------------------


async def test_it_runs_on_the_loop_where_it_was_registered(
    session: AnySession, context: Any
) -> None:
    async def where() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def inject() -> None:
        session.inject_capability("there", where)
        session.inject_capability("there_now", asyncio.get_running_loop)

    with LoopThread() as host:
        await host.wait(inject())
        session.inject_capability("given", where, on_loop=host.loop)
        session.inject_capability("here", where)
        for code, loop in (
            ("there()", host.loop),
            ("await there()", host.loop),
            ("there_now()", host.loop),
            ("def f(): return there_now()\nawait asyncio.sleep(0); f()", host.loop),
            ("given()", host.loop),
            ("await given()", host.loop),
            ("here()", asyncio.get_running_loop()),
            ("await here()", asyncio.get_running_loop()),
        ):
            assert await session.execute(code, context=context) is loop, code


async def test_on_the_home_loop_it_runs_in_the_callers_task(
    session: AnySession, context: Any
) -> None:
    session.inject_capability("task_later", current_task_later)
    await session.execute("home = asyncio.current_task().get_name()")
    assert await session.execute("task_later() == home", context=context)
    assert await session.execute("await task_later() == home", context=context)
    here = asyncio.get_running_loop()
    session.inject_capability("pinned", lambda: asyncio.current_task().get_name(), on_loop=here)
    assert await session.execute("pinned() == home", context=context)
    code = "x = pinned(); await asyncio.sleep(0); x == home"
    assert await session.execute(code, context=context)


async def current_task_later() -> str:
    """The name of the task, after a wait."""
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    return task.get_name()


async def test_it_sees_the_callers_context_variables(
    session: AnySession, context: Any, host: Any
) -> None:
    async def look() -> str:
        return VAR.get()

    session.inject_capability("look", look, on_loop=host)
    session.update_namespace({"var": VAR})
    await session.execute("var.set('cell')", context=context)
    assert await session.execute("look()", context=context) == "cell"
    assert await session.execute("await look()", context=context) == "cell"


async def test_a_cancelled_cell_cancels_it(session: AnySession, context: Any, host: Any) -> None:
    started, ended = threading.Event(), threading.Event()

    async def wait() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
            raise

    session.inject_capability("wait", wait, on_loop=host)
    for code in ("wait()", "await wait()"):
        started.clear()
        ended.clear()
        running = asyncio.ensure_future(session.run(code, context=context))
        await eventually(started.is_set)
        session.interrupt()
        assert (await running).status == "cancelled"
        await eventually(ended.is_set)
        assert await session.execute("1 + 1", context=context) == 2


async def test_a_cancelled_caller_does_not_wait_for_a_stubborn_host(session: AnySession) -> None:
    started, stubborn = threading.Event(), threading.Event()
    complaints: list[Any] = []

    async def wait() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await eventually(stubborn.is_set)
            raise ValueError("too late") from None

    with LoopThread() as host:
        host.loop.set_exception_handler(lambda loop, context: complaints.append(context))
        session.inject_capability("wait", wait, on_loop=host.loop)
        running = asyncio.ensure_future(session.run("wait()"))
        await eventually(started.is_set)
        session.interrupt()
        assert (await running).status == "cancelled"
        stubborn.set()
        await eventually(lambda: complaints)
        assert isinstance(complaints[0]["exception"], ValueError)


async def test_a_thousand_calls_in_flight(session: AnySession, context: Any, host: Any) -> None:
    session.inject_capability("add", add, on_loop=host)
    code = "sum(await asyncio.gather(*[add(i) for i in range(1000)]))"
    assert await session.execute(code, context=context) == sum(range(1, 1001))


async def test_a_loop_that_has_ended(session: AnySession, context: Any) -> None:
    with LoopThread() as host:
        session.inject_capability("tool", add, on_loop=host.loop)
    result = await session.run("tool(1)", context=context)
    assert isinstance(result.error, LoopError)
    assert "tool()" in str(result.error)


async def test_calls_in_flight_when_the_hosts_loop_ends_are_cancelled(session: AnySession) -> None:
    started = threading.Event()

    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    with LoopThread() as host:
        session.inject_capability("wait", wait, on_loop=host.loop)
        running = asyncio.ensure_future(session.run("wait()"))
        await eventually(started.is_set)
    assert isinstance((await running).error, asyncio.CancelledError)


# -- coming and going --------------------------------------------------------------------------


async def test_functions_already_defined_see_it_come_and_go(
    session: AnySession, context: Any
) -> None:
    await session.execute("def f(): return tool(1)", context=context)
    assert error_name((await session.run("f()", context=context)).error) == "NameError"
    session.inject_capability("tool", add)
    assert await session.execute("f()", context=context) == 2
    assert await session.execute("tool = abs; f()", context=context) == 1
    assert await session.execute("del tool; f()", context=context) == 2
    session.revoke_capability("tool")
    assert error_name((await session.run("f()", context=context)).error) == "NameError"


async def test_a_kept_reference_is_refused_after_revocation(
    session: AnySession, context: Any
) -> None:
    session.inject_capability("tool", add)
    await session.execute("kept, kept_aio, waiting = tool, tool.aio, tool.aio(1)", context=context)
    session.revoke_capability("tool")
    for code in ("kept(1)", "await kept(1)", "kept.now(1)", "await kept_aio(1)"):
        result = await session.run(code, context=context)
        assert isinstance(result.error, CapabilityRevoked), code
        assert "tool()" in str(result.error)
    assert "<revoked capability tool(" in await session.execute("repr(kept)")
    assert session.capabilities == {}
    with pytest.raises(KeyError, match="tool"):
        session.revoke_capability("tool")
    await session.manager.cleanup_coroutines()


async def test_a_call_in_flight_ends_when_it_is_revoked(session: AnySession, context: Any) -> None:
    event, started = asyncio.Event(), asyncio.Event()

    async def wait() -> str:
        started.set()
        await event.wait()
        return "done"

    session.inject_capability("wait", wait)
    running = asyncio.ensure_future(session.execute("wait()", context=context))
    await started.wait()
    session.revoke_capability("wait")
    event.set()
    assert await running == "done"


async def test_one_that_is_replaced_is_revoked(session: AnySession) -> None:
    session.inject_capability("tool", add)
    await session.execute("kept = tool")
    session.inject_capability("tool", lambda number: -number)
    assert await session.execute("tool(1)") == -1
    assert isinstance((await session.run("kept(1)")).error, CapabilityRevoked)


async def test_a_kept_reference_does_not_keep_the_session() -> None:
    manager = AsyncNamespaceManager("dropped")
    manager.inject_capability("tool", add)
    kept: Any = manager.capabilities["tool"]
    manager.close()
    watch = weakref.ref(manager.module)
    del manager
    gc.collect()
    assert watch() is None
    assert await kept(1) == 2


async def test_a_session_is_opened_with_capabilities(make_session: Any) -> None:
    @capability
    async def plain() -> str:
        return "plain"

    @capability(name="renamed", doc="Says its name.")
    def other() -> str:
        return "other"

    by_iterable = make_session(capabilities=[plain, other, Adder().method])
    assert await by_iterable.execute("plain(), renamed(), method(1)") == ("plain", "other", 2)
    assert await by_iterable.execute("renamed.__doc__") == "Says its name."
    assert other() == "other"
    by_name = make_session(capabilities={"tool": add})
    assert await by_name.execute("tool(1)") == 2
    with pytest.raises(TypeError, match="no name"):
        Session(capabilities=[functools.partial(add)])
    with pytest.raises(ReservedNameError):  # and what was opened so far is closed
        Session("refused", capabilities={"tool": add, "no name": add})
    assert "isthmus_refused" not in sys.modules


async def test_a_capability_of_one_session_is_given_to_another(make_session: Any) -> None:
    first, second = make_session("first"), make_session("second")
    first.inject_capability("tool", add)
    second.inject_capability("tool", first.capabilities["tool"])
    first.revoke_capability("tool")
    assert await second.execute("await tool(1), await tool.aio(2)") == (2, 3)


# -- what it looks like ------------------------------------------------------------------------


async def test_signature_and_documentation_survive(session: AnySession) -> None:
    session.inject_capability("plus", add)
    plus: Any = session.capabilities["plus"]
    assert inspect.signature(plus) == inspect.signature(add)
    assert (plus.__name__, plus.__doc__) == ("plus", add.__doc__)
    shown = pydoc.render_doc(plus, renderer=pydoc.plaintext)
    assert "plus(number: 'int', step: 'int' = 1) -> 'int'" in shown
    assert "Add *step* to *number*." in shown
    assert repr(plus) == "<capability plus(number: 'int', step: 'int' = 1) -> 'int'>"
    session.inject_capability("one", functools.partial(add, step=1))
    assert session.capabilities["one"].__doc__ == add.__doc__
    session.inject_capability("adder", Adder())
    assert session.capabilities["adder"].__doc__ == "Add one, later."
    assert list(inspect.signature(session.capabilities["adder"]).parameters) == ["number"]


async def test_only_aio_is_a_coroutine_function(session: AnySession) -> None:
    session.inject_capability("tool", add)
    tool: Any = session.capabilities["tool"]
    assert not inspect.iscoroutinefunction(tool)
    assert inspect.iscoroutinefunction(tool.aio)


# -- input -------------------------------------------------------------------------------------


async def test_input_without_a_supplier_names_the_way_out(
    session: AnySession, context: Any
) -> None:
    result = await session.run("input('name? ')", context=context)
    assert isinstance(result.error, NoInputError)
    assert "Session(input=" in str(result.error)


async def test_input_is_a_capability(make_session: Any, context: Any) -> None:
    async def ask(prompt: str = "") -> str:
        await asyncio.sleep(0)
        return f"answer to {prompt}"

    session = make_session(input=ask)
    code = "def f(): return input('b')\ninput('a'), f()"
    assert await session.execute(code, context=context) == ("answer to a", "answer to b")
    session.revoke_capability("input")
    assert isinstance((await session.run("input()", context=context)).error, NoInputError)
    session.inject_capability("input", lambda prompt="": "sync")
    assert await session.execute("input()", context=context) == "sync"


# -- bad input ---------------------------------------------------------------------------------


async def test_an_error_of_a_capability_arrives_as_itself(
    session: AnySession, context: Any, host: Any
) -> None:
    error = LookupError("not there")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise error

    session.inject_capability("fail", fail, on_loop=host)
    for code in ("fail()", "await fail()", "def f(): fail()\nf()"):
        result = await session.run(code, context=context)
        assert result.error is error
    assert await session.execute("1", context=context) == 1


@pytest.mark.parametrize("name", ["not a name", "class", "", "1st", "__builtins__", 5, "run_sync"])
def test_names_that_cannot_be_bound(name: Any) -> None:
    manager = AsyncNamespaceManager()
    with pytest.raises(ReservedNameError):
        manager.inject_capability(name, add)
    assert manager.capabilities == {}
    with pytest.raises(KeyError):
        manager.revoke_capability(name)
    assert "run_sync" in manager.namespace["__builtins__"]
    manager.close()


def test_what_cannot_be_called_is_refused() -> None:
    manager = AsyncNamespaceManager()
    with pytest.raises(TypeError, match="must be callable"):
        manager.inject_capability("tool", 5)  # type: ignore[arg-type]
    assert manager.capabilities == {}
    manager.close()


async def test_hiding_a_builtin_is_said(session: AnySession) -> None:
    with pytest.warns(UserWarning, match="'open' hides the builtin"):
        session.inject_capability("open", add)
    assert await session.execute("open(1)") == 2
    session.revoke_capability("open")
    assert await session.execute("import io; open is io.open")


async def test_a_capability_that_calls_back_into_the_session(
    session: AnySession, context: Any, host: Any
) -> None:
    async def call_back(code: str) -> Any:
        return await session.execute(code)

    session.inject_capability("run_cell", call_back, on_loop=host)
    await session.execute("x = 20")
    assert await session.execute("run_cell('x += 1; x')", context=context) == 21
    assert await session.execute("await run_cell('x += 1; x')", context=context) == 22
    assert await session.execute("run_cell('run_cell(\"x\")')", context=context) == 22


async def test_a_capability_that_blocks_holds_up_its_caller_only(session: AnySession) -> None:
    release = threading.Event()
    session.inject_capability("block", lambda: release.wait(5))
    running = asyncio.ensure_future(session.execute("block()", context="thread"))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(release.set)
    assert await running is True


def test_the_base_manager_injects_plain_functions() -> None:
    manager = NamespaceManager()
    manager.inject_capability("tool", abs)
    assert manager.capabilities == {"tool": abs}
    assert eval("tool(-1)", manager.namespace) == 1
    manager.revoke_capability("tool")
    assert manager.capabilities == {}
    manager.close()


def test_the_public_names() -> None:
    assert {"Capability", "capability", "CapabilityRevoked", "NoInputError"} <= set(isthmus.__all__)


async def test_a_capability_describes_itself_for_who_writes_cells(session: AnySession) -> None:
    async def fetch(path: str, *, tries: int = 3) -> str:
        """Get a page.

        Over and over.
        """
        return path

    session.inject_capability("fetch", fetch)
    session.inject_capability("later", lambda: asyncio.sleep(0, 1))
    tools = session.capabilities
    assert tools["fetch"].describe() == (
        "async def fetch(path: 'str', *, tries: 'int' = 3) -> 'str'\n"
        "    Get a page.\n\n    Over and over."
    )
    assert not tools["later"].is_async
    assert await session.execute("await later()") == 1
    assert tools["later"].is_async, "known once it was called"
    assert tools["later"].describe() == "async def later()"
