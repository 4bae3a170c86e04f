"""``isthmus run --worker`` is ``isthmus run``, and outlives what crashes."""

from __future__ import annotations

import json
import re

import pytest
from test_ctrl_c import interrupt_when_ready

PROGRAM = """\
\"\"\"About.\"\"\"
# %% First
import sys
print([__name__, __file__, __doc__, sys.argv, sys.path[0]])
asyncio.get_running_loop() is not None
# %% [thread] Second
def f():
    1 / 0
f()
# %% [sync]
sys.stderr.write("late\\n")
name = input("who? ")
print(name, input())
async def fails():
    await asyncio.sleep(0.01)
    raise KeyError(name)
left = fails()
# %%
while True: pass
# %%
sys.exit(7)
"""

TIMES = re.compile(r"\d+(\.\d+)? m?s\b|<1 ms")


def seen(done) -> tuple[int, str, str]:
    """What is to be the same: all but times."""
    return done.returncode, TIMES.sub("T", done.stdout), TIMES.sub("T", done.stderr)


def test_a_program_prints_and_ends_as_it_does_without(run, script):
    name = script(PROGRAM)
    options = ("--keep-going", "--timeout", "0.3", name, "--", "-x", "y")
    here, there = (run(*extra, *options, stdin="Ann\nBob\n") for extra in ((), ("--worker",)))
    assert seen(there) == seen(here)
    assert here.returncode == 7
    assert "Ann Bob" in here.stdout


@pytest.mark.parametrize("options", [("--json",), ("--quiet",)])
def test_the_forms_of_a_report_are_the_same(run, script, options):
    name = script("# %%\nprint(1)\n2\n# %% [thread]\nraise ValueError('x')\n")
    here, there = (run(*extra, *options, name) for extra in ((), ("--worker",)))
    if options == ("--json",):
        events = [
            [{**json.loads(line), "duration": 0} for line in it.stdout.splitlines()]
            for it in (here, there)
        ]
        assert events[0] == events[1]
        assert (here.returncode, here.stderr) == (there.returncode, there.stderr)
    else:
        assert seen(there) == seen(here)


CRASH = """\
# %%
x = 1
# %%
import ctypes
print("on my way")
ctypes.string_at(0)
# %%
print("x" in globals())
"""


def test_a_crash_fails_its_cell_and_the_run(run, script):
    done = run("--worker", script(CRASH))
    assert done.returncode == 1
    assert "on my way\n--- [2] failed: WorkerDied" in done.stdout
    assert "3 cells: 1 ok, 1 failed, 1 not run" in done.stdout
    assert re.search(r"isthmus: the worker \(process \d+\) was ended by SIGSEGV", done.stderr)
    assert "Traceback" not in done.stderr


def test_keep_going_goes_on_in_another_worker(run, script):
    done = run("--worker", "--keep-going", script(CRASH))
    assert done.returncode == 1
    assert "\nFalse\n" in done.stdout
    assert "3 cells: 2 ok, 1 failed, in" in done.stdout
    assert "find an empty namespace" in done.stderr


@pytest.mark.parametrize(
    "wait",
    [
        "while True: pass",
        "sum(range(10**15))",
        "input()",
        "async def f():\n    await asyncio.sleep(600)\nleft = f()\nimport time; time.sleep(0)",
    ],
)
def test_ctrl_c_ends_the_run_whatever_its_cell_does(start, script, wait):
    status, _, err = interrupt_when_ready(start("--worker", script(f"print('ready')\n{wait}\n")))
    assert status == 130
    assert "interrupted by Ctrl-C" in err
    assert "Traceback" not in err, err
