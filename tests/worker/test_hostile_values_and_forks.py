"""Cells that fork, close descriptors, write where they should not, and have values that do harm."""

from __future__ import annotations

import asyncio

import pytest

from isthmus import (
    ForkServer,
    PackedValue,
    RemoteError,
    RemoteRepr,
    ValueLoadError,
    WorkerDied,
    WorkerLimits,
    WorkerSession,
)
from support import WAIT_SECONDS, cell

requirement = pytest.mark.requirement

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


# -- forks -----------------------------------------------------------------------------------------

FORK = """
import os, sys
pid = os.fork()
if not pid:
    {}
os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""

STATUS = {"pass": 0, "sys.exit(5)": 5, "sys.exit('why')": 1, "1 / 0": 1, "os._exit(7)": 7}


@requirement("7.5-faults")
async def test_a_child_that_a_cell_forks_ends_as_a_program_does_and_says_nothing_to_the_host(
    fork_server: ForkServer, context: str
) -> None:
    async with WorkerSession(fork_server=fork_server) as session:
        for body, status in STATUS.items():
            source = FORK.format(f"print('in the child'); {body}")
            result = await session.run(source, context=context)  # type: ignore[arg-type]
            if body == "pass":  # it goes on to the last line, where it has no child
                assert "in the child" in result.stdout
                continue
            assert result.value == status, (body, result)
            assert ("ZeroDivisionError" in result.stderr) == ("/" in body)
            assert ("why" in result.stderr) == ("why" in body)
        assert await session.execute("1 + 1") == 2


@requirement("7.5-faults")
async def test_multiprocessing_and_subprocess_work_in_cells(fork_server: ForkServer) -> None:
    async with WorkerSession(fork_server=fork_server) as session:
        source = """
            import multiprocessing, subprocess
            def square(x):
                return x * x
            with multiprocessing.get_context("fork").Pool(2) as pool:
                found = pool.map(square, [1, 2, 3])
            subprocess.run(["echo", "out"])
            found
            """
        result = await asyncio.wait_for(session.run(cell(source)), WAIT_SECONDS)
        assert (result.value, result.stdout) == ([1, 4, 9], "out\n")


# -- descriptors -----------------------------------------------------------------------------------


@requirement("7.5-faults")
async def test_a_worker_without_its_standard_descriptors_goes_on(fork_server: ForkServer) -> None:
    async with WorkerSession(fork_server=fork_server) as session:
        result = await session.run("import os; os.closerange(0, 3); print('still')")
        assert (result.status, result.stdout) == ("ok", "still\n")
        assert (await session.run("print('here'); 5", context="thread")).value == 5


SOCKETS = """
import os, stat
def is_socket(number):
    try:
        return stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError:
        return False
"""


@requirement("7.5-faults")
@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("os.closerange(3, 100)", r"exit code 1"),
        ("os.closerange(3, 1024)", r"exit code 1|closed its connection|broke the protocol"),
        (
            "[os.write(it, b'garbage, no frame') for it in range(100, 110) if is_socket(it)]",
            r"broke the protocol: no frame begins",
        ),
    ],
)
async def test_a_worker_that_loses_or_spoils_its_descriptors_dies_of_a_named_cause(
    source: str, cause: str, fork_server: ForkServer
) -> None:
    async with WorkerSession(fork_server=fork_server) as session:
        with pytest.raises(WorkerDied, match=cause):
            await asyncio.wait_for(session.run(SOCKETS + source), WAIT_SECONDS)
            await asyncio.wait_for(session.run("await asyncio.sleep(0.1)"), WAIT_SECONDS)
        await session.restart()
        assert await session.execute("1 + 1") == 2


@requirement("7.5-limits")
async def test_limits_that_are_reached_are_errors_of_the_cell(fork_server: ForkServer) -> None:
    async with WorkerSession(
        limits=WorkerLimits(open_files=64), fork_server=fork_server
    ) as session:
        source = "files = []\nwhile True: files.append(open('/dev/null'))"
        with pytest.raises(RemoteError, match="Too many open files"):
            await session.execute(source)
        for context in ("async", "thread", "sync"):
            assert await session.execute("1 + 1", context=context) == 2
        large = bytes(8 << 20)  # which finds no descriptor, and goes through the stream
        assert await session.execute("bytes(8 << 20)") == large


# -- values ----------------------------------------------------------------------------------------

BAD = """
import os, time
class Bad:
    def __init__(self, what):
        self.what = what
    def __reduce__(self):
        {}
    def __repr__(self):
        return "bad"
"""


@requirement("7.4-values")
async def test_values_whose_pickling_raises_or_hangs_or_whose_repr_does(
    fork_server: ForkServer,
) -> None:
    async with WorkerSession(fork_server=fork_server, grace_seconds=0.2) as session:
        for body in ("raise ValueError('no')", "raise SystemExit(3)", "return self.what"):
            await session.execute(BAD.format(body))
            shown = await session.execute("bad = Bad(1); bad")
            assert isinstance(shown, RemoteRepr)
            assert (repr(shown), bool(shown.problem)) == ("bad", True)
            assert isinstance(await session.get("bad"), RemoteRepr)
        await session.execute("Bad.__repr__ = Bad.__reduce__")
        assert isinstance(await session.execute("bad"), RemoteRepr)
        await session.execute(BAD.format("time.sleep(60)"))
        result = await asyncio.wait_for(session.run("Bad(1)", timeout=0.2), WAIT_SECONDS)
        assert result.status == "timeout"
        assert isinstance(result.error, WorkerDied)  # its own part could not be interrupted


@requirement("7.4-values")
async def test_values_whose_unpickling_raises_on_either_side(fork_server: ForkServer) -> None:
    class There:
        """Cannot be loaded in the worker."""

        def __reduce__(self) -> tuple[object, ...]:
            return int, ("no number",)

    async with WorkerSession(fork_server=fork_server) as session:
        with pytest.raises(ValueLoadError, match="no number"):
            await session.set("x", There())
        with pytest.raises(ValueLoadError, match="no number"):
            await session.call("print", There())
        for body in ("return int, ('no number',)", "return __import__('sys').exit, (3,)"):
            await session.execute(BAD.format(body))
            result = await session.run("bad = Bad(1); bad")
            assert (result.status, type(result.value)) == ("ok", PackedValue)
            with pytest.raises(ValueLoadError, match=r"no number|SystemExit"):
                result.value.load(trusted=True)
            with pytest.raises(ValueLoadError, match=r"no number|SystemExit"):
                await session.get("bad")
        assert await session.execute("1 + 1") == 2


@requirement("7.4-values")
async def test_a_message_of_any_size_is_cut_and_arrives(fork_server: ForkServer) -> None:
    async with WorkerSession(fork_server=fork_server) as session:
        with pytest.raises(RemoteError, match="70000000 characters"):
            await session.execute("raise ValueError('x' * 70_000_000)")
