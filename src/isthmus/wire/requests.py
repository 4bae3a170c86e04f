"""What a host asks of its worker. Each has an ``id`` and gets one last answer, in any order.

What an argument means is said where a session has it, in :class:`isthmus.Session`; the host fills
in the defaults of its session. Which answers there are is in :mod:`isthmus.wire.catalogue`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from isthmus.wire.parts import (
    CapabilityDescription,
    CellNumber,
    Id,
    MainProgram,
    ProcessLimits,
    RequestedContext,
    Seconds,
    Value,
)


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """What all requests have, of either side: a number, by which the answer refers to it."""

    id: Id


# -- the session -----------------------------------------------------------------------------------


class Open(Request, frozen=True, tag=True):
    """Open the session, which other requests may follow at once. Answered by ``Done``.

    Where it fails there is no session, and the connection ends.

    Attributes:
        name, main, file, history, coroutine_policy, output_limit, late_output, blocked_seconds,
            hooks: As in a session. *output_limit* None is the worker's own default.
        capabilities: Functions of the host that cells may call.
        events: Whether the host wants to hear of events.
        mime: Whether it wants the rich form of each cell's value in them.
        pickle: Whether it takes pickles; otherwise the worker sends plain values and ``repr``.
        slate: The path of a file in memory, on which the worker writes what it holds back; empty
            where there is none.
        program: The program that the cells are; None where they are none.
        limits: What the worker may use from now on, where it was started without limits.
    """

    name: str = "session"
    main: bool = True
    file: str | None = None
    history: bool = True
    coroutine_policy: Literal["adopt", "hold", "close"] = "adopt"
    output_limit: int | None = None
    late_output: Literal["origin", "current"] = "origin"
    blocked_seconds: Seconds | None = 1.0
    hooks: bool = True
    capabilities: tuple[CapabilityDescription, ...] = ()
    events: bool = False
    mime: bool = False
    pickle: bool = True
    slate: str = ""
    program: MainProgram | None = None
    limits: ProcessLimits | None = None


class Reset(Request, frozen=True, tag=True):
    """Stop what runs and empty the namespace; the session stays open. Answered by ``Ended``.

    Attributes:
        timeout: Seconds for each of cells, tasks and thread to end.
        parent: The number of a cell that waits for this, by a function of the host that it has
            called: it goes on to its own end; 0 for none.
    """

    timeout: Seconds = 1.0
    parent: CellNumber = 0


class Vacate(Request, frozen=True, tag=True):
    """End the session, and make the worker as it was before. Only where ``Hello`` has said *reuse*.

    Answered by ``Vacated``, after which the next ``Open`` may follow. A worker that cannot be as it
    was answers with ``Ended``, which is its last message.

    Attributes:
        timeout: Seconds for each of cells, tasks and thread to end.
    """

    timeout: Seconds = 1.0


class Close(Request, frozen=True, tag=True):
    """End the session and the worker. Answered by ``Ended``, which is its last message.

    Attributes:
        timeout: Seconds for each of cells, tasks and thread to end.
    """

    timeout: Seconds = 1.0


class Ping(Request, frozen=True, tag=True):
    """Say that you are there, and how you are. Answered by ``Pong``, once the loop is free."""


# -- cells -----------------------------------------------------------------------------------------


class CellRequest(Request, frozen=True):
    """What running source and calling a function have in common. Answered by ``Outcome``.

    ``Failed`` says that nothing was run.

    Attributes:
        cell: The number that the cell gets; the host counts upwards.
        context: Where to run it.
        timeout: Seconds until control returns; None and ``inf`` set no bound.
        concurrent: Beside the other cells instead of in order.
        atomic: Put names back when it fails.
        title: A label for events.
        parent: The number of a cell that waits for this one, by a function of the host that it has
            called: this one runs at once, nested in it; 0 for none.
        announce: Send ``Started`` when its code is about to run: a host that enforces deadlines
            from outside needs to know.
    """

    cell: CellNumber
    context: RequestedContext = "async"
    timeout: Seconds | None = None
    concurrent: bool = False
    atomic: bool = False
    title: str = ""
    parent: CellNumber = 0
    announce: bool = False


class RunCell(CellRequest, frozen=True, kw_only=True, tag=True):
    """Run source.

    Attributes:
        source: The text.
        filename: What tracebacks call the cell; None lets the worker make a name.
    """

    source: str
    filename: str | None = None


class CallFunction(CellRequest, frozen=True, kw_only=True, tag=True):
    """Call a function of the namespace.

    Attributes:
        name: What the function is bound to.
        arguments: A tuple of the positional arguments and a dict of those by name; None for none.
    """

    name: str
    arguments: Value | None = None


class Interrupt(Request, frozen=True, tag=True):
    """Stop a cell. Answered by ``Interrupted``.

    A worker whose loop is blocked reads this when the loop is free again: what must stop at once is
    stopped by a signal, which is no part of the protocol.

    Attributes:
        cell: The cell's number; None for all that run.
    """

    cell: CellNumber | None = None


# -- names -----------------------------------------------------------------------------------------


class GetName(Request, frozen=True, tag=True):
    """What is *name* bound to? Answered by ``Returned``."""

    name: str


class UpdateNames(Request, frozen=True, tag=True):
    """Bind names, all or none. Answered by ``Done``.

    Attributes:
        values: What to bind, by name.
        source_context: Who says so, for the event.
    """

    values: dict[str, Value]
    source_context: str = "host"


class DeleteName(Request, frozen=True, tag=True):
    """Take *name* out of the namespace. Answered by ``Done``."""

    name: str
    source_context: str = "host"


class Snapshot(Request, frozen=True, tag=True):
    """A shallow copy of the user's names, taken at one moment. Answered by ``Snapshotted``.

    Attributes:
        names: Only these, where they are bound; None wants all.
    """

    names: tuple[str, ...] | None = None


class View(Request, frozen=True, tag=True):
    """Which names are there? Answered by ``Viewed``.

    Attributes:
        text_characters: How much of each value's ``repr`` to send; 0 asks no value for it.
    """

    text_characters: CellNumber = 0


# -- capabilities ----------------------------------------------------------------------------------


class Inject(Request, frozen=True, tag=True):
    """Let cells call a function of the host; one of that name is replaced. Answered by ``Done``."""

    capability: CapabilityDescription


class Revoke(Request, frozen=True, tag=True):
    """Take a capability back. Answered by ``Done``."""

    name: str


# -- coroutines ------------------------------------------------------------------------------------


class ListPending(Request, frozen=True, tag=True):
    """Which coroutines have cells left behind? Answered by ``Viewed``."""


class AwaitPending(Request, frozen=True, tag=True):
    """Wait for them. Answered by ``Settled``.

    Attributes:
        timeout: Seconds to wait; None waits as long as it takes.
    """

    timeout: Seconds | None = None


# -- the ledger ------------------------------------------------------------------------------------


class ListLedger(Request, frozen=True, tag=True):
    """What has the session's code made that has not ended? Answered by ``Listed``."""


class TakeCensus(Request, frozen=True, tag=True):
    """Count it by looking at all objects of the process. Answered by ``Counted``."""


class Report(Request, frozen=True, tag=True):
    """Say for people how the session is. Answered by ``Reported``."""
