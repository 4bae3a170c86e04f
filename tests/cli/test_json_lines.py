from __future__ import annotations

import json

from isthmus import CellFinished, Output
from isthmus.cli.json_lines import encode_line


def test_each_event_is_a_line(run, script):
    source = (
        "# %% [thread] One\nprint('a')\nx = 5\nx\n# %%\nimport sys\nsys.stderr.write('b')\n1 / 0\n"
    )
    done = run("--json", script(source))
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert done.stderr == ""
    assert [(event["type"], event["cell"]) for event in events] == [
        ("CellStarted", 1),
        ("Output", 1),
        ("CellFinished", 1),
        ("CellStarted", 2),
        ("Output", 2),
        ("CellFinished", 2),
        ("SessionClosed", 0),
    ]
    assert events[0]["title"] == "One"
    assert events[0]["context"] == "thread"
    assert events[1]["text"] == "a\n"
    assert (events[2]["status"], events[2]["value"], events[2]["bound"]) == ("ok", "5", ["x"])
    assert (events[4]["stream"], events[4]["text"]) == ("stderr", "b")
    assert (events[5]["error"], events[5]["message"]) == ("ZeroDivisionError", "division by zero")
    assert "line 8, in <module>" in events[5]["traceback"]


def test_a_cells_source_comes_without_the_lines_before_it(run, script):
    done = run("--json", script("# %%\nx = 1\n# %%\ny = 2\n"))
    started = [json.loads(line) for line in done.stdout.splitlines() if "CellStarted" in line]
    assert [event["source"] for event in started] == ["# %%\nx = 1\n", "# %%\ny = 2\n"]


def test_messages_for_people_stay_off_the_lines(run, script):
    done = run("--json", script("left = asyncio.sleep(0.01)"))
    assert "waiting" in done.stderr
    assert all(json.loads(line) for line in done.stdout.splitlines())


def test_lines_are_utf_8_whatever_the_locale(run, script):
    done = run("--json", script("print('ü')"), PYTHONIOENCODING="ascii", LC_ALL="C")
    assert '"ü\\n"' in done.stdout


def test_a_lone_surrogate_becomes_an_escape():
    line = encode_line(Output("s", 1, "stdout", "a\ud800b"))
    assert json.loads(line)["text"] == "a\\ud800b"
    line = encode_line(CellFinished("s", 1, "ok", 0.5, value="\ud800", bound=("a",)))
    assert (json.loads(line)["value"], json.loads(line)["bound"]) == ("\\ud800", ["a"])
