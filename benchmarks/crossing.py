"""What it costs to cross between sync and async code.

What is timed stands in functions of a session that a cell calls, so that every call has the colour
and the place that it has for users: on the loop's thread within the cell's greenlet, or in the
session's thread. The functions time themselves; what the cell around them costs is not in it.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from benchmarks.floors import (
    LoopThread,
    compile_cell,
    step_coroutine,
    switch_pairs,
    threadsafe_calls,
)
from benchmarks.measure import SHORT_ROUNDS, Case, Figure, Samples, interleaved, per_operation
from isthmus import AsyncExecutor, AsyncNamespaceManager
from isthmus.interceptors import CapabilityCall, Proceed
from isthmus.portal import in_portal, open_portal

CALLS = 50
"""One after another on the loop's thread."""

THREAD_CALLS = 5
"""One after another from a thread."""

AWAITS = 1_000
"""In one cell."""

CAPABILITY_ALLOWED_US = 3.0
"""What a capability called from sync code may take beyond its floor."""

EAGER_FACTORY = getattr(asyncio, "eager_task_factory", None)
"""None before Python 3.12."""

FUNCTIONS = """
from time import perf_counter

def run_sync_calls(count):
    start = perf_counter()
    for _ in range(count):
        run_sync(nothing())
    return (perf_counter() - start) / count

def coroutine_steps(count):
    start = perf_counter()
    for _ in range(count):
        step_coroutine(nothing())
    return (perf_counter() - start) / count

def capability_calls(count):
    start = perf_counter()
    for _ in range(count):
        look_up()
    return (perf_counter() - start) / count

def intercepted_calls(count):
    start = perf_counter()
    for _ in range(count):
        look_up_checked()
    return (perf_counter() - start) / count
"""

HOST_ALLOWED = 1.08
"""How much a session may slow down the loop of its host, as a ratio; from the air."""

AWAITING_CELL = f"for _ in range({AWAITS}): await asyncio.sleep(0)"


async def nothing() -> None:
    """Do not suspend."""


async def _task_of_call() -> asyncio.Task[object] | None:
    return asyncio.current_task()


async def _let_pass(call: CapabilityCall, proceed: Proceed) -> object:
    return await proceed()


class _Session:
    """A namespace with everything that is called in it, on the loop that opens it."""

    def __init__(self) -> None:
        self.manager = AsyncNamespaceManager("crossing")
        self.executor = AsyncExecutor(self.manager)

    async def open(self) -> None:
        """Define what the cells call, and see that calls from a thread run in the right task."""
        manager, executor = self.manager, self.executor
        manager.inject_capability("look_up", nothing)
        manager.inject_capability("look_up_checked", nothing, interceptors=[_let_pass])
        manager.inject_capability("task_of_call", _task_of_call)
        for used in (nothing, step_coroutine, switch_pairs):
            manager.update_namespace({used.__name__: used})
        await executor.execute(FUNCTIONS)
        task = await executor.execute("asyncio.current_task()")
        assert await executor.execute_in_thread("task_of_call()") is task

    async def close(self) -> None:
        """End it."""
        self.manager.close()

    def in_sync_cell(self, function: str) -> Case:
        """Seconds for one operation, as *function* says in a sync cell."""
        code = f"{function}({CALLS})"
        return lambda: self.executor.execute_sync_in_async(code)

    def in_thread_cell(self, function: str) -> Case:
        """The same in a thread cell."""
        code = f"{function}({THREAD_CALLS})"
        return lambda: self.executor.execute_in_thread(code)


def _case(operation: Callable[[], Awaitable[object]], count: int = CALLS) -> Case:
    return lambda: per_operation(operation, count)


def _long_case(operation: Callable[[], Awaitable[object]]) -> Case:
    """Seconds of the loop's thread that one *operation* takes, which is busy all the time.

    It lasts longer than the system leaves the core to one process: what others take is not counted.
    """
    return lambda: per_operation(operation, 1, time.thread_time)


def _portal_case() -> Case:
    """A compiled cell in a portal that opens and closes for it, as a step of a plain task."""
    code, _ = compile_cell("x = 1")
    assert code is not None
    cell = functools.partial(exec, code, {})

    async def measure() -> float:
        task = asyncio.current_task()
        assert task is not None
        start = time.perf_counter()
        for _ in range(CALLS):
            open_portal(cell, task)
        return (time.perf_counter() - start) / CALLS

    return measure


def _in_portal_case() -> Case:
    """The same as a coroutine that is awaited."""
    code, _ = compile_cell("x = 1")
    assert code is not None
    return _case(functools.partial(in_portal, functools.partial(exec, code, {})))


def _direct_case(session: _Session) -> Case:
    """The awaiting cell's code without a portal, in a plain task."""
    code, _ = compile_cell(AWAITING_CELL)
    assert code is not None
    return _long_case(lambda: eval(code, session.manager.namespace))


def _threadsafe_case(loop: LoopThread) -> Case:
    """Seconds for one call of a coroutine on *loop*, from a thread without a session."""
    return lambda: asyncio.to_thread(threadsafe_calls, nothing, loop.loop, THREAD_CALLS)


async def _turns() -> None:
    for _ in range(CALLS):
        await asyncio.sleep(0)


async def crossing(rounds: int) -> list[Figure]:
    """Crossings against their floors."""
    async with AsyncExitStack() as stack:
        session, plain = _Session(), stack.enter_context(LoopThread())
        await session.open()
        stack.push_async_callback(session.close)
        turns = _long_case(_turns)
        cases = {
            **_cases(session),
            "threadsafe": _threadsafe_case(plain),
            "turns": lambda: plain.wait(turns()),
            "turns of host": turns,
        }
        if EAGER_FACTORY is not None:
            cases |= await _eager_cases(stack)
        samples = await interleaved(cases, SHORT_ROUNDS * rounds)
    return [*_figures(samples), *_thread_figures(samples), _host_figure(samples)]


def _cases(session: _Session) -> dict[str, Case]:
    return {
        "pair": session.in_sync_cell("switch_pairs"),
        "coroutine": session.in_sync_cell("coroutine_steps"),
        "run_sync": session.in_sync_cell("run_sync_calls"),
        "capability": session.in_sync_cell("capability_calls"),
        "intercepted": session.in_sync_cell("intercepted_calls"),
        "from thread": session.in_thread_cell("capability_calls"),
        "portal": _portal_case(),
        "in portal": _in_portal_case(),
        "awaits": _direct_case(session),
        "awaiting cell": _long_case(lambda: session.executor.execute(AWAITING_CELL)),
    }


async def _eager_cases(stack: AsyncExitStack) -> dict[str, Case]:
    """Calls from a thread where tasks of the loop are started eagerly: a session, and its floor."""
    plain, home = (stack.enter_context(LoopThread(EAGER_FACTORY)) for _ in range(2))
    session = _Session()
    await home.wait(session.open())
    stack.push_async_callback(lambda: home.wait(session.close()))
    case = session.in_thread_cell("capability_calls")
    return {
        "threadsafe, eager": _threadsafe_case(plain),
        "from thread, eager": lambda: home.wait(case()),
    }


def _by_ratio(
    work: str, measured: float, floor: float, words: str, allowed: float | None
) -> Figure:
    limit = None if allowed is None else allowed * floor
    return Figure(work, measured, limit, words, f"{measured / floor:.2f} × floor")


def _figures(samples: Samples) -> list[Figure]:
    us = samples.median
    pair, coroutine = us("pair"), us("pair") + us("coroutine")
    pair_words, coroutine_words = "a greenlet switched to and back", "the same, and the coroutine"
    capability, intercepted = us("capability"), us("intercepted")
    return [
        _by_ratio("`run_sync` without a suspension", us("run_sync"), pair, pair_words, 2),
        Figure(
            "async capability from sync code",
            capability,
            coroutine + CAPABILITY_ALLOWED_US,
            coroutine_words,
            f"floor + {capability - coroutine:.1f} µs",
        ),
        _by_ratio("the same with one interceptor", intercepted, coroutine, coroutine_words, None),
        _by_ratio("a sync cell begun and ended in its portal", us("portal"), pair, pair_words, 5),
        _by_ratio("the same awaited, by `in_portal`", us("in portal"), pair, pair_words, None),
        _by_ratio(
            f"async cell, {AWAITS:,} awaits of `sleep(0)`",
            us("awaiting cell"),
            us("awaits"),
            "its coroutine awaited directly",
            1.7,
        ),
    ]


def _thread_figures(samples: Samples) -> list[Figure]:
    us = samples.median
    floor, words = us("threadsafe"), "`run_coroutine_threadsafe().result()`"
    work = "async capability from a thread cell"
    figures = [_by_ratio(work, us("from thread"), floor, words, 0.75)]
    if EAGER_FACTORY is not None:
        eager, floor_eager = us("from thread, eager"), us("threadsafe, eager")
        figures += [
            _by_ratio("the same, eager loop", eager, floor, f"{words}, plain loop", 0.6),
            _by_ratio("the same, eager loop", eager, floor_eager, f"{words}, eager loop", None),
        ]
    return figures


def _host_figure(samples: Samples) -> Figure:
    turn, floor = samples.median("turns of host") / CALLS, samples.median("turns") / CALLS
    work, words = "a turn of a loop that a session uses", "a turn of another loop"
    return _by_ratio(work, turn, floor, words, HOST_ALLOWED)
