from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from isthmus.cli.__main__ import main

THREE = """\
# %% First
x = 1
# %% Second
raise ValueError("on purpose")
# %% Third
print("third", x)
"""


def test_cells_share_a_namespace_over_all_contexts(run, script):
    source = "# %% [thread]\nx = 20\n# %% [sync]\ny = x + 1\n# %% [async] Sum\ny * 2\n"
    done = run(script(source))
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if "(" in line] == [
        "--- [1] (thread)",
        "--- [2] (sync)",
        "--- [3] Sum (async)",
    ]
    assert "\n=> 42\n" in done.stdout
    assert "3 cells: 3 ok" in done.stdout
    assert done.stderr == ""


def test_plain_calls_of_a_thread_cell_wake_the_loop(run, script):
    source = (
        "# %%\nimport threading\nevent, woken = asyncio.Event(), threading.Event()\n"
        "async def wait():\n    await event.wait()\n    woken.set()\n"
        "task = asyncio.create_task(wait())\n"
        "# %% [thread]\nevent.set()\nwoken.wait(5)\n"
    )
    assert "\n=> True\n" in run(script(source)).stdout


def test_every_context_runs_a_whole_script(run, script, context):
    source = "import threading\nawait asyncio.sleep(0)\nthreading.current_thread().name"
    done = run("--context", context, script(source))
    assert done.returncode == 0, done.stderr
    assert f"--- [1] ({context})" in done.stdout
    assert ("MainThread" in done.stdout) == (context != "thread")


def test_auto_runs_what_awaits_on_the_loop_and_the_rest_in_a_thread(run, script):
    done = run("--context", "auto", script("# %%\nx = 1\n# %%\nawait asyncio.sleep(0)\n"))
    assert "--- [1] (thread)" in done.stdout
    assert "--- [2] (async)" in done.stdout


def test_the_first_failure_ends_the_run_with_status_1(run, script):
    done = run(script(THREE))
    assert done.returncode == 1
    assert "third" not in done.stdout
    assert "--- [2] failed: ValueError" in done.stdout
    assert "3 cells: 1 ok, 1 failed, 1 not run" in done.stdout


def test_keep_going_runs_the_cells_behind_a_failure_and_still_fails(run, script):
    done = run("--keep-going", script(THREE))
    assert done.returncode == 1
    assert "third 1\n" in done.stdout
    assert "3 cells: 2 ok, 1 failed, in" in done.stdout


def test_a_traceback_has_the_lines_of_the_file_and_none_of_ours(run, script, context, tmp_path):
    source = "# %%\ndef f():\n    1 / 0\n\n# %%\nawait asyncio.sleep(0)\nf()\n"
    done = run("--context", context, script(source))
    path = tmp_path / "script.py"
    assert [line.strip() for line in done.stderr.splitlines() if not set(line) <= set(" ^~")] == [
        "Traceback (most recent call last):",
        f'File "{path}", line 7, in <module>',
        "f()",
        f'File "{path}", line 3, in f',
        "1 / 0",
        "ZeroDivisionError: division by zero",
    ]


def test_a_syntax_error_has_the_line_of_the_file(run, script, tmp_path):
    done = run(script("# %%\nx = 1\n\n# %%\ny = = 2\n"))
    assert done.returncode == 1
    assert f'File "{tmp_path / "script.py"}", line 5\n' in done.stderr
    assert "SyntaxError: invalid syntax" in done.stderr


def test_the_program_sees_what_it_sees_under_python(run, script, tmp_path):
    source = '"""Doc."""\nimport sys\nprint([__name__, __file__, __doc__, sys.argv, sys.path[0]])\n'
    name = script(source)
    done = run("--quiet", name, "--", "--flag", "x")
    plain = subprocess.run(
        [sys.executable, name, "--flag", "x"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == plain.stdout


def test_a_docstring_before_the_first_marker_is_the_modules(run, script):
    done = run(script('"""About."""\n# %% Only\nprint(__doc__)\n'))
    assert "About.\n" in done.stdout
    assert "1 cell: 1 ok" in done.stdout


def test_modules_beside_the_script_can_be_imported_through_a_link_too(run, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "beside.py").write_text("x = 'beside'")
    (tmp_path / "real" / "main.py").write_text("import beside; print(beside.x)")
    (tmp_path / "link.py").symlink_to(tmp_path / "real" / "main.py")
    assert run("--quiet", "link.py").stdout == "beside\n"


@pytest.mark.parametrize("safe_path", ["", "1"])
def test_a_safe_path_stays_as_it_is(run, script, safe_path):
    path = os.environ.get("PYTHONPATH", "")
    done = run(
        "--quiet",
        script("import sys, os; print(os.path.dirname(__file__) in sys.path)"),
        PYTHONSAFEPATH=safe_path,
        PYTHONPATH=path,
    )
    assert done.stdout == f"{not safe_path}\n"


def test_what_a_script_defines_can_be_pickled(run, script):
    source = "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A)"
    assert run("--quiet", script(source)).stdout == "True\n"


def test_standard_input_is_a_script_without_a_file(run):
    source = (
        "# %% [thread]\nimport sys\n# %%\nprint('__file__' in globals(), sys.argv, sys.path[:1])\n"
    )
    done = run("-", "--", "a", stdin=source)
    assert done.returncode == 0, done.stderr
    assert "False ['-', 'a'] ['']\n" in done.stdout


def test_quiet_leaves_what_the_cells_print(run, script):
    done = run(
        "--quiet",
        script("# %% Title\nimport sys\nprint('out')\nprint('err', file=sys.stderr)\n7\n"),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")


def test_a_pipe_gets_no_control_codes(run, script):
    done = run("--keep-going", script(THREE), TERM="xterm-256color", FORCE_COLOR="1")
    assert "\x1b" not in done.stdout + done.stderr


def test_a_line_that_a_cell_leaves_open_is_ended(run, script):
    assert "open\n=> 1\n" in run(script("print('open', end='')\n1")).stdout


def test_text_that_the_encoding_does_not_know_is_escaped(run, script):
    done = run(script("print('ü\\ud800')"), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "\\xfc\\ud800\n" in done.stdout


@pytest.mark.parametrize(
    ("call", "status", "message"),
    [
        ("sys.exit()", 0, ""),
        ("sys.exit(0)", 0, ""),
        ("sys.exit(7)", 7, ""),
        ("sys.exit(-1)", 255, ""),
        ("sys.exit('good bye')", 1, "good bye"),
        ("raise SystemExit([1])", 1, "[1]"),
    ],
)
def test_sys_exit_ends_the_run_with_its_status(run, script, call, status, message):
    done = run("--keep-going", script(f"# %%\nimport sys\n{call}\n# %%\nprint('never')\n"))
    assert done.returncode == status
    assert "never" not in done.stdout
    assert "Traceback" not in done.stderr
    assert message in done.stderr


def test_a_timeout_stops_the_cell(run, script, context):
    done = run("--timeout", "0.1", "--context", context, script("await asyncio.sleep(60)"))
    assert done.returncode == 1
    assert "timed out" in done.stdout


def test_a_cell_that_computes_is_stopped_by_a_timeout(run, script, context):
    source = "# %%\nwhile True: pass\n# %%\nprint('on it goes')\n"
    done = run("--timeout", "0.2", "--keep-going", "--context", context, script(source))
    assert done.returncode == 1
    assert "timed out at line 2" in done.stdout
    assert "on it goes" in done.stdout


def test_a_coroutine_left_behind_is_waited_for_at_the_end(run, script, context):
    source = "async def late():\n    await asyncio.sleep(0.05)\n    print('late')\nleft = late()\n"
    done = run("--context", context, script(source))
    assert done.returncode == 0, done.stderr
    assert "late\n" in done.stdout
    assert "waiting for what was left behind: left" in done.stderr


def test_a_coroutine_left_behind_that_fails_fails_the_run(run, script):
    source = "async def late():\n    await asyncio.sleep(0)\n    1 / 0\nleft = late()\n"
    done = run(script(source))
    assert done.returncode == 1
    assert "left behind as 'left' has failed: ZeroDivisionError" in done.stderr
    assert "line 3, in late" in done.stderr


def test_a_coroutine_left_behind_is_held_to_the_timeout(run, script):
    done = run("--timeout", "0.2", script("left = asyncio.sleep(60)"))
    assert done.returncode == 1
    assert "did not end in time: left" in done.stderr


def test_tasks_of_the_cells_end_with_the_run(run, script):
    source = (
        "async def serve():\n    try:\n        await asyncio.sleep(60)\n"
        "    finally:\n        print('closed')\n"
        "serving = asyncio.create_task(serve())\nawait asyncio.sleep(0)\n"
    )
    done = run(script(source))
    assert done.returncode == 0, done.stderr
    assert "closed\n" in done.stdout


def test_an_empty_script_succeeds(run, script):
    done = run(script("# nothing\n"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 cells: nothing to run" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument"),
        (["missing.py"], "missing.py: there is no such file"),
        (["."], "directory"),
        (["bad.ipynb"], "invalid JSON"),
        (["old.ipynb"], "nbformat 3"),
        (["binary.py"], "no text"),
        (["--context", "cloud", "good.py"], "cloud"),
        (["--timeout", "0", "good.py"], "timeout"),
        (["--timeout", "-1", "good.py"], "timeout"),
        (["--timeout", "nan", "good.py"], "timeout"),
        (["--timeout", "inf", "good.py"], "timeout"),
        (["--timeout", "soon", "good.py"], "timeout"),
        (["--no-such-option", "good.py"], "no-such-option"),
        (["--json", "--quiet", "good.py"], "exclude"),
    ],
)
def test_unusable_input_is_refused_with_status_2(tmp_path, monkeypatch, capsys, arguments, message):
    (tmp_path / "good.py").write_text("print('ran')")
    (tmp_path / "bad.ipynb").write_text("{")
    (tmp_path / "old.ipynb").write_text('{"nbformat": 3}')
    (tmp_path / "binary.py").write_bytes(b"\x7fELF\xff\0")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["run", *arguments], prog_name="isthmus")  # here: nothing is to run
    said = capsys.readouterr()
    assert (left.value.code, said.out) == (2, "")
    assert message in said.err


def notebook(*sources):
    cells = [{"cell_type": "code", "source": source} for source in sources]
    return json.dumps({"nbformat": 4, "cells": cells})


def test_a_notebook_with_magics_is_refused_before_anything_runs(run, tmp_path):
    (tmp_path / "n.ipynb").write_text(notebook("print('ran')", "x = 1\n%matplotlib inline\n!ls"))
    done = run("n.ipynb")
    assert (done.returncode, done.stdout) == (2, "")
    assert "n.ipynb: cell 2, line 2: '%matplotlib inline'" in done.stderr
    assert "n.ipynb: cell 2, line 3: '!ls'" in done.stderr


def test_keep_going_runs_the_cells_without_magics(run, tmp_path):
    (tmp_path / "n.ipynb").write_text(notebook("%cd ..", "print('ran')"))
    done = run("--keep-going", "n.ipynb")
    assert done.returncode == 1
    assert "ran\n" in done.stdout
    assert "n.ipynb: cell 1, line 1: '%cd ..'" in done.stderr


def test_a_notebooks_tracebacks_name_the_cell(run, tmp_path):
    (tmp_path / "n.ipynb").write_text(notebook("x = 0", "y = 1\ny / x"))
    done = run("n.ipynb")
    assert done.returncode == 1
    assert f'File "{tmp_path / "n.ipynb"}[2]", line 2, in <module>\n    y / x\n' in done.stderr


def test_a_reader_that_goes_away_ends_the_run(start, tmp_path):
    (tmp_path / "script.py").write_text("# %%\nn = 0\nwhile True:\n    print(n)\n    n += 1\n")
    child = start("--quiet", "script.py")
    assert child.stdout.readline() == "0\n"
    child.stdout.close()
    assert child.wait(timeout=10) == 1
    assert "Exception ignored" not in child.stderr.read()
    child.stdout = None


def test_help_and_version_are_there(run):
    done = run("--help")
    assert done.returncode == 0
    for words in ("--context", "--timeout", "--keep-going", "--json", "--quiet", "Exit status"):
        assert words in done.stdout
    version = [sys.executable, "-m", "isthmus.cli", "--version"]
    assert subprocess.run(version, capture_output=True, check=True).stdout.startswith(b"isthmus")


def test_a_cell_that_will_not_end_does_not_keep_the_run(run, script, context):
    stubborn = (
        "# %%\nwhile True:\n    try:\n        await asyncio.sleep(600)\n"
        "    except BaseException:\n        pass\n# %%\nprint('on it goes')\n"
    )
    done = run("--timeout", "0.1", "--keep-going", "--context", context, script(stubborn))
    assert done.returncode == 1
    assert "its code is still running" in done.stdout
    assert "on it goes" in done.stdout
    assert "2 cells: 1 ok, 1 failed" in done.stdout


def test_a_script_reads_standard_input(run, script, context):
    path = script("# %%\nname = input('who? ')\n# %%\nprint('hello', name)\n")
    done = run("--quiet", "--context", context, path, stdin="ada\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("hello ada\n")


def test_pdb_stops_at_a_breakpoint_and_steps_over_run_sync(run, script, context):
    source = (
        "# %%\ndef work(n):\n    late = run_sync(asyncio.sleep(0.001, n))\n    return late + 1\n"
        "# %%\nbreakpoint()\nprint('worked', work(1))\n"
    )
    commands = "tbreak work\nc\nn\np late\nc\n"
    done = run("--quiet", "--context", context, script(source), stdin=commands)
    assert (done.returncode, done.stderr) == (0, "")
    assert "(3)work()\n-> late = run_sync(asyncio.sleep(0.001, n))\n" in done.stdout
    assert "(4)work()\n-> return late + 1\n(Pdb) 1\n(Pdb) worked 2\n" in done.stdout
