"""Sessions of all kinds have one surface, but for what is listed here."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from isthmus import (
    AnySession,
    ForkServer,
    LedgerEntry,
    NameDescription,
    RemoteRepr,
    Session,
    WorkerSession,
    open_session,
)
from isthmus.worker.session import ELSEWHERE
from support import NewWorker, cell

requirement = pytest.mark.requirement

LIVE_OBJECTS = {"namespace", "view", "manager", "executor"}
"""What only a session in this process has: the objects themselves, which do not cross."""

OF_THE_PROCESS = {"pid", "start", "restart", "trusted"}
"""What only a worker has: a process, and whether pickles of it are loaded."""

OPTIONS_OF_THE_PROCESS = {
    *("python", "cwd", "env", "limits", "fork_server"),
    *("start_timeout", "grace_seconds", "trusted", "program"),
}
"""How that is started, and what it may do."""

OTHER_DEFAULTS = {"main": (False, True)}
"""A worker is its cells' own process: their module is its ``__main__``."""


def public(kind: type[Any]) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def attributes(session: Any) -> set[str]:
    """What a session has beside the names of its class."""
    return {name for name in vars(session) if not name.startswith("_")}


def parameters(method: Any) -> list[tuple[str, Any, Any]]:
    return [(it.name, it.kind, it.default) for it in inspect.signature(method).parameters.values()]


@requirement("7.1-same-interface")
async def test_the_names_of_both_kinds_are_the_same_but_for_what_is_listed() -> None:
    here, there = Session(), WorkerSession()
    names_here = public(Session) | attributes(here)
    names_there = public(WorkerSession) | attributes(there)
    assert names_here - names_there == LIVE_OBJECTS == set(ELSEWHERE)
    assert names_there - names_here == OF_THE_PROCESS
    promised = public(AnySession) | set(AnySession.__annotations__)
    assert names_here & names_there == promised
    await here.close()
    await there.close()


@requirement("7.1-same-interface")
def test_methods_of_both_kinds_take_the_same_arguments() -> None:
    for name in sorted(public(Session) & public(WorkerSession)):
        one, other = getattr(Session, name), getattr(WorkerSession, name)
        assert isinstance(one, property) == isinstance(other, property), name
        if not isinstance(one, property):
            assert parameters(one) == parameters(other) == parameters(getattr(AnySession, name))


@requirement("7.1-same-interface")
def test_options_of_both_kinds_are_the_same_but_for_what_is_listed() -> None:
    one = {name: (kind, default) for name, kind, default in parameters(Session.__init__)}
    other = {name: (kind, default) for name, kind, default in parameters(WorkerSession.__init__)}
    assert set(other) - set(one) == OPTIONS_OF_THE_PROCESS
    assert not set(one) - set(other)
    differing = {name: (it[1], other[name][1]) for name, it in one.items() if it != other[name]}
    assert differing == OTHER_DEFAULTS


@requirement("7.1-same-interface")
async def test_what_does_not_cross_says_what_to_do_instead() -> None:
    session = WorkerSession()
    for name, instead in ELSEWHERE.items():
        assert not hasattr(session, name)
        with pytest.raises(AttributeError, match="it is in the worker process") as raised:
            getattr(session, name)
        assert instead in str(raised.value)
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'$"):
        _ = session.nothing
    await session.close()


@requirement("7.1-same-interface")
@pytest.mark.parametrize("worker", [False, True])
async def test_one_program_serves_both_kinds(worker: bool, fork_server: ForkServer) -> None:
    where = {"fork_server": fork_server} if worker else {}
    session: AnySession = open_session("demo", worker=worker, **where)
    async with session:
        await session.update_namespace({"a": 1})
        source = cell("""
            async def wait(): await asyncio.Event().wait()
            left = wait()
            later = asyncio.create_task(wait(), name="later")
            """)
        await session.execute(source)
        assert (await session.snapshot())["a"] == 1
        pending = await session.pending_coroutines
        assert list(pending) == ["left"]
        assert "wait()" in repr(pending["left"])
        ledger = await session.ledger()
        assert [(it.kind, it.name, it.cell, it.line) for it in ledger] == [
            ("task", "later", 1, 3),
            ("task", "left", 1, 2),
        ]
        assert all(isinstance(it, LedgerEntry) for it in ledger)
        counts = await session.census()
        assert counts == {"coroutine": 0, "task": 2, "async generator": 0, "thread": 0}
        assert (await session.report()).startswith("session 'demo'\ncells: 1 run, 1 ok")
        names = await session.list_names(5)
        assert NameDescription("a", "builtins.int", "1") in names
        assert {it.name for it in names} == set(await session.snapshot())
        assert {it.text for it in await session.list_names()} == {""}


@requirement("7.1-same-interface")
async def test_coroutines_that_are_pending_in_a_worker_are_shown(new_worker: NewWorker) -> None:
    async with new_worker() as session:
        await session.execute("async def wait(): await asyncio.Event().wait()\nleft = wait()")
        shown = (await session.pending_coroutines)["left"]
        assert isinstance(shown, RemoteRepr)
        assert shown.problem == "it belongs to the worker"
