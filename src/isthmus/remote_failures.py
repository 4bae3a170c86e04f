"""Exceptions between processes. Owns how one is described, and what is made of a description.

Refuses to know: whose exception it is, messages around it.
"""

from __future__ import annotations

from typing import Any

from isthmus import errors
from isthmus.errors import IsthmusError, RemoteError
from isthmus.tracebacks import format_error, safe_repr, safe_str
from isthmus.values import pack, type_name
from isthmus.wire.frames import Buffer
from isthmus.wire.parts import Failure
from isthmus.wire.plain import INT64

_DETAILS = ("code", "name")
"""Attributes of our exceptions that are sent."""

TEXT_CHARACTERS = 1_000_000
"""How much of a message, and of a traceback, is sent; from the air, and within every limit."""


def failure_of(error: BaseException, buffers: list[Buffer] | None = None) -> Failure:
    """Describe *error*, which goes on existing here.

    Arguments:
        error: Any exception. Whatever its own methods do, this does not fail.
        buffers: Those of the frame, to send the exception itself as well; None sends none: only
            a receiver that loads pickles has a use for it.

    Threads: any. It calls methods of the exception.
    """
    return Failure(
        type_name(error),
        _cut(safe_str(error)),
        _cut(format_error(error)),
        _details_of(error),
        None if buffers is None else pack(error, buffers, trusted=True),
    )


def _cut(text: str) -> str:
    """*text*, which may be a message of any size, in one that every receiver takes."""
    if len(text) <= TEXT_CHARACTERS:
        return text
    half = TEXT_CHARACTERS // 2
    return f"{text[:half]}… ({len(text)} characters) …{text[-half:]}"


def error_of(failure: Failure) -> BaseException:
    """The exception that *failure* describes: one of ours as itself, any other as RemoteError."""
    module, _, name = failure.type_name.rpartition(".")
    kind = getattr(errors, name, None) if module == errors.__name__ else None
    if kind is None or kind is RemoteError or not _is_ours(kind):
        return RemoteError(failure.type_name, failure.message, failure.traceback, failure.details)
    error: BaseException = kind(failure.message)
    for attribute in _DETAILS:
        if attribute in failure.details and hasattr(error, attribute):
            setattr(error, attribute, failure.details[attribute])
    return error


def _is_ours(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, IsthmusError | errors.CellInterrupted)


def _details_of(error: BaseException) -> dict[str, Any]:
    """What :func:`error_of` needs beside the text; of a user's exception nothing is asked."""
    if isinstance(error, SystemExit):
        return {"code": _plain(error.code)}
    if not isinstance(error, IsthmusError):
        return {}
    return {name: _plain(vars(error)[name]) for name in _DETAILS if name in vars(error)}


def _plain(value: object) -> object:
    """*value* as MessagePack can hold it: what else there may be is shown."""
    if value is None or type(value) in (bool, str):
        return value
    return value if type(value) is int and value in INT64 else safe_repr(value)
