"""Sessions for code without an event loop. Owns the loop that such a session lives on, how its
methods are made of the awaited ones, and the refusal of waits that could never end.

Refuses to know: what a session does, and which kind it is.
"""

from __future__ import annotations

import functools
import warnings
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import wait
from contextlib import ExitStack
from dataclasses import replace
from types import FunctionType, TracebackType
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar

from isthmus.async_namespace import CLEAN_UP_SECONDS
from isthmus.background_loop import BackgroundLoop
from isthmus.capabilities import Capability
from isthmus.ending import CloseReport
from isthmus.errors import DeadlockError, InternalError
from isthmus.jobs import current_job
from isthmus.portal import crossing_here, run_sync

P = ParamSpec("P")
R = TypeVar("R")


class Driven(Protocol):
    """What is asked of a session of whichever kind."""

    @property
    def capabilities(self) -> Mapping[str, Capability]:
        """What cells may call of the host, by name."""

    @property
    def closed(self) -> bool:
        """Whether it has ended."""

    async def close(self, timeout: float = ...) -> CloseReport:
        """End it."""


S = TypeVar("S", bound=Driven)

SLACK_SECONDS = 1.0
"""How much longer than a session needs to wait for its end on a busy machine; from the air."""


def named_like(method: Callable[..., Any], made: Callable[P, R]) -> Callable[P, R]:
    """Give *made* the name, signature and docstring of *method*, whose place it takes."""
    functools.update_wrapper(made, method)
    return made


def with_options_of(
    method: Callable[Concatenate[S, P], None],
) -> Callable[[Callable[..., None]], Callable[Concatenate[BlockingFront[S], P], None]]:
    """Decorate a method that hands on whatever *method* takes: it gets the signature of that."""
    return lambda made: named_like(method, made)


def blocking(
    method: Callable[Concatenate[S, P], Awaitable[R]],
) -> Callable[Concatenate[BlockingFront[S], P], R]:
    """The method that has *method* awaited on the session's loop, and waits for that."""

    def waiting(self: BlockingFront[S], /, *args: P.args, **kwargs: P.kwargs) -> R:
        asked = functools.partial(method, self.session, *args, **kwargs)
        return self._wait(method.__name__, lambda: _awaited(asked))

    return named_like(method, waiting)


def at_once(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[BlockingFront[S], P], R]:
    """The method that does in the calling thread what *method* does without ever waiting."""

    def call(self: BlockingFront[S], /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            method(self.session, *args, **kwargs).send(None)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        raise InternalError(f"{method.__name__}() waits; please report this")

    return named_like(method, call)


def passed_on(
    method: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[BlockingFront[S], P], R]:
    """The method that calls *method*, which is for any thread."""

    def call(self: BlockingFront[S], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return method(self.session, *args, **kwargs)

    return named_like(method, call)


def on_the_loop(
    method: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[BlockingFront[S], P], R]:
    """The method that calls *method* on the session's loop."""

    def call(self: BlockingFront[S], /, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._runs_here:
            return method(self.session, *args, **kwargs)
        done = functools.partial(method, self.session, *args, **kwargs)
        return self._wait(method.__name__, lambda: _called(done))

    return named_like(method, call)


async def _awaited(ask: Callable[[], Awaitable[R]]) -> R:
    return await ask()


async def _called(function: Callable[[], R]) -> R:
    return function()


class BlockingFront(ABC, Generic[S]):
    """A session whose methods return when they are done. Made of a kind of session by a subclass.

    Arguments:
        make: Makes the session. Called on its loop, so that capabilities live there, whatever loop
            runs here and is blocked.
        name: The session's name.

    Attributes:
        session: The async session that this one drives, for code that runs on its loop.
        name: The session's name.
    """

    _kind: ClassVar[str]
    """What errors and warnings call it."""

    def __init_subclass__(cls) -> None:
        """Let methods that were made of others belong to their new class."""
        for name, it in vars(cls).items():
            if isinstance(it, FunctionType):
                it.__module__, it.__qualname__ = cls.__module__, f"{cls.__qualname__}.{name}"

    def __init__(self, make: Callable[[], S], name: str) -> None:
        self.name = name
        self._background = BackgroundLoop(f"isthmus {name} loop")
        with ExitStack() as undo:
            undo.callback(self._background.join, SLACK_SECONDS)
            undo.callback(self._background.end, functools.partial(_called, lambda: None))
            self.session: S = self._background.run(_called(make))
            undo.pop_all()

    # -- what the kinds of session differ in -------------------------------------------------

    @abstractmethod
    def _closing_seconds(self, timeout: float) -> float:
        """How long that may take."""

    @abstractmethod
    def _is_in_own_cell(self) -> bool:
        """Whether the calling thread runs a cell of the session."""

    @abstractmethod
    def _running_cells(self) -> tuple[int, ...]:
        """Numbers of the cells that have not ended. Threads: any."""

    @property
    def capabilities(self) -> Mapping[str, Capability]:
        """What cells may call of the host, by name. A live, read-only view."""
        return self.session.capabilities

    # -- waiting -----------------------------------------------------------------------------

    @property
    def _runs_here(self) -> bool:
        """Whether the calling thread is that of the session's own loop."""
        return self._background.runs_here

    def _wait(self, name: str, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Have *work* awaited, as the method *name*, and wait for its outcome.

        Raises:
            DeadlockError: The call came from the thread of the session's own loop. Nothing was run.
        """
        if crossing_here() is not None:  # in the thread of a cell, which waits as cells do
            return run_sync(work())
        if self._runs_here:
            raise self._deadlock(name)
        outcome: R = self._background.run(work())
        return outcome

    def _deadlock(self, name: str) -> DeadlockError:
        job = current_job.get()
        caller = f"cell {job.number}" if job is not None else "code"
        return DeadlockError(
            f"{name}() of {self._kind} {self.name!r} was called by {caller} on the thread of "
            "the session's own event loop: the call would wait for the loop, and the loop for the "
            f"call. Call it from a cell in a thread, or await {name}() of its async side, .session"
        )

    # -- the end -----------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether the session has ended, or is about to."""
        return self._background.ending or self.session.closed

    def close(self, timeout: float = CLEAN_UP_SECONDS) -> CloseReport:
        """End the session, its loop and the thread of that; wait for it all.

        Arguments:
            timeout: Seconds for each of cells, tasks, threads and loop to end.

        Returns:
            What would not end. Idempotent: a second call gives the first one's report.

        Raises:
            DeadlockError: A cell of the session would close it. Nothing was closed.

        Threads: any but the loop's; several may close at once. A KeyboardInterrupt ends the wait;
        the closing goes on.
        """
        if self._runs_here or self._is_in_own_cell():
            raise self._deadlock("close")
        closing = self._background.end(functools.partial(self.session.close, timeout))
        bound = self._closing_seconds(timeout) + SLACK_SECONDS
        if not self._background.answers(timeout) or not wait([closing], bound).done:
            return CloseReport(cells=self._running_cells(), loop=True)  # something hogs it
        report: CloseReport = closing.result()
        ended = self._background.join(timeout)
        return report if ended else replace(report, loop=True)

    @abstractmethod
    def __enter__(self) -> Self:
        """Open the session, if it is not open from the start."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Close the session."""
        self.close()

    def __del__(self) -> None:
        """Say that a session was dropped without being closed, and have it end by itself."""
        if getattr(self, "session", None) is None or self._background.ending:
            return
        try:
            warnings.warn(
                f"unclosed {self._kind} {self.name!r}", ResourceWarning, stacklevel=2, source=self
            )
        finally:
            self._background.end(self.session.close)  # which holds no reference to this object
