"""Nothing is lost and no pair is torn at a switch interval of 1 µs; without the lock, pairs are."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import isthmus

CHILD = Path(__file__).with_name("threads_child.py")


def run_child(*arguments: str) -> tuple[int, str]:
    """Run the child with a seed: `ISTHMUS_SEED`, or a new one. Its status, and all it said."""
    seed = os.environ.get("ISTHMUS_SEED") or str(random.randrange(10**6))
    print(f"seed {seed}")
    package = str(Path(isthmus.__file__).parent.parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    child = subprocess.run(
        [sys.executable, str(CHILD), seed, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    print(child.stdout)
    return child.returncode, child.stdout


@pytest.mark.timeout(180)
def test_no_operation_is_lost_and_no_pair_is_torn() -> None:
    status, said = run_child()
    assert status == 0, said


@pytest.mark.timeout(180)
def test_without_the_lock_the_same_check_finds_torn_pairs() -> None:
    status, said = run_child("--without-lock")
    assert status == 1, said
    assert "torn: " in said
