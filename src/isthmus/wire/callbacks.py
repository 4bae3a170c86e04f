"""What a worker asks of its host: calls of capabilities, and the use of what they have returned.

Such a request has an ``id`` of the worker's own counting. ``Cancel`` is for both sides.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from isthmus.events import Context
from isthmus.wire.parts import CellNumber, Failure, Id, Value
from isthmus.wire.requests import Request


class CallCapability(Request, frozen=True, tag=True):
    """Call a function of the host. ``input()`` is the capability ``"input"``.

    Answered by ``Returned`` or ``Failed``, or by ``Handed`` where the result is for use over time:
    an async generator, an async context manager and their like.

    Attributes:
        name: The capability.
        arguments: A tuple of the positional arguments and a dict of those by name; None for none.
        cell: The number of the cell whose code calls; 0 for code of no cell.
        context: Where that cell runs.
        colour: Of the code that calls.
    """

    name: str
    arguments: Value | None = None
    cell: CellNumber = 0
    context: Context | None = None
    colour: Literal["async", "sync"] = "async"


class Step(Request, frozen=True, tag=True):
    """Take a step with an object that the host has handed out.

    Answered by ``Returned``, ``Handed`` or ``Failed``; ``"next"``, ``"send"`` and ``"throw"`` by
    ``Exhausted`` as well. Steps of one object are taken in the order in which they are sent.

    Attributes:
        object: Its number.
        step: ``"iter"`` of what can be iterated over and is no iterator itself, ``"next"``,
            ``"send"``, ``"throw"`` and ``"close"`` of iterators and generators,
            ``"enter"`` and ``"exit"`` of context managers. What ``"exit"`` returns says whether the
            exception is swallowed.
        value: What to send.
        error: What to throw in, or what ended the block; None where it ended well.
    """

    object: Id
    step: Literal["iter", "next", "send", "throw", "close", "enter", "exit"]
    value: Value | None = None
    error: Failure | None = None


class Release(msgspec.Struct, frozen=True, omit_defaults=True, tag=True):
    """The worker has dropped an object that the host has handed out. There is no answer."""

    object: Id


class Held(msgspec.Struct, frozen=True, omit_defaults=True, tag=True):
    """The worker holds back text of a cell, and has begun to write it on the slate.

    Until the text is sent, as a whole, the host can read it there.
    """

    cell: CellNumber


class Cancel(msgspec.Struct, frozen=True, omit_defaults=True, tag=True):
    """Who sent a request has given it up. There is no answer but the request's own.

    That one still comes, cancelled or not; it may have crossed this message on the way.

    Attributes:
        request: The request's id.
    """

    request: Id
