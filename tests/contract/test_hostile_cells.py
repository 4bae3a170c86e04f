"""Cells that do what no guest should: the session and its host go on.

In this process each stands in a program of its own, as what they break is the process's. What
cannot be survived there (a stopped loop, the host's own tasks cancelled) is in the last part: it
ends as it would without a session, and hangs nothing. A worker ends so in its host's place.
"""

# ruff: noqa: E501 (a cell in one string reads better than one that is wrapped)

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hostile import ORDER, outcomes

from isthmus import ForkServer, WorkerDied, open_session
from support import WAIT_SECONDS, on_one_loop, run_in_forks

requirement = pytest.mark.requirement

PROGRAM = """
import asyncio
from hostile import outcomes
from isthmus import Session

async def main(code):
    over = asyncio.Event()
    host = asyncio.create_task(over.wait())
    said = await outcomes(Session("hostile"), code)
    over.set()
    assert await host
    return said

code, file = sys.argv[1:]
said = asyncio.run(main(code))
with open(file, "w") as file:  # the standard output may be closed
    file.write("\\n".join([*said, "the host goes on"]))
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


def expected_of(kind: str) -> list[str]:
    """What is said of the cell in each context."""
    return [
        f"{context} {outcome}" for context, outcome in zip(ORDER, HOSTILE[kind][1], strict=True)
    ]


@requirement("bad-hostile")
@on_one_loop
def test_the_session_and_the_host_go_on_after_such_a_cell(tmp_path: Path) -> None:
    said = {kind: tmp_path / str(number) for number, kind in enumerate(HOSTILE)}
    ended = run_in_forks(PROGRAM, [(HOSTILE[kind][0], str(said[kind])) for kind in HOSTILE])
    for kind, child in zip(HOSTILE, ended, strict=True):
        assert child.status == 0, (kind, child)
        expected = [*expected_of(kind), "the host goes on"]
        assert said[kind].read_text().splitlines() == expected, (kind, child)


@requirement("bad-hostile")
@on_one_loop
@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_worker_goes_on_after_such_a_cell(fork_server: ForkServer, kind: str) -> None:
    session = open_session("hostile", worker=True, fork_server=fork_server)
    assert await outcomes(session, HOSTILE[kind][0]) == expected_of(kind)


# -- what ends the host --------------------------------------------------------------------------

ENDING = """
import asyncio
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
def test_the_host_ends_at_once_and_says_why_after_such_a_cell() -> None:
    cases = [(kind, context) for kind in ENDINGS for context in ("async", "sync")]
    programs = [(ENDINGS[kind][0], context) for kind, context in cases]
    for (kind, context), ended in zip(cases, run_in_forks(ENDING, programs), strict=True):
        _, status, said = ENDINGS[kind]
        assert ended.status == status, (kind, context, ended)
        assert said in ended.stderr, (kind, context, ended)
        assert "never retrieved" not in ended.stderr, (kind, context, ended)


@requirement("bad-hostile")
@on_one_loop
@pytest.mark.parametrize("on_loop", ["async", "sync"])
@pytest.mark.parametrize("kind", ENDINGS)
async def test_a_worker_ends_at_once_and_its_host_hears_of_it_after_such_a_cell(
    fork_server: ForkServer, kind: str, on_loop: Any
) -> None:
    code, status, _ = ENDINGS[kind]
    session = open_session("hostile", worker=True, fork_server=fork_server)
    with pytest.raises(WorkerDied) as caught:
        await session.run(code, context=on_loop)
        await session.run("await asyncio.sleep(60)", timeout=WAIT_SECONDS)
    assert caught.value.exit_code == status
    assert (await session.close()).clean
