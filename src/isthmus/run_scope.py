"""What begins inside one ``asyncio.run`` of session code. Owns its end.

Refuses to know: sessions, and how sync code gets here.

On a loop of its own, ``asyncio.run`` ends whatever the loop has left, and ``SystemExit`` of any
task ends it. Here the loop is the host's. So each task and each async generator that begins inside
is noted in the scope of its run, which a context variable tells them, and the end of the run is
theirs and nobody else's.

Threads: the loop's, but for the constructor and :meth:`RunScope.note_task`.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from asyncio import gather, wait
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

ROUNDS = 2
"""How often to cancel what is left: the tasks, and those that they begin while they end."""


class RunScope:
    """One run, or the runs of one ``asyncio.Runner``, and what has begun inside."""

    def __init__(self) -> None:
        self._outer = current_scope.get()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._generators: weakref.WeakSet[AsyncGenerator[Any, Any]] = weakref.WeakSet()
        self._main: asyncio.Future[Any] | None = None
        self._ending = False
        self._exit: BaseException | None = None

    @property
    def running(self) -> bool:
        """Whether somebody waits for it: for its main task, or for its end."""
        return self._main is not None or self._ending

    def _and_outer(self) -> Iterator[RunScope]:
        scope: RunScope | None = self
        while scope is not None:
            yield scope
            scope = scope._outer

    # -- what begins inside ------------------------------------------------------------------

    @contextmanager
    def inside(self, context: Context) -> Iterator[None]:
        """Let what begins in *context* be of this scope."""
        token = context.run(current_scope.set, self)
        try:
            with _generators_watched():
                yield
        finally:
            context.run(current_scope.reset, token)

    def note_task(self, task: asyncio.Task[Any]) -> None:
        """*task* has begun inside, and so inside the runs around this one. Threads: any."""
        for scope in self._and_outer():
            scope._tasks.add(task)
            task.add_done_callback(scope._tasks.discard)

    def note_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """The same for *generator*."""
        for scope in self._and_outer():
            scope._generators.add(generator)

    # -- its end -----------------------------------------------------------------------------

    async def wait(self, main: asyncio.Future[T]) -> T:
        """Wait for *main*; for the exit of another task that began inside, too, and raise that.

        Cancel: cancels *main* and waits for its end.
        """
        self._main = main
        try:
            result = await main
        except BaseException:  # a boundary: an exit takes the place of what it has led to
            if self._exit is None or not main.done():
                raise
            self._report([main])
        else:
            if self._exit is None:
                return result
        finally:
            self._main = None
        raise self._take_exit()

    def leave(self, error: BaseException) -> None:
        """Have the run raise *error*, which leaves the current task and ends programs.

        As in asyncio, the main task is cancelled then. Where nobody waits for the run any more, the
        next one around it is meant.
        """
        scope = next((it for it in self._and_outer() if it.running), None)
        if scope is None:
            return
        if scope._exit is None:
            scope._exit = error
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(asyncio.Task.exception)  # as retrieved: the run raises it
        if scope._main is not None:
            # Not at once: where the main task awaits this one, it would pass the request on to it.
            asyncio.get_running_loop().call_soon(scope._main.cancel)

    async def end(self) -> None:
        """Cancel the tasks begun inside, wait for them, and close the async generators.

        Raises whatever exit one of them has caused meanwhile. What a task begins when it is
        cancelled, and again when that is cancelled, is left to the session.

        Cancel: what was not waited for yet has been told.
        """
        self._ending = True
        try:
            with _generators_watched():
                for _ in range(ROUNDS):
                    await self._cancel_tasks()
            await self._close_generators()
        finally:
            self._ending = False
        if self._exit is not None:
            raise self._take_exit()

    async def _cancel_tasks(self) -> None:
        current = asyncio.current_task()
        tasks = {it for it in list(self._tasks) if it is not current and not it.done()}
        for task in tasks:
            task.cancel()
        if tasks:
            await wait(tasks)
        self._report(tasks)

    async def _close_generators(self) -> None:
        generators = list(self._generators)
        closed = await gather(*[it.aclose() for it in generators], return_exceptions=True)
        for generator, error in zip(generators, closed, strict=True):
            if isinstance(error, Exception):
                what = f"an error occurred during closing of asynchronous generator {generator!r}"
                _tell_loop(message=what, exception=error, asyncgen=generator)

    def _report(self, ended: Iterable[asyncio.Future[Any]]) -> None:
        """Tell the loop, with asyncio's own words, of what failed when it was cancelled."""
        for task in ended:
            error = None if task.cancelled() else task.exception()
            if error is not None and (self._exit is None or error.__cause__ is not self._exit):
                what = "unhandled exception during asyncio.run() shutdown"
                _tell_loop(message=what, exception=error, task=task)

    def _take_exit(self) -> BaseException:
        error, self._exit = self._exit, None
        assert error is not None
        return error


current_scope: ContextVar[RunScope | None] = ContextVar("isthmus_current_scope", default=None)
"""The innermost run inside which the code runs."""


def _tell_loop(**context: Any) -> None:
    asyncio.get_running_loop().call_exception_handler(context)


# -- async generators ----------------------------------------------------------------------------


class _FirstIteration:
    """A thread's hook for async generators that begin: notes them in their scope.

    Arguments:
        previous: The hook that was there, which is called as ever: the loop's.
    """

    def __init__(self, previous: Callable[[Any], None] | None) -> None:
        self.previous = previous

    def __call__(self, generator: AsyncGenerator[Any, Any]) -> None:
        scope = current_scope.get()
        if scope is not None:
            scope.note_generator(generator)
        if self.previous is not None:
            self.previous(generator)


class _ThreadState(threading.local):
    """CPython has one such hook a thread, so there is one count of its users a thread."""

    users = 0
    hook: _FirstIteration | None = None


_state = _ThreadState()


@contextmanager
def _generators_watched() -> Iterator[None]:
    """Note async generators that begin in this thread; a hook that somebody sets since stays."""
    if not _state.users:
        _state.hook = _FirstIteration(sys.get_asyncgen_hooks().firstiter)
        sys.set_asyncgen_hooks(firstiter=_state.hook)
    _state.users += 1
    try:
        yield
    finally:
        _state.users -= 1
        hook = _state.hook
        if not _state.users and hook is not None:
            _state.hook = None
            if sys.get_asyncgen_hooks().firstiter is hook:
                sys.set_asyncgen_hooks(firstiter=hook.previous)
