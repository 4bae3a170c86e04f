"""That memory ran out is said where the control group says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from isthmus.worker.usage import OutOfMemoryCount
from support import run_in_child

requirement = pytest.mark.requirement

GROUPS = {
    "version 2": ("0::/app", "app/memory.events", "low 0\nhigh 3\nmax 9\noom 2\noom_kill {}\n"),
    "version 1": (
        "9:name=systemd:/\n4:cpu,memory:/app\n0::/",
        "memory/app/memory.oom_control",
        "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
    ),
    "a container that sees nothing but itself": (
        "0::/docker/0a1b2c",
        "memory.events",
        "oom 0\noom_kill {}\n",
    ),
}


@requirement("7.5-memory")
@pytest.mark.parametrize("kind", GROUPS)
def test_the_count_of_the_group_is_read(kind: str, tmp_path: Path) -> None:
    lines, path, text = GROUPS[kind]
    (tmp_path / "proc/77").mkdir(parents=True)
    (tmp_path / "proc/77/cgroup").write_text(lines + "\n")
    events = tmp_path / "sys/fs/cgroup" / path
    events.parent.mkdir(parents=True)
    events.write_text(text.format(4))
    count = OutOfMemoryCount(77, str(tmp_path))
    assert not count.has_risen()
    events.write_text(text.format(5))
    assert count.has_risen()
    events.unlink()
    assert not count.has_risen()


@requirement("7.5-memory")
@pytest.mark.parametrize("lines", ["", "0::/nowhere", "3:cpuset:/"])
def test_where_nothing_is_told_nothing_is_said(lines: str, tmp_path: Path) -> None:
    assert not OutOfMemoryCount(77, str(tmp_path)).has_risen()  # there is no such process
    (tmp_path / "proc/77").mkdir(parents=True)
    (tmp_path / "proc/77/cgroup").write_text(lines)
    assert not OutOfMemoryCount(77, str(tmp_path)).has_risen()


LIMIT = 200 << 20

HOST = """
import asyncio, os, sys
from isthmus import WorkerDied, WorkerSession

with open(sys.argv[1] + "/cgroup.procs", "w") as procs:
    procs.write(str(os.getpid()))

async def main():
    async with WorkerSession() as session:
        await session.execute("open('/proc/self/oom_score_adj', 'w').write('1000')")
        try:
            await session.execute("print('on my way')\\nx = []\\nwhile True: x.append(b'x' * 9999)")
        except WorkerDied as death:
            print(death.signal, death.out_of_memory, death.cells, death.output.strip())
            print(death.peak_memory_bytes > 50 << 20, "ran out of memory" in str(death))
        await session.restart()
        print(await session.execute("'goes on'"))

asyncio.run(main())
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with little memory, where this user may make one."""
    version_1 = Path("/sys/fs/cgroup/memory")
    root, limit = (
        (version_1, "memory.limit_in_bytes")
        if version_1.exists()
        else (Path("/sys/fs/cgroup"), "memory.max")
    )
    made = root / f"isthmus-test-{os.getpid()}"
    try:
        made.mkdir()
        (made / limit).write_text(str(LIMIT))
        for name in ("memory.memsw.limit_in_bytes", "memory.swap.max"):
            with suppress(OSError):
                (made / name).write_text(str(LIMIT) if "memsw" in name else "0")
    except OSError as error:
        with suppress(OSError):
            made.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    yield made
    made.rmdir()


@requirement("7.5-memory")
def test_a_worker_that_eats_the_memory_of_its_group_has_died_of_that(group: Path) -> None:
    ended = run_in_child(HOST, str(group))
    assert ended.stdout.splitlines() == [
        "SIGKILL True (2,) on my way",
        "True True",
        "goes on",
    ], ended
