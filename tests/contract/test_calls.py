"""Functions of the namespace that the host calls: a call is a cell without source."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Callable

import pytest

from either_home import Flag, beside, error_name, frames_of, message_of, raises_there, until
from isthmus import (
    AnySession,
    CellCancelled,
    CellFinished,
    CellStarted,
    CellTimeout,
    MemoryTransport,
    Output,
    SessionClosedError,
    UnknownNameError,
)
from support import LoopThread, cell

requirement = pytest.mark.requirement

FUNCTIONS = cell("""
    import threading

    def double(number, *, times=2):
        return number * times

    async def fetch(number):
        await asyncio.sleep(0)
        return number * 10

    def fail():
        raise ValueError("as told")

    async def fail_later():
        await asyncio.sleep(0)
        raise ValueError("as told")

    def where():
        return threading.get_ident()
    """)


@requirement("4.2-call")
async def test_the_host_calls_sync_and_async_functions(session: AnySession, context: str) -> None:
    await session.execute(FUNCTIONS)
    for name, expected in (("double", 6), ("fetch", 30)):
        result = await session.run_call(name, (3,), context=context)  # type: ignore[arg-type]
        assert (result.status, result.value, result.context) == ("ok", expected, context)
    result = await session.run_call("double", [3], {"times": 3}, context=context)  # type: ignore[arg-type]
    assert result.value == 9
    assert await session.call("double", 3, times=5) == 15


@requirement("4.2-call")
async def test_a_function_runs_where_its_context_says(
    make_session: Callable[..., AnySession],
) -> None:
    session = make_session(context="thread")
    await session.execute(FUNCTIONS)
    here = await session.execute("threading.get_ident()", context="async")
    in_thread = await session.call("where")
    assert in_thread == await session.execute("threading.get_ident()") != here
    assert (await session.run_call("where", context="async")).value == here
    assert (await session.run_call("where", context="sync")).value == here
    assert (await session.run_call("where", context="auto")).context == "thread"
    assert (await session.run_call("fetch", [1], context="auto")).context == "async"


@requirement("4.2-call")
async def test_what_a_function_returns_is_awaited_once_and_keeps_its_identity(
    session: AnySession, context: str
) -> None:
    await session.execute("""
def later(value):
    async def wait():
        await asyncio.sleep(0)
        return value
    return wait()

async def coroutine():
    return later(1)

class Patient:
    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return 'patience'
""")
    value = object()
    assert (await session.run_call("later", [value], context=context)).value is value  # type: ignore[arg-type]
    assert (await session.run_call("Patient", context=context)).value == "patience"  # type: ignore[arg-type]
    left = (await session.run_call("coroutine", context=context)).value  # type: ignore[arg-type]
    assert asyncio.iscoroutine(left) and await session.pending_coroutines == {}
    assert await left == 1


@requirement("4.2-call")
async def test_what_a_function_raises_arrives_without_our_frames(
    session: AnySession, context: str
) -> None:
    await session.execute(FUNCTIONS)
    for name in ("fail", "fail_later"):
        result = await session.run_call(name, context=context)  # type: ignore[arg-type]
        assert error_name(result.error) == "ValueError" and result.status == "error"
        assert frames_of(result) == [name]
        with raises_there(ValueError, match="as told"):
            await session.call(name)


@requirement("4.2-call")
async def test_a_wrong_argument_is_an_error_of_the_call_alone(
    session: AnySession, context: str
) -> None:
    await session.execute(FUNCTIONS)
    result = await session.run_call("double", context=context)  # type: ignore[arg-type]
    assert "missing 1 required positional argument" in str(result.error)
    assert result.error is not None and frames_of(result) == []
    assert await session.call("double", 1) == 2


@requirement("4.2-call")
async def test_a_name_that_is_not_bound_is_refused_with_what_is_like_it(
    make_session: Callable[..., AnySession], transport: MemoryTransport, context: str
) -> None:
    session = make_session(transport=transport)
    await session.execute(FUNCTIONS)
    result = await session.run_call("fetsh", context=context)  # type: ignore[arg-type]
    assert isinstance(result.error, UnknownNameError) and isinstance(result.error, LookupError)
    assert result.error.name == "fetsh" and "did you mean 'fetch'?" in str(result.error)
    finished = transport.of_type(CellFinished)[-1]
    assert (finished.status, finished.error) == ("error", "UnknownNameError")
    with pytest.raises(UnknownNameError, match="bind it first"):
        await session.call("qqqqqqqqq")


@requirement("4.2-call")
async def test_what_is_bound_but_no_function_is_named(session: AnySession, context: str) -> None:
    await session.execute("answer = 42")
    result = await session.run_call("answer", context=context)  # type: ignore[arg-type]
    assert error_name(result.error) == "TypeError"
    assert message_of(result.error) == "'answer' is bound to an object of type int: not callable"
    with pytest.raises(TypeError, match="a str"):
        await session.call(print)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a context is"):
        await session.run_call("answer", context="elsewhere")  # type: ignore[arg-type]


@requirement("4.2-call")
async def test_capabilities_and_builtins_are_called_as_a_cell_would(
    make_session: Callable[..., AnySession], context: str
) -> None:
    async def look_up(word: str) -> str:
        await asyncio.sleep(0)
        return word.upper()

    session = make_session(capabilities={"look_up": look_up, "plain": str.lower}, context=context)
    assert await session.call("look_up", "a") == "A"
    assert await session.call("plain", "A") == "a"
    assert await session.call("sorted", "ba", reverse=True) == ["b", "a"]
    await session.execute("def look_up(word): return 'a cell has shadowed it'")
    assert await session.call("look_up", "a") == "a cell has shadowed it"
    await session.delete("look_up")
    assert await session.call("look_up", "a") == "A"


@requirement("4.2-call", "events")
async def test_a_call_has_a_number_events_and_its_output(
    make_session: Callable[..., AnySession], transport: MemoryTransport, context: str
) -> None:
    session = make_session("named", transport=transport, context=context)
    await session.execute(
        "def greet(name, /, *, end=''):\n    print('hello', name)\n    return end"
    )
    result = await session.run_call("greet", ["you"], {"end": "!"}, title="a greeting")
    assert (result.cell, result.stdout, result.value) == (2, "hello you\n", "!")
    started, output, finished = transport.events[-3:]
    assert isinstance(started, CellStarted)
    assert (started.cell, started.context) == (2, context)
    assert (started.source, started.title) == ("greet(...)", "a greeting")
    assert started.filename == result.filename == "<named cell 2>"
    assert output == Output("named", 2, "stdout", "hello you\n")
    assert isinstance(finished, CellFinished)
    assert (finished.cell, finished.status, finished.value) == (2, "ok", "'!'")
    await session.run_call("dict")
    assert transport.of_type(CellStarted)[-1].source == "dict()"


@requirement("4.2-call")
async def test_the_value_of_a_call_is_the_callers_alone(session: AnySession, context: str) -> None:
    await session.execute(FUNCTIONS)
    await session.execute("'kept'")
    result = await session.run_call("double", ["twice "], context=context)  # type: ignore[arg-type]
    assert result.value == "twice twice "
    assert await session.get("_") == "kept"
    assert (result.bound, result.deleted, result.adopted, result.exact) == ((), (), (), True)


@requirement("4.2-call")
async def test_a_call_is_not_exact_where_a_function_may_bind_names(session: AnySession) -> None:
    await session.execute("def bind():\n    global bound\n    bound = 1")
    result = await session.run_call("bind")
    assert (result.exact, await session.get("bound")) == (False, 1)


@requirement("4.2-call", "3.4-order")
async def test_a_call_has_its_turn_among_cells(
    session: AnySession, first: str, second: str
) -> None:
    slow = session.run(
        "await asyncio.sleep(0.001)\nlog = ['cell']\ndef note(): log.append('call')",
        context=first,  # type: ignore[arg-type]
    )
    call = session.run_call("note", context=second)  # type: ignore[arg-type]
    results = await asyncio.gather(slow, call, session.run("log.append('after')"))
    assert [it.error for it in results] == [None] * 3
    assert await session.get("log") == ["cell", "call", "after"]


@requirement("4.2-call", "3.4-concurrent")
async def test_a_concurrent_call_overtakes_a_cell(session: AnySession, context: str) -> None:
    await session.execute("go = asyncio.Event()\ndef quick(): return 'quick'")
    waiting = asyncio.ensure_future(session.run("await go.wait()"))
    await asyncio.sleep(0)
    result = await session.run_call("quick", context=context, concurrent=True)  # type: ignore[arg-type]
    assert result.value == "quick" and not waiting.done()
    await beside(session, "go.set()")
    assert (await waiting).status == "ok"


@requirement("4.2-call", "3.4-nested")
async def test_a_call_by_a_cell_of_the_same_session_is_nested(
    session: AnySession, first: str, second: str
) -> None:
    async def nested(name: str) -> object:
        return (await session.run_call(name, [4], context=second)).value  # type: ignore[arg-type]

    await session.execute(FUNCTIONS)
    session.inject_capability("nested", nested)
    code = "[await nested(name) for name in ('double', 'fetch')]"
    assert await session.execute(code, context=first) == [8, 40]


@requirement("4.2-call", "6.2-timeout")
async def test_a_deadline_stops_a_call(session: AnySession, context: str) -> None:
    await session.execute("""
async def wait():
    await asyncio.sleep(600)

def compute():
    while True:
        pass
""")
    for name in ("wait", "compute"):
        result = await session.run_call(name, context=context, timeout=0.02)  # type: ignore[arg-type]
        assert result.status == "timeout", name
        with pytest.raises(CellTimeout):
            result.unwrap()
    assert await session.call("abs", -1) == 1


@requirement("4.2-call", "6.2-timeout")
async def test_a_deadline_stops_a_function_made_in_c(session: AnySession) -> None:
    await session.execute("from time import sleep")
    result = await session.run_call("sleep", [600], context="sync", timeout=0.02)
    assert result.status == "timeout" and result.stopped


@requirement("4.2-call", "6.2-interrupt")
async def test_an_interrupt_stops_a_call(session: AnySession, context: str) -> None:
    started = Flag(session, "started")
    await session.execute("async def wait():\n    started()\n    await asyncio.sleep(600)")
    waiting = asyncio.ensure_future(session.run_call("wait", context=context))  # type: ignore[arg-type]
    await started.seen()
    assert session.interrupt()
    result = await waiting
    assert result.status == "cancelled"
    with pytest.raises(CellCancelled):
        result.unwrap()


@requirement("4.2-call")
async def test_cancelling_the_caller_stops_the_call(session: AnySession, context: str) -> None:
    stopped = Flag(session, "stopped")
    await session.execute("""
async def wait():
    global reached
    reached = True
    try:
        await asyncio.sleep(600)
    finally:
        stopped()
""")
    calling = asyncio.ensure_future(session.run_call("wait", context=context))  # type: ignore[arg-type]
    await until(session, "'reached' in globals()")
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await stopped.seen()


@requirement("4.2-call", "3-other-loop")
async def test_a_call_from_another_loop_is_made_at_home(session: AnySession, context: str) -> None:
    await session.execute(FUNCTIONS)
    with LoopThread() as other:
        assert await other.wait(session.call("fetch", 2)) == 20
        result = await other.wait(session.run_call("double", [2], context=context))  # type: ignore[arg-type]
        assert result.value == 4


@requirement("4.2-call")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="markcoroutinefunction: Python 3.12")
async def test_an_async_function_is_called_in_a_thread_as_by_a_cell_that_awaits(
    session: AnySession,
) -> None:
    """Sync code of it, a decorator's say, sees the home loop as its running loop."""
    await session.execute("""
import inspect, threading
loop, ident = asyncio.get_running_loop(), threading.get_ident()

async def body():
    return threading.get_ident()

@inspect.markcoroutinefunction
def marked():
    seen.append((asyncio.get_running_loop() is loop, threading.get_ident()))
    return body()

seen = []
""")
    result = await session.run_call("marked", context="thread")
    thread = await session.execute("threading.get_ident()", context="thread")
    assert result.value == await session.get("ident")
    assert await session.get("seen") == [(True, thread)]


@requirement("4.2-call")
async def test_a_call_keeps_nothing_of_its_arguments(session: AnySession) -> None:
    """A task that the function has started knows the call, and must not pin its arguments."""

    class Big:
        pass

    await session.execute("""
async def idle():
    await go.wait()

def start(big):
    global task, go
    go = asyncio.Event()
    task = asyncio.ensure_future(idle())
""")
    big = Big()
    gone = weakref.ref(big)
    result = await session.run_call("start", [big], context="async")
    assert result.error is None
    del big, result
    gc.collect()
    assert gone() is None
    await session.execute("go.set()\nawait task")


@requirement("4.2-call")
async def test_a_call_of_a_closed_session_is_refused(session: AnySession) -> None:
    await session.close()
    with pytest.raises(SessionClosedError):
        await session.call("print")
