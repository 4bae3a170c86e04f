"""Cells that do what no guest should: the session and its host go on.

Each stands in a program of its own, as what they break is the process's. What cannot be survived in
one process (a stopped loop, the host's own tasks cancelled) is in the last part: it ends as it
would without a session, and hangs nothing.
"""

# ruff: noqa: E501 (a cell in one string reads better than one that is wrapped)

from __future__ import annotations

from pathlib import Path

import pytest

from support import on_one_loop, run_in_child

requirement = pytest.mark.requirement

PROGRAM = """
import asyncio, sys
from isthmus import Session

async def main(code):
    over = asyncio.Event()
    host = asyncio.create_task(over.wait())
    session = Session("hostile")
    session.update_namespace({"sleep": asyncio.sleep})
    for context in ("async", "sync", "thread"):
        result = await session.run(code, context=context, timeout=15)
        said.append(f"{context} {result.status} {type(result.error).__name__} {result.stdout!r}")
        for after in ("async", "sync", "thread"):
            going_on = "n = 40\\nawait sleep(0)\\ndef two(): return 2\\nn + two()"
            result = await session.run(going_on, context=after, timeout=15)
            assert result.value == 42, result
    report = await session.close()
    assert report.clean, report
    over.set()
    assert await host

said = []
asyncio.run(main(sys.argv[1]))
said.append("the host goes on")
with open(sys.argv[2], "w") as file:
    file.write("\\n".join(said))
"""

WELL = ["ok NoneType ''"] * 3
LOOP = "await asyncio.sleep(0)\nloop = asyncio.get_running_loop()\n"

HOSTILE: dict[str, tuple[str, list[str]]] = {
    "closes the loop": (f"{LOOP}loop.close()", ["error RuntimeError ''"] * 3),
    "takes the task factory away": (f"{LOOP}loop.set_task_factory(None)", WELL),
    "replaces the task factory": (
        f"{LOOP}loop.set_task_factory(lambda it, work, **more: asyncio.Task(work, loop=it, **more))\n"
        "await asyncio.create_task(asyncio.sleep(0))",
        WELL,
    ),
    "replaces the exception handler": (
        f"{LOOP}loop.set_exception_handler(lambda *_: 1 / 0)\n"
        "loop.call_soon(int, 'x')\nawait asyncio.sleep(0)",
        WELL,
    ),
    "cancels its own task": (
        "asyncio.current_task().cancel()\nawait asyncio.sleep(9)",
        ["cancelled CancelledError ''"] * 3,
    ),
    "has no standard streams": (
        "import sys\nsys.stdout = sys.stderr = None\nprint('lost')\nsys.stdout = sys.__stdout__",
        WELL,
    ),
    "replaces print": ("import builtins\nprint = builtins.print = None", WELL),
    "replaces functions of asyncio": (
        "for name in ('create_task', 'ensure_future', 'gather', 'run', 'sleep', 'timeout', 'wait',\n"
        "             'wait_for', 'to_thread', 'shield', 'as_completed', 'get_event_loop'):\n"
        "    setattr(asyncio, name, None)\nawait sleep(0)",
        WELL,
    ),
    "replaces threading.Thread": ("import threading\nthreading.Thread = None", WELL),
    "forks": (
        "import os\nchild = os.fork()\nif not child:\n    os._exit(3)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3",
        WELL,
    ),
    "installs signal handlers": (
        "import signal\nfor number in (signal.SIGINT, signal.SIGURG, signal.SIGTERM):\n"
        "    signal.signal(number, signal.SIG_IGN)",
        [
            "ok NoneType ''",
            "ok NoneType ''",
            "error ValueError ''",
        ],  # CPython: the main thread only
    ),
    "closes the standard output": (
        "import os\nprint('before', flush=True)\nfor it in (0, 1):\n    os.close(it)\nprint('after')",
        ["ok NoneType 'before\\nafter\\n'", *["error OSError 'before\\n'"] * 2],  # it is closed
    ),
    "leaves a trace function": (
        "import sys\ndef trace(*_): return trace\nsys.settrace(trace)\nsys.setprofile(trace)",
        WELL,
    ),
    "raises when things are dropped": (
        "class Dropped:\n    def __del__(self): raise ValueError('dropped')\n"
        "one = Dropped()\ndel one\ntwo = [Dropped()]\ntwo.append(two)\ndel two\n"
        "import gc\n_ = gc.collect()",
        WELL,
    ),
    "makes cycles through frames": (
        "import sys\ndef cycle():\n    frame, big = sys._getframe(), bytes(1000)\n"
        "    try: 1 / 0\n    except ZeroDivisionError as error: kept = error\n    return kept\n"
        "kept = [cycle() for _ in range(100)]\nkept.append(kept)",
        WELL,
    ),
    "turns the collector off": (
        "import gc\ngc.callbacks.clear()\ngc.disable()\ngc.set_threshold(1)",
        WELL,
    ),
    "empties the warnings' filters": ("import warnings\nwarnings.simplefilter('error')", WELL),
}


ORDER = ("async", "sync", "thread")


@requirement("bad-hostile")
@on_one_loop
@pytest.mark.parametrize("kind", HOSTILE)
def test_the_session_and_the_host_go_on_after_a_cell_that(kind: str, tmp_path: Path) -> None:
    code, expected = HOSTILE[kind]
    said = tmp_path / "said"  # the standard output may be closed
    ended = run_in_child(PROGRAM, code, str(said))
    assert ended.status == 0, ended
    wanted = [f"{context} {outcome}" for context, outcome in zip(ORDER, expected, strict=True)]
    assert said.read_text().splitlines() == [*wanted, "the host goes on"]


# -- what ends the host --------------------------------------------------------------------------

ENDING = """
import asyncio, sys
from isthmus import Session

async def main(code, context):
    async with Session("hostile") as session:
        await session.run(code, context=context)
        await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""

ENDINGS = {
    "stops the loop": (f"{LOOP}loop.stop()", 1, "Event loop stopped before Future completed."),
    "cancels every task": ("[it.cancel() for it in asyncio.all_tasks()]", 1, "CancelledError"),
    "ends the process": ("import os\nos._exit(4)", 4, ""),
}


@requirement("bad-hostile")
@on_one_loop
@pytest.mark.parametrize("on_loop", ["async", "sync"])
@pytest.mark.parametrize("kind", ENDINGS)
def test_the_host_ends_at_once_and_says_why_after_a_cell_that(kind: str, on_loop: str) -> None:
    code, status, said = ENDINGS[kind]
    ended = run_in_child(ENDING, code, on_loop)
    assert ended.status == status, ended
    assert said in ended.stderr
    assert "never retrieved" not in ended.stderr
