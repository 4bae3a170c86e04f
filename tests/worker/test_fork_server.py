"""A worker that is forked is the same as one that is started, and leaves as little behind."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from isthmus import (
    ForkServer,
    WorkerDied,
    WorkerLimits,
    WorkerSession,
    WorkerStartError,
)
from support import (
    WAIT_SECONDS,
    Census,
    LoopThread,
    cell,
    eventually,
    run_in_child,
    wait_until,
)

requirement = pytest.mark.requirement


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    """One for all tests: that it serves many loops is a part of what is shown."""
    with ForkServer(["decimal"]) as server:
        yield server


def _runs(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie that nobody has asked for yet."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def _opened(gate: Path) -> bool:
    """Let who waits for *gate* go on; whether somebody has begun to."""
    try:
        os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def _children_of(pid: int | None) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@requirement("7.6-forked")
async def test_a_forked_worker_is_like_one_that_was_started(
    server: ForkServer, tmp_path: Path
) -> None:
    asks = """
        import os, random, signal, sys, threading, gc, asyncio
        ({
            "group": os.getpgrp() == os.getsid(0) == os.getpid(),
            "cwd": os.getcwd(),
            "path": sys.path[0],
            "env": [os.environ.get(it) for it in ("NEW", "HOME")],
            "tz": __import__("time").tzname[0],
            "limit": __import__("resource").getrlimit(7)[0],
            "threads": sorted(it.name for it in threading.enumerate()),
            "main": threading.main_thread() is threading.current_thread(),
            "ids": threading.main_thread().native_id == os.getpid(),
            "gc": (gc.isenabled(), len(sys.argv)),
            "handlers": [int(signal.getsignal(it)) for it in (signal.SIGCHLD, signal.SIGTERM)],
            "wakeup": signal.set_wakeup_fd(-1) != -1,
            "stdin": os.readlink("/proc/self/fd/0"),
            "pipes": [os.readlink(f"/proc/self/fd/{it}")[:5] for it in (1, 2)],
            "descriptors": len(os.listdir("/proc/self/fd")),
            "streams": [
                (it.line_buffering, it.encoding, it.errors)
                for it in (sys.__stdout__, sys.__stderr__)
            ],
            "names": sorted(vars(sys.modules["__main__"])),
            "loop": type(asyncio.get_running_loop()).__name__,
        })
        """
    read_at_start = {name: it for name, it in os.environ.items() if name.startswith("PYTHON")}
    read_at_start["PYTHONPATH"] = os.pathsep.join(sys.path)
    options = {
        "cwd": tmp_path,
        "env": {"NEW": "1", "TZ": "Asia/Tokyo", **read_at_start},
        "limits": WorkerLimits(open_files=99),
    }
    found = []
    for fork_server in (None, server):
        async with WorkerSession(fork_server=fork_server, **options) as session:  # type: ignore[arg-type]
            found.append(await session.execute(cell(asks)))
    assert found[1] == found[0]
    assert found[0]["cwd"] == str(tmp_path)


@requirement("7.6-forked")
async def test_forked_workers_share_what_was_preloaded_and_nothing_else(
    server: ForkServer,
) -> None:
    async with (
        WorkerSession(fork_server=server) as first,
        WorkerSession(fork_server=server) as second,
    ):
        assert await first.execute("import sys; 'decimal' in sys.modules")
        await first.execute("import decimal; decimal.mark = x = 1; import random")
        assert await second.execute("import decimal; hasattr(decimal, 'mark')") is False
        assert await second.execute("'x' in globals()") is False
        draws = [await it.execute("import random; random.random()") for it in (first, second)]
        assert draws[0] != draws[1]
        hashes = [await it.execute("hash('isthmus')") for it in (first, second)]
        assert hashes[0] == hashes[1]
        pids = [await it.execute("import os; os.getpid()") for it in (first, second)]
        assert pids == [first.pid, second.pid]
        parents = [await it.execute("import os; os.getppid()") for it in (first, second)]
        assert parents == [server.pid] * 2


@requirement("7.6-forked")
async def test_every_kind_of_end_of_a_forked_worker_is_told_and_nothing_stays(
    server: ForkServer,
) -> None:
    ends = {
        "import ctypes; print('bye'); ctypes.string_at(0)": ("SIGSEGV", None),
        "import os; print('bye'); os._exit(7)": (None, 7),
        "import os; print('bye'); os.kill(os.getpid(), 9)": ("SIGKILL", None),
    }
    async with WorkerSession(fork_server=server) as session:
        for source, expected in ends.items():
            with pytest.raises(WorkerDied) as died:
                await session.run(source)
            assert (died.value.signal, died.value.exit_code) == expected
            assert died.value.output == "bye\n"
            assert died.value.peak_memory_bytes > 1 << 20
            await session.restart()
        started = "import subprocess; p = subprocess.Popen(['sleep', '60']); p.pid"
        grandchild = await session.execute(started)
        assert _runs(grandchild)
    await eventually(lambda: not _runs(grandchild) and not _children_of(server.pid))


@requirement("7.6-forked")
async def test_a_forked_worker_is_interrupted_and_killed_by_its_number(server: ForkServer) -> None:
    async with WorkerSession(fork_server=server, grace_seconds=0.3) as session:
        result = await session.run("while True: pass", timeout=0.05)
        assert (result.status, result.stopped) == ("timeout", True)
        result = await session.run("sum(range(10**12))", timeout=0.05)
        assert isinstance(result.error, WorkerDied)
        assert result.error.signal == "SIGKILL"
    await eventually(lambda: not _children_of(server.pid))


@requirement("7.6-forked")
async def test_ends_are_told_where_the_system_has_no_descriptors_of_processes(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    for fork_server in (None, server):
        async with WorkerSession(fork_server=fork_server) as session:
            with pytest.raises(WorkerDied) as died:
                await session.run("import os; os._exit(7)")
            assert died.value.exit_code == 7


@requirement("7.6-forked")
async def test_two_hundred_workers_one_after_the_other_leave_nothing(server: ForkServer) -> None:
    async def one(number: int) -> None:
        async with WorkerSession(fork_server=server) as session:
            assert await session.execute(f"{number} + 1") == number + 1

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{server.pid}/fd"))

    await one(0)
    await eventually(lambda: not _children_of(server.pid))
    at_first = descriptors()
    before = Census.take()
    async with asyncio.timeout(WAIT_SECONDS * 6):
        for number in range(0, 200, 4):
            await asyncio.gather(*(one(number + it) for it in range(4)))
    await eventually(lambda: not _children_of(server.pid) and descriptors() <= at_first)
    assert list(before.left_behind()) == []


@requirement("7.6-forked")
async def test_one_server_forks_for_several_loops(server: ForkServer) -> None:
    async def parent() -> int:
        async with WorkerSession(fork_server=server) as session:
            found: int = await session.execute("import os; os.getppid()")
            return found

    with LoopThread() as other:
        assert await asyncio.gather(parent(), other.wait(parent())) == [server.pid] * 2


@requirement("7.6-fork-server-fails")
async def test_what_cannot_be_preloaded_fails_the_start_by_name(tmp_path: Path) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    expected = {
        "no_such_module": "cannot import 'no_such_module': .*No module named 'no_such_module'",
        "threaded": "'threaded' has started threads",
    }
    for name, message in expected.items():
        with ForkServer([name], env=env) as server:
            for _ in range(2):
                with pytest.raises(WorkerStartError, match=f"(?s){message}"):
                    await WorkerSession(fork_server=server).start()
    with pytest.raises(TypeError, match="a list of names"):
        ForkServer("numpy")
    with pytest.raises(ValueError, match="interpreter of its fork server"):
        WorkerSession(fork_server=server, python=sys.executable)
    with pytest.raises(WorkerStartError, match="the fork server is closed"):
        await WorkerSession(fork_server=server).start()
    nowhere = ForkServer(python=str(tmp_path / "missing"))
    with pytest.raises(WorkerStartError, match="could not be started"):
        nowhere.start()
    with pytest.raises(WorkerStartError, match="could not be started"):
        await WorkerSession(fork_server=nowhere).start()
    with (
        ForkServer(python="/bin/false") as wrong,
        pytest.raises(WorkerStartError, match="the fork server has ended"),
    ):
        await WorkerSession(fork_server=wrong).start()


@requirement("7.6-fork-server-fails")
async def test_a_worker_that_cannot_begin_says_why(server: ForkServer, tmp_path: Path) -> None:
    with pytest.raises(WorkerStartError, match="No such file or directory"):
        await WorkerSession(fork_server=server, cwd=tmp_path / "missing").start()


@requirement("7.6-fork-server-fails")
async def test_a_server_without_descriptors_refuses_a_worker_and_keeps_the_others(
    tmp_path: Path,
) -> None:
    (tmp_path / "low.py").write_text(
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with ForkServer(["low"], env=env) as server:
        sessions: list[WorkerSession] = []
        with pytest.raises(WorkerStartError, match="no descriptors left"):
            while len(sessions) < 20:
                session = WorkerSession(fork_server=server)
                await session.start()
                sessions.append(session)
        assert await sessions[0].execute("1 + 1") == 2
        await sessions.pop().close()
        async with WorkerSession(fork_server=server) as session:
            assert await session.execute("1 + 1") == 2
        await asyncio.gather(*(it.close() for it in sessions))


@requirement("7.6-fork-server-fails")
async def test_a_server_that_was_killed_takes_its_workers_along_and_is_started_again() -> None:
    with ForkServer() as server:
        async with WorkerSession(fork_server=server) as session:
            hang = asyncio.ensure_future(session.run("print(1)\nsum(range(10**12))"))
            await asyncio.sleep(0)
            pid, old = session.pid, server.pid
            assert pid is not None
            assert old is not None
            os.kill(old, signal.SIGKILL)
            with pytest.raises(WorkerDied, match="its fork server cannot say how"):
                await asyncio.wait_for(hang, WAIT_SECONDS)
            await eventually(lambda: not _runs(pid))
            await session.restart()
            assert await session.execute("1 + 1") == 2
            assert server.pid not in (old, None)


@requirement("7.6-fork-server-fails")
async def test_requests_that_the_server_is_too_busy_to_read_are_kept_for_it(
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    (tmp_path / "slow.py").write_text(f"open({str(gate)!r}).read()\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with ForkServer(["slow"], env=env) as server:
        big = {**env, "BIG": "x" * 100_000}
        sessions = [WorkerSession(fork_server=server, env=big) for _ in range(8)]
        starts = [asyncio.ensure_future(it.start()) for it in sessions]
        with pytest.raises(WorkerStartError, match="did not answer"):
            await WorkerSession(fork_server=server, start_timeout=0.05).start()
        await eventually(lambda: _opened(gate))
        await asyncio.gather(*starts)
        assert len(_children_of(server.pid)) == len({it.pid for it in sessions}) == 8
        await asyncio.gather(*(it.close() for it in sessions))


@requirement("7.6-forked")
def test_a_server_that_is_dropped_says_so_and_ends() -> None:
    server = ForkServer()
    server.start()
    pid = server.pid
    assert pid is not None
    with pytest.warns(ResourceWarning, match="unclosed <isthmus"):
        del server
        gc.collect()
    assert not _runs(pid)


@requirement("7.6-forked")
def test_forked_workers_end_with_their_host_whatever_they_do() -> None:
    program = """
        import asyncio, os
        from isthmus import ForkServer, WorkerSession

        async def main():
            server = ForkServer()
            sessions = [WorkerSession(fork_server=server) for _ in range(3)]
            for session in sessions:
                await session.start()
            print(server.pid, *(it.pid for it in sessions), flush=True)
            asyncio.ensure_future(sessions[0].run("while True: pass"))
            asyncio.ensure_future(sessions[1].run("sum(range(10**12))"))
            await asyncio.sleep(0.1)
            os.kill(os.getpid(), 9)

        asyncio.run(main())
        """
    ended = run_in_child(program)
    assert ended.status == -signal.SIGKILL, ended
    pids = [int(it) for it in ended.stdout.split()]
    assert len(pids) == 4
    wait_until(lambda: not any(map(_runs, pids)))
