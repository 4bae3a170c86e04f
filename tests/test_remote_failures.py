"""Exceptions between processes."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from isthmus import (
    CellExit,
    CellInterrupted,
    IsthmusError,
    RemoteError,
    UnknownNameError,
    errors,
)
from isthmus.remote_failures import error_of, failure_of, same_error
from isthmus.values import PackedValue
from isthmus.wire.codec import Encoder, message_decoder
from isthmus.wire.frames import Buffer
from isthmus.wire.parts import Failure
from isthmus.wire.replies import Failed

requirement = pytest.mark.requirement


def crossed(error: BaseException) -> BaseException:
    """*error* as it arrives at the other side."""
    decoder = message_decoder("host")
    decoder.feed(Encoder().encode(Failed(1, failure_of(error))))
    received = decoder.next_frame()
    assert received is not None
    return error_of(received.message.error)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


@requirement("7.4-failures")
def test_an_exception_arrives_with_type_message_and_traceback() -> None:
    class OwnError(Exception):
        pass

    there = crossed(raised(OwnError("a", "b")))
    assert isinstance(there, RemoteError)
    assert there.type == f"{__name__}.{OwnError.__qualname__}"
    assert there.message == "('a', 'b')"
    assert there.traceback.startswith("Traceback") and "raise error" in there.traceback
    assert str(crossed(ValueError("no"))) == "ValueError: no"
    assert str(crossed(KeyError())) == "KeyError"


@requirement("7.4-failures")
def test_ours_arrive_as_themselves() -> None:
    kinds = [it for it in vars(errors).values() if inspect.isclass(it)]
    kinds = [it for it in kinds if issubclass(it, IsthmusError | CellInterrupted)]
    for kind in kinds:
        if kind is not RemoteError:
            there = crossed(kind("what happened"))
            assert type(there) is kind and str(there) == "what happened"
    unknown = crossed(UnknownNameError("x is not bound", "x"))
    assert isinstance(unknown, UnknownNameError) and unknown.name == "x"
    ended = crossed(CellExit("it called sys.exit(3)", 3))
    assert isinstance(ended, CellExit) and ended.code == 3


@requirement("7.4-failures")
@pytest.mark.parametrize(
    ("code", "expected"),
    [(3, 3), (None, None), ("bye", "bye"), (True, True), (2**70, str(2**70)), ([1], "[1]")],
)
def test_an_exit_arrives_with_its_code(code: Any, expected: object) -> None:
    there = crossed(SystemExit(code))
    assert isinstance(there, RemoteError)
    assert (there.type, there.details) == ("builtins.SystemExit", {"code": expected})


@requirement("7.4-failures")
def test_what_an_exception_says_of_itself_may_be_broken() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise KeyboardInterrupt

    there = crossed(raised(BrokenError()))
    assert isinstance(there, RemoteError)
    assert "whose __str__ raised KeyboardInterrupt" in there.message
    assert str(crossed(ValueError("\udcff"))) == "ValueError: \udcff"


@requirement("7.4-failures")
def test_no_peer_can_have_other_classes_made() -> None:
    for name in ("os.system", "isthmus.errors.Mapping", "isthmus.errors.annotations", "x", "", "."):
        assert type(error_of(Failure(name, "text"))) is RemoteError
    odd = error_of(Failure("isthmus.errors.UnknownNameError", details={"args": 1, "name": "x"}))
    assert isinstance(odd, UnknownNameError)
    assert (odd.name, odd.args) == ("x", ("",))


@requirement("7.4-failures")
def test_the_exception_itself_can_come_along() -> None:
    buffers: list[Buffer] = []
    failure = failure_of(ValueError("no"), buffers)
    there = PackedValue(failure.exception, buffers).load(trusted=True)
    assert type(there) is ValueError and there.args == ("no",)
    assert failure_of(ValueError("no")).exception is None


@requirement("7.4-failures")
def test_a_remote_error_can_be_sent_on() -> None:
    first = crossed(raised(ValueError("no")))
    assert isinstance(first, RemoteError)
    again = crossed(first)
    assert isinstance(again, RemoteError)
    assert (again.type, again.message) == ("isthmus.errors.RemoteError", "ValueError: no")


@requirement("7.4-failures")
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("x", 1), "KeyError('x', 1)"),
        (OSError(2, "gone"), "FileNotFoundError(2, 'gone')"),
        (asyncio.CancelledError(), "CancelledError()"),
        (ValueError(object), "ValueError(\"<class 'object'>\")"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "why"), "RemoteError('builtins.UnicodeDecodeErr"),
        (UnknownNameError("no", "x"), "UnknownNameError('no')"),
        (type("Own", (KeyError,), {})("x"), "RemoteError("),
    ],
)
def test_builtin_errors_can_be_made_again_without_loading_anything(
    error: BaseException, text: str
) -> None:
    made = same_error(failure_of(error, exactly=True))
    assert repr(made).startswith(text)
    if type(made) is type(error) and not isinstance(made, IsthmusError):
        assert isinstance(made.__cause__, RemoteError)
    assert same_error(Failure("builtins.print", "text")).__class__ is RemoteError
