"""The command as its users meet it: in a child process, with a deadline."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from children import COMMAND, DEADLINE

Finished = subprocess.CompletedProcess[str]
Runner = Callable[..., Finished]


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    """Run ``isthmus run`` in *tmp_path* with these arguments, to its end."""

    def run(*arguments: str | Path, stdin: str = "", **environment: str) -> Finished:
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
            timeout=DEADLINE,
            check=False,
        )

    return run


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """Write a script to ``script.py`` in *tmp_path*, and give its name."""

    def write(source: str) -> str:
        (tmp_path / "script.py").write_text(source, encoding="utf-8")
        return "script.py"

    return write


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``isthmus run`` and leave it running; it is killed when the test ends.

    Its stdin is a pipe to which nobody writes: who reads there waits.
    """
    started: list[subprocess.Popen[str]] = []
    nothing, kept_open = os.pipe()

    def start(*arguments: str | Path) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdin=nothing,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()
    os.close(nothing)
    os.close(kept_open)
