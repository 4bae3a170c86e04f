"""A session for code without an event loop: scripts, views of Flask and Django, plain tests.

Refuses to know: what a session does. Its methods are those of :class:`Session`, each made from the
one that is awaited.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Self

from isthmus.answers import ReadyDict
from isthmus.blocking_front import (
    BlockingFront,
    at_once,
    blocking,
    on_the_loop,
    passed_on,
    with_options_of,
)
from isthmus.ending import CLOSING_STEPS
from isthmus.jobs import current_job
from isthmus.namespace_view import NamespaceView
from isthmus.portal import crossing_here
from isthmus.session import Session


class BlockingSession(BlockingFront[Session]):
    """A :class:`Session` for code without an event loop: each method returns when it is done.

    It runs a loop of its own in a background thread, from here until :meth:`close`. Use it as
    ``with BlockingSession() as session``. What is not said here is as in :class:`Session`; its
    options are the same, and so are those of the methods. Cells that run in a process of their own
    has a :class:`BlockingWorkerSession`.

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

    _kind = "blocking session"

    @with_options_of(Session.__init__)
    def __init__(self, name: str = "session", **options: Any) -> None:
        super().__init__(partial(Session, name, **options), name)

    # -- cells -------------------------------------------------------------------------------

    run = blocking(Session.run)
    execute = blocking(Session.execute)
    run_call = blocking(Session.run_call)
    call = blocking(Session.call)
    interrupt = passed_on(Session.interrupt)

    # -- names -------------------------------------------------------------------------------

    get = at_once(Session.get)
    set = at_once(Session.set)
    delete = at_once(Session.delete)
    update_namespace = passed_on(Session.update_namespace)
    snapshot = passed_on(Session.snapshot)
    list_names = at_once(Session.list_names)

    @property
    def namespace(self) -> dict[str, Any]:
        """The live mapping."""
        return self.session.namespace

    @property
    def view(self) -> NamespaceView:
        """The user's names, for reading: a live :class:`NamespaceView`."""
        return self.session.view

    # -- capabilities ------------------------------------------------------------------------

    inject_capability = on_the_loop(Session.inject_capability)
    revoke_capability = passed_on(Session.revoke_capability)

    # -- coroutines --------------------------------------------------------------------------

    await_pending_coroutines = blocking(Session.await_pending_coroutines)

    @property
    def pending_coroutines(self) -> ReadyDict[str, Any]:
        """Coroutines that cells have left behind, by name. A copy."""
        return self.session.pending_coroutines

    # -- the ledger --------------------------------------------------------------------------

    ledger = passed_on(Session.ledger)
    census = passed_on(Session.census)
    report = passed_on(Session.report)

    # -- the end -----------------------------------------------------------------------------

    reset = blocking(Session.reset)

    def _closing_seconds(self, timeout: float) -> float:
        return CLOSING_STEPS * timeout

    def _is_in_own_cell(self) -> bool:
        job = current_job.get()
        in_own_cell = job is not None and job.owner is self.session.manager.current_home
        return in_own_cell and crossing_here() is not None

    def _running_cells(self) -> tuple[int, ...]:
        home = self.session.manager.current_home
        return () if home is None else tuple(sorted(job.number for job in home.jobs()))

    def __enter__(self) -> Self:
        """Nothing to wait for: the session is open from the start."""
        self.session._check_open()
        return self
