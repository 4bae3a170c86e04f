"""What a session tells the outside: events on their way to a transport, and a cell's result.

Owns the types. Events are frozen msgspec structs, tagged with their name, so that one line of
JSON (``msgspec.json.encode(event)``) carries each. A result holds live objects and stays in the
process. No behaviour beyond :meth:`CellResult.unwrap` and how a result reads and is shown.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from isthmus.errors import CellAborted, CellCancelled, CellExit, CellTimeout, RemoteError
from isthmus.mime import MimeBundle, bundle_of
from isthmus.tracebacks import format_error, safe_repr

Context = Literal["async", "thread", "sync"]
"""Where a cell's code runs: on the event loop, in the home thread, or as sync code on the loop."""

Status = Literal["ok", "error", "cancelled", "timeout", "interrupted"]
"""How a cell ended. All but ``"ok"`` come with an error."""

StreamName = Literal["stdout", "stderr"]


class Event(msgspec.Struct, frozen=True, tag=True):
    """What all events carry: the session's name and the cell's number (0: no cell)."""

    session: str
    cell: int


class CellStarted(Event, frozen=True, tag=True):
    """A cell's code is about to run. *filename* is what its tracebacks say."""

    context: Context
    filename: str
    source: str
    title: str = ""


class Output(Event, frozen=True, tag=True):
    """Text that the cell's code wrote to ``sys.stdout`` or ``sys.stderr``: a line, or many at once.

    May come after :class:`CellFinished` when a task or a thread of the cell wrote it.
    """

    stream: StreamName
    text: str


class OutputDropped(Event, frozen=True, tag=True):
    """Output of the cell is missing here: the transport was full, and code on the loop cannot wait.

    *bytes* is how much, in UTF-8; displays count as *stdout*. The line of text that follows says
    the same to people.
    """

    stream: StreamName
    bytes: int


class Display(Event, frozen=True, tag=True):
    """An object that the cell's code has shown with ``display()``, by MIME type.

    Values of *data* are text, bytes (base64 in JSON) or what JSON can hold.
    """

    data: dict[str, Any]
    metadata: dict[str, Any] = {}


class CellFinished(Event, frozen=True, tag=True):
    """A cell has ended. *value* is the ``repr`` of its value, or None when there is none.

    *error* is the exception's type name, *message* its text and *traceback* the formatted
    traceback without frames of this package. *duration* is in seconds. *mime* is the value in its
    other forms, where it has any and the transport has asked for them. *rolled_back* lists what the
    failure of an atomic cell has put back; *bound* and *deleted* are then empty.
    """

    status: Status
    duration: float
    value: str | None = None
    error: str | None = None
    message: str | None = None
    traceback: str | None = None
    bound: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    exact: bool = True
    adopted: tuple[str, ...] = ()
    stopped: bool = True
    mime: MimeBundle | None = None
    rolled_back: tuple[str, ...] = ()


class LoopBlocked(Event, frozen=True, tag=True):
    """The session's event loop has not gone round for *seconds*: nothing else runs on it.

    *cell* is the one whose code keeps it, or 0 where it is no cell's. *stack* says where that code
    stands, as in a traceback, innermost last. Told once, by a thread of its own.
    """

    seconds: float
    stack: str


class NamespaceUpdated(Event, frozen=True, tag=True):
    """The host has bound *names*, or taken *deleted* away, calling itself *source_context*."""

    names: tuple[str, ...]
    source_context: str
    deleted: tuple[str, ...] = ()


class CoroutineAdopted(Event, frozen=True, tag=True):
    """A coroutine left behind under *name* has become a task of the home loop."""

    name: str


class CoroutineSettled(Event, frozen=True, tag=True):
    """An adopted coroutine has ended. *error* is None, or the exception's type and text."""

    name: str
    error: str | None = None


class TaskFailed(Event, frozen=True, tag=True):
    """A task that *cell* made has failed, and was dropped without anybody's having asked for its
    error, the exception's type and text. *filename* and *line* say where it was made."""

    name: str
    error: str
    filename: str
    line: int


class CoroutineDropped(Event, frozen=True, tag=True):
    """A coroutine that *cell* made was dropped without anybody's having awaited it.

    *name* is that of its function; *filename* and *line* say where it was called.
    """

    name: str
    filename: str
    line: int


class ThreadDied(Event, frozen=True, tag=True):
    """A thread that *cell* started has ended with an exception: its type and text are *error*."""

    name: str
    error: str


class SessionReset(Event, frozen=True, tag=True):
    """The session has begun again with an empty namespace. *left* is what would not end, in words,
    as in :attr:`CloseReport.left`."""

    left: tuple[str, ...] = ()


class SessionClosed(Event, frozen=True, tag=True):
    """The session was closed. *left* is what would not end, in words. Only output of what is left
    can still follow."""

    left: tuple[str, ...] = ()


@dataclass(slots=True)
class CellResult:
    """How one cell ended.

    Attributes:
        cell: The cell's number in its session, from 1.
        context: Where it ran.
        status: ``"ok"``, ``"error"``, ``"cancelled"``, ``"timeout"`` or ``"interrupted"``.
        value: The value of the last expression, or ``__result__``, or None.
        error: The exception that ended it, as raised, or None.
        stdout: What it wrote, up to the session's bound.
        stderr: The same for ``sys.stderr``.
        displays: What it has shown with ``display()``, up to the same bound.
        bound: Names that it bound, sorted; none after a roll-back.
        deleted: Names that it deleted, sorted; none after a roll-back.
        exact: False where the cell can bind names that a look at its code does not show. A cell
            that was rolled back has bound nothing, which is exact unless it is still running.
        adopted: Names whose coroutines became tasks at its end.
        duration: Seconds from the start of its code to its outcome.
        stopped: False where control came back while its code goes on running.
        filename: What tracebacks call the cell.
        rolled_back: Names that the failure of an atomic cell has put back, sorted.
    """

    cell: int
    context: Context
    filename: str = ""
    status: Status = "ok"
    value: Any = None
    error: BaseException | None = None
    stdout: str = ""
    stderr: str = ""
    displays: tuple[MimeBundle, ...] = ()
    bound: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    exact: bool = True
    adopted: tuple[str, ...] = ()
    duration: float = 0.0
    stopped: bool = True
    rolled_back: tuple[str, ...] = ()

    @property
    def traceback(self) -> str | None:
        """The traceback of the error as Python prints it, without frames of this package; or None.

        Frames of the host's own functions, where the cell has called some, are in it.
        """
        if self.error is None:
            return None
        if isinstance(self.error, RemoteError):
            return self.error.traceback
        remote = self.error.__cause__
        if isinstance(remote, RemoteError) and self.error.__traceback__ is None:
            return remote.traceback  # one of ours, which was raised in another process
        return format_error(self.error)

    @property
    def value_repr(self) -> str | None:
        """``repr(value)``, or None when there is no value; a ``__repr__`` that raises is named."""
        return None if self.value is None else safe_repr(self.value)

    def unwrap(self) -> Any:
        """Return the value, or raise what ended the cell.

        Raises:
            Exception: The cell's own exception, as it was raised.
            CellExit: The cell raised ``SystemExit``.
            CellCancelled: The cell was cancelled.
            CellTimeout: The cell did not end in time.
            CellAborted: The cell raised another ``BaseException``, or was interrupted.
        """
        if self.error is None:
            return self.value
        if self.status == "error" and isinstance(self.error, Exception):
            raise self.error
        raise self._host_error() from self.error

    def mime_bundle(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> MimeBundle:
        """The value in the forms that it can be shown in: ``_repr_html_`` and so on.

        Arguments:
            include: MIME types wanted; None wants all.
            exclude: MIME types not wanted.

        Computed here and now, by code of the value. Nothing is kept.
        """
        return bundle_of(self.value, include, exclude)

    def _host_error(self) -> Exception:
        """What to raise instead of an exception that would harm the host there."""
        error, name = self.error, f"cell {self.cell}"
        if self.status == "timeout":
            state = "" if self.stopped else "; its code is still running"
            return CellTimeout(f"{name} did not end by its deadline{state}")
        if self.status == "cancelled":
            return CellCancelled(f"{name} was cancelled")
        if isinstance(error, SystemExit):
            return CellExit(f"{name} called sys.exit({error.code!r})", error.code)
        return CellAborted(f"{name} ended with {type(error).__name__}: {error}")
