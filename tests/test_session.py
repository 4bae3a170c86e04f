"""What a session refuses to be opened with."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from either_home import raises_there
from isthmus import AnySession, Journal, ReservedNameError, Session

requirement = pytest.mark.requirement


@requirement("4-given")
@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        (len, TypeError, "as a list or by name"),
        ([lambda: 1], TypeError, "no name of its own"),
        ([str.upper, bytes.upper], ValueError, "two capabilities are called 'upper'"),
        ({"_": len}, ReservedNameError, "bound in every namespace"),
        ({"asyncio": len}, ReservedNameError, "bound in every namespace"),
    ],
)
def test_capabilities_that_cannot_be_given_are_refused_by_name(
    given: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        Session(capabilities=given)


@requirement("4-given")
@pytest.mark.parametrize(
    ("interceptors", "words"),
    [
        (Journal(), "given as a list"),
        (5, "given as a list"),
        ([Journal], r"not its class: Journal\(\.\.\.\)"),
        ([5], r"async function \(call, proceed\), not 5"),
    ],
)
def test_interceptors_that_cannot_be_given_are_refused_by_name(
    interceptors: Any, words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        Session(interceptors=interceptors)


@requirement("4-given")
def test_a_constructor_that_raises_leaves_no_session_behind() -> None:
    with pytest.raises(TypeError, match="send"):
        Session(transport=5)  # type: ignore[arg-type]


@requirement("4-given")
async def test_a_sync_interceptor_is_named_when_it_is_called(session: AnySession) -> None:
    def no_interceptor(call: Any, proceed: Any) -> int:
        return 1

    session.inject_capability("double", lambda it: 2 * it, interceptors=[no_interceptor])  # type: ignore[list-item]
    with raises_there(TypeError, match=r"no_interceptor.*is not async"):
        await session.execute("double(1)")


@requirement("4-given")
def test_the_warning_of_a_hidden_builtin_points_at_the_host() -> None:
    with pytest.warns(UserWarning, match="hides the builtin") as warned:
        session = Session(capabilities={"open": len})
    asyncio.run(session.close())
    assert [it.filename for it in warned] == [__file__]


@requirement("3.4-order")
async def test_a_thread_that_the_system_does_not_give_is_an_error_of_the_cell_alone(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> int:
        raise RuntimeError("can't start new thread")

    name = next(it for it in dir(threading) if it.startswith("_start_"))
    with monkeypatch.context() as patch:
        patch.setattr(threading, name, refuse)
        for options in ({}, {"concurrent": True}):
            results = await asyncio.gather(
                session.run("1", context="thread", **options),
                session.run("2", context="async"),
                session.run("3", context="thread", **options),
            )
            assert [str(it.error) for it in results] == [
                "can't start new thread",
                "None",
                "can't start new thread",
            ]
    assert await session.execute("4", context="thread") == 4
