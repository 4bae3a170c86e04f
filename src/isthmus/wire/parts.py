"""What messages are made of: ids, values on their way, failures, descriptions.

Refuses to know: how a value is packed, messages.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Id = Annotated[int, msgspec.Meta(gt=0)]
"""Of a request. Each side counts its own upwards from 1; gaps are allowed, repeats are not."""

CellNumber = Annotated[int, msgspec.Meta(ge=0)]
"""Of a cell in its session, given by the host; 0 where there is none."""

Seconds = float
"""A duration. ``inf`` is one; the receiver checks that it is no NaN and not negative."""

RequestedContext = Literal["async", "thread", "sync", "auto"]

ValueKind = Literal["plain", "pickle", "repr"]


class Value(msgspec.Struct, frozen=True, omit_defaults=True):
    """An object on its way, packed.

    Attributes:
        kind: ``"plain"`` (see :mod:`isthmus.wire.plain`), ``"pickle"`` (protocol 5), or ``"repr"``,
            for an object that can be sent in no other way.
        data: The packed bytes; None where they are the first of *buffers*, or kind is ``"repr"``.
        buffers: Which of the frame's buffers belong to it, in its own order.
        type_name: The qualified name of its class, unless it is plain.
        text: Its ``repr``, cut where it is very long; for kind ``"repr"`` only.
        problem: Why nothing but its ``repr`` is sent.
    """

    kind: ValueKind = "plain"
    data: bytes | None = None
    buffers: tuple[int, ...] = ()
    type_name: str = ""
    text: str = ""
    problem: str = ""


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """An exception on its way.

    Attributes:
        type_name: The qualified name of its class, as in ``"builtins.ValueError"``.
        message: Its text.
        traceback: As Python prints it, without frames of this package.
        details: What else the receiver needs to make one like it: ``"code"`` of a SystemExit,
            ``"name"`` of an UnknownNameError. Plain data.
        exception: The exception itself, where it can be packed. Never needed; whether to load it is
            the receiver's choice.
    """

    type_name: str
    message: str = ""
    traceback: str = ""
    details: dict[str, Any] = {}
    exception: Value | None = None


class CapabilityDescription(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker has to know of a function of the host, to stand for it.

    Attributes:
        name: What cells call it. ``"input"`` is what the builtin of that name becomes.
        is_async: Whether it gives an awaitable in async code.
        signature: Its parameters as text, for ``help``.
        doc: Its docstring.
    """

    name: str
    is_async: bool = False
    signature: str = "(...)"
    doc: str | None = None


class MainProgram(msgspec.Struct, frozen=True, omit_defaults=True):
    """What cells see of the program that they are, as under ``python FILE``.

    Attributes:
        argv: What ``sys.argv`` is: what the program was called, and its arguments.
        folder: What ``sys.path`` begins with, unless Python is told to add nothing there.
        doc: What ``__doc__`` is.
    """

    argv: tuple[str, ...]
    folder: str = ""
    doc: str | None = None


class ProcessLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a process may use of the machine, as in :class:`isthmus.WorkerLimits`."""

    memory_bytes: int | None = None
    cpu_seconds: int | None = None
    open_files: int | None = None
    processes: int | None = None


class Owned(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that the code of a session has made and that has not ended.

    Attributes:
        kind, name, cell, line, filename, state: As in :class:`isthmus.LedgerEntry`.
    """

    kind: Literal["coroutine", "task", "async generator", "thread"]
    name: str
    cell: CellNumber
    line: CellNumber
    filename: str
    state: str


class NameDescription(msgspec.Struct, frozen=True, omit_defaults=True):
    """A name of the namespace, without its value.

    Attributes:
        name: The name.
        type_name: The qualified name of the class of what it is bound to.
        text: The beginning of its ``repr``; empty where nobody asked.
    """

    name: str
    type_name: str
    text: str = ""
