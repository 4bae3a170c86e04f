"""Sessions of either kind: what they have in common, and how one is opened.

Refuses to know: how either works.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Protocol, Self, overload

from isthmus.blocking_session import BlockingSession
from isthmus.blocking_worker_session import BlockingWorkerSession
from isthmus.capabilities import Capability
from isthmus.context_bridge import RequestedContext
from isthmus.ending import CloseReport
from isthmus.events import CellResult
from isthmus.failures import Kind
from isthmus.interceptors import Interceptor
from isthmus.ledger import SettledCoroutines
from isthmus.ownership import LedgerEntry
from isthmus.session import Session
from isthmus.wire.parts import NameDescription
from isthmus.worker.session import WorkerSession


class AnySession(Protocol):
    """What a :class:`Session` and a :class:`WorkerSession` have in common.

    Whoever uses it cannot tell which one it is, except by asking. What is declared as an awaitable
    is to be awaited, as a worker has to be asked; in this process it is the answer itself as well,
    for whoever knows. What crosses to a worker and back is a copy.
    """

    name: str
    context: RequestedContext
    timeout: float | None

    async def run(
        self,
        code: str,
        *,
        context: RequestedContext | None = None,
        timeout: float | None = None,
        concurrent: bool = False,
        atomic: bool = False,
        filename: str | None = None,
        title: str = "",
    ) -> CellResult:
        """Run a cell and give its result, with its error if it failed."""

    async def execute(self, /, code: str, **options: Any) -> Any:
        """Run a cell and give its value, or raise what ended it."""

    async def run_call(
        self,
        name: str,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        context: RequestedContext | None = None,
        timeout: float | None = None,
        concurrent: bool = False,
        atomic: bool = False,
        title: str = "",
    ) -> CellResult:
        """Call the function *name* and give the result, with its error if it failed."""

    async def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function *name* and give its value, or raise what ended it."""

    def interrupt(self, cell: int | None = None) -> bool:
        """Stop a cell, or all that run; whether there was something to stop."""

    async def get(self, name: str) -> Any:
        """What *name* is bound to."""

    async def set(self, name: str, value: Any) -> None:
        """Bind *name* to *value*."""

    async def delete(self, name: str) -> None:
        """Take *name* out of the namespace."""

    def update_namespace(
        self, updates: Mapping[str, Any], source_context: str = "host"
    ) -> Awaitable[None]:
        """Bind names, before any cell that is run later, whether it is awaited or not."""

    def snapshot(self) -> Awaitable[dict[str, Any]]:
        """A shallow copy of the user's names."""

    async def list_names(self, text_characters: int = 0) -> list[NameDescription]:
        """Which names are bound, and to objects of which class."""

    @property
    def capabilities(self) -> Mapping[str, Capability]:
        """What cells may call of the host, by name."""

    def inject_capability(
        self,
        name: str,
        fn: Callable[..., Any],
        *,
        on_loop: Any = None,
        interceptors: Iterable[Interceptor] = (),
    ) -> None:
        """Let cells call *fn* as *name*."""

    def revoke_capability(self, name: str) -> None:
        """Take it back at once."""

    @property
    def pending_coroutines(self) -> Awaitable[dict[str, Any]]:
        """Coroutines that cells have left behind, by name."""

    async def await_pending_coroutines(self, timeout: float | None = None) -> SettledCoroutines:
        """Wait for the coroutines that cells have left behind."""

    def ledger(self) -> Awaitable[list[LedgerEntry]]:
        """What the session's code has made that has not ended."""

    def census(self) -> Awaitable[dict[Kind, int]]:
        """How much of each kind there is, by looking at all objects."""

    def report(self) -> Awaitable[str]:
        """How the session is, for people."""

    @property
    def closed(self) -> bool:
        """Whether the session has ended."""

    async def reset(self, timeout: float = 1.0) -> CloseReport:
        """End what cells have started, and begin again with an empty namespace."""

    async def close(self, timeout: float = 1.0) -> CloseReport:
        """End the session."""

    async def __aenter__(self) -> Self:
        """Open it."""

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Close it."""


@overload
def open_session(
    name: str = ..., *, worker: Literal[False] = ..., blocking: Literal[False] = ..., **options: Any
) -> Session: ...


@overload
def open_session(
    name: str = ..., *, worker: Literal[True], blocking: Literal[False] = ..., **options: Any
) -> WorkerSession: ...


@overload
def open_session(
    name: str = ..., *, worker: bool, blocking: Literal[False] = ..., **options: Any
) -> Session | WorkerSession: ...


@overload
def open_session(
    name: str = ..., *, worker: Literal[False] = ..., blocking: Literal[True], **options: Any
) -> BlockingSession: ...


@overload
def open_session(
    name: str = ..., *, worker: Literal[True], blocking: Literal[True], **options: Any
) -> BlockingWorkerSession: ...


@overload
def open_session(
    name: str = ..., *, worker: bool, blocking: Literal[True], **options: Any
) -> BlockingSession | BlockingWorkerSession: ...


def open_session(
    name: str = "session", *, worker: bool = False, blocking: bool = False, **options: Any
) -> Session | WorkerSession | BlockingSession | BlockingWorkerSession:
    """Make a session: in this process or in one of its own, for code with an event loop or without.

    Arguments:
        name: The session's name.
        worker: Have it live in a process of its own, which its cells may crash.
        blocking: Have its methods return when they are done, rather than be awaited.
        options: Those of :class:`Session`, or of :class:`WorkerSession`, which has more.

    Use it as ``async with open_session(worker=True) as session``, and a blocking one with ``with``.
    """
    kinds = _BLOCKING if blocking else _AWAITED
    return kinds[bool(worker)](name, **options)


_AWAITED = (Session, WorkerSession)
_BLOCKING = (BlockingSession, BlockingWorkerSession)
