"""What the work costs without the package: the least that it can take on this machine."""

from __future__ import annotations

import ast
import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from queue import SimpleQueue
from types import CodeType, TracebackType
from typing import Any

from greenlet import getcurrent, greenlet

AWAIT_FLAG = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


async def trip() -> None:
    """One future made, resolved by ``call_soon`` and awaited."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, None)
    await future


def compile_cell(source: str) -> tuple[CodeType | None, CodeType | None]:
    """Parse, split off the last expression, compile both with the await flag."""
    tree = ast.parse(source)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        expression = ast.Expression(tree.body.pop().value)  # type: ignore[attr-defined]
        last = compile(expression, "<floor>", "eval", AWAIT_FLAG, dont_inherit=True)
    body = compile(tree, "<floor>", "exec", AWAIT_FLAG, dont_inherit=True) if tree.body else None
    return body, last


def run_compiled(body: CodeType | None, last: CodeType | None, names: dict[str, Any]) -> Any:
    """``exec`` the body and ``eval`` the expression."""
    if body is not None:
        exec(body, names)
    return eval(last, names) if last is not None else None


def _switch_back_forever() -> None:
    switch_back = getcurrent().parent.switch
    while True:
        switch_back()


def switch_pairs(count: int) -> float:
    """Seconds to switch to a greenlet and back, one pair of *count*.

    It begins where it is switched to from: so little of the stack is between the two that it costs
    next to nothing to save.
    """
    other = greenlet(_switch_back_forever)
    switch = other.switch
    switch()
    start = time.perf_counter()
    for _ in range(count):
        switch()
    seconds = time.perf_counter() - start
    other.throw()
    return seconds / count


def step_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Step a coroutine that does not suspend to its result."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value


def threadsafe_calls(
    function: Callable[[], Coroutine[Any, Any, Any]], loop: asyncio.AbstractEventLoop, count: int
) -> float:
    """Seconds to call an async function on *loop* from this thread, one of *count* in a row."""
    start = time.perf_counter()
    for _ in range(count):
        asyncio.run_coroutine_threadsafe(function(), loop).result()
    return (time.perf_counter() - start) / count


class WaitingThread:
    """A thread fed by a ``SimpleQueue`` that answers by ``call_soon_threadsafe``."""

    def __init__(self, code: CodeType, names: dict[str, Any]) -> None:
        self._inbox: SimpleQueue[asyncio.Future[None] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._code = code
        self._names = names
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while (future := self._inbox.get()) is not None:
            exec(self._code, self._names)
            self._loop.call_soon_threadsafe(future.set_result, None)

    async def run(self) -> None:
        """Have the code run once and wait for the answer."""
        future = self._loop.create_future()
        self._inbox.put(future)
        await future

    def __enter__(self) -> WaitingThread:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """End it."""
        self._inbox.put(None)
        self._thread.join()


class LoopThread:
    """An event loop in a thread of its own.

    Arguments:
        factory: The loop's task factory; None for asyncio's own.
    """

    def __init__(self, factory: Any = None) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_task_factory(factory)
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        self.loop.run_forever()
        self.loop.close()

    async def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Have *work* awaited there, and wait for it here."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def __enter__(self) -> LoopThread:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """End it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
