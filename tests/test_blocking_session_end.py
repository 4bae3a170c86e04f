"""The end of a session for code without an event loop: closed, dropped, interrupted, or never."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from isthmus import BlockingSession, CellResult, SessionClosedError
from support import WAIT_SECONDS, cell, in_threads, run_in_child, wait_until

requirement = pytest.mark.requirement


@requirement("8-blocking-session", "close")
def test_leaving_it_ends_everything_that_its_cells_have_started() -> None:
    """The census after each test looks for threads, descriptors and modules."""
    ended: list[str] = []
    with BlockingSession() as session:
        session.set("ended", ended)
        session.execute("""
import threading

async def numbers():
    try:
        yield 1
    finally:
        ended.append("generator")

async def idle():
    try:
        await asyncio.sleep(600)
    finally:
        ended.append("task")

generator = numbers()
await anext(generator)
task = asyncio.create_task(idle())
await asyncio.get_running_loop().run_in_executor(None, threading.get_ident)
""")
        session.execute("x = 1", context="thread")
        loop = session.session.manager.loop
        with pytest.raises(KeyError), session:
            raise KeyError  # left by an error, and then once more
    assert sorted(ended) == ["generator", "task"]
    assert loop is not None and loop.is_closed() and session.closed


@requirement("8-blocking-session", "bad-after-close")
def test_after_the_end_calls_are_refused() -> None:
    session = BlockingSession()
    session.execute("x = 1")
    assert not session.closed
    report = session.close()
    assert report.clean and session.close() == report and session.closed
    refused: list[Callable[[], object]] = [
        lambda: session.run("1"),
        lambda: session.execute("1"),
        lambda: session.call("print"),
        lambda: session.run_call("print"),
        lambda: session.get("x"),
        lambda: session.set("x", 1),
        lambda: session.delete("x"),
        lambda: session.update_namespace({"x": 1}),
        lambda: session.inject_capability("f", print),
        session.await_pending_coroutines,
        session.__enter__,
    ]
    for call in refused:
        with pytest.raises(SessionClosedError):
            call()
    assert session.view["x"] == 1 and not session.interrupt()


@requirement("8-blocking-session", "close")
def test_several_threads_close_it_at_once(context: str) -> None:
    session = BlockingSession()
    started = threading.Event()
    session.set("started", started)

    def run() -> str:
        code = "started.set()\nawait asyncio.sleep(600)"
        return session.run(code, context=context).status  # type: ignore[arg-type]

    def close() -> Any:
        assert started.wait(WAIT_SECONDS)
        return session.close()

    status, *reports = in_threads(run, *[close] * 4)
    assert status == "cancelled"
    assert all(report.clean for report in reports) and len(set(reports)) == 1


@requirement("8-blocking-session", "close")
def test_calls_that_race_with_its_end_have_an_outcome() -> None:
    for _ in range(10):
        session = BlockingSession()
        barrier = threading.Barrier(4)

        def run(session: BlockingSession = session, barrier: threading.Barrier = barrier) -> str:
            barrier.wait(WAIT_SECONDS)
            try:
                while True:
                    session.run("await asyncio.sleep(0)")
                    session.await_pending_coroutines()
            except SessionClosedError:
                return "refused"

        def close(session: BlockingSession = session, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait(WAIT_SECONDS)
            return session.close().clean

        assert in_threads(run, run, run, close) == ["refused"] * 3 + [True]


@requirement("8-blocking-session", "close")
def test_what_would_not_end_is_reported_and_ends_later() -> None:
    session = BlockingSession()
    go, started = threading.Event(), threading.Event()
    session.update_namespace({"go": go, "started": started})

    def hog() -> CellResult:
        return session.run("started.set()\ngo.wait(30)", context="sync")

    def close() -> Any:
        assert started.wait(WAIT_SECONDS)
        report = session.close(timeout=0.01)
        go.set()
        return report

    result, report = in_threads(hog, close)
    assert not report.clean and report.loop and report.cells == (1,)
    assert result.cell == 1
    assert session.close().loop is False
    assert session.closed


@requirement("8-blocking-session", "close")
def test_a_task_that_hogs_the_loop_when_it_is_cancelled_does_not_hold_up_its_end() -> None:
    go = threading.Event()
    session = BlockingSession()
    session.set("go", go)
    session.execute("""
async def stubborn():
    try:
        await asyncio.sleep(600)
    finally:
        go.wait(30)

task = asyncio.create_task(stubborn())
await asyncio.sleep(0)
""")
    assert session.close(timeout=0.01).loop
    go.set()
    assert session.close().loop is False


@requirement("8-blocking-session", "close")
def test_dropped_without_close_it_warns_and_ends_by_itself() -> None:
    """The census looks for its threads, its loop's descriptors and its module."""
    ended = threading.Event()
    session = BlockingSession("forgotten")
    session.set("ended", ended)
    session.execute("x = 1", context="thread")
    session.execute("""
async def idle():
    try:
        await asyncio.sleep(600)
    finally:
        ended.set()

task = asyncio.create_task(idle())
await asyncio.sleep(0)
""")
    inner = weakref.ref(session.session)
    with pytest.warns(ResourceWarning, match="unclosed blocking session 'forgotten'"):
        del session
        gc.collect()
    assert ended.wait(WAIT_SECONDS)

    def gone() -> bool:
        gc.collect()
        return inner() is None

    wait_until(gone)


@requirement("8-blocking-session")
def test_a_thread_that_cannot_be_started_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        BlockingSession()


# -- Ctrl-C, and the end of the process ------------------------------------------------------------


CTRL_C = """
import os, sys, threading
from isthmus import BlockingSession

code, context = sys.argv[1:]
session = BlockingSession()
session.namespace["ready"] = lambda: os.write(1, b"ready\\n")
try:
    session.run(code, context=context)
except KeyboardInterrupt:
    print("interrupted", session.namespace.get("cleaned"), flush=True)
print(session.execute("await asyncio.sleep(0, 'goes on')", timeout=5))
clean = session.close().clean
for thread in set(threading.enumerate()) - {threading.main_thread()}:
    thread.join(5)
print(clean, threading.active_count())
"""

AWAITING = cell("""
    try:
        ready()
        await asyncio.sleep(600)
    finally:
        cleaned = "cleaned up"
    """)


@requirement("8-blocking-session")
def test_ctrl_c_stops_the_cell_and_goes_on(context: str) -> None:
    ended = run_in_child(CTRL_C, AWAITING, context, interrupt_at="ready")
    assert ended.stdout.split("\n") == [
        "ready",
        "interrupted cleaned up",
        "goes on",
        "True 1",
        "",
    ], ended
    assert (ended.status, ended.stderr) == (0, "")


@requirement("8-blocking-session")
def test_ctrl_c_stops_a_cell_that_computes_in_a_thread() -> None:
    ended = run_in_child(CTRL_C, "ready()\nwhile True: pass", "thread", interrupt_at="ready")
    assert "interrupted None\ngoes on\nTrue 1\n" in ended.stdout, ended


@requirement("8-blocking-session")
def test_ctrl_c_gets_through_though_a_cell_hogs_the_loop() -> None:
    program = """
        import os
        from isthmus import BlockingSession

        with BlockingSession() as session:
            session.namespace["ready"] = lambda: os.write(1, b"ready\\n")
            session.run("ready()\\nwhile True: pass")
        """
    ended = run_in_child(program, interrupt_at="ready")
    assert ended.status != 0 and "KeyboardInterrupt" in ended.stderr, ended


@requirement("8-blocking-session")
@pytest.mark.parametrize(
    "left", ["pass", "task = asyncio.create_task(asyncio.sleep(600))", "busy()"]
)
def test_a_process_that_never_closes_it_exits(left: str) -> None:
    program = f"""
        import threading
        from isthmus import BlockingSession

        session = BlockingSession()
        started = threading.Event()
        session.set("started", started)
        session.execute("x = 1", context="thread")

        def busy():
            def run():
                try:
                    session.run("started.set()\\nwhile True: pass")
                except BaseException:
                    pass
            threading.Thread(target=run, daemon=True).start()
            started.wait()

        {left if "busy" in left else f"session.execute({left!r})"}
        print("the end")
        """
    ended = run_in_child(program)
    assert (ended.status, ended.stdout, ended.stderr) == (0, "the end\n", "")
