"""A session in a process of its own, for code without an event loop."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from isthmus import (
    BlockingSession,
    BlockingWorkerSession,
    DeadlockError,
    ForkServer,
    RemoteError,
    Session,
    SessionClosedError,
    UnknownNameError,
    WorkerDied,
    WorkerSession,
    open_session,
)
from support import CONTEXTS, cell, run_in_child

requirement = pytest.mark.requirement


def _members(kind: type) -> dict[str, Any]:
    found = {name: inspect.getattr_static(kind, name) for name in dir(kind)}
    return {name: it for name, it in found.items() if not name.startswith("_")}


@requirement("8-blocking-session", "7.1-same-interface")
def test_its_public_members_are_those_of_a_worker_session_with_the_same_signatures() -> None:
    awaited, plain = _members(WorkerSession), _members(BlockingWorkerSession)
    assert set(plain) == set(awaited)
    for name, member in awaited.items():
        made = plain[name]
        assert type(made) is type(member), name
        assert inspect.getdoc(made), name
        if isinstance(member, property):
            continue
        assert inspect.signature(made) == inspect.signature(member), name
        assert not inspect.iscoroutinefunction(made), name
        assert made.__qualname__ in (f"BlockingWorkerSession.{name}", "BlockingFront.close")
    assert inspect.signature(BlockingWorkerSession) == inspect.signature(WorkerSession)


@requirement("7.1-same-interface")
async def test_each_kind_of_session_is_opened_by_what_it_is_to_be() -> None:
    for worker, awaited in ((False, Session), (True, WorkerSession)):
        opened = open_session("named", worker=worker)
        assert (type(opened), opened.name) == (awaited, "named")
        await opened.close()
    for worker, kind in ((False, BlockingSession), (True, BlockingWorkerSession)):
        with open_session("named", worker=worker, blocking=True) as session:
            assert (type(session), session.name) == (kind, "named")


@requirement("8-blocking-session", "7.1-same-interface")
def test_one_program_serves_both_kinds(fork_server: ForkServer) -> None:
    async def look_up(word: str) -> str:
        await asyncio.sleep(0)
        return word.upper()

    where: dict[bool, dict[str, Any]] = {False: {}, True: {"fork_server": fork_server}}
    for worker in (False, True):
        options = {"capabilities": [look_up], **where[worker]}
        with open_session(worker=worker, blocking=True, **options) as session:
            session.update_namespace({"a": 1})
            session.set("b", [2])
            for context in CONTEXTS:
                result = session.run("print('hi')\nawait look_up('ab')", context=context)
                assert (result.value, result.context, result.stdout) == ("AB", context, "hi\n")
            assert (session.get("a"), session.get("b")) == (1, [2])
            session.delete("a")
            with pytest.raises(UnknownNameError):
                session.get("a")
            assert {it.name for it in session.list_names()} == set(session.snapshot())
            session.execute("go = asyncio.Event()")
            session.execute("async def twice(n): await go.wait(); return 2 * n")
            session.execute("left = twice(4)")
            assert list(session.pending_coroutines) == ["left"]
            assert [it.name for it in session.ledger()] == ["left"]
            assert session.census()["task"] == 1
            session.execute("go.set()")
            assert session.call("twice", 4) == session.run_call("twice", [4]).value == 8
            assert session.await_pending_coroutines() == {"left": 8}
            assert session.report().startswith("session 'session'")
            session.inject_capability("here", threading.get_ident)
            assert "here" in session.capabilities
            session.revoke_capability("here")
            assert session.reset().clean
            assert "b" not in session.snapshot()
            with ThreadPoolExecutor(4) as views:  # as those of a web framework
                session.execute("count = 0")
                list(views.map(lambda _: session.execute("count += 1"), range(20)))
            assert session.get("count") == 20
            assert not session.closed
        assert session.closed
        for call in (lambda: session.run("1"), lambda: session.get("x"), session.__enter__):
            with pytest.raises(SessionClosedError):
                call()
        assert session.close().clean


@requirement("8-blocking-session", "7.5-death")
def test_deaths_deadlines_and_restarts(fork_server: ForkServer) -> None:
    with BlockingWorkerSession(fork_server=fork_server) as session:
        pid = session.pid
        assert session.execute("import os; os.getpid()") == pid != os.getpid()
        assert session.run("while True: pass", timeout=0.1).status == "timeout"
        with pytest.raises(WorkerDied, match="exit code 3"):
            session.execute("import os; os._exit(3)")
        session.restart()
        assert session.execute("1 + 1") == 2
        assert session.pid not in (None, pid)
        with pytest.raises(RemoteError, match="ZeroDivisionError"):
            session.execute("1 / 0")


@requirement("8-blocking-session", "4.5-deadlocks")
def test_calls_from_its_own_loop_are_refused_and_from_threads_are_nested(
    fork_server: ForkServer,
) -> None:
    def from_the_loop() -> None:
        session.run("1")

    async def from_a_thread() -> Any:
        return await asyncio.to_thread(session.execute, "x + 1")

    tools = [from_the_loop, from_a_thread]
    with BlockingWorkerSession(capabilities=tools, fork_server=fork_server) as session:
        session.set("x", 1)
        for context in CONTEXTS:
            result = session.run("from_the_loop()", context=context)
            assert isinstance(result.error, DeadlockError), result.error
            assert "called by code on the thread" in str(result.error)
            assert session.execute("from_a_thread()", context=context) == 2


@requirement("8-blocking-session")
def test_a_session_that_is_dropped_ends_its_process(fork_server: ForkServer) -> None:
    session = BlockingWorkerSession(fork_server=fork_server)
    session.start()
    background = session._background
    with pytest.warns(ResourceWarning, match="unclosed blocking worker session"):
        del session
        gc.collect()
    assert background.join(20)


@requirement("8-blocking-session", "7.5-orphans")
def test_ctrl_c_cancels_the_cell_and_a_session_that_is_open_at_exit_hinders_nobody() -> None:
    code = cell(f"""
        import os, signal, threading
        from isthmus import BlockingWorkerSession
        session = BlockingWorkerSession()
        session.start()
        threading.Timer(0.2, os.kill, (os.getpid(), signal.{signal.SIGINT.name})).start()
        try:
            session.run("while True: pass", context="sync")
        except KeyboardInterrupt:
            print("interrupted", session.execute("1 + 1"))
        """)
    started = time.monotonic()
    result = run_in_child(code)
    assert "interrupted 2" in result.stdout, result
    assert time.monotonic() - started < 60
