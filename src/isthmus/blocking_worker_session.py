"""A session in a process of its own, for code without an event loop.

Refuses to know: what a session does. Its methods are those of :class:`WorkerSession`, each made
from the one that is awaited.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Self

from isthmus.blocking_front import BlockingFront, blocking, on_the_loop, passed_on, with_options_of
from isthmus.worker.session import WorkerSession
from isthmus.worker.supervisor import closing_seconds


class BlockingWorkerSession(BlockingFront[WorkerSession]):
    """A :class:`WorkerSession` for code without an event loop: each method returns when it is done.

    What :class:`BlockingSession` is to :class:`Session`: it runs a loop of its own in a background
    thread, from here until :meth:`close`, and whatever code of the host asks for is waited for.
    Use it as ``with BlockingWorkerSession() as session``; the process is started there, or by the
    first call that needs it.

    Attributes:
        session: The async session that this one drives, for code that runs on its loop.
        name: The session's name.

    Raises:
        DeadlockError: By methods that wait: the call came from the thread of the session's own
            loop (a capability that runs there), so that each would wait for the other.
        SessionClosedError: The session is closed.
        WorkerDied: The process has ended.

    Threads: any but the loop's own. Close: by :meth:`close`, or ``with``. A session dropped without
    it is freed all the same, with a ResourceWarning; with the interpreter the worker ends too.
    """

    _kind = "blocking worker session"

    @with_options_of(WorkerSession.__init__)
    def __init__(self, name: str = "session", **options: Any) -> None:
        super().__init__(partial(WorkerSession, name, **options), name)

    # -- the process -------------------------------------------------------------------------

    start = blocking(WorkerSession.start)
    restart = blocking(WorkerSession.restart)

    @property
    def pid(self) -> int | None:
        """The number of the worker process; None as long as there is none."""
        return self.session.pid

    # -- cells -------------------------------------------------------------------------------

    run = blocking(WorkerSession.run)
    execute = blocking(WorkerSession.execute)
    run_call = blocking(WorkerSession.run_call)
    call = blocking(WorkerSession.call)
    interrupt = passed_on(WorkerSession.interrupt)

    # -- names -------------------------------------------------------------------------------

    get = blocking(WorkerSession.get)
    set = blocking(WorkerSession.set)
    delete = blocking(WorkerSession.delete)
    update_namespace = blocking(WorkerSession.update_namespace)
    snapshot = blocking(WorkerSession.snapshot)
    list_names = blocking(WorkerSession.list_names)

    # -- capabilities ------------------------------------------------------------------------

    inject_capability = on_the_loop(WorkerSession.inject_capability)
    revoke_capability = passed_on(WorkerSession.revoke_capability)

    # -- coroutines --------------------------------------------------------------------------

    await_pending_coroutines = blocking(WorkerSession.await_pending_coroutines)

    @property
    def pending_coroutines(self) -> dict[str, Any]:
        """Coroutines that cells have left behind, by name; each is shown."""
        return self._wait("pending_coroutines", self._ask_for_pending)

    async def _ask_for_pending(self) -> dict[str, Any]:
        return await self.session.pending_coroutines

    # -- the ledger --------------------------------------------------------------------------

    ledger = blocking(WorkerSession.ledger)
    census = blocking(WorkerSession.census)
    report = blocking(WorkerSession.report)

    # -- the end -----------------------------------------------------------------------------

    reset = blocking(WorkerSession.reset)

    def _closing_seconds(self, timeout: float) -> float:
        return closing_seconds(timeout, self.session._grace)

    def _is_in_own_cell(self) -> bool:
        return False  # those are in another process

    def _running_cells(self) -> tuple[int, ...]:
        supervisor = self.session._lives.supervisor
        return () if supervisor is None else supervisor.flight.cells

    def __enter__(self) -> Self:
        """Start the process."""
        self.start()
        return self
