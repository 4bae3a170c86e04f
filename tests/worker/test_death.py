"""However a worker ends, its host hears of it, and nothing is left."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import stat
import sys
from pathlib import Path

import pytest

from isthmus import (
    ForkServer,
    MemoryTransport,
    Output,
    ProtocolVersionError,
    SessionClosedError,
    WorkerDied,
    WorkerLimits,
    WorkerSession,
    WorkerStartError,
)
from support import WAIT_SECONDS, cell, eventually, run_in_child, wait_until

requirement = pytest.mark.requirement


async def _death_of(session: WorkerSession, source: str, context: str = "async") -> WorkerDied:
    with pytest.raises(WorkerDied) as died:
        await session.run(source, context=context)  # type: ignore[arg-type]
    return died.value


@requirement("7.5-death")
async def test_death_has_a_cause_and_the_session_can_be_restarted() -> None:
    async with WorkerSession() as session:
        death = await _death_of(session, "import ctypes; print('bye'); ctypes.string_at(0)")
        assert (death.signal, death.exit_code, death.cells) == ("SIGSEGV", None, (1,))
        assert death.output.endswith("bye\n")
        assert death.peak_memory_bytes > 1 << 20
        with pytest.raises(WorkerDied, match="SIGSEGV"):  # and so does everything until a restart
            await session.get("x")
        await session.restart()
        death = await _death_of(session, "import os; os._exit(7)", "thread")
        assert (death.signal, death.exit_code) == (None, 7)
        assert "exit code 7" in str(death)
        await session.restart()
        death = await _death_of(session, "import os; os.kill(os.getpid(), 9)", "sync")
        assert (death.signal, death.out_of_memory) == ("SIGKILL", False)
        await session.restart()
        assert await session.execute("1 + 1") == 2


@requirement("7.5-death")
async def test_all_who_wait_hear_of_a_death() -> None:
    called = asyncio.Event()
    ended = asyncio.Event()

    async def hang() -> None:
        called.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with WorkerSession(capabilities=[hang]) as session:
        waiting = [
            asyncio.ensure_future(session.run("await hang()")),
            asyncio.ensure_future(session.run("2")),
            asyncio.ensure_future(session.run("while True: pass", context="thread")),
        ]
        await asyncio.wait_for(called.wait(), WAIT_SECONDS)
        assert session.pid is not None
        os.kill(session.pid, signal.SIGKILL)
        errors = await asyncio.wait_for(
            asyncio.gather(*waiting, return_exceptions=True), WAIT_SECONDS
        )
        assert [type(it) for it in errors] == [WorkerDied] * 3
        assert len({id(it) for it in errors}) == 3
        await asyncio.wait_for(ended.wait(), WAIT_SECONDS)  # what it called ends with it
        assert session.pid is None


@requirement("7.5-time")
async def test_a_cell_that_hangs_in_c_is_ended_with_its_worker(transport: MemoryTransport) -> None:
    hang = "print('in')\nsum(range(10**12))"  # holds the interpreter, and heeds no signal

    def times() -> int:
        return sum(event.text == "in\n" for event in transport.of_type(Output))

    async with WorkerSession(grace_seconds=0.3, transport=transport) as session:
        result = await session.run(hang, timeout=0.1)
        assert (result.status, result.stdout) == ("timeout", "in\n")
        assert isinstance(result.error, WorkerDied)
        assert "cell 1 did not end by its deadline" in str(result.error)
        await session.restart()
        running = asyncio.ensure_future(session.run(hang))
        await eventually(lambda: times() == 2)
        assert session.interrupt()
        with pytest.raises(WorkerDied, match="could not be interrupted"):
            await asyncio.wait_for(running, WAIT_SECONDS)
        await session.restart()
        running = asyncio.ensure_future(session.run(hang))
        await eventually(lambda: times() == 3)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        with pytest.raises(WorkerDied, match="could not be cancelled"):
            await session.run("1")


@requirement("7.5-time")
async def test_cells_that_compute_or_wait_are_stopped_and_the_namespace_stays() -> None:
    sources = ("while True: pass", "import time; time.sleep(20)", "await asyncio.sleep(20)")
    async with WorkerSession() as session:
        await session.set("x", 5)
        for context in ("async", "sync", "thread"):
            for source in sources[: 1 if context == "thread" else 3]:
                result = await session.run(source, timeout=0.05, context=context)  # type: ignore[arg-type]
                assert (result.status, result.stopped) == ("timeout", True), (context, source)
                for seconds in (0.0, 0.01):  # before it has begun, perhaps, and afterwards
                    running = asyncio.ensure_future(session.run(source, context=context))  # type: ignore[arg-type]
                    await asyncio.wait({running}, timeout=seconds)
                    assert session.interrupt()
                    assert (await running).status in ("cancelled", "interrupted")
                    cancelled = asyncio.ensure_future(session.run(source, context=context))  # type: ignore[arg-type]
                    await asyncio.wait({cancelled}, timeout=seconds)
                    cancelled.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await cancelled
        assert await session.execute("x") == 5


@requirement("7.5-time")
async def test_the_first_cell_can_be_stopped_by_a_close_that_comes_with_it(
    context: str, fork_server: ForkServer
) -> None:
    """It begins after the close was read, and before anything of that was done."""
    async with WorkerSession(fork_server=fork_server) as session:
        running = asyncio.ensure_future(session.run("while True: pass", context=context))  # type: ignore[arg-type]
        await asyncio.sleep(0)  # it is asked for
    assert (await running).status in ("interrupted", "cancelled")


def _runs(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie that nobody has asked for yet."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@requirement("7.5-orphans")
async def test_what_cells_have_started_ends_with_the_worker() -> None:
    async with WorkerSession() as session:
        source = "import subprocess; p = subprocess.Popen(['sleep', '60']); p.pid"
        pid = await session.execute(source)
        assert _runs(pid)
    await eventually(lambda: not _runs(pid))


@requirement("7.5-orphans")
def test_a_worker_ends_with_its_host_whatever_it_does(tmp_path: Path) -> None:
    program = """
        import asyncio, os, sys
        from isthmus import WorkerSession

        async def main():
            busy, idle = WorkerSession(), WorkerSession()
            await idle.start()
            await busy.start()
            print(busy.pid, idle.pid, flush=True)
            asyncio.ensure_future(busy.run("while True: pass"))
            await asyncio.sleep(0.1)
            os.kill(os.getpid(), 9)

        asyncio.run(main())
        """
    ended = run_in_child(program)
    assert ended.status == -signal.SIGKILL, ended
    pids = [int(it) for it in ended.stdout.split()]
    assert len(pids) == 2
    wait_until(lambda: not any(map(_runs, pids)))


def _interpreter(path: Path, body: str) -> str:
    """Something that is started in place of an interpreter."""
    path.write_text(f"#!{sys.executable}\nimport os, socket, sys, time\n{cell(body)}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@requirement("7.3-hostile")
async def test_a_child_that_is_no_worker_is_refused_and_ended(tmp_path: Path) -> None:
    connect = "wire = socket.socket(fileno=int(sys.argv[3]))\n"
    silent = _interpreter(tmp_path / "silent", connect + "print('I am slow')\ntime.sleep(60)")
    with pytest.raises(WorkerStartError, match=r"did not answer in 0.3 s"):
        await WorkerSession(python=silent, start_timeout=0.3).start()
    garbage = _interpreter(
        tmp_path / "garbage", connect + "wire.sendall(b'HTTP/1.1 200 OK')\ntime.sleep(60)"
    )
    with pytest.raises(WorkerStartError, match="broke the protocol"):
        await WorkerSession(python=garbage).start()
    gone = _interpreter(tmp_path / "gone", "print('no such luck', file=sys.stderr)\nsys.exit(4)")
    with pytest.raises(WorkerStartError, match="exit code 4") as failed:
        await WorkerSession(python=gone).start()
    assert "no such luck" in str(failed.value)
    other = """
        sys.path[:0] = {path!r}
        from isthmus.wire.codec import Encoder
        from isthmus.wire.handshake import Refused
        wire.sendall(Encoder().encode(Refused((99,), "too old")))
        time.sleep(60)
        """
    other = connect + cell(other).format(path=[it for it in sys.path if it])
    with pytest.raises(ProtocolVersionError, match="99"):
        await WorkerSession(python=_interpreter(tmp_path / "other", other)).start()
    with pytest.raises(WorkerStartError, match="could not be started"):
        await WorkerSession(python=str(tmp_path / "missing")).start()


@requirement("7.5-limits")
async def test_a_worker_has_the_limits_that_it_was_given() -> None:
    limits = WorkerLimits(memory_bytes=2 << 30, cpu_seconds=2, open_files=64)
    async with WorkerSession(limits=limits) as session:
        source = """
            import resource
            kinds = resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NOFILE
            [resource.getrlimit(kind)[0] for kind in kinds]
            """
        assert await session.execute(cell(source)) == [2 << 30, 2, 64]
        result = await session.run("bytearray(4 << 30)")
        assert "MemoryError" in str(result.error)
        death = await _death_of(session, "while True: pass", "thread")
        assert death.signal in ("SIGXCPU", "SIGKILL")


@requirement("7.5-death")
async def test_a_worker_that_closes_its_connection_is_ended() -> None:
    async with WorkerSession() as session:
        death = await _death_of(session, "import os; os.closerange(3, 1024)")
        assert death.signal is not None or death.exit_code is not None


@requirement("7.5-orphans")
async def test_closing_ends_the_process_that_starts_or_is_busy(transport: MemoryTransport) -> None:
    session = WorkerSession()
    starting = asyncio.ensure_future(session.start())
    await asyncio.sleep(0)
    await session.close()
    with pytest.raises((asyncio.CancelledError, SessionClosedError)):
        await starting
    async with WorkerSession(transport=transport) as busy:
        running = asyncio.ensure_future(busy.run("print(1)\nwhile True: pass"))
        await eventually(lambda: transport.of_type(Output))
        pid = busy.pid
    assert pid is not None
    assert not _runs(pid)
    assert (await running).status == "interrupted"


@requirement("7.5-orphans")
async def test_a_session_that_is_dropped_says_so_and_its_process_ends() -> None:
    session = WorkerSession()
    assert await session.execute("1") == 1
    pid = session.pid
    assert pid is not None
    with pytest.warns(ResourceWarning, match="unclosed session 'session'"):
        del session
        gc.collect()
    assert not _runs(pid)
    await asyncio.sleep(0)  # the transport tells of its end
