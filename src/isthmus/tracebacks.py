"""Tracebacks as the user should see them. Owns taking this package's frames out of a traceback.

Refuses to know: where the exception came from.
"""

from __future__ import annotations

import os
import traceback
from types import FrameType, TracebackType

_OURS = os.path.dirname(__file__)

_CHAIN_LIMIT = 100
"""Exceptions of one chain to look at; a chain can be a circle."""


def is_ours(frame: FrameType) -> bool:
    """Whether *frame* runs code of this package."""
    return frame.f_code.co_filename.startswith(_OURS)


def _without_ours(tb: TracebackType | None) -> TracebackType | None:
    """The same traceback with the links to our frames taken out."""
    while tb is not None and is_ours(tb.tb_frame):
        tb = tb.tb_next
    kept = tb
    while kept is not None:
        following = kept.tb_next
        while following is not None and is_ours(following.tb_frame):
            following = following.tb_next
        kept.tb_next = following
        kept = following
    return tb


def trim(error: BaseException) -> BaseException:
    """Take this package's frames out of the traceback of *error* and of those that it came from."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < _CHAIN_LIMIT:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        current.__traceback__ = _without_ours(current.__traceback__)
        waiting += [it for it in (current.__cause__, current.__context__) if it is not None]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
    return error


def format_error(error: BaseException) -> str:
    """The traceback as Python prints it; a broken ``__str__`` of the exception is survived."""
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as problem:  # a boundary: __str__, __notes__ and their like are user code
        return f"{type(error).__name__} (its traceback cannot be shown: {type(problem).__name__})\n"


def safe_repr(value: object) -> str:
    """``repr(value)``, or a text that says what went wrong in it."""
    try:
        return repr(value)
    except BaseException as error:  # a boundary: __repr__ is user code
        return f"<{type(value).__name__} whose __repr__ raised {type(error).__name__}>"


def safe_str(error: BaseException) -> str:
    """``str(error)``, or a text that says what went wrong in it."""
    try:
        return str(error)
    except BaseException as problem:  # a boundary: __str__ is user code
        return f"<{type(error).__name__} whose __str__ raised {type(problem).__name__}>"
