"""Tracebacks without this package's frames; texts of values that misbehave."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

import isthmus
from isthmus.tracebacks import format_error, safe_repr, safe_str, trim

requirement = pytest.mark.requirement

OURS = str(Path(isthmus.__file__).parent / "somewhere.py")


def raise_through_ours(error: BaseException) -> BaseException:
    """*error* with frames: this test's, one of the package's, this test's again."""
    names: dict[str, object] = {"error": error, "fail": _fail}
    exec(compile("def ours():\n    fail(error)\n", OURS, "exec"), names)
    try:
        names["ours"]()  # type: ignore[operator]
    except BaseException as caught:
        return caught
    raise AssertionError


def _fail(error: BaseException) -> None:
    raise error


def files(error: BaseException) -> set[str]:
    """The files of the frames of *error*."""
    return {frame.filename for frame in traceback.extract_tb(error.__traceback__)}


@requirement("6.3-tracebacks")
def test_our_frames_go_and_the_others_stay() -> None:
    error = raise_through_ours(ValueError("x"))
    assert OURS in files(error)
    assert trim(error) is error
    assert files(error) == {__file__}
    assert [it.name for it in traceback.extract_tb(error.__traceback__)] == [
        "raise_through_ours",
        "_fail",
    ]


@requirement("6.3-tracebacks")
def test_causes_contexts_and_members_of_groups_are_trimmed() -> None:
    cause, context = raise_through_ours(KeyError()), raise_through_ours(IndexError())
    member = raise_through_ours(ValueError())
    group = raise_through_ours(BaseExceptionGroup("g", [member]))
    group.__cause__, cause.__context__ = cause, context
    trim(group)
    for error in (cause, context, member, group):
        assert files(error) == {__file__}


@requirement("6.3-tracebacks")
def test_a_circle_of_exceptions_ends() -> None:
    one, two = raise_through_ours(ValueError()), raise_through_ours(KeyError())
    one.__context__, two.__context__ = two, one
    assert trim(one) is one


class Mute(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise ValueError

    __repr__ = __str__


@requirement("bad-repr")
def test_what_cannot_be_shown_is_named() -> None:
    assert safe_repr(5) == "5"
    assert "Mute" in safe_repr(Mute())
    assert "Mute" in safe_str(Mute())
    assert "Mute" in format_error(Mute())


@requirement("bad-repr")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_repr_that_raises_more_than_an_exception_is_named_too(kind: type[BaseException]) -> None:
    class Bad(Exception):
        def __repr__(self) -> str:
            raise kind

        __str__ = __repr__

    assert "Bad" in safe_repr(Bad())
    assert "Bad" in safe_str(Bad())
