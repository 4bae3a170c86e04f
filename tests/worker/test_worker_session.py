"""A session in a process of its own is a session."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from either_home import Flag
from isthmus import (
    AnySession,
    Approve,
    CapabilityRefused,
    CapabilityRevoked,
    CellExit,
    CellTimeout,
    Journal,
    MemoryTransport,
    Output,
    PackedValue,
    RemoteError,
    RemoteRepr,
    ReservedNameError,
    Session,
    SessionClosedError,
    UnknownNameError,
    ValueLoadError,
    WorkerSession,
    open_session,
)
from isthmus.events import CellFinished, CellStarted, CoroutineAdopted
from support import CONTEXTS, WAIT_SECONDS, NewWorker, cell, eventually, on_other_loops

requirement = pytest.mark.requirement


@requirement("7.1-same-interface")
async def test_cells_of_all_contexts_share_one_namespace_in_another_process() -> None:
    async with open_session(worker=True) as session:
        assert await session.execute("import os; x = 1; os.getpid()") == session.pid != os.getpid()
        for context in CONTEXTS:
            result = await session.run(
                "x += 1\nawait asyncio.sleep(0)\nprint('x is', x)\nx", context=context
            )
            assert (result.status, result.context) == ("ok", context)
            assert result.stdout == f"x is {result.value}\n"
            assert "x" in result.bound
        assert await session.get("x") == 4
        assert await session.execute("__name__") == "__main__"
        assert [await session.execute(source) for source in ("40 + 2", "_")] == [42, 42]


@requirement("7.1-same-interface")
async def test_names_functions_and_coroutines_are_reached_from_the_host(
    new_worker: NewWorker,
) -> None:
    async with new_worker() as session:
        session.update_namespace({"a": 1, "b": [2]})  # in its place, whoever awaits it
        assert await session.execute("a + b[0]") == 3
        await session.set("c", {"deep": (1, 2)})
        found = await session.snapshot()
        assert {name: found[name] for name in "abc"} == {"a": 1, "b": [2], "c": {"deep": (1, 2)}}
        await session.delete("a")
        with pytest.raises(UnknownNameError, match="'a'"):
            await session.get("a")
        with pytest.raises(ReservedNameError):
            session.update_namespace({"__name__": 1})
        await session.execute(
            cell("""
            async def twice(value, *, plus=0):
                await asyncio.sleep(0)
                return 2 * value + plus
            left = twice(4)
            """)
        )
        assert await session.call("twice", 3, plus=1) == 7
        for context in CONTEXTS:
            assert (await session.run_call("len", [[1, 2]], context=context)).value == 2
        settled = await session.await_pending_coroutines(WAIT_SECONDS)
        assert (dict(settled), settled.errors, settled.unfinished) == ({"left": 8}, {}, ())
        assert await session.get("left") == 8


@requirement("7.1-same-interface")
async def test_errors_of_a_cell_arrive_by_name_with_their_traceback(new_worker: NewWorker) -> None:
    async with new_worker() as session:
        with pytest.raises(RemoteError, match="ZeroDivisionError: division by zero") as raised:
            await session.execute("def f():\n    1 / 0\nf()")
        assert "in f" in raised.value.traceback
        assert "isthmus/" not in raised.value.traceback
        with pytest.raises(RemoteError, match="SyntaxError"):
            await session.execute("1 +")
        with pytest.raises(CellExit) as left:
            await session.execute("import sys; sys.exit(3)")
        assert left.value.code == 3
        with pytest.raises(TypeError, match="source must be a str"):
            await session.run(b"x")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="a context is"):
            await session.run("x", context="fiber")  # type: ignore[arg-type]
        assert await session.execute("'alive'") == "alive"
    assert session.closed
    with pytest.raises(SessionClosedError):
        await session.run("1")


HERE_ONLY = """
import os
def load(pid):
    if os.getpid() != pid:
        raise RuntimeError("not here")
class Here:
    def __reduce__(self):
        return load, (os.getpid(),)
here = Here()
"""


@requirement("7.4-values")
async def test_values_cross_plain_or_packed_or_shown(new_worker: NewWorker) -> None:
    async with new_worker() as session:
        assert await session.execute("{'a': (1, 2.5, b'x'), 'b': {1, 2}}") == {
            "a": (1, 2.5, b"x"),
            "b": {1, 2},
        }
        source = "from decimal import Decimal; Decimal('1.5')"
        assert await session.execute(source) == Decimal("1.5")
        point = await session.execute("class Point:\n    x = 3\nPoint()")
        assert point.x == 3
        packed = (await session.run(HERE_ONLY + "\nHere()")).value
        assert (type(packed), packed.kind, packed.type) == (PackedValue, "pickle", "__main__.Here")
        with pytest.raises(ValueLoadError, match="not here"):
            await session.get("here")
        shown = await session.execute("import threading; threading.Lock()")
        assert isinstance(shown, RemoteRepr)
        assert "lock" in repr(shown)
        big = await session.execute("bytes(3_000_000)")
        assert (type(big), len(big)) == (bytes, 3_000_000)
        await session.set("big", bytearray(3_000_000))
        assert await session.execute("big[0] = 1; len(big)") == 3_000_000
        with pytest.raises(TypeError, match="'lock' cannot be sent"):
            session.update_namespace({"fine": 1, "lock": asyncio.get_running_loop()})
        assert "fine" not in await session.snapshot()


@requirement("7.4-capabilities")
async def test_capabilities_call_back_to_the_host_from_every_context(new_worker: NewWorker) -> None:
    journal, home = Journal(), asyncio.get_running_loop()

    async def fetch(url: str, *, times: int = 1) -> str:
        """Fetch it."""
        assert asyncio.get_running_loop() is home
        await asyncio.sleep(0)
        if url == "bad":
            raise KeyError(url)
        return url * times

    def add(a: int, b: int) -> int:
        return a + b

    async with new_worker(capabilities=[fetch, add], interceptors=[journal]) as session:
        for context in CONTEXTS:
            source = (
                "[await fetch('a', times=2), add(1, 2), *await asyncio.gather(*map(fetch, 'bc'))]"
            )
            assert await session.execute(source, context=context) == ["aa", 3, "b", "c"]
            await session.execute("def plain(): return fetch('x') + str(add(1, 1))")
            assert await session.execute("plain()", context=context) == "x2"
            await session.execute(
                cell("""
                try:
                    fetch.now('bad')
                except KeyError as error:
                    caught = repr(error)
                """),
                context=context,
            )
            assert await session.get("caught") == "KeyError('bad')"
        assert {(it.name, it.cell > 0, it.context) for it in journal.entries} == {
            (name, True, context) for name in ("fetch", "add") for context in CONTEXTS
        }
        assert await session.execute("fetch.describe()") == (
            "async def fetch(url: 'str', *, times: 'int' = 1) -> 'str'\n    Fetch it."
        )
        session.revoke_capability("add")
        with pytest.raises(RemoteError, match="NameError"):
            await session.execute("add(1, 2)")
        session.inject_capability("ask", add, interceptors=[Approve(lambda call: "not today")])
        refused = await session.run("ask(1, 2)")
        assert isinstance(refused.error, CapabilityRefused)
        assert "not today" in str(refused.error)


@requirement("7.4-capabilities")
async def test_a_call_of_a_capability_is_cancelled_with_its_cell(new_worker: NewWorker) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with new_worker(capabilities=[hang]) as session:
        for context in CONTEXTS:
            running = asyncio.ensure_future(session.run("def f(): hang()\nf()", context=context))
            await asyncio.wait_for(started.wait(), WAIT_SECONDS)
            assert session.interrupt()
            assert (await running).status in ("cancelled", "interrupted")
            await asyncio.wait_for(cancelled.wait(), WAIT_SECONDS)
            started.clear()
            cancelled.clear()


@requirement("7.4-capabilities")
async def test_a_revoked_capability_is_refused_by_the_host_too(new_worker: NewWorker) -> None:
    async def tool() -> int:
        return 1

    async with new_worker(capabilities=[tool]) as session:
        await session.execute("kept = tool")
        session.revoke_capability("tool")
        result = await session.run("await kept()")
        assert isinstance(result.error, CapabilityRevoked)


@requirement("7.4-capabilities")
async def test_input_is_asked_of_the_host(new_worker: NewWorker) -> None:
    asked: list[str] = []

    async def answer(prompt: object = "") -> str:
        asked.append(str(prompt))
        return "blue"

    async with new_worker(input=answer) as session:
        for context in CONTEXTS:
            assert await session.execute("input('colour? ')", context=context) == "blue"
    assert asked == ["colour? "] * 3


@requirement("7.1-same-interface")
async def test_events_reach_the_transport_output_before_the_outcome(
    transport: MemoryTransport, new_worker: NewWorker
) -> None:
    async with new_worker("demo", transport=transport) as session:
        await session.run("print('one')\nc = asyncio.sleep(0)\n7", title="first")
    kinds = [type(event) for event in transport]
    assert kinds[:4] == [CellStarted, Output, CoroutineAdopted, CellFinished], kinds
    finished = transport.of_type(CellFinished)[0]
    assert (finished.session, finished.cell, finished.value) == ("demo", 1, "7")


@requirement("7.3-descriptors")
async def test_what_is_written_to_descriptors_is_the_cells_output(new_worker: NewWorker) -> None:
    source = """
        import os, subprocess, sys, ctypes
        print("printed")
        os.write(1, b"written\\n")
        subprocess.run([sys.executable, "-c", "print('by a child')"])
        ctypes.CDLL(None).write(1, b"from C\\n", 7)
        os.write(2, b"error\\n")
        print("at the end")
        """
    async with new_worker() as session:
        for context in CONTEXTS:
            result = await session.run(cell(source), context=context)
            assert result.error is None, result.traceback
            assert result.stdout == "printed\nwritten\nby a child\nfrom C\nat the end\n"
            assert result.stderr == "error\n"
        result = await session.run("for n in (0, 1, 2): os.close(n)\nprint('still here')\n1")
        assert (result.value, result.stdout) == (1, "still here\n")
        assert (await session.run("open('/dev/null'); print('and here')")).stdout == "and here\n"
        forked = """
            pid = os.fork()
            if pid == 0:
                print("from a fork")
            else:
                os.waitpid(pid, 0)
            "parent"
            """
        assert await session.execute(cell(forked)) == "parent"
        assert await session.execute("1 + 1") == 2


@requirement("7.2-one-thread")
async def test_what_was_printed_is_out_while_a_cell_holds_the_interpreter(
    transport: MemoryTransport, new_worker: NewWorker
) -> None:
    source = "import ctypes\nfor n in range(100): print(n)\nctypes.PyDLL(None).sleep(1)"
    async with new_worker(transport=transport) as session:
        running = asyncio.ensure_future(session.run(source))
        while sum(event.text.count("\n") for event in transport.of_type(Output)) < 100:
            assert not running.done()
            await asyncio.sleep(0)
        await running


@requirement("7.2-one-thread")
async def test_a_thread_cell_tells_its_outcome_while_another_one_hogs_the_loop(
    transport: MemoryTransport, new_worker: NewWorker
) -> None:
    async with new_worker(transport=transport) as session:
        await session.execute("import threading; go, done = threading.Event(), threading.Event()")
        source = "print('begun')\ngo.wait(20)\nprint('x')\n5"
        thread = asyncio.ensure_future(session.run(source, context="thread", concurrent=True))
        await eventually(lambda: transport.of_type(Output))
        hogging = asyncio.ensure_future(session.run("go.set(); done.wait(20)", context="sync"))
        result = await asyncio.wait_for(thread, WAIT_SECONDS)
        assert (result.value, result.stdout) == (5, "begun\nx\n")
        assert not hogging.done()
        assert session.interrupt()
        assert (await hogging).status == "interrupted"


@on_other_loops
@requirement("7.1-same-interface")
async def test_the_kind_of_the_hosts_loop_makes_no_difference(
    flavour: str, new_worker: NewWorker
) -> None:
    async def tool() -> int:
        return 1

    @contextlib.asynccontextmanager
    async def items() -> AsyncIterator[AsyncIterator[int]]:
        async def count() -> AsyncIterator[int]:
            for number in range(3):
                await asyncio.sleep(0)
                yield number

        async with asyncio.timeout(30):  # needs one task for both ends
            yield count()

    async with new_worker(capabilities=[tool, items]) as session:
        assert await session.execute("await tool()") == 1
        source = "async with items() as found: it = [x async for x in found]\nit"
        for context in CONTEXTS:
            assert await session.execute(source, context=context) == [0, 1, 2]
        with pytest.raises(CellTimeout):
            await session.execute("while True: pass", timeout=0.05)
        await session.restart()
        assert await session.execute("await tool()") == 1


@requirement("7.1-same-interface")
async def test_a_reset_empties_the_namespace_and_keeps_process_and_capabilities(
    new_worker: NewWorker,
) -> None:
    async def tool() -> int:
        return 1

    async with new_worker(capabilities=[tool]) as session:
        await session.execute(
            "import threading; x = 1; task = asyncio.create_task(asyncio.sleep(60))"
        )
        pid = session.pid
        assert (await session.reset()).clean
        with pytest.raises(UnknownNameError):
            await session.get("x")
        assert await session.execute("await tool()") == 1
        assert session.pid == pid


@requirement("7.1-same-interface")
async def test_both_kinds_of_session_have_one_interface() -> None:
    public = {name for name in vars(AnySession) if not name.startswith("_")}
    sessions: list[AnySession] = [open_session(), open_session(worker=True)]
    for session in sessions:
        assert {name for name in public if not hasattr(session, name)} == set()
    assert [type(it) for it in sessions] == [Session, WorkerSession]
    for session in sessions:
        assert (await session.close()).clean


@requirement("7.1-same-interface")
async def test_the_worker_has_its_own_environment_and_directory(tmp_path: Any) -> None:
    env = {**os.environ, "COLOUR": "green"}
    async with WorkerSession(python=sys.executable, cwd=tmp_path, env=env) as session:
        found = await session.execute("import os; os.getcwd(), os.environ['COLOUR']")
        assert found == (str(tmp_path), "green")


@requirement("7.1-same-interface", "5.5-reset")
@pytest.mark.parametrize("on_loop", ["async", "sync"])
async def test_a_reset_ends_cells_that_keep_the_loop(new_worker: NewWorker, on_loop: Any) -> None:
    async with new_worker() as session:
        begun = Flag(session, "begun")
        hogs = [
            asyncio.create_task(session.run(f"{code}\nwhile True: pass", context=on_loop))
            for code in ("begun()", "x = 1")
        ]
        await begun.seen()
        assert (await session.reset()).clean
        assert {(await it).status for it in hogs} <= {"interrupted", "cancelled"}
        assert await session.execute("'x' in globals()") is False
