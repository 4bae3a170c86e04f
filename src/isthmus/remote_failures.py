"""Exceptions between processes. Owns how one is described, and what is made of a description.

Refuses to know: whose exception it is, messages around it.
"""

from __future__ import annotations

import asyncio
import builtins
from typing import Any

from isthmus import errors
from isthmus.errors import IsthmusError, RemoteError
from isthmus.tracebacks import format_error, safe_repr, safe_str
from isthmus.values import pack, type_name
from isthmus.wire.frames import Buffer
from isthmus.wire.parts import Failure
from isthmus.wire.plain import INT64

_CANCELLED = "asyncio.exceptions.CancelledError"

_DETAILS = ("code", "name")
"""Attributes of our exceptions that are sent."""

TEXT_CHARACTERS = 1_000_000
"""How much of a message, and of a traceback, is sent; from the air, and within every limit."""


def failure_of(
    error: BaseException, buffers: list[Buffer] | None = None, *, exactly: bool = False
) -> Failure:
    """Describe *error*, which goes on existing here.

    Arguments:
        error: Any exception. Whatever its own methods do, this does not fail.
        buffers: Those of the frame, to send the exception itself as well; None sends none: only
            a receiver that loads pickles has a use for it.
        exactly: Send the arguments of a builtin exception as well, for :func:`same_error`.

    Threads: any. It calls methods of the exception.
    """
    return Failure(
        type_name(error),
        _cut(safe_str(error)),
        _cut(format_error(error)),
        {**_details_of(error), **(_arguments_of(error) if exactly else {})},
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


def same_error(failure: Failure) -> BaseException:
    """The exception itself, where it is one of ours or a builtin one; else a RemoteError.

    Of a builtin one that was described exactly the arguments are the same, if they are plain; of
    any other the text. No code of the other process runs for it.
    """
    described = error_of(failure)
    if not isinstance(described, RemoteError):
        return described
    kind = _builtin_kind(failure.type_name)
    arguments = failure.details.get("args", [failure.message] if failure.message else [])
    if kind is None or not isinstance(arguments, list):
        return described
    try:
        error: BaseException = kind(*arguments)
    except (TypeError, ValueError):  # some want more than a text
        return described
    error.__cause__ = described  # its text shows where in the other process it was raised
    return error


def _builtin_kind(name: str) -> type[BaseException] | None:
    """The exception class of Python itself that is called *name*, if there is one."""
    if name == _CANCELLED:
        return asyncio.CancelledError
    module, _, name = name.rpartition(".")
    kind = vars(builtins).get(name) if module == "builtins" else None
    is_error = isinstance(kind, type) and issubclass(kind, BaseException)
    return kind if is_error else None


def _arguments_of(error: BaseException) -> dict[str, Any]:
    """The arguments of a builtin exception, where they are plain."""
    arguments = error.args if _builtin_kind(type_name(error)) is type(error) else ()
    if not arguments or any(_plain(it) is not it for it in arguments):
        return {}
    return {"args": list(arguments)}


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
