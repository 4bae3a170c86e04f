"""The examples that are programs of their own do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"
DEADLINE_SECONDS = 50
MARKS = re.compile(r"^[ ~^]*\^\n", re.MULTILINE)
"""Lines of a traceback that mark a part of the line above; which part depends on the Python."""

SLOWNESS = re.compile(r"^Executing <.* took [\d.]+ seconds\n", re.MULTILINE)
"""What asyncio says in development mode when the machine is busy with something else."""


def run_example(name: str) -> subprocess.CompletedProcess[str]:
    """Run an example in a process of its own, in which every warning is an error."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def test_the_agent_prints_its_transcript_and_ends_without_a_warning() -> None:
    """The transcript is made by ``python examples/agent.py >examples/agent_transcript.txt``."""
    done = run_example("agent.py")
    assert (done.returncode, SLOWNESS.sub("", done.stderr)) == (0, "")
    expected = (EXAMPLES / "agent_transcript.txt").read_text()
    assert MARKS.sub("", done.stdout) == MARKS.sub("", expected)


def test_the_program_outlives_its_crashes() -> None:
    done = run_example("crash.py")
    assert (done.returncode, SLOWNESS.sub("", done.stderr)) == (0, "")
    assert done.stdout == (EXAMPLES / "crash_transcript.txt").read_text()
