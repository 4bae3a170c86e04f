"""Whose colour a call of a capability has: every place a call can stand in, in every context."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from either_home import error_name
from isthmus import AnySession, CellResult
from support import WAIT_SECONDS, LoopThread, assert_as_expected, cell


@dataclass(frozen=True)
class Place:
    """A call in one place, and what the cell's value or error is.

    The cell sees the capability as ``tool``, which adds one; ``shape(x)`` tells an awaitable from a
    result; ``seen()`` is what the capability was called with.
    """

    name: str
    source: str
    if_async: object
    if_sync: object


SYNTAX, TYPE, GROUP = SyntaxError, TypeError, ExceptionGroup
AWAITABLE, RESULT = "awaitable", "result"

PLACES = [
    # -- the top level: one colour throughout --------------------------------------------------
    Place("top level", "tool(20)", 21, 21),
    Place("top level, await", "await tool(20)", 21, TYPE),
    Place(
        "top level that awaits elsewhere",
        "await asyncio.sleep(0)\nshape(tool(20))",
        AWAITABLE,
        RESULT,
    ),
    Place(
        "top level that awaits later",
        "s = shape(tool(20))\nawait asyncio.sleep(0); s",
        AWAITABLE,
        RESULT,
    ),
    Place("top level of an exec", "exec('v = tool(20)')\nawait asyncio.sleep(0); v", 21, 21),
    Place(
        "top level, by Context.run",
        "import contextvars\nawait asyncio.sleep(0)\nshape(contextvars.Context().run(tool, 20))",
        AWAITABLE,
        RESULT,
    ),
    Place("loop at the top level", "for i in (1, 2): last = tool(i)\nlast", 3, 3),
    # -- functions -----------------------------------------------------------------------------
    Place("sync function", "def f(): return tool(20)\nf()", 21, 21),
    Place("sync function, await", "def f(): return tool(20)\nawait f()", TYPE, TYPE),
    Place("sync function, await within", "def f(): return await tool(20)\nf()", SYNTAX, SYNTAX),
    Place(
        "sync function of an async one",
        """
        def f(): return tool(20)
        async def g(): return f()
        await g()
        """,
        21,
        21,
    ),
    Place("async function", "async def f(): return shape(tool(20))\nawait f()", AWAITABLE, RESULT),
    Place("async function, await", "async def f(): return await tool(20)\nawait f()", 21, TYPE),
    Place(
        "async function, from sync code",
        "async def f(): return await tool(20)\nrun_sync(f())",
        21,
        TYPE,
    ),
    Place("sync generator", "def f(): yield tool(20)\nnext(f())", 21, 21),
    Place(
        "async generator",
        "async def f(): yield shape(tool(20))\n[x async for x in f()]",
        [AWAITABLE],
        [RESULT],
    ),
    Place(
        "async generator, await",
        "async def f(): yield await tool(20)\n[x async for x in f()]",
        [21],
        TYPE,
    ),
    Place(
        "generator of types.coroutine",
        """
        import types
        @types.coroutine
        def f(): return (yield from tool(20))
        await f()
        """,
        21,
        TYPE,
    ),
    Place("default argument", "def f(x=tool(20)): return x\nf()", 21, 21),
    # -- comprehensions and generator expressions ----------------------------------------------
    Place("comprehension", "[tool(i) for i in (1, 2)]", [2, 3], [2, 3]),
    Place("comprehension, await", "[await tool(i) for i in (1, 2)]", [2, 3], TYPE),
    Place(
        "comprehension, gather", "await asyncio.gather(*[tool(i) for i in (1, 2)])", [2, 3], TYPE
    ),
    Place(
        "comprehension of a dict, two deep",
        "{i: [tool(j) for j in (1,)] for i in (1,)}",
        {1: [2]},
        {1: [2]},
    ),
    Place(
        "comprehension in an async function",
        """
        async def f(): return await asyncio.gather(*{tool(i) for i in (1,)})
        await f()
        """,
        [2],
        TYPE,
    ),
    Place(
        "comprehension in a sync function",
        "def f(): return [tool(i) for i in (1, 2)]\nf()",
        [2, 3],
        [2, 3],
    ),
    Place("generator expression", "list(tool(i) for i in (1, 2))", [2, 3], [2, 3]),
    Place(
        "generator expression, await",
        "[x async for x in (await tool(i) for i in (1, 2))]",
        [2, 3],
        TYPE,
    ),
    Place(
        "generator expression, gather",
        "await asyncio.gather(*(tool(i) for i in (1, 2)))",
        [2, 3],
        TYPE,
    ),
    Place(
        "generator expression of an async function, consumed outside",
        """
        async def f(): return (tool(i) for i in (1, 2))
        def consume(calls): return [shape(it) for it in calls]
        consume(await f())
        """,
        [AWAITABLE, AWAITABLE],
        [RESULT, RESULT],
    ),
    Place(
        "generator expression of a sync function, consumed by an async one",
        """
        def f(): return (tool(i) for i in (1, 2))
        async def consume(calls): return list(calls)
        await consume(f())
        """,
        [2, 3],
        [2, 3],
    ),
    Place(
        "generator expressions of two functions on one line",
        """
        async def f(): return (tool(i) for i in (1,)), (lambda: (tool(i) for i in (1,)))()
        [[shape(it) for it in calls] for calls in await f()]
        """,
        [[AWAITABLE], [RESULT]],
        [[RESULT], [RESULT]],
    ),
    Place(
        "async generator expression of a sync function",
        "def f(): return (await tool(i) for i in (1, 2))\n[x async for x in f()]",
        [2, 3],
        TYPE,
    ),
    Place(
        "generator expression two deep",
        """
        async def f(): return ((tool(i) for i in (1,)) for _ in (1,))
        [shape(it) for calls in await f() for it in calls]
        """,
        [AWAITABLE],
        [RESULT],
    ),
    # -- lambda, classes -----------------------------------------------------------------------
    Place("lambda", "(lambda: tool(20))()", 21, 21),
    Place("lambda, await", "await (lambda: tool(20))()", TYPE, TYPE),
    Place(
        "lambda in an async function",
        "async def f(): return (lambda: tool(20))()\nawait f()",
        21,
        21,
    ),
    Place("method", "class A:\n    def m(self): return tool(20)\nA().m()", 21, 21),
    Place(
        "method, await",
        "class A:\n    async def m(self): return await tool(20)\nawait A().m()",
        21,
        TYPE,
    ),
    Place("class body", "class A: x = tool(20)\nawait asyncio.sleep(0); A.x", 21, 21),
    Place(
        "comprehension in a class body",
        "class A: x = [tool(i) for i in (1,)]\nawait asyncio.sleep(0); A.x",
        [2],
        [2],
    ),
    Place("attribute of a class", "class A: m = tool\nA().m(20)", 21, 21),
    Place("property", "class A:\n    @property\n    def p(self): return tool(20)\nA().p", 21, 21),
    Place(
        "property, await",
        "class A:\n    @property\n    def p(self): return tool(20)\nawait A().p",
        TYPE,
        TYPE,
    ),
    Place("__init__", "class A:\n    def __init__(self): self.x = tool(20)\nA().x", 21, 21),
    Place(
        "__init__, await",
        "class A:\n    def __init__(self): self.x = await tool(20)\nA().x",
        SYNTAX,
        SYNTAX,
    ),
    # -- called by a library -------------------------------------------------------------------
    Place("sorted key", "sorted((1, 3, 2), key=lambda i: -tool(i))", [3, 2, 1], [3, 2, 1]),
    Place("sorted key, the tool itself", "sorted((1, 3, 2), key=tool)", [1, 2, 3], [1, 2, 3]),
    Place("sorted key, await", "sorted((1, 3, 2), key=lambda i: await tool(i))", SYNTAX, SYNTAX),
    Place("map", "list(map(tool, (1, 2)))", [2, 3], [2, 3]),
    Place("map, gather", "await asyncio.gather(*map(tool, (1, 2)))", [2, 3], TYPE),
    Place(
        "map in a sync function",
        "def f(): return list(map(tool, (1, 2)))\nawait asyncio.sleep(0); f()",
        [2, 3],
        [2, 3],
    ),
    Place(
        "start_soon",
        """
        import anyio
        async with anyio.create_task_group() as tg:
            tg.start_soon(tool, 20)
        seen()
        """,
        [20],
        GROUP,
    ),
    Place(
        "start_soon, aio",
        """
        import anyio
        async with anyio.create_task_group() as tg:
            tg.start_soon(tool.aio, 20)
        seen()
        """,
        [20],
        [20],
    ),
    Place("create_task", "await asyncio.create_task(tool(20))", 21, TYPE),
    Place(
        "lambda under gather", "f = lambda i: tool(i)\nawait asyncio.gather(f(1), f(2))", TYPE, TYPE
    ),
    Place(
        "lambda under gather, aio",
        "f = lambda i: tool.aio(i)\nawait asyncio.gather(f(1), f(2))",
        [2, 3],
        [2, 3],
    ),
    Place(
        "retry decorator",
        """
        def retry(f):
            def call(*args):
                for attempt in range(3):
                    try:
                        return f(*args)
                    except LookupError:
                        pass
            return call
        retry(tool)(20)
        """,
        21,
        21,
    ),
    Place(
        "retry decorator, await",
        """
        def retry(f):
            async def call(*args):
                return await f(*args)
            return call
        await retry(tool)(20)
        """,
        21,
        TYPE,
    ),
    Place("retry decorator of a library", "library_retry(tool)(20)", 21, 21),
    Place("retry decorator of a library, await", "await library_retry(tool)(20)", 21, TYPE),
    # -- whatever the colour -------------------------------------------------------------------
    Place("aio at a sync top level", "shape(tool.aio(20))", AWAITABLE, AWAITABLE),
    Place("aio, await", "await tool.aio(20)", 21, 21),
    Place("now in an async function", "async def f(): return tool.now(20)\nawait f()", 21, 21),
    Place(
        "now under a sorted of async code",
        "await asyncio.sleep(0)\nsorted((1, 3, 2), key=tool.now)",
        [1, 2, 3],
        [1, 2, 3],
    ),
]


OF_CELLS = cell("""
    def shape(value):
        if asyncio.iscoroutine(value):
            value.close()
            return "awaitable"
        return "result"

    library = {}
    source = "def library_retry(fn): return lambda *args: fn(*args)"
    exec(compile(source, "library.py", "exec"), library)
    library_retry = library["library_retry"]
    """)
"""What tells the shapes apart, and a decorator that is no code of the session's."""


async def with_tool(session: AnySession) -> None:
    """Give *session* what the cells of the table use."""
    await session.execute(OF_CELLS)
    give_tool(session, is_async=True)


def give_tool(session: AnySession, *, is_async: bool, wait: Any = None) -> None:
    """Give *session* a new capability."""
    seen: list[int] = []

    async def add_one(number: int) -> int:
        seen.append(number)
        if wait is not None:
            await wait()
        await asyncio.sleep(0)
        return number + 1

    def add_one_now(number: int) -> int:
        seen.append(number)
        return number + 1

    session.inject_capability("tool", add_one if is_async else add_one_now)
    session.inject_capability("seen", lambda: seen)


def difference(result: CellResult, expected: object) -> str | None:
    """How the cell ended, if that is not as the table says."""
    if isinstance(expected, type):
        as_expected = error_name(result.error) == expected.__name__
    else:
        as_expected = result.error is None and result.value == expected
    return None if as_expected else f"{result.value!r}, {result.error!r}, not {expected!r}"


# -- all places, one after another in one session ------------------------------------------------


Prepare = Callable[[], Any]
"""What to await before each place."""


@asynccontextmanager
async def sync_tool(session: AnySession) -> AsyncIterator[Prepare]:
    """A capability that is a plain function."""
    yield lambda: give(session, is_async=False)


@asynccontextmanager
async def async_tool(session: AnySession) -> AsyncIterator[Prepare]:
    """One that waits for nothing but a turn of the loop."""
    yield lambda: give(session, is_async=True)


@asynccontextmanager
async def tool_that_waits(session: AnySession) -> AsyncIterator[Prepare]:
    """One that waits for an event of the host."""
    yield lambda: give_waiting(session)


@asynccontextmanager
async def tool_of_another_loop(session: AnySession) -> AsyncIterator[Prepare]:
    """One that waits for an event of a host in another thread."""
    with LoopThread() as host:
        yield lambda: host.wait(give_waiting(session))


async def give(session: AnySession, *, is_async: bool) -> None:
    """Called in the session's own loop."""
    give_tool(session, is_async=is_async)


async def give_waiting(session: AnySession) -> None:
    """Called in the loop in which the capability is to run."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    async def wait() -> None:
        assert asyncio.get_running_loop() is loop
        await event.wait()

    give_tool(session, is_async=True, wait=wait)
    loop.call_later(0.001, event.set)


async def outcome(session: AnySession, context: Any, place: Place) -> CellResult:
    """How the cell ended; one that hangs is an error with the place's name."""
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            return await session.run(cell(place.source), context=context)
    except TimeoutError as error:
        error.add_note(f"the place is {place.name!r}")
        raise


@pytest.mark.parametrize("tool", [sync_tool, async_tool, tool_that_waits, tool_of_another_loop])
async def test_a_capability_has_the_colour_of_its_place(
    session: AnySession, context: Any, tool: Any
) -> None:
    await session.execute(OF_CELLS)
    differences = {}
    async with tool(session) as prepare:
        for place in PLACES:
            await prepare()
            expected = place.if_sync if tool is sync_tool else place.if_async
            differences[place.name] = difference(await outcome(session, context, place), expected)
    assert_as_expected(differences, dict.fromkeys(differences))


# -- code of other cells -----------------------------------------------------------------------


async def test_a_generator_expression_keeps_the_colour_of_its_own_cell(
    session: AnySession, first: Any, second: Any
) -> None:
    await with_tool(session)
    await session.execute("sync = (tool(i) for i in (1, 2))", context=first)
    await session.execute(
        "await asyncio.sleep(0); waits = (tool(i) for i in (1, 2))", context=first
    )
    code = "await asyncio.sleep(0); [shape(it) for it in sync], [shape(it) for it in waits]"
    expected = [RESULT] * 2, [AWAITABLE] * 2
    assert await session.execute(code, context=second) == expected


async def test_equal_generator_expressions_of_two_cells_are_told_apart(session: AnySession) -> None:
    await with_tool(session)
    await session.execute("async def f(): return (tool(i) for i in (1,))\na = await f()")
    await session.execute("def f(): return (tool(i) for i in (1,))\nb = f()")
    result = await session.execute(
        "await asyncio.sleep(0); [[shape(i) for i in x] for x in (a, b)]"
    )
    assert result == [[AWAITABLE], [RESULT]]


async def test_a_generator_expression_outlives_the_cache_of_cells(session: AnySession) -> None:
    await with_tool(session)
    await session.execute("async def f(): return (tool(i) for i in (1,))\nmade = await f()")
    for filler in "xy":  # the texts of cells that are kept have 4,000,000 characters at most
        await session.execute(f"# {filler * 2_500_000}")
    await session.execute("import gc; _ = gc.collect()")
    assert await session.execute("[shape(it) for it in made]") == [AWAITABLE]


async def test_a_call_without_code_of_the_session_below_is_async_where_a_loop_runs(
    session: AnySession,
) -> None:
    await with_tool(session)
    tool = session.capabilities["tool"]
    assert await tool(20) == 21
    code = """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(1) as pool:
            given = pool.submit(tool.aio, 1).result()
        await given
        """
    assert await session.execute(cell(code), context="thread") == 2


async def test_a_capability_called_in_a_context_of_its_own_knows_its_cell(
    session: AnySession,
) -> None:
    await with_tool(session)
    code = "import contextvars\nawait asyncio.sleep(0)\nawait contextvars.Context().run(tool, 1)"
    assert await session.execute(code) == 2


async def test_sync_code_that_cannot_wait_is_told_of_aio(session: AnySession) -> None:
    await with_tool(session)
    code = """
        errors = []
        def callback():
            try:
                tool(1)
            except RuntimeError as error:
                errors.append(error)
        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(0.001)
        str(errors[0])
        """
    said = await session.execute(cell(code))
    assert "tool() was called in sync code" in said
    assert "await tool.aio()" in said
    assert "callback of the event loop" in said
