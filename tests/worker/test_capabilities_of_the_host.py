"""Capabilities of every kind, called from a worker's cells of all contexts."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest

from async_functions import Adder, Later, add, returns_coroutine, returns_future
from isthmus import Journal, LoopError, RemoteError, UntrustedValueError, WorkerDied
from support import CONTEXTS, WAIT_SECONDS, LoopThread, NewWorker, cell, eventually

requirement = pytest.mark.requirement


ASYNC_KINDS: dict[str, Callable[..., Any]] = {
    "function": add,
    "partial": functools.partial(functools.partial(add), step=1),
    "instance": Adder(),
    "method": Adder().method,
    "returns_coroutine": returns_coroutine,
    "returns_future": returns_future,
    "later": lambda number, step=1: Later(number),
    "class_": Later,
}


@requirement("7.4-capabilities")
async def test_every_kind_of_async_function(new_worker: NewWorker) -> None:
    journal = Journal()
    with LoopThread() as host:
        async with new_worker(interceptors=[journal]) as session:
            for context in CONTEXTS:
                for name, fn in ASYNC_KINDS.items():
                    session.inject_capability("tool", fn)  # not known to be async, once more
                    code = "async def f(i): return await tool(i)\ndef g(i): return tool(i)"
                    await session.execute(code)
                    for _ in range(2):  # what the first call returned is remembered
                        calls = "await tool(20), tool.now(0), await tool.aio(1), await f(1), g(1)"
                        found = await session.execute(calls, context=context)
                        assert found == (21, 1, 2, 2, 2), (name, context)
                        assert await session.execute("tool(20)", context=context) == 21
                    assert session.capabilities["tool"].is_async
                    assert await session.execute("tool.is_async")
                    session.inject_capability("there", add, on_loop=host.loop)
                gathered = "await asyncio.gather(tool(1), *[there(n) for n in range(3)])"
                assert await session.execute(gathered, context=context) == [2, 1, 2, 3]
    assert {it.outcome for it in journal.entries} == {"returned"}


@requirement("7.4-capabilities")
async def test_a_thousand_calls_in_flight(new_worker: NewWorker) -> None:
    async with new_worker(capabilities=[add]) as session:
        for context in CONTEXTS:
            code = "sum(await asyncio.gather(*[add(i) for i in range(1000)]))"
            assert await session.execute(code, context=context) == sum(range(1, 1001))


# -- iterators -------------------------------------------------------------------------------------


class Counters:
    """Things to iterate over, and a log of how they ended."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def count(self, end: int) -> AsyncIterator[int]:
        """Count, in an async generator."""
        task = asyncio.current_task()
        try:
            for number in range(end):
                await asyncio.sleep(0)
                yield number
        finally:
            await asyncio.sleep(0)
            self.log.append("ended" if task is asyncio.current_task() else "in another task")

    def count_now(self, end: int) -> Generator[int, int, str]:
        """Count, in a generator; what is sent counts as well."""
        try:
            number = 0
            while number < end:
                number += (yield number) or 1
            return "that was all"
        finally:
            self.log.append("ended")

    def iterator(self, end: int) -> Iterator[int]:
        """What iterates and is no generator."""
        return iter(range(end))

    def again(self, end: int) -> Again:
        """What can be iterated over again and again."""
        return Again(self, end)


class Again:
    """An async iterable that is no iterator."""

    def __init__(self, counters: Counters, end: int) -> None:
        self.counters = counters
        self.end = end

    def __aiter__(self) -> AsyncIterator[int]:
        """A new one each time."""
        return self.counters.count(self.end)


@pytest.fixture(params=["own loop", "other loop"])
def host(request: pytest.FixtureRequest) -> Any:
    """The loop to register on: None, or one in another thread."""
    if request.param == "own loop":
        yield None
    else:
        with LoopThread() as thread:
            yield thread.loop


@requirement("7.4-capabilities")
async def test_async_generators(host: Any, new_worker: NewWorker) -> None:
    counters, sources = (
        Counters(),
        (
            "list(count(3))",
            "[x for x in count(3)]",
            "[x async for x in count(3)]",
            "async def f(): return [x async for x in count(3)]\nawait f()",
            "def f(): return list(count(3))\nf()",
            "def f(): return list(count(3))\nawait asyncio.sleep(0); f()",
            "it = count(3)\n[next(it), *[x async for x in it]]",
            "it = count(3)\n[await anext(it), *it]",
        ),
    )
    async with new_worker() as session:
        session.inject_capability("count", counters.count, on_loop=host)
        session.inject_capability("again", counters.again, on_loop=host)
        for context in CONTEXTS:
            for code in sources:
                assert await session.execute(code, context=context) == [0, 1, 2], code
            code = "it = again(2)\n[[x async for x in it], list(it)]"
            assert await session.execute(code, context=context) == [[0, 1], [0, 1]]
    assert counters.log == ["ended"] * 3 * 10


@requirement("7.4-capabilities")
async def test_sync_generators_and_iterators(host: Any, new_worker: NewWorker) -> None:
    counters = Counters()
    async with new_worker() as session:
        for fn in (counters.count_now, counters.iterator):
            session.inject_capability(fn.__name__, fn, on_loop=host)
        source = cell("""
            it = count_now(9)
            taken = [next(it), it.send(2), *it]
            def returned():
                try:
                    it = count_now(0)
                    next(it)
                except StopIteration as stop:
                    return stop.value
            taken, list(iterator(3)), next(iterator(1)), returned()
            """)
        for context in CONTEXTS:
            found = await session.execute(source, context=context)
            assert found == ([0, 2, *range(3, 9)], [0, 1, 2], 0, "that was all")
            result = await session.run("async for x in count_now(1): pass", context=context)
            assert "TypeError" in str(result.error)
    assert counters.log == ["ended"] * 3 * 2


@requirement("7.4-capabilities")
async def test_a_generator_is_closed_when_a_cell_leaves_it(
    host: Any, new_worker: NewWorker
) -> None:
    counters = Counters()
    closing = cell("""
        import contextlib
        with contextlib.closing(count(3)) as numbers:
            first = next(numbers)
        async with contextlib.aclosing(count(3)) as numbers:
            second = await anext(numbers)
        first, second
        """)
    async with new_worker() as session:
        session.inject_capability("count", counters.count, on_loop=host)
        session.inject_capability("count_now", counters.count_now, on_loop=host)
        for context in CONTEXTS:
            assert await session.execute(closing, context=context) == (0, 0)
            assert counters.log == ["ended"] * 2
            for function in ("count", "count_now"):
                await session.execute(f"for x in {function}(3): break", context=context)
            await session.execute("async for x in count(3): break", context=context)
            await eventually(lambda: len(counters.log) == 5)
            await session.execute("kept = count(3); next(kept)", context=context)
            await session.execute("del kept", context=context)
            await eventually(lambda: len(counters.log) == 6)
            await session.execute("kept = count(3); next(kept)", context=context)
            await session.restart()
            await eventually(lambda: len(counters.log) == 7)
            assert set(counters.log) == {"ended"}
            counters.log.clear()


@requirement("7.4-capabilities")
async def test_errors_are_thrown_into_generators(new_worker: NewWorker) -> None:
    async def careful() -> AsyncIterator[str]:
        """Say what was thrown in."""
        while True:
            try:
                yield "next"
            except (ValueError, RemoteError) as error:
                yield repr(error)

    source = cell("""
        class Own(Exception): pass
        it = careful()
        found = [next(it), await it.athrow(ValueError("mine", 3)), next(it)]
        found += [await it.athrow(Own("x")), await it.asend(None)]
        try:
            await it.athrow(KeyError("out"))
        except KeyError as error:
            found.append(error.args)
        found
        """)
    async with new_worker(capabilities=[careful]) as session:
        for context in CONTEXTS:
            found = await session.execute(source, context=context)
            assert found[:3] == ["next", "ValueError('mine', 3)", "next"]
            assert found[3].startswith("RemoteError('__main__.Own', 'x'")
            assert found[4:] == ["next", ("out",)]


# -- context managers ------------------------------------------------------------------------------


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


@requirement("7.4-capabilities")
async def test_context_managers(host: Any, new_worker: NewWorker) -> None:
    log: list[str] = []

    @contextlib.contextmanager
    def manage_now(value: str) -> Iterator[str]:
        """Manage, in sync code."""
        try:
            yield value
        except KeyError as error:
            log.append(f"caught {error}")
        finally:
            log.append("left")

    source = cell("""
        with manage("a") as a:
            pass
        with manage("b"):
            raise KeyError("swallowed")
        async with manage("c") as c:
            await asyncio.sleep(0)
        def f():
            with manage("d") as d, manage_now("D") as D:
                return d + D
        async def g():
            async with manage("e") as e:
                return e
        with manage_now("h"):
            raise KeyError("too")
        a, c, f(), await g()
        """)
    async with new_worker() as session:
        session.inject_capability("manage", make_manager(log), on_loop=host)
        session.inject_capability("manage_now", manage_now, on_loop=host)
        for context in CONTEXTS:
            assert await session.execute(source, context=context) == ("a", "c", "dD", "e")
            left = ["left"]
            assert log == [
                *left,
                *("caught 'swallowed'", "left"),
                *left,
                *("caught 'too'", "left"),
                *left * 3,
            ]
            log.clear()
            result = await session.run("with manage(1): raise ValueError('mine')", context=context)
            assert str(result.error) == "ValueError: mine"
            assert log == left
            log.clear()


class Client:
    """A client such as libraries have: only for ``async with``, and more than that."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    async def __aenter__(self) -> Client:
        """Open."""
        self.log.append("open")
        return self

    async def __aexit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Close."""
        self.log.append(f"closed {type(error).__name__}")

    def __repr__(self) -> str:
        """For people."""
        return "<a client>"


@requirement("7.4-capabilities")
async def test_what_is_entered_when_its_cell_ends_is_left(new_worker: NewWorker) -> None:
    log: list[str] = []
    tools = {"client": lambda: Client(log), "ready": lambda: log.append("ready")}
    async with new_worker(capabilities=tools) as session:
        for context in CONTEXTS:
            entered = cell("""
                with client() as c:
                    print(repr(c))
                    ready()
                    await asyncio.Event().wait()
                """)
            running = asyncio.ensure_future(session.run(entered, context=context))
            await eventually(lambda: log == ["open", "ready"])
            session.interrupt()
            assert (await running).stdout == "<a client>\n"
            assert log == ["open", "ready", "closed CancelledError"]
            log.clear()
        with pytest.raises(WorkerDied):
            await session.run("with client(): import os; os._exit(1)")
        await eventually(lambda: log == ["open", "closed WorkerDied"])


# -- errors and ends -------------------------------------------------------------------------------


class HostError(Exception):
    """An error whose class a worker does not have, and cannot be pickled."""

    def __init__(self, one: int, *, lock: object = None) -> None:
        super().__init__(one)
        self.lock = lock or threading.Lock()


RAISED: dict[str, tuple[BaseException, str]] = {
    "builtin": (KeyError("x", 1), "KeyError('x', 1)"),
    "os": (FileNotFoundError(2, "gone", "a"), "FileNotFoundError(2, 'gone')"),
    "group": (ExceptionGroup("two", [ValueError(1), OSError(2)]), "ExceptionGroup('two', "),
    "stop": (StopAsyncIteration("over"), "StopAsyncIteration('over')"),
    "exit": (SystemExit(3), "SystemExit(3)"),
    "interrupt": (KeyboardInterrupt(), "KeyboardInterrupt()"),
    "unpicklable": (ValueError("locked", threading.Lock()), "ValueError("),
    "own": (HostError(1), "RemoteError('test_capabilities_of_the_host.HostError', '1', "),
}


@requirement("7.4-capabilities")
async def test_an_error_of_the_host_arrives_as_what_it_is(new_worker: NewWorker) -> None:
    async def fail(kind: str) -> None:
        await asyncio.sleep(0)
        raise RAISED[kind][0]

    def fail_now(kind: str) -> None:
        raise RAISED[kind][0]

    source = cell("""
        async def one(kind):
            try:
                await fail(kind)
            except BaseException as error:
                return repr(error)
        def other(kind):
            try:
                fail_now(kind)
            except BaseException as error:
                return repr(error)
        """)
    async with new_worker(capabilities=[fail, fail_now]) as session:
        await session.execute(source)
        for context in CONTEXTS:
            for kind, (_, text) in RAISED.items():
                code = f"await one({kind!r}), other({kind!r})"
                for found in await session.execute(code, context=context):
                    assert found.startswith(text), (found, context)


@requirement("7.4-capabilities")
async def test_arguments_that_cannot_be_sent_are_refused_in_the_cell(new_worker: NewWorker) -> None:
    called: list[Any] = []
    async with new_worker(capabilities={"tool": called.append}, trusted=False) as session:
        for context in CONTEXTS:
            result = await session.run("import threading; tool(threading.Lock())", context=context)
            assert isinstance(result.error, RemoteError)
            assert "the arguments of tool() cannot be sent to the host" in str(result.error)
            result = await session.run("class Own: pass\ntool(Own())", context=context)
            assert isinstance(result.error, UntrustedValueError)
            assert "the arguments of tool() must be plain data" in str(result.error)
    assert called == []


@requirement("7.4-capabilities")
async def test_steps_are_cancelled_with_their_cell(host: Any, new_worker: NewWorker) -> None:
    started, log = threading.Event(), list[str]()

    async def slow() -> AsyncIterator[int]:
        """Never give anything."""
        started.set()
        try:
            await asyncio.Event().wait()
            yield 1
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    async with new_worker() as session:
        session.inject_capability("slow", slow, on_loop=host)
        for context in CONTEXTS:
            for code in ("for x in slow(): pass", "async for x in slow(): pass"):
                running = asyncio.ensure_future(session.run(code, context=context))
                await eventually(started.is_set)
                session.interrupt()
                result = await asyncio.wait_for(running, WAIT_SECONDS)
                assert result.status == "cancelled"
                await eventually(lambda: log == ["cancelled"])
                started.clear()
                log.clear()


@requirement("7.4-capabilities")
async def test_a_capability_shows_what_it_is(new_worker: NewWorker) -> None:
    async def fetch(url: str, *rest: int, times: int = 1, **more: dict[str, int]) -> list[str]:
        """Fetch it."""
        return [url]

    async with new_worker(capabilities={"fetch": fetch}) as session:
        shown = await session.execute(
            "import inspect\n"
            "repr(fetch), fetch.describe(), str(inspect.signature(fetch)), inspect.getdoc(fetch)"
        )
        assert shown == (
            f"<capability fetch{inspect.signature(fetch)}>",
            f"async def fetch{inspect.signature(fetch)}\n    Fetch it.",
            str(inspect.signature(fetch)),
            "Fetch it.",
        )
        await session.run("help(fetch)")


# -- capabilities that use the session -------------------------------------------------------------


@requirement("7.4-capabilities")
async def test_a_capability_that_calls_back_into_the_session_is_nested(
    new_worker: NewWorker,
) -> None:
    async def run_cell(code: str, context: Any) -> Any:
        return await session.execute(code, context=context)

    async with new_worker(capabilities=[run_cell]) as session:
        with LoopThread() as host:
            session.inject_capability("elsewhere", run_cell, on_loop=host.loop)
            await session.execute("x = 20")
            for context in CONTEXTS:
                for inner in CONTEXTS:
                    for name in ("run_cell", "elsewhere"):
                        code = f"{name}('x += 1; x', {inner!r}) == x"
                        assert await session.execute(code, context=context) is True
                        code = f"await {name}('x += 1; x', {inner!r}) == x"
                        assert await session.execute(code, context=context) is True
                inmost = f"run_cell('x', {context!r})"
                deeper = f"await run_cell({inmost!r}, 'thread')"
                assert await session.execute(deeper, context=context) == await session.get("x")
            assert await session.execute("x") == 20 + 2 * 2 * 9


@requirement("7.4-capabilities")
async def test_a_cell_may_have_its_session_reset(new_worker: NewWorker) -> None:
    async def begin_again() -> bool:
        return (await session.reset()).clean

    async with new_worker(capabilities=[begin_again]) as session:
        for context in CONTEXTS:
            code = "x = 1; clean = await begin_again(); clean, 'x' in globals()"
            assert await session.execute(code, context=context) == (True, False)


# -- where it runs ---------------------------------------------------------------------------------


@requirement("7.4-capabilities")
async def test_it_runs_on_the_loop_where_it_was_registered(new_worker: NewWorker) -> None:
    found: list[asyncio.AbstractEventLoop] = []

    async def where() -> None:
        found.append(asyncio.get_running_loop())

    def where_now() -> None:
        found.append(asyncio.get_running_loop())

    async def inject() -> None:
        session.inject_capability("there", where)
        session.inject_capability("there_now", where_now)

    async with new_worker(capabilities={"here": where, "here_now": where_now}) as session:
        with LoopThread() as host:
            await host.wait(inject())
            session.inject_capability("given", where, on_loop=host.loop)
            for context in CONTEXTS:
                await session.execute("here(); here_now()", context=context)
                await session.execute("await there(); there_now(); await given()", context=context)
                home = asyncio.get_running_loop()
                assert found == [home, home, host.loop, host.loop, host.loop]
                found.clear()
        for context in CONTEXTS:
            result = await session.run("given()", context=context)
            assert isinstance(result.error, LoopError)
            assert "given() lives on" in str(result.error)
            await session.execute("there()", context=context)
            assert found == [home]
            found.clear()


@requirement("7.4-capabilities")
async def test_calls_in_flight_when_the_hosts_loop_ends_are_cancelled(
    new_worker: NewWorker,
) -> None:
    started = threading.Event()

    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    async with new_worker() as session:
        with LoopThread() as host:
            session.inject_capability("wait", wait, on_loop=host.loop)
            running = asyncio.ensure_future(session.run("wait()"))
            await eventually(started.is_set)
        assert isinstance((await running).error, asyncio.CancelledError)
        assert await session.execute("1 + 1") == 2
