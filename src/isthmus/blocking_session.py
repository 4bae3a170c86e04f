"""A session for code without an event loop: scripts, views of Flask and Django, plain tests. Owns
the loop that the session lives on, and the refusal of waits that could never end.

Refuses to know: what a session does. Its methods are those of :class:`Session`, each made from the
one that is awaited.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import wait
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from isthmus.answers import ReadyDict
from isthmus.async_namespace import CLEAN_UP_SECONDS
from isthmus.background_loop import BackgroundLoop
from isthmus.capabilities import Capability
from isthmus.ending import CloseReport
from isthmus.errors import DeadlockError, InternalError
from isthmus.jobs import current_job
from isthmus.namespace_view import NamespaceView
from isthmus.portal import crossing_here, run_sync
from isthmus.session import Session

P = ParamSpec("P")
R = TypeVar("R")

CLOSING_STEPS = 4
"""For how many things in turn :meth:`Session.close` waits: cells and tasks, async generators, and
threads; and one more, for what it does in between."""

SLACK_SECONDS = 1.0
"""How much longer than that to wait for it on a busy machine; from the air."""

_Awaited = Callable[Concatenate[Session, P], Coroutine[Any, Any, R]]
_Method = Callable[Concatenate["BlockingSession", P], R]


def _named_like(method: Callable[..., Any], made: Callable[P, R]) -> Callable[P, R]:
    """Give *made* the name, signature and docstring of *method*, whose place it takes."""
    functools.update_wrapper(made, method)
    made.__module__ = __name__
    made.__qualname__ = f"BlockingSession.{method.__name__}"
    return made


def _blocking(method: _Awaited[P, R]) -> _Method[P, R]:
    """The method that has *method* awaited on the session's loop, and waits for that."""

    def waiting(self: BlockingSession, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._wait(method.__name__, lambda: method(self.session, *args, **kwargs))

    return _named_like(method, waiting)


def _at_once(method: _Awaited[P, R]) -> _Method[P, R]:
    """The method that does in the calling thread what *method* does without ever waiting."""

    def call(self: BlockingSession, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            method(self.session, *args, **kwargs).send(None)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        raise InternalError(f"{method.__name__}() waits; please report this")

    return _named_like(method, call)


def _passed_on(method: Callable[Concatenate[Session, P], R]) -> _Method[P, R]:
    """The method that calls *method*, which is for any thread."""

    def call(self: BlockingSession, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return method(self.session, *args, **kwargs)

    return _named_like(method, call)


def _on_the_loop(method: Callable[Concatenate[Session, P], R]) -> _Method[P, R]:
    """The method that calls *method* on the session's loop."""

    def call(self: BlockingSession, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._background.runs_here:
            return method(self.session, *args, **kwargs)
        done = functools.partial(method, self.session, *args, **kwargs)
        return self._wait(method.__name__, lambda: _called(done))

    return _named_like(method, call)


def _with_options_of(
    method: Callable[Concatenate[Session, P], None],
) -> Callable[[_Method[..., None]], _Method[P, None]]:
    """Decorate a method that hands on whatever *method* takes: it gets the signature of that."""
    return lambda made: _named_like(method, made)


async def _called(function: Callable[[], R]) -> R:
    return function()


class BlockingSession:
    """A :class:`Session` for code without an event loop: each method returns when it is done.

    It runs a loop of its own in a background thread, from here until :meth:`close`. Use it as
    ``with BlockingSession() as session``. What is not said here is as in :class:`Session`; its
    options are the same, and so are those of the methods.

    A KeyboardInterrupt in the thread that waits cancels the cell, and goes on once that has ended,
    or one second later.

    Attributes:
        session: The async session that this one drives, for code that runs on its loop.
        name: The session's name.

    Raises:
        DeadlockError: By methods that wait: the call came from the thread of the session's own
            loop, so that each would wait for the other. Nothing was run.
        SessionClosedError: The session is closed.

    Threads: any but the loop's own. In a cell in a thread a call is nested, as in an async session.
    Close: by :meth:`close`, or ``with``. A session dropped without it is freed all the same, with a
    ResourceWarning; one that is open when the interpreter exits ends with it, unfinished.
    """

    @_with_options_of(Session.__init__)
    def __init__(self, name: str = "session", **options: Any) -> None:
        self._background = BackgroundLoop(f"isthmus {name} loop")
        with ExitStack() as undo:
            undo.callback(self._background.join, SLACK_SECONDS)
            undo.callback(self._background.end, functools.partial(_called, lambda: None))
            # On the loop, so that capabilities live there, whatever loop runs here and is blocked.
            made = functools.partial(Session, name, **options)
            self.session: Session = self._background.run(_called(made))
            undo.pop_all()
        self.name = self.session.name

    # -- cells -------------------------------------------------------------------------------

    run = _blocking(Session.run)
    execute = _blocking(Session.execute)
    run_call = _blocking(Session.run_call)
    call = _blocking(Session.call)
    interrupt = _passed_on(Session.interrupt)

    # -- names -------------------------------------------------------------------------------

    get = _at_once(Session.get)
    set = _at_once(Session.set)
    delete = _at_once(Session.delete)
    update_namespace = _passed_on(Session.update_namespace)
    snapshot = _passed_on(Session.snapshot)
    list_names = _at_once(Session.list_names)

    @property
    def namespace(self) -> dict[str, Any]:
        """The live mapping."""
        return self.session.namespace

    @property
    def view(self) -> NamespaceView:
        """The user's names, for reading: a live :class:`NamespaceView`."""
        return self.session.view

    # -- capabilities ------------------------------------------------------------------------

    inject_capability = _on_the_loop(Session.inject_capability)
    revoke_capability = _passed_on(Session.revoke_capability)

    @property
    def capabilities(self) -> Mapping[str, Capability]:
        """What cells may call of the host, by name. A live, read-only view."""
        return self.session.capabilities

    # -- coroutines --------------------------------------------------------------------------

    await_pending_coroutines = _blocking(Session.await_pending_coroutines)

    @property
    def pending_coroutines(self) -> ReadyDict[str, Any]:
        """Coroutines that cells have left behind, by name. A copy."""
        return self.session.pending_coroutines

    # -- the ledger --------------------------------------------------------------------------

    ledger = _passed_on(Session.ledger)
    census = _passed_on(Session.census)
    report = _passed_on(Session.report)

    # -- waiting -----------------------------------------------------------------------------

    def _wait(self, name: str, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Have *work* awaited, as the method *name*, and wait for its outcome."""
        if crossing_here() is not None:  # in the thread of a cell, which waits as cells do
            return run_sync(work())
        if self._background.runs_here:
            raise self._deadlock(name)
        outcome: R = self._background.run(work())
        return outcome

    def _deadlock(self, name: str) -> DeadlockError:
        job = current_job.get()
        caller = f"cell {job.number}" if job is not None else "code"
        return DeadlockError(
            f"{name}() of blocking session {self.name!r} was called by {caller} on the thread of "
            "the session's own event loop: the call would wait for the loop, and the loop for the "
            f"call. Call it from a cell in a thread, or await {name}() of its async side, .session"
        )

    # -- the end -----------------------------------------------------------------------------

    reset = _blocking(Session.reset)

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
        job = current_job.get()
        in_own_cell = job is not None and job.owner is self.session.manager.current_home
        if self._background.runs_here or (in_own_cell and crossing_here() is not None):
            raise self._deadlock("close")
        closing = self._background.end(functools.partial(self.session.close, timeout))
        bound = CLOSING_STEPS * timeout + SLACK_SECONDS
        if not self._background.answers(timeout) or not wait([closing], bound).done:
            return CloseReport(cells=self._running_cells(), loop=True)  # something hogs it
        report: CloseReport = closing.result()
        ended = self._background.join(timeout)
        return report if ended else replace(report, loop=True)

    def _running_cells(self) -> tuple[int, ...]:
        home = self.session.manager.current_home
        return () if home is None else tuple(sorted(job.number for job in home.jobs()))

    def __enter__(self) -> BlockingSession:
        """Nothing to wait for: the session is open from the start."""
        self.session._check_open()
        return self

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
        session = getattr(self, "session", None)
        if session is None or self._background.ending:
            return
        try:
            warnings.warn(
                f"unclosed blocking session {self.name!r}",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
        finally:
            self._background.end(session.close)
