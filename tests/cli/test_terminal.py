"""A run on a terminal: a pseudo-terminal, read until the child has gone."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time

import pytest
from children import COMMAND, DEADLINE

pty = pytest.importorskip("pty")

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    """A child on a terminal of its own, 100 columns wide."""

    def __init__(self, folder, *arguments, stderr=None, **environment):
        self._master, slave = pty.openpty()
        self.shown = ""
        self.child = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave if stderr is None else stderr,
            cwd=folder,
            env={
                **{name: it for name, it in os.environ.items() if name != "NO_COLOR"},
                "TERM": "xterm-256color",
                "COLUMNS": "100",
                "PYTHONIOENCODING": "utf-8",
                **environment,
            },
            start_new_session=True,
        )
        os.close(slave)

    def read_until(self, text=None):
        """Read until *text* is there, or to the end."""
        deadline = time.monotonic() + DEADLINE
        while text is None or text not in self.shown:
            assert select.select([self._master], [], [], deadline - time.monotonic())[0], self.shown
            try:
                data = os.read(self._master, 65536)
            except OSError:  # Linux says so when the last one on the other side has gone
                data = b""
            if not data:
                assert text is None, self.shown
                return self
            self.shown += data.decode()
        return self

    def lines(self):
        """What a person would read: no control codes, nor the empty lines that these move over."""
        return [line.rstrip() for line in CONTROL.sub("", self.shown).splitlines() if line.strip()]

    def end(self):
        os.close(self._master)
        self.child.kill()
        self.child.wait()


@pytest.fixture
def terminal(tmp_path):
    started = []

    def start(source, *arguments, **options):
        (tmp_path / "script.py").write_text(source, encoding="utf-8")
        started.append(Terminal(tmp_path, "script.py", *arguments, **options))
        return started[-1]

    yield start
    for each in started:
        each.end()


def test_cells_are_drawn_with_title_context_value_and_time(terminal):
    source = "# %% [thread] Fetch\nprint('got it')\n[1, 'two']\n# %%\nx = 1\n"
    screen = terminal(source).read_until()
    lines = screen.lines()
    assert screen.child.wait(DEADLINE) == 0
    assert lines[0].startswith("[1] Fetch (thread) ───")
    assert lines[1:3] == ["got it", "→ [1, 'two']"]
    assert re.fullmatch(r"✓ (<1|\d+) ms", lines[3])
    assert lines[4].startswith("[2] (async) ───")
    assert re.fullmatch(r"2 cells: 2 ok, in .*", lines[-1])
    assert "\x1b[" in screen.shown


def test_a_traceback_is_drawn_with_the_lines_around_it(terminal, tmp_path):
    source = "# %%\ndef f(n):\n    return 1 / n\n\n# %%\nf(0)\n"
    screen = terminal(source).read_until()
    text = "\n".join(screen.lines())
    assert screen.child.wait(DEADLINE) == 1
    assert "Traceback (most recent call last)" in text
    assert "❱ 3 │   return 1 / n" in text
    assert "❱ 6 f(0)" in text
    assert "ZeroDivisionError: division by zero" in text
    assert "✗ failed: ZeroDivisionError" in text
    assert "isthmus/" not in text.replace(str(tmp_path), "")


def test_what_a_cell_writes_comes_through_as_it_is(terminal):
    wide = "x" * 300
    source = f"print('\\x1b[31mred\\x1b[0m [bold] :smile:')\nprint('{wide}')\nprint('a\\rb\\tc')"
    screen = terminal(source).read_until()
    assert "\x1b[31mred\x1b[0m [bold] :smile:" in screen.shown
    assert wide in screen.shown
    assert "a\rb\tc" in screen.shown


def test_a_long_run_shows_which_cell_and_takes_it_away_again(terminal):
    source = "# %% Slow\nprint('begun')\nawait asyncio.sleep(600)\n# %% Never\n1\n"
    screen = terminal(source).read_until("cell 1 of 2 · Slow · 1.")
    os.kill(screen.child.pid, signal.SIGINT)
    screen.read_until()
    assert screen.child.wait(DEADLINE) == 130
    assert "interrupted by Ctrl-C" in screen.lines()
    assert screen.shown.rindex("\x1b[2K") > screen.shown.rindex("of 2")
    assert screen.shown.rindex("\x1b[?25h") > screen.shown.rindex("\x1b[?25l")


def test_a_line_that_is_not_complete_is_seen_at_once(terminal):
    source = "print('dots', end='', flush=True)\nawait asyncio.sleep(600)"
    screen = terminal(source).read_until("dots")
    os.kill(screen.child.pid, signal.SIGINT)
    assert "dots" in screen.read_until().lines()


def test_quiet_draws_nothing_but_errors(terminal):
    screen = terminal("# %%\nprint('out')\n7\n# %%\n1 / 0\n", "--quiet").read_until()
    lines = screen.lines()
    assert lines[0] == "out"
    assert "[1]" not in "".join(lines)
    assert "ZeroDivisionError: division by zero" in lines


def test_standard_error_may_go_elsewhere(terminal, tmp_path):
    source = "import sys\nprint('out')\nprint('err', file=sys.stderr)\n1 / 0\n"
    with (tmp_path / "err").open("w") as file:
        screen = terminal(source, stderr=file).read_until()
    written = (tmp_path / "err").read_text()
    assert "out" in screen.lines()
    assert "err" not in screen.lines()
    assert written.startswith("err\nTraceback")
    assert "\x1b" not in written


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"PYTHONIOENCODING": "ascii"}])
def test_a_simple_terminal_gets_simple_signs(terminal, environment):
    screen = terminal("# %% Title\n7", **environment).read_until()
    assert screen.child.wait(DEADLINE) == 0
    if "TERM" in environment:
        assert "\x1b" not in screen.shown
    else:
        assert screen.shown.isascii()
        assert "=> 7" in screen.lines()
