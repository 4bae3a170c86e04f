"""Ctrl-C: a real SIGINT, sent to a child once it has said that it is ready."""

from __future__ import annotations

import json
import re
import signal

import pytest

WAITS = {
    "busy": "while True: pass",
    "awaiting": "await asyncio.sleep(600)",
    "sleeping": "import time; time.sleep(600)",
}
STUCK = "its code is still running"
"""Python cannot interrupt a thread that is blocked in C code: the run leaves without it."""


def interrupt_when_ready(child, ready="ready\n"):
    for line in child.stdout:
        if ready in line:
            break
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=15)
    return child.returncode, out, err


@pytest.mark.parametrize("wait", WAITS)
def test_ctrl_c_stops_the_cell_and_leaves(start, script, context, wait):
    source = f"# %%\nprint('ready')\n{WAITS[wait]}\n# %%\nprint('never')\n"
    status, out, err = interrupt_when_ready(start("--context", context, script(source)))
    assert status == 130
    assert "interrupted by Ctrl-C" in err
    assert "Traceback" not in err
    assert "2 cells: 1 failed, 1 not run" in out
    assert "never" not in out
    given_up = (context, wait) == ("thread", "sleeping") and STUCK in out
    assert given_up or re.search(r"at line [23], ", out)  # 2: it was still printing


def test_keep_going_does_not_go_on_after_ctrl_c(start, script):
    source = "# %%\nprint('ready')\nawait asyncio.sleep(600)\n# %%\nprint('never')\n"
    status, out, _ = interrupt_when_ready(start("--keep-going", script(source)))
    assert (status, "never" in out) == (130, False)


def test_a_cell_that_is_stopped_may_clean_up(start, script, context):
    source = (
        "try:\n    print('ready')\n    await asyncio.sleep(600)\n"
        "finally:\n    print('cleaned up')\n"
    )
    status, out, _ = interrupt_when_ready(start("--context", context, script(source)))
    assert status == 130
    assert "cleaned up\n" in out


def test_a_cell_that_swallows_the_interrupt_does_not_keep_the_run(start, script):
    source = (
        "# %%\ntry:\n    print('ready')\n    await asyncio.sleep(600)\nexcept BaseException:\n"
        "    print('swallowed')\n# %%\nprint('never')\n"
    )
    status, out, err = interrupt_when_ready(start(script(source)))
    assert status == 130
    assert "swallowed\n" in out
    assert "interrupted by Ctrl-C" in err
    assert "never" not in out


def test_ctrl_c_ends_the_wait_for_what_was_left_behind(start, script):
    source = "async def f():\n    print('ready')\n    await asyncio.sleep(600)\nleft = f()\n"
    status, _, err = interrupt_when_ready(start(script(source)))
    assert status == 130
    assert "interrupted by Ctrl-C" in err
    assert "Traceback" not in err


def test_other_programs_get_the_event_and_the_status(start, script):
    child = start("--json", script("print('ready')\nwhile True: pass"))
    status, out, _ = interrupt_when_ready(child, '"ready\\n"')
    assert status == 130
    finished = json.loads(out.splitlines()[-2])  # the last one is that of the session
    assert (finished["type"], finished["status"]) == ("CellFinished", "interrupted")


STUBBORN = """\
print('ready', flush=True)
while True:
    try:
        await asyncio.sleep(600)
    except BaseException:
        print('not yet', flush=True)
"""


def test_a_cell_that_will_not_end_is_left_behind(start, script, context):
    child = start("--context", context, script(STUBBORN))
    status, _, err = interrupt_when_ready(child)
    assert status == 130
    assert "interrupted by Ctrl-C" in err


def test_a_second_ctrl_c_leaves_at_once(start, script):
    child = start(script(STUBBORN))
    for line in child.stdout:
        if line in ("ready\n", "not yet\n"):
            child.send_signal(signal.SIGINT)
        if line == "not yet\n":
            break
    child.communicate(timeout=15)
    assert child.returncode == 130
