"""Results and events: what a host learns of a cell."""

# ruff: noqa: E501 (a cell in one string reads better than one that is wrapped)

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable

import msgspec
import pytest

from either_home import error_name, frames_of, raises_there
from isthmus import (
    AnySession,
    AsyncExecutor,
    AsyncNamespaceManager,
    CellFinished,
    CellResult,
    CellStarted,
    CoroutineAdopted,
    Event,
    MemoryTransport,
    NamespaceUpdated,
    Output,
    RemoteError,
)
from support import CONTEXTS, eventually, on_one_loop

requirement = pytest.mark.requirement


# -- results -----------------------------------------------------------------------------------------


@requirement("results")
async def test_a_result_has_every_field(session: AnySession, context: str) -> None:
    code = (
        "import sys\nb = a = 1\nold = 2\ndel old\nprint('out')\nprint('err', file=sys.stderr)\n"
        "async def f(): return 1\nc = f()\nawait asyncio.sleep(0)\n'value'"
    )
    result = await session.run(code, context=context, filename="mine.py")
    assert isinstance(result, CellResult)
    assert result.cell == 1
    assert result.context == context
    assert result.filename == "mine.py"
    assert (result.status, result.value, result.error) == ("ok", "value", None)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    assert result.bound == ("a", "b", "c", "f", "sys")
    assert result.deleted == ("old",)
    assert result.exact
    assert result.adopted == ("c",)
    assert 0 < result.duration < 5
    assert result.stopped
    assert result.unwrap() == "value"
    assert await session.execute("await c") == 1


@requirement("results")
async def test_cells_are_numbered_from_one_over_contexts(session: AnySession) -> None:
    found = [
        (await session.run(code, context=context)).cell
        for code in ("1", "1 +")
        for context in CONTEXTS
    ]
    assert found == [1, 2, 3, 4, 5, 6]


@on_one_loop
@requirement("results")
@pytest.mark.parametrize(
    ("code", "bound", "exact"),
    [
        ("x = 1", ("x",), True),
        ("def f():\n    global g\n    g = 1\nf()", ("f", "g"), True),
        ("from math import *", None, False),
        ("globals()['hidden'] = 1", (), False),
        ("exec('hidden = 1')", (), False),
        ("if True:\n    for i in [1]: pass\nelse:\n    never = 1", ("i",), True),
        ("[inner for inner in [1]]\n(w := 2)", ("w",), True),
        ("import os.path, sys as system", ("os", "system"), True),
    ],
)
async def test_names_bound_are_reported_and_whether_exactly(
    session: AnySession, context: str, code: str, bound: tuple[str, ...] | None, exact: bool
) -> None:
    result = await session.run(code, context=context)
    assert result.exact is exact
    if bound is not None:
        assert result.bound == bound


@requirement("results")
async def test_a_failed_cell_reports_what_it_bound_and_is_not_exact(
    session: AnySession, context: str
) -> None:
    result = await session.run("a = 1\n1 / 0\nb = 2", context=context)
    assert result.status == "error"
    assert result.bound == ("a",)
    assert not result.exact


@requirement("results")
async def test_unwrap_raises_the_cells_own_exception(session: AnySession, context: str) -> None:
    result = await session.run("class Mine(Exception): pass\nraise Mine('text')", context=context)
    with pytest.raises(Exception, match="text") as caught:
        result.unwrap()
    assert caught.value is result.error and error_name(result.error) == "Mine"
    assert isinstance(caught.value, RemoteError) or type(caught.value) is await session.get("Mine")


@requirement("results")
async def test_a_result_is_held_by_nobody_else(session: AnySession, context: str) -> None:
    import gc
    import weakref

    await session.execute("class Big: pass\nclass Bad(Exception): pass")
    big = (await session.run("Big()", context=context)).value
    seen = weakref.ref(big)
    del big
    for _ in range(3):
        await session.run("1", context=context)
    gc.collect()
    assert seen() is None
    error = (await session.run("raise Bad()", context=context)).error
    assert error is not None
    seen = weakref.ref(error)
    del error
    await session.run("1", context=context)
    gc.collect()
    assert seen() is None


# -- tracebacks ----------------------------------------------------------------------------------------


@requirement("6.3-tracebacks")
async def test_a_traceback_shows_the_cells_lines_and_none_of_ours(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute(
        "async def deep(x):\n    await asyncio.sleep(0)\n    return 1 / x\n", context=first
    )
    code = "def middle():\n    return run_sync(deep(0))\nx = [middle() for _ in range(1)]"
    result = await session.run(code, context=second)
    assert result.traceback is not None
    assert [it for it in frames_of(result) if "listcomp" not in it] == [
        "<module>",
        "middle",
        "deep",
    ]
    lines = [it.strip() for it in result.traceback.splitlines()]
    source = "x = [middle() for _ in range(1)]", "return run_sync(deep(0))", "return 1 / x"
    assert set(source) <= set(lines)
    assert "isthmus/" not in result.traceback


@requirement("6.3-tracebacks")
async def test_causes_contexts_and_groups_are_trimmed_too(
    session: AnySession, context: str
) -> None:
    code = (
        "async def fail(): raise KeyError('k')\n"
        "def sync(): run_sync(fail())\n"
        "try:\n    sync()\nexcept KeyError as e:\n"
        "    raise ExceptionGroup('g', [ValueError('v')]) from e"
    )
    result = await session.run(code, context=context)
    text = result.traceback
    assert text is not None and "/isthmus/" not in text
    assert "KeyError" in text
    assert "run_sync(fail())" in text


@requirement("6.3-tracebacks")
async def test_a_syntax_error_points_at_the_users_line_and_column(
    session: AnySession, context: str
) -> None:
    result = await session.run("x = 1\ny = (1 +\nz = 3", context=context)
    assert error_name(result.error) == "SyntaxError"
    assert any(f", line {number}\n" in (result.traceback or "") for number in (2, 3))
    assert "^" in (result.traceback or "")
    with raises_there(SyntaxError):
        await session.execute("await =", context=context)


# -- output --------------------------------------------------------------------------------------------


@requirement("6.1-output")
async def test_output_goes_to_the_cell_that_caused_it(session: AnySession, context: str) -> None:
    code = (
        "import logging, sys, threading\nprint('direct')\n"
        "async def task(): print('task')\n"
        "await asyncio.gather(task(), task())\n"
        "sys.stdout.write('written\\n')\nsys.stdout.flush()\n"
        "print('no newline', end='')"
    )
    result = await session.run(code, context=context)
    assert result.stdout == "direct\ntask\ntask\nwritten\nno newline"


@requirement("6.1-output")
async def test_concurrent_cells_have_their_own_output(session: AnySession) -> None:
    await session.execute("meet = asyncio.Barrier(6)")
    code = "print('begin', {0})\nawait meet.wait()\nprint('end', {0})"
    results = await asyncio.gather(
        *[
            session.run(code.format(number), context=CONTEXTS[number % 3], concurrent=True)
            for number in range(6)
        ]
    )
    for number, result in enumerate(results):
        assert result.stdout == f"begin {number}\nend {number}\n"


@requirement("6.1-output")
async def test_output_of_code_of_no_cell_goes_where_it_always_went(
    session: AnySession, context: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await session.execute("print('cell')", context=context)
    print("host")
    assert capsys.readouterr().out == "host\n"


@requirement("6.1-output")
async def test_late_output_of_a_task_is_its_cells(
    make_session: Callable[..., AnySession], transport: MemoryTransport, context: str
) -> None:
    session = make_session(transport=transport)
    await session.execute(
        "go = asyncio.Event()\nasync def late():\n    await go.wait()\n    print('late')"
    )
    result = await session.run(
        "t = asyncio.ensure_future(late())"
        if context != "thread"
        else "await asyncio.sleep(0)\nt = asyncio.ensure_future(late())",
        context=context,
    )
    await session.execute("go.set()\nawait t")
    (output,) = transport.of_type(Output)
    assert (output.cell, output.text) == (result.cell, "late\n")


@requirement("6.1-output")
async def test_output_is_bounded_and_says_what_is_left_out(
    make_session: Callable[..., AnySession], context: str
) -> None:
    session = make_session(output_limit=10)
    result = await session.run("print('x' * 100)", context=context)
    assert result.stdout.startswith("x" * 10 + "\n[")
    assert "91 more characters" in result.stdout


@requirement("6.1-output")
async def test_without_hooks_output_is_left_alone(
    make_session: Callable[..., AnySession], context: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sys.stdout, asyncio.get_running_loop().get_task_factory()
    session = make_session(hooks=False)
    result = await session.run("print('plain')", context=context)
    assert (sys.stdout, asyncio.get_running_loop().get_task_factory()) == before
    assert result.stdout == ""
    assert capsys.readouterr().out == "plain\n"


# -- events --------------------------------------------------------------------------------------------


@requirement("events")
async def test_events_come_in_order(
    make_session: Callable[..., AnySession], transport: MemoryTransport, context: str
) -> None:
    session = make_session("named", transport=transport)
    session.update_namespace({"x": 1, "y": 2}, "the test")
    code = "import sys\nprint('one')\nprint('two', file=sys.stderr)\nawait asyncio.sleep(0)\nprint('three', end='')\nx + y"
    await session.run(code, context=context, title="a title")
    await session.run("1 / 0", context=context)
    kinds = [type(event).__name__ for event in transport]
    assert kinds == [
        "NamespaceUpdated",
        "CellStarted",
        "Output",
        "Output",
        "Output",
        "CellFinished",
        "CellStarted",
        "CellFinished",
    ]
    updated, started, *outputs, finished = transport.events[:6]
    assert updated == NamespaceUpdated("named", 0, ("x", "y"), "the test")
    assert isinstance(started, CellStarted)
    assert (started.session, started.cell, started.context) == ("named", 1, context)
    assert (started.source, started.title) == (code, "a title")
    assert [(it.stream, it.text) for it in outputs] == [  # type: ignore[attr-defined]
        ("stdout", "one\n"),
        ("stderr", "two\n"),
        ("stdout", "three"),
    ]
    assert isinstance(finished, CellFinished)
    assert (finished.status, finished.value, finished.error) == ("ok", "3", None)
    failed = transport.events[-1]
    assert isinstance(failed, CellFinished)
    assert (failed.status, failed.error, failed.message) == (
        "error",
        "ZeroDivisionError",
        "division by zero",
    )
    assert "1 / 0" in (failed.traceback or "")
    assert "/isthmus/" not in (failed.traceback or "")


@requirement("events")
async def test_a_finished_event_agrees_with_the_result(
    make_session: Callable[..., AnySession], transport: MemoryTransport, context: str
) -> None:
    session = make_session(transport=transport)
    result = await session.run(
        "async def f(): ...\nc = f()\nold = 1\ndel old\n[1]", context=context
    )
    (finished,) = transport.of_type(CellFinished)
    for name in ("bound", "deleted", "exact", "adopted", "duration", "stopped", "cell", "status"):
        assert getattr(finished, name) == getattr(result, name), name
    assert finished.value == "[1]"
    assert [it.name for it in transport.of_type(CoroutineAdopted)] == ["c"]
    await session.await_pending_coroutines()


@requirement("events")
async def test_events_are_plain_data(
    make_session: Callable[..., AnySession], transport: MemoryTransport, context: str
) -> None:
    session = make_session(transport=transport)
    await session.run("print('é\\udcff')\nobject()", context=context)
    kinds = {CellStarted: 0, Output: 0, CellFinished: 0}
    for event in transport:
        kinds[type(event)] += 1  # type: ignore[index]
        if isinstance(event, Output):
            continue  # a lone surrogate has no JSON
        line = msgspec.json.encode(event)
        assert msgspec.json.decode(line, type=type(event)) == event
        assert msgspec.json.decode(line)["type"] == type(event).__name__
        with pytest.raises(AttributeError):
            event.cell = 5  # type: ignore[misc]
    assert all(kinds.values())


@requirement("events")
async def test_cells_of_concurrent_contexts_keep_their_own_order(
    make_session: Callable[..., AnySession], transport: MemoryTransport
) -> None:
    session = make_session(transport=transport)
    await asyncio.gather(
        *[
            session.run(
                "print(1)\nawait asyncio.sleep(0)\nprint(2)",
                context=CONTEXTS[n % 3],
                concurrent=True,
            )
            for n in range(12)
        ]
    )
    for number in range(1, 13):
        kinds = [
            it.text if isinstance(it, Output) else type(it).__name__
            for it in transport
            if it.cell == number
        ]
        assert kinds == ["CellStarted", "1\n", "2\n", "CellFinished"]


@requirement("events")
def test_a_memory_transport_keeps_the_last_ones() -> None:
    transport = MemoryTransport(limit=2)
    for number in range(5):
        transport.send(Output("s", number, "stdout", "x"))
    assert [it.cell for it in transport] == [3, 4]
    assert isinstance(transport.events[0], Event)


class Faulty:
    """A transport that raises."""

    def __init__(self) -> None:
        self.calls = 0

    def send(self, event: Event) -> None:
        self.calls += 1
        raise OSError(f"no room for {type(event).__name__}")


class Slow:
    """A transport that blocks until it is let go on."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.events: list[Event] = []

    def send(self, event: Event) -> None:
        if isinstance(event, Output):
            assert self.go.wait(5)
        self.events.append(event)


@requirement("bad-transport")
async def test_a_transport_that_raises_does_not_harm_the_cell(
    make_session: Callable[..., AnySession], context: str, caplog: pytest.LogCaptureFixture
) -> None:
    transport = Faulty()
    session = make_session(transport=transport)
    with caplog.at_level(logging.CRITICAL + 1, logger="isthmus"):
        result = await session.run("print('x')\ny = 1\ny", context=context)
    assert (result.status, result.value, result.stdout) == ("ok", 1, "x\n")
    assert transport.calls == 3


@requirement("bad-transport")
async def test_a_slow_transport_slows_its_cell_only(
    make_session: Callable[..., AnySession],
) -> None:
    transport = Slow()
    session = make_session(transport=transport)
    running = asyncio.ensure_future(session.run("print('x')\n'done'", context="thread"))
    await eventually(lambda: transport.events)
    assert (await session.run("'beside'", concurrent=True)).value == "beside"
    assert not running.done()
    transport.go.set()
    assert (await running).value == "done"
    kinds = [type(it).__name__ for it in transport.events if it.cell == 1]
    assert kinds == ["CellStarted", "Output", "CellFinished"]


@on_one_loop
@requirement("bad-transport")
async def test_something_that_is_no_transport_is_refused() -> None:
    with pytest.raises(TypeError, match="send"):
        AsyncExecutor(AsyncNamespaceManager(), object())  # type: ignore[arg-type]


@requirement("events")
async def test_the_debug_log_and_the_event_say_who_updated_which_names(
    make_session: Callable[..., AnySession],
    transport: MemoryTransport,
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = make_session(transport=transport)
    with caplog.at_level(logging.DEBUG, logger="isthmus"):
        session.update_namespace({"first_name": 1}, source_context="the planner")
    assert [it.source_context for it in transport.of_type(NamespaceUpdated)] == ["the planner"]
    assert any(
        "the planner" in it.getMessage() and "first_name" in it.getMessage()
        for it in caplog.records
    )


@requirement("6.3-tracebacks")
async def test_a_result_reads_as_text(session: AnySession, context: str) -> None:
    await session.execute("class Broken:\n    def __repr__(self): raise ValueError")
    result = await session.run("def f(): return 1 / 0\nf()", context=context)
    assert result.traceback is not None
    lines = result.traceback.splitlines()
    assert (lines[0], lines[-1]) == (
        "Traceback (most recent call last):",
        "ZeroDivisionError: division by zero",
    )
    assert result.traceback.count("File ") == 2, "frames of the cell alone"
    assert (result.value_repr, (await session.run("1")).traceback) == (None, None)
    assert (await session.run("[1]", context=context)).value_repr == "[1]"
    broken = (await session.run("Broken()", context=context)).value_repr
    assert broken is not None and "Broken" in broken
