"""Trace functions, profilers, monitoring and coverage over `run_sync`: they see what there is."""

from __future__ import annotations

import ast
import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import coverage
import pytest

from isthmus import Session
from support import cell, eventually

DEFINITIONS = """
async def answer(n):
    before = n
    await asyncio.sleep(0.001)
    return before + 1
def work():
    first = run_sync(asyncio.sleep(0.001, 2))
    second = run_sync(answer(first))
    return first + second
async def never():
    await asyncio.Event().wait()
def wait():
    return run_sync(never())
"""

Seen = tuple[str, str, int]
"""An event, its function, and its line, counted from that of the function."""


class Recorder:
    """A trace function, or a profiler, that keeps what it is told of the functions of cells."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def __call__(self, frame: FrameType, event: str, argument: object) -> Recorder:
        code = frame.f_code
        if code.co_filename.startswith("<session cell") and code.co_name != "<module>":
            line = (frame.f_lineno or 0) - code.co_firstlineno
            self.seen.append((event, code.co_name, line))
        return self

    def of(self, name: str) -> list[Seen]:
        """What was seen of this function."""
        return [it for it in self.seen if it[1] == name]


SET = {"trace": (sys.gettrace, sys.settrace), "profile": (sys.getprofile, sys.setprofile)}
Watch = tuple[Any, Any]
"""How to read and how to set the thread's function."""


@pytest.fixture(params=SET)
def watch(request: pytest.FixtureRequest) -> Watch:
    """A trace function, then a profiler."""
    return SET[request.param]


@pytest.fixture
def recorder() -> Recorder:
    """A fresh one."""
    return Recorder()


def observed(session: Session, watch: Watch, recorder: Recorder, call: str) -> str:
    """A cell that calls *call* under *recorder*; its value says whether that is still set."""
    get, put = watch
    session.update_namespace({"get_function": get, "set_function": put, "recorder": recorder})
    return cell(f"""
        previous = get_function()
        set_function(recorder)
        try:
            value = {call}
            still = get_function()
        finally:
            set_function(previous)
        value, still is recorder
        """)


def assert_balanced(seen: list[Seen]) -> None:
    """Each function that was entered, or entered again, was left as often."""
    entered = Counter(name for event, name, _ in seen if event == "call")
    left = Counter(name for event, name, _ in seen if event == "return")
    assert entered == left != Counter()


# -- trace functions and profilers -------------------------------------------------------------


@pytest.mark.requirement("4.1-debuggers")
async def test_what_is_set_stays_set_over_run_sync_and_sees_every_call_and_return(
    session: Session, context: Any, watch: Watch, recorder: Recorder
) -> None:
    before = watch[0]()
    await session.execute(DEFINITIONS)
    code = observed(session, watch, recorder, "work()")
    assert await session.execute(code, context=context) == (5, True)
    assert watch[0]() is before
    assert sys._getframe().f_trace is None
    assert_balanced(recorder.seen)
    assert [it[0] for it in recorder.of("work") if it[0] != "line"] == ["call", "return"]
    on_this_thread = bool(recorder.of("answer"))
    assert on_this_thread == (context != "thread")


@pytest.mark.requirement("4.1-debuggers")
async def test_a_trace_function_sees_each_line_once_and_in_order(
    session: Session, context: Any, recorder: Recorder
) -> None:
    await session.execute(DEFINITIONS)
    await session.execute(observed(session, SET["trace"], recorder, "work()"), context=context)
    lines = [("line", "work", line) for line in (1, 2, 3)]
    assert recorder.of("work") == [("call", "work", 0), *lines, ("return", "work", 3)]


@pytest.mark.requirement("4.1-debuggers")
@pytest.mark.parametrize("on_loop", ["async", "sync"])
async def test_an_async_function_below_run_sync_looks_as_it_does_below_await(
    session: Session, watch: Watch, recorder: Recorder, on_loop: Any
) -> None:
    get, put = watch
    await session.execute(DEFINITIONS)
    await session.execute(observed(session, watch, recorder, "work()"), context=on_loop)
    below_await, previous = Recorder(), get()
    put(below_await)
    try:
        await session.namespace["answer"](2)
    finally:
        put(previous)
    assert recorder.of("answer") == below_await.of("answer") != []


@pytest.mark.requirement("4.1-debuggers")
async def test_calls_and_returns_are_balanced_when_the_wait_is_cancelled(
    session: Session, context: Any, watch: Watch, recorder: Recorder
) -> None:
    before = watch[0]()
    await session.execute(DEFINITIONS)
    code = observed(session, watch, recorder, "wait()")
    running = asyncio.ensure_future(session.run(code, context=context))
    await eventually(lambda: recorder.of("wait"))
    assert (watch[0]() is before) == (context == "thread")  # a thread's function is its own
    session.interrupt()
    assert (await running).status == "cancelled"
    assert watch[0]() is before
    assert_balanced(recorder.seen)


@pytest.mark.requirement("4.1-debuggers")
async def test_what_a_thread_cell_sets_is_set_in_the_home_thread_alone(
    session: Session, watch: Watch, recorder: Recorder
) -> None:
    get, put = watch
    before = get()
    session.update_namespace({"get_function": get, "set_function": put, "recorder": recorder})
    await session.execute(DEFINITIONS)
    await session.execute("set_function(recorder)\nawait asyncio.sleep(0)", context="thread")
    assert get() is before
    is_set = "get_function() is recorder"
    assert await session.execute(is_set, context="sync") is False
    assert await session.execute(f"work(), {is_set}", context="thread") == (5, True)
    await session.execute("set_function(None)", context="thread")
    assert_balanced(recorder.of("work"))


# -- monitoring --------------------------------------------------------------------------------


@pytest.mark.requirement("4.1-debuggers")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring: Python 3.12")
async def test_monitoring_sees_each_start_suspension_and_return(
    session: Session, context: Any
) -> None:
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
    kinds = [monitoring.events.PY_START, monitoring.events.PY_YIELD]
    kinds += [monitoring.events.PY_RESUME, monitoring.events.PY_RETURN]
    start, suspend, resume, end = kinds
    seen: list[tuple[int, str]] = []
    await session.execute(DEFINITIONS)
    codes = [session.namespace[name].__code__ for name in ("work", "answer")]
    tool = next(it for it in range(6) if monitoring.get_tool(it) is None)
    monitoring.use_tool_id(tool, "isthmus tests")
    try:
        for kind in kinds:
            monitoring.register_callback(
                tool, kind, lambda code, *_, kind=kind: seen.append((kind, code.co_name))
            )
        for code in codes:
            monitoring.set_local_events(tool, code, sum(kinds))
        assert await session.execute("work()", context=context) == 5
    finally:
        for code in codes:
            monitoring.set_local_events(tool, code, 0)
        for kind in kinds:
            monitoring.register_callback(tool, kind, None)
        monitoring.free_tool_id(tool)
    below = [(kind, "answer") for kind in (start, suspend, resume, end)]
    assert seen == [(start, "work"), *below, (end, "work")]


# -- coverage ----------------------------------------------------------------------------------

MODULE = """\
import asyncio


async def answer(n):
    before = n
    await asyncio.sleep(0.001)
    after = before + 1
    if after < 0:
        after = 0  # never
    return after


def work(run_sync, n):
    first = n
    if first < 0:
        return 0  # never
    second = run_sync(asyncio.sleep(0.001, first))
    third = run_sync(answer(second))
    for i in range(2):
        third += run_sync(answer(i))
        if third < 0:
            third = 0  # never
    return third


def unused():
    return 0  # never
"""

CELL = """\
# %% [{context}]
import app
def in_{context}(n):
    before = n
    found = run_sync(app.answer(n))
    if found < 0:
        found = 0  # never
    return found + app.work(run_sync, before)
in_{context}(1)
await asyncio.sleep(0.001)
if in_{context}(2) < 0:
    found = 0  # never
last = await asyncio.gather(*(app.answer(i) for i in range(3)))
"""

ON_LOOP = "".join(CELL.format(context=it) for it in ("async", "sync"))
ALL = ON_LOOP + CELL.format(context="thread")


def lines_that_run(source: str) -> list[int]:
    """The lines of *source* on which a statement begins, but those that say that they never run."""
    lines = source.splitlines()
    begun = {it.lineno for it in ast.walk(ast.parse(source)) if isinstance(it, ast.stmt)}
    return sorted(it for it in begun if "# never" not in lines[it - 1])


def lines_measured(folder: Path, concurrency: str | None, core: str) -> dict[str, list[int]]:
    """Run the script in *folder* under coverage: the lines executed, by file."""
    (folder / "app.py").write_text(MODULE)
    (folder / "cells.py").write_text(ALL)
    setting = [f"--concurrency={concurrency}"] if concurrency else []
    command = [sys.executable, "-m", "coverage", "run", "--data-file=measured", *setting]
    command += [f"--include={folder}/*", "-m", "isthmus", "run", "--quiet", "cells.py"]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COVERAGE_CORE": core},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    data = coverage.CoverageData(str(folder / "measured"))
    data.read()
    measured = {Path(it).name: sorted(data.lines(it) or ()) for it in data.measured_files()}
    data.close()
    return measured


@pytest.mark.requirement("4.1-debuggers")
@pytest.mark.parametrize(
    ("concurrency", "core", "source"),
    [
        pytest.param("greenlet", "ctrace", ON_LOOP, id="greenlet"),
        pytest.param("thread,greenlet", "ctrace", ALL, id="thread and greenlet"),
        pytest.param(
            None,
            "sysmon",
            ALL,
            id="sysmon",
            marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring: 3.12"),
        ),
    ],
)
def test_coverage_reports_exactly_the_lines_that_ran(
    tmp_path: Path, concurrency: str | None, core: str, source: str
) -> None:
    expected = {"app.py": lines_that_run(MODULE), "cells.py": lines_that_run(source)}
    assert lines_measured(tmp_path, concurrency, core) == expected
