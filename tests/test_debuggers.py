"""Debuggers over `run_sync`: a scripted pdb, tracebacks, and stacks while a cell waits."""

from __future__ import annotations

import gc
import io
import pdb
import re
import weakref
from typing import Any

import pytest

from either_home import error_name
from isthmus import AnySession, Session
from support import cell, run_in_child

PROGRAM = """
import asyncio, sys
from isthmus import Session

DEFINITIONS = '''
async def answer(n):
    before = n
    await asyncio.sleep(0.01)
    return before + 1

def work():
    first = run_sync(asyncio.sleep(0.01, 2))
    second = run_sync(answer(first))
    return first + second

async def stop():
    breakpoint()
    late = await asyncio.sleep(0.01, 7)
    return late
'''

async def main(context, code):
    async with Session("demo") as session:
        await session.execute(DEFINITIONS)
        result = await session.run(code, context=context)
        print(result.stdout)
        print("outcome:", result.value, result.error, sys.gettrace())

asyncio.run(main(*sys.argv[1:]))
"""

PLACE = re.compile(
    r"^(?:\(Pdb\) )*[> ] <demo cell \d+>\(\d+\)([\w<>]+)\(\).*\n-> (.*)$", re.MULTILINE
)
"""Where pdb says that it stands, or which frame it shows: the function, and the line's text."""

FIRST = ("work", "first = run_sync(asyncio.sleep(0.01, 2))")
SECOND = ("work", "second = run_sync(answer(first))")
RETURN = ("work", "return first + second")
CELL = ("<module>", "total = work()")

STOP_IN_WORK = ["tbreak work", "c"]
WALK_UP = ["w", *["up"] * 9]
"""To the oldest frame, past it even, with those of this package that lie between the cell's."""


def debug(context: str, code: str, *commands: str) -> tuple[list[tuple[str, str]], str]:
    """Run the cell *code* under pdb: the places in cells that it named, and all that was said."""
    ended = run_in_child(PROGRAM, context, code, stdin="".join(f"{it}\n" for it in commands))
    assert ended.status == 0, ended
    return PLACE.findall(ended.stdout), ended.stdout


# -- pdb ---------------------------------------------------------------------------------------


@pytest.mark.requirement("4.1-debuggers")
def test_pdb_steps_over_run_sync_to_the_next_line(context: str) -> None:
    at_prompt = "p run_sync(asyncio.sleep(0.01, 'at the prompt'))"
    commands = [*STOP_IN_WORK, "n", at_prompt, "n", *WALK_UP, "c"]
    (_, *places), said = debug(context, "breakpoint()\ntotal = work()\ntotal", *commands)
    assert places == [FIRST, SECOND, RETURN, CELL, RETURN, CELL]
    assert "'at the prompt'" in said
    assert "outcome: 5 None None" in said


@pytest.mark.requirement("4.1-debuggers")
@pytest.mark.parametrize("on_loop", ["async", "sync"])
def test_pdb_breaks_and_steps_in_an_async_function_below_run_sync(on_loop: str) -> None:
    commands = [*STOP_IN_WORK, "n", "tbreak answer", "n", "n", "n", *WALK_UP, "c"]
    (_, *places), said = debug(on_loop, "breakpoint()\ntotal = work()\ntotal", *commands)
    lines = ["before = n", "await asyncio.sleep(0.01)", "return before + 1"]
    steps = [("answer", line) for line in lines]
    assert places == [FIRST, SECOND, *steps, CELL, SECOND, steps[-1], SECOND, CELL]
    assert "outcome: 5 None None" in said


@pytest.mark.requirement("4.1-debuggers")
def test_pdb_steps_into_the_async_function_that_run_sync_is_given(context: str) -> None:
    code = "import pdb\npdb.Pdb(skip=['isthmus.*', 'asyncio.*', 'selectors']).runcall(work)"
    places, said = debug(context, code, "n", "s", "n", "c")
    if context == "thread":  # the function runs on the loop's thread, which is not traced
        assert places == [FIRST, SECOND, RETURN, RETURN]
    else:
        inside = [("answer", "async def answer(n):"), ("answer", "before = n")]
        assert places == [FIRST, SECOND, *inside]
    assert "outcome: 5 None None" in said


@pytest.mark.requirement("4.1-debuggers")
def test_a_breakpoint_in_an_async_function_stops_there_in_every_context(context: str) -> None:
    code = "def call(): return run_sync(stop())\ncall()"
    (_, *places), said = debug(context, code, "until 15", "p late", "c")
    assert places == [("stop", "return late")]
    assert "(Pdb) 7" in said
    assert "outcome: 7 None None" in said


# -- tracebacks --------------------------------------------------------------------------------


@pytest.mark.requirement("4.1-debuggers")
async def test_a_traceback_has_each_of_the_users_frames_once_and_in_order(
    session: AnySession, context: Any
) -> None:
    code = """
        def bottom():
            raise ValueError("here")
        async def third():
            await asyncio.sleep(0)
            bottom()
        def second():
            run_sync(third())
        async def first():
            await asyncio.sleep(0)
            second()
        def top():
            run_sync(first())
        top()
        """
    result = await session.run(cell(code), context=context)
    assert error_name(result.error) == "ValueError"
    assert re.findall(r", in (.+)\n    (.+)", result.traceback or "") == [
        ("<module>", "top()"),
        ("top", "run_sync(first())"),
        ("first", "second()"),
        ("second", "run_sync(third())"),
        ("third", "bottom()"),
        ("bottom", 'raise ValueError("here")'),
    ]


# -- stacks ------------------------------------------------------------------------------------

LOOKER = """
import asyncio, faulthandler, io, sys, traceback
from isthmus import Session

DEFINITIONS = '''
async def inner():
    started.set()
    await go.wait()
    return "answered"
def below(): return run_sync(inner())
async def outer(): return below()
'''

def look():
    faulthandler.dump_traceback(all_threads=True)
    for task in asyncio.all_tasks():
        task.print_stack(file=io.StringIO())
    return "".join("".join(traceback.format_stack(it)) for it in sys._current_frames().values())

async def main(context):
    async with Session("demo") as session:
        started, go = asyncio.Event(), asyncio.Event()
        session.update_namespace({"started": started, "go": go})
        await session.execute(DEFINITIONS)
        running = asyncio.ensure_future(session.run("run_sync(outer())", context=context))
        await started.wait()
        stacks = look()
        go.set()
        print(context, (await running).value, "<demo cell 2>" in stacks)

for context in ("async", "sync", "thread"):
    asyncio.run(main(context))
"""


@pytest.mark.requirement("4.1-debuggers")
def test_stacks_can_be_looked_at_while_a_cell_waits() -> None:
    ended = run_in_child(LOOKER)
    assert ended.status == 0, ended
    assert ended.stdout.splitlines() == [
        "async answered False",  # what waits on the loop's thread is on no thread's stack
        "sync answered False",
        "thread answered True",
    ]
    assert ended.stderr.count('"<demo cell 2>", line 1 in <module>') == 1


# -- what a debugger leaves --------------------------------------------------------------------


@pytest.mark.requirement("4.1-debuggers")
@pytest.mark.parametrize("on_loop", ["async", "sync"])
async def test_a_debugger_does_not_keep_a_session_that_is_closed(
    on_loop: Any,
) -> None:
    session = Session()
    debugger = pdb.Pdb(stdin=io.StringIO("n\nn\nc\n"), stdout=io.StringIO(), nosigint=True)
    session.update_namespace({"debugger": debugger})
    await session.execute("class Planted: pass\nplanted = Planted()")
    planted = weakref.ref(session.namespace["planted"])
    await session.execute("debugger.set_trace()\nx = 1\ny = 2\nz = 3", context=on_loop)
    await session.close()
    del session, debugger
    gc.collect()
    assert planted() is None
