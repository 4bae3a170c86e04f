"""Answers. Each carries the ``id`` of the request, which is one of the receiver's.

Every request has one last answer; ``Started`` alone comes before it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from isthmus.events import Context, Status
from isthmus.mime import MimeBundle
from isthmus.wire.limits import Count
from isthmus.wire.parts import CellNumber, Failure, Id, NameDescription, Owned, Value


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """What all answers have: the number of the request."""

    id: Id


# -- of either side --------------------------------------------------------------------------------


class Returned(Reply, frozen=True, tag=True):
    """Here is what was asked for.

    Attributes:
        value: None is None.
        awaited: The capability has given an awaitable, and this is its result.
    """

    value: Value | None = None
    awaited: bool = False


class Failed(Reply, frozen=True, tag=True):
    """It was not done, or ended with an exception."""

    error: Failure


# -- of the worker ---------------------------------------------------------------------------------


class Done(Reply, frozen=True, tag=True):
    """It is done."""


class Started(Reply, frozen=True, tag=True):
    """The code of the cell is about to run. Not the last answer."""


class Outcome(Reply, frozen=True, kw_only=True, tag=True):
    """How a cell has ended. The fields are those of :class:`isthmus.CellResult`.

    All output that the cell's own code has made, and all its events, have been sent before.
    """

    cell: CellNumber
    context: Context = "async"
    filename: str = ""
    status: Status = "ok"
    value: Value | None = None
    error: Failure | None = None
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


class Interrupted(Reply, frozen=True, tag=True):
    """*found* says whether there was something to stop."""

    found: bool


class Snapshotted(Reply, frozen=True, tag=True):
    """Names and values."""

    values: dict[str, Value]


class Viewed(Reply, frozen=True, tag=True):
    """Names, in the order in which they were bound first, or left behind."""

    names: tuple[NameDescription, ...]


class Settled(Reply, frozen=True, kw_only=True, tag=True):
    """What became of coroutines, by name.

    Attributes:
        results: Of those that have succeeded.
        errors: Of those that have failed.
        unfinished: Names of those that were still running at the timeout.
    """

    results: dict[str, Value] = {}
    errors: dict[str, Failure] = {}
    unfinished: tuple[str, ...] = ()


class Listed(Reply, frozen=True, tag=True):
    """What the session's code has made, in the order in which it was made."""

    entries: tuple[Owned, ...]


class Counted(Reply, frozen=True, tag=True):
    """How many there are of each kind."""

    counts: dict[str, Count]


class Reported(Reply, frozen=True, tag=True):
    """A text for people."""

    text: str


class Vacated(Reply, frozen=True, tag=True):
    """The session has ended, and nothing of it is left: the worker may have another one."""


class Ended(Reply, frozen=True, kw_only=True, tag=True):
    """The report of a reset or of the end: what would not end.

    Attributes:
        cells: Numbers of cells whose code still runs.
        tasks: Names of tasks that ignored their cancellation.
        thread: Whether the home thread still runs.
        threads: Names of threads that cells have started and that still run.
        coroutines: Names of coroutines that went on when they were closed.
        async_generators: Names of async generators whose clean-up takes longer.
        unfit: What keeps the worker from having another session, where the host has asked for that.
    """

    cells: tuple[int, ...] = ()
    tasks: tuple[str, ...] = ()
    thread: bool = False
    threads: tuple[str, ...] = ()
    coroutines: tuple[str, ...] = ()
    async_generators: tuple[str, ...] = ()
    unfit: str = ""


class Pong(Reply, frozen=True, kw_only=True, tag=True):
    """The worker's loop is alive.

    Attributes:
        cells: Numbers of the cells that run.
        memory_bytes: What the process holds in memory; 0 where it is not known.
        peak_memory_bytes: The most that it has held.
        cpu_seconds: What it has spent, in user and system time.
        uptime: Seconds since the process started.
    """

    cells: tuple[int, ...] = ()
    memory_bytes: Count = 0
    peak_memory_bytes: Count = 0
    cpu_seconds: float = 0.0
    uptime: float = 0.0


# -- of the host -----------------------------------------------------------------------------------


class Handed(Reply, frozen=True, tag=True):
    """The result stays with the host, and is used by ``Step``.

    Attributes:
        object: Its number, never used before; good until ``Release``.
        iterates: ``"async"`` where it is for ``async for`` (and for ``for``, in sync code),
            ``"sync"`` where it is for ``for`` alone; empty where it is for neither.
        manages: The same for ``async with`` and ``with``.
        is_iterator: It is its own iterator: steps can be taken with it at once.
        awaited: The capability has given an awaitable, and this is its result.
        type_name: The qualified name of its class.
        text: Its ``repr``.
    """

    object: Id
    iterates: Literal["", "async", "sync"] = ""
    manages: Literal["", "async", "sync"] = ""
    is_iterator: bool = False
    awaited: bool = False
    type_name: str = ""
    text: str = ""


class Exhausted(Reply, frozen=True, tag=True):
    """There is no next item. *value* is what a generator has returned."""

    value: Value | None = None
