"""A worker that comes back is made what it was, and given to the next session; or it is ended."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import weakref
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pools import rows, runs, use

from isthmus import (
    ForkServer,
    MemoryTransport,
    Output,
    PooledSession,
    RemoteRepr,
    SessionClosedError,
    WorkerLimits,
    WorkerPool,
)
from isthmus.worker.capture import Capture
from support import cell, eventually, on_other_loops

requirement = pytest.mark.requirement


# -- one session after the other ------------------------------------------------------------------


@requirement("7.7-reset")
async def test_each_session_has_its_own_options(one: WorkerPool) -> None:
    async def tool() -> str:
        return "from the host"

    theirs, ours = MemoryTransport(), MemoryTransport()
    ask = "try: found = input()\nexcept Exception as error: found = type(error).__name__\nfound"
    async with one as pool:
        options: dict[str, Any] = {"capabilities": [tool], "input": lambda: "typed", "timeout": 5}
        async with pool.session("theirs", transport=theirs, trusted=False, **options) as session:
            assert await session.execute("await tool()") == "from the host"
            assert await session.execute(ask) == "typed"
            assert isinstance(await session.execute("1j.conjugate, object()"), RemoteRepr)
            pid = session.pid
        count = len(theirs.events)
        async with pool.session("ours", transport=ours, context="thread", history=False) as session:
            assert session.pid == pid, pool.stats()
            assert await session.execute("'tool' in dir(__builtins__)") is False
            assert await session.execute(ask) == "NoInputError"
            assert isinstance(await session.execute("import pathlib; pathlib.Path('x')"), Path)
            assert await session.execute("import threading; threading.current_thread().name") != (
                "MainThread"
            )
            assert await session.execute("print('mine'); '_' in globals()") is False
        assert {it.session for it in ours.events} == {"ours"}
        assert len(theirs.events) == count
        async with pool.session() as session:
            assert session.pid == pid, pool.stats()
            result = await session.run("while True: pass", timeout=0.05)
            assert result.status == "timeout"
            assert (await session.run("import time; time.sleep(60)", timeout=0.05)).stopped
            assert session.pid == pid, pool.stats()


# -- what is late ----------------------------------------------------------------------------------


@requirement("7.7-reset")
async def test_what_is_written_last_is_of_the_session_that_wrote_it(one: WorkerPool) -> None:
    """By tasks that end with it, by C, in half characters, and by finalizers when it is gone."""
    first, second = MemoryTransport(), MemoryTransport()
    source = cell("""
        import ctypes, os

        async def last_words():
            try:
                await asyncio.sleep(3600)
            finally:
                for number in range(40):
                    print("task", number)

        class Last:
            def __del__(self, write=os.write, print=print):
                write(2, b"finalizer" * 50_000)

        task, last = asyncio.create_task(last_words()), Last()
        await asyncio.sleep(0)
        ctypes.CDLL(None).printf(b"from C")
        os.write(1, "é".encode()[:1])
    """)
    async with one as pool:
        async with pool.session(transport=first) as session:
            await session.execute(source)
            pid = session.pid
        told = _text(first)
        assert "task 39" in told
        assert "from C" in told
        assert told.count("finalizer") == 50_000, pool.stats()
        count = len(first.events)
        async with pool.session(transport=second) as session:
            assert session.pid == pid, pool.stats()
            await session.execute(f"import os; os.write(1, {'é'.encode()[1:]!r})")
            await session.execute("print('second')")
        assert len(first.events) == count
        assert _text(second) == "\N{REPLACEMENT CHARACTER}second\n"


def _text(transport: MemoryTransport) -> str:
    return "".join(it.text for it in transport.of_type(Output))


@requirement("7.7-reset")
def test_half_a_character_is_not_completed_by_the_next_session() -> None:
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    capture = Capture([ours])
    try:
        os.write(theirs, "é".encode()[:1])
        assert capture.take() == [("stdout", "")]
        capture.forget()
        os.write(theirs, "é".encode()[1:])
        assert capture.take() == [("stdout", "\N{REPLACEMENT CHARACTER}")]
    finally:
        os.close(ours)
        os.close(theirs)


@requirement("7.7-reset")
async def test_what_is_under_way_is_answered_before_the_next_session(one: WorkerPool) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            await asyncio.sleep(0.02)  # its answer comes when its caller has long gone
            raise

    async with one as pool:
        session = await pool.acquire(capabilities=[slow])
        pid = session.pid
        await session.execute("x = 1; left = asyncio.create_task(asyncio.sleep(3600))")
        asked = [
            asyncio.ensure_future(it)
            for it in (
                session.run("await slow()"),
                session.run("while True: pass"),
                session.run("1", context="thread"),
                session.await_pending_coroutines(),
                session.get("x"),
                session.ledger(),
                session.call("print"),
            )
        ]
        await begun.wait()
        assert (await session.close()).clean
        assert cancelled.is_set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert found[0].status in ("cancelled", "interrupted")
        assert await use(pool, "'x' in globals()") == (pid, [False])


@requirement("7.7-reset")
async def test_what_the_host_has_handed_out_is_given_back(one: WorkerPool) -> None:
    async with one as pool:
        held, _ = await use(pool, "held = rows(); await anext(held)", capabilities=[rows])
        assert await use(pool, "'held' in globals()") == (held, [False])


@requirement("7.7-reset")
async def test_a_cell_that_keeps_the_loop_does_not_keep_its_worker(one: WorkerPool) -> None:
    begun = asyncio.Event()
    async with one as pool:
        for _ in range(2):
            begun.clear()
            async with pool.session(capabilities={"begin": begun.set}) as session:
                pid = session.pid
                computing = asyncio.ensure_future(session.run("begin()\nwhile True: pass"))
                await begun.wait()
            assert (await computing).status in ("cancelled", "interrupted")
        assert (await use(pool, "1"))[0] == pid, pool.stats()
        assert pool.stats().started == 1


@requirement("7.7-reset")
async def test_a_function_of_the_host_that_does_not_end_is_not_waited_for_too_long(
    one: WorkerPool,
) -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    async def stubborn() -> str:
        begun.set()
        with suppress(asyncio.CancelledError):
            await over.wait()
        await over.wait()
        return "nobody hears this"

    async with one as pool:
        session = await pool.acquire(capabilities=[stubborn])
        pid = session.pid
        running = asyncio.ensure_future(session.run("await stubborn()"))
        await begun.wait()
        await session.close(timeout=0.1)
        await running
        assert "CallCapability" in pool.stats().last_unfit
        other, found = await use(pool, "1")
        over.set()
        assert (other != pid, found) == (True, [1])


@requirement("7.7-reset")
async def test_a_session_that_was_given_back_is_dead_for_who_still_holds_it(
    one: WorkerPool,
) -> None:
    async with one as pool:
        old = await pool.acquire(capabilities={"tool": print})
        pid = old.pid
        assert (await pool.release(old)).clean
        assert (old.closed, old.pid) == (True, None)
        async with pool.session() as new:
            assert new.pid == pid
            running = asyncio.ensure_future(new.run("await asyncio.sleep(0.05); 'whole'"))
            await asyncio.sleep(0)
            for use in (
                lambda: old.run("1"),
                lambda: old.get("x"),
                old.restart,
                old.reset,
                lambda: old.set("x", 1),
                old.report,
            ):
                with pytest.raises(SessionClosedError, match="is closed"):
                    await use()
            with pytest.raises(SessionClosedError):
                old.inject_capability("more", print)
            old.revoke_capability("tool")
            assert old.interrupt() is False
            assert (await running).value == "whole"
            assert await new.execute("'x' in globals() or 'more' in dir(__builtins__)") is False
            assert (await old.close()).clean


# -- limits ----------------------------------------------------------------------------------------


@requirement("7.7-reset")
async def test_lower_limits_are_for_one_session(one: WorkerPool) -> None:
    ask = "import resource; resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 66"
    async with one as pool:
        _, found = await use(pool, ask, limits=WorkerLimits(open_files=66))
        assert found == [True]
        assert "limits" in pool.stats().last_unfit
        assert (await use(pool, ask))[1] == [False]


@requirement("7.7-reset")
async def test_a_worker_has_as_many_sessions_as_it_may(fork_server: ForkServer) -> None:
    async with WorkerPool(
        min_idle=0, max_size=1, on_return="reset", max_uses=3, fork_server=fork_server
    ) as pool:
        pids = [(await use(pool, "1"))[0] for _ in range(7)]
        assert [pids.count(it) for it in dict.fromkeys(pids)] == [3, 3, 1]
        stats = pool.stats()
        assert (stats.reused, stats.unfit, stats.served) == (4, 0, 7)


@requirement("7.7-reset")
def test_what_becomes_of_workers_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="'replace' or 'reset', not 'wash'"):
        WorkerPool(on_return="wash")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_uses is for workers that are reset"):
        WorkerPool(max_uses=3)
    with pytest.raises(ValueError, match="max_uses must be at least 1"):
        WorkerPool(on_return="reset", max_uses=0)
    with pytest.raises(TypeError, match="max_uses is a whole number"):
        WorkerPool(on_return="reset", max_uses=1.5)  # type: ignore[arg-type]


# -- the return itself -----------------------------------------------------------------------------


class Held:
    """A session whose return waits for a function of the host."""

    def __init__(self) -> None:
        self.asked, self.answer = asyncio.Event(), asyncio.Event()

    async def ask(self) -> None:
        """For a cell's last words."""
        self.asked.set()
        await self.answer.wait()

    async def give_back(self, pool: WorkerPool) -> tuple[int | None, asyncio.Future[Any]]:
        """The number of the worker, and the return, which has begun."""
        session = await pool.acquire(capabilities={"ask": self.ask})
        await session.execute(
            cell("""
                async def last_words():
                    try:
                        await asyncio.sleep(3600)
                    finally:
                        await ask()
                left = asyncio.create_task(last_words())
                await asyncio.sleep(0)
            """)
        )
        pid = session.pid
        closing = asyncio.ensure_future(session.close(timeout=10))
        await self.asked.wait()
        return pid, closing


@requirement("7.7-reset")
async def test_who_waits_gets_the_worker_that_comes_back_in_the_order_of_coming(
    one: WorkerPool,
) -> None:
    held, served = Held(), list[tuple[int, int | None]]()

    async def visitor(number: int) -> None:
        async with pool.session() as session:
            served.append((number, session.pid))

    async with one as pool:
        pid, closing = await held.give_back(pool)
        visitors = [asyncio.ensure_future(visitor(number)) for number in range(4)]
        await eventually(lambda: pool.stats().waiting == 4)
        visitors[1].cancel()
        held.answer.set()
        assert (await closing).clean
        await asyncio.gather(*visitors, return_exceptions=True)
        assert served == [(0, pid), (2, pid), (3, pid)]
        stats = pool.stats()
        assert (stats.idle, stats.in_use, stats.started) == (1, 0, 1)


LEAVES = cell("""
    import os

    class Last:
        def __del__(self, leave=os._exit):
            leave(7)

    last = Last()
""")
"""Ends the process when the session has been closed, and is let go of."""


@requirement("7.7-reset")
async def test_a_worker_that_dies_on_its_way_back_is_given_to_nobody(one: WorkerPool) -> None:
    held = Held()
    async with one as pool:
        pid, closing = await held.give_back(pool)
        assert pid is not None
        waiting = asyncio.ensure_future(use(pool, "'left' in globals()"))
        os.kill(pid, signal.SIGKILL)
        await closing
        assert "SIGKILL" in pool.stats().last_unfit
        other, found = await waiting
        assert (other != pid, found) == (True, [False])
        held.answer.set()

        pid, _ = await use(pool, LEAVES)
        assert "exit code 7" in pool.stats().last_unfit
        assert (await use(pool, "1"))[0] != pid


@requirement("7.7-reset")
async def test_a_return_that_is_cancelled_ends_the_worker(one: WorkerPool) -> None:
    held = Held()
    async with one as pool:
        pid, closing = await held.give_back(pool)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert not runs(pid)
        held.answer.set()
        other, found = await use(pool, "1")
        assert (other != pid, found) == (True, [1])


@requirement("7.7-reset")
async def test_a_pool_can_be_closed_while_a_worker_is_on_its_way_back(one: WorkerPool) -> None:
    held = Held()
    async with one as pool:
        pid, closing = await held.give_back(pool)
        ending = asyncio.ensure_future(pool.close())
        await asyncio.sleep(0)
        held.answer.set()
        await asyncio.gather(closing, ending)
        stats = pool.stats()
        assert (stats.idle, stats.in_use, stats.starting) == (0, 0, 0)
        assert not runs(pid)


@requirement("7.7-reset")
async def test_a_session_that_is_restarted_leaves_its_worker_for_good(one: WorkerPool) -> None:
    async with one as pool, pool.session() as session:
        pid = session.pid
        await session.execute("x = 1")
        await session.restart()
        assert session.pid != pid
        assert not runs(pid)
        assert await session.execute("'x' in globals()") is False


@requirement("7.7-reset")
async def test_a_worker_that_came_back_waits_as_long_as_others(fork_server: ForkServer) -> None:
    async with WorkerPool(
        min_idle=0, max_idle_seconds=0.05, on_return="reset", fork_server=fork_server
    ) as pool:
        pid, _ = await use(pool, "1")
        await eventually(lambda: not pool.stats().idle and not runs(pid))
        assert (pool.stats().died, pool.stats().unfit) == (0, 0)


@on_other_loops
@requirement("7.7-reset")
async def test_the_kind_of_the_hosts_loop_makes_no_difference(one: WorkerPool) -> None:
    async with one as pool:
        found = [await use(pool, "x = 1", "print(x)") for _ in range(4)]
        assert len({pid for pid, _ in found}) == 1


SESSIONS, WARM = 200, 50

CENSUS = cell("""
    import gc, os, threading
    gc.collect()
    pages = int(open("/proc/self/statm").read().split()[1])
    len(gc.get_objects()), pages, len(os.listdir("/proc/self/fd")), threading.active_count()
""")


@requirement("7.7-reset")
async def test_hundreds_of_sessions_over_one_worker_leave_nothing(one: WorkerPool) -> None:
    """Neither there nor here: objects, memory, descriptors, threads."""

    async def tool(value: object) -> object:
        return value

    source = cell("""
        class Thing: pass
        things = [Thing() for _ in range(1000)]
        left = asyncio.create_task(asyncio.sleep(3600))
        print((await tool(bytes(50_000)))[:1], await asyncio.to_thread(len, things))
    """)

    async def visit() -> weakref.ref[PooledSession]:
        session = await pool.acquire(capabilities=[tool], transport=MemoryTransport())
        async with session:
            await session.execute(source)
            await session.execute("y = 1", context="thread")
            return weakref.ref(session)

    async with one as pool:
        for _ in range(WARM):
            await visit()
        pid, ((objects, pages, *others),) = await use(pool, CENSUS)
        here = _objects_here()
        visits = [await visit() for _ in range(SESSIONS - WARM)]
        after, ((objects_after, pages_after, *others_after),) = await use(pool, CENSUS)
        assert (after, others_after) == (pid, others), pool.stats()
        assert objects_after - objects < SESSIONS - WARM
        assert (pages_after - pages) * os.sysconf("SC_PAGE_SIZE") < 4 << 20
        assert _objects_here() == here
        assert [it() for it in visits] == [None] * len(visits)
        assert pool.stats().started == 1


def _objects_here() -> Counter[str]:
    """Objects of this package, by the names of their classes."""
    gc.collect()
    kinds = (type(it) for it in gc.get_objects())
    return Counter(it.__qualname__ for it in kinds if str(it.__module__).startswith("isthmus"))
