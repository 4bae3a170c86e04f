"""Workers that wait are given to sessions in turn, each to one, and replaced."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
from contextlib import suppress
from typing import Any, Literal

import pytest

from isthmus import (
    ForkServer,
    LoopError,
    MemoryTransport,
    Output,
    PoolClosedError,
    PooledSession,
    PoolFull,
    PoolTimeout,
    WorkerDied,
    WorkerLimits,
    WorkerPool,
    WorkerSession,
    WorkerStartError,
)
from support import WAIT_SECONDS, LoopThread, eventually, on_other_loops

requirement = pytest.mark.requirement


@pytest.fixture
def server(fork_server: ForkServer) -> ForkServer:
    """What forks the workers of all tests."""
    return fork_server


async def _full(pool: WorkerPool) -> None:
    """Wait until as many workers wait as shall."""
    await eventually(lambda: pool.stats().idle == pool.min_idle, lambda: str(pool.stats()))


def _pids(pool: WorkerPool) -> list[int]:
    return [it.supervisor.pid for it in pool._idle]


@requirement("7.7-pool")
async def test_a_session_of_a_pool_has_a_worker_that_waited_and_options_of_its_own(
    server: ForkServer, transport: MemoryTransport
) -> None:
    async def tool() -> str:
        return "from the host"

    async with WorkerPool(min_idle=1, fork_server=server) as pool:
        await _full(pool)
        (pid,) = _pids(pool)
        options: dict[str, Any] = {"capabilities": [tool], "transport": transport, "timeout": 5}
        async with pool.session("mine", input=lambda: "typed", **options) as session:
            assert isinstance(session, WorkerSession)
            assert session.pid == pid
            assert await session.execute("print(1); (await tool(), input(), __name__)") == (
                *("from the host", "typed"),
                "__main__",
            )
            assert transport.of_type(Output)[0].session == "mine"
            assert pool.stats().in_use == 1
            await _full(pool)  # another one waits already
        await eventually(lambda: pool.stats().in_use == 0)
        async with pool.session() as session:
            assert session.pid != pid
            assert await session.execute("'tool' in dir(__builtins__)") is False
        stats = pool.stats()
        assert (stats.served, stats.died, stats.failed, stats.waiting) == (2, 0, 0, 0)
        assert stats.waited_seconds >= stats.longest_wait_seconds >= 0
    assert pool.closed
    with pytest.raises(PoolClosedError):
        await pool.acquire()


@requirement("7.7-pool")
async def test_who_waits_is_served_in_order_and_one_who_gives_up_loses_nothing(
    server: ForkServer,
) -> None:
    served: list[int] = []

    async def visitor(number: int) -> None:
        async with pool.session() as session:
            served.append(number)
            await session.execute("1")

    async with WorkerPool(min_idle=0, max_size=1, fork_server=server) as pool:
        first = await pool.acquire()
        visitors = []
        for number in range(5):
            visitors.append(asyncio.ensure_future(visitor(number)))
            await eventually(lambda: pool.stats().waiting == len(visitors))
        visitors[2].cancel()
        with pytest.raises(asyncio.CancelledError):
            await visitors[2]
        assert pool.stats().waiting == 4
        await pool.release(first)
        await asyncio.gather(*visitors, return_exceptions=True)
        assert served == [0, 1, 3, 4]


class CruelPool(WorkerPool):
    """Has its victim cancelled in the very step in which it is given a worker."""

    victim: asyncio.Task[Any] | None = None

    def _serve(self) -> None:
        before = self.stats().in_use
        super()._serve()
        if self.victim is not None and self.stats().in_use > before:
            self.victim.cancel()
            self.victim = None


@requirement("7.7-pool")
async def test_a_worker_given_to_one_who_gives_up_in_that_moment_goes_to_the_next(
    server: ForkServer,
) -> None:
    async with CruelPool(min_idle=0, max_size=1, fork_server=server) as pool:
        pool.victim = first = asyncio.ensure_future(pool._take())
        second = asyncio.ensure_future(pool._take())
        member = await asyncio.wait_for(second, WAIT_SECONDS)
        assert first.cancelled()
        stats = pool.stats()
        assert (stats.in_use, stats.waiting, stats.started, stats.served) == (1, 0, 1, 1)
        pool._in_use.remove(member)
        pool._idle.append(member)


@requirement("7.7-pool")
async def test_a_pool_can_be_closed_while_its_workers_are_on_their_way(server: ForkServer) -> None:
    async with WorkerPool(min_idle=3, fork_server=server) as pool:
        asking = asyncio.ensure_future(pool.acquire())
        await eventually(lambda: pool.stats().starting == 4 and pool.stats().waiting)
    with pytest.raises(PoolClosedError):
        await asking
    stats = pool.stats()
    assert (stats.idle, stats.in_use, stats.starting, stats.failed) == (0, 0, 0, 0)


@requirement("7.7-pool")
async def test_limits_of_a_pool_are_errors_by_name(server: ForkServer) -> None:
    async with WorkerPool(min_idle=0, max_size=1, max_waiting=1, fork_server=server) as pool:
        async with pool.session():
            pool.timeout = 0.05
            waiting = asyncio.ensure_future(pool.acquire())
            await eventually(lambda: pool.stats().waiting == 1)
            with pytest.raises(PoolFull, match="1 sessions wait"):
                await pool.acquire()
            with pytest.raises(PoolTimeout, match=r"within 0.05 s"):
                await waiting
            assert pool.stats().waiting == 0
        for taken in ("python", "cwd", "env", "fork_server"):
            with pytest.raises(TypeError, match=f"{taken}: an option of the pool"):
                pool.session(**{taken: None})
        with LoopThread() as other, pytest.raises(LoopError, match="open a pool in each loop"):
            await other.wait(pool.acquire())
    for wrong in ({"min_idle": -1}, {"max_size": 0}, {"max_waiting": -1}):
        with pytest.raises(ValueError, match="must be at least"):
            WorkerPool(**wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="whole number"):
        WorkerPool(max_size=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="name them there"):
        WorkerPool(preload=["decimal"], fork_server=server)


@requirement("7.7-pool")
async def test_a_worker_that_died_while_it_waited_is_given_to_nobody(server: ForkServer) -> None:
    async with WorkerPool(min_idle=2, max_size=4, fork_server=server) as pool:
        await _full(pool)
        dead = _pids(pool)
        for pid in dead:
            os.kill(pid, signal.SIGKILL)
        async with pool.session() as session:  # at once: nobody has noticed yet
            assert session.pid not in dead
            assert await session.execute("1 + 1") == 2
        await _full(pool)
        assert not set(dead) & set(_pids(pool))
        assert pool.stats().died == 2


@requirement("7.7-pool")
async def test_a_worker_that_dies_in_use_leaves_its_place_and_its_session_takes_another(
    server: ForkServer,
) -> None:
    async with WorkerPool(min_idle=0, max_size=1, fork_server=server) as pool:
        async with pool.session() as session:
            with pytest.raises(WorkerDied):
                await session.run("import os; os._exit(3)")
            async with pool.session() as other:
                assert await other.execute("1") == 1
            await session.restart()
            assert await session.execute("2") == 2
        assert pool.stats().died == 1


@requirement("7.7-pool")
async def test_a_worker_that_has_waited_too_long_is_replaced(server: ForkServer) -> None:
    async with WorkerPool(min_idle=1, max_idle_seconds=0.05, fork_server=server) as pool:
        await _full(pool)
        (pid,) = _pids(pool)
        await eventually(lambda: pid not in _pids(pool) and pool.stats().idle)
        assert pool.stats().died == 0


@requirement("7.7-pool")
async def test_closing_ends_all_and_says_what_was_open(server: ForkServer) -> None:
    pool = WorkerPool(min_idle=1, max_size=2, fork_server=server)
    async with pool:
        busy, idle = await pool.acquire("busy"), await pool.acquire("idle")
        running = asyncio.ensure_future(busy.run("while True: pass"))
        waiting = asyncio.ensure_future(pool.acquire())
        await eventually(lambda: pool.stats().waiting == 1)
        report = await pool.close()
        assert (set(report.sessions), report.stats.in_use) == ({"busy", "idle"}, 2)
        assert not report.clean
        with pytest.raises(PoolClosedError):
            await waiting
        assert (await running).status == "interrupted"
        assert busy.closed
        assert idle.closed
    assert await pool.close() is report
    assert (pool.stats().idle, pool.stats().in_use, pool.stats().starting) == (0, 0, 0)


@requirement("7.7-pool")
async def test_a_start_that_fails_is_told_to_who_waits() -> None:
    async with WorkerPool(min_idle=2, preload=["no_such_module"]) as pool:
        await eventually(lambda: pool.stats().failed == 2)
        assert "no_such_module" in pool.stats().last_problem
        for _ in range(2):
            with pytest.raises(WorkerStartError, match="no_such_module"):
                await pool.acquire()
        assert pool.stats().waiting == 0


@requirement("7.7-pool")
async def test_workers_of_a_pool_have_its_limits_and_preloaded_modules() -> None:
    limits = WorkerLimits(open_files=77)
    async with (
        WorkerPool(min_idle=1, preload=["decimal"], limits=limits) as pool,
        pool.session() as session,
    ):
        assert await session.execute("import sys; 'decimal' in sys.modules")
        ask = "import resource; resource.getrlimit(7)[0]"
        assert await session.execute(ask) == 77
        async with pool.session(limits=WorkerLimits(open_files=66)) as lower:
            assert await lower.execute(ask) == 66


@requirement("7.7-pool")
async def test_sessions_and_pools_that_are_dropped_say_so_and_their_workers_end(
    server: ForkServer,
) -> None:
    async with WorkerPool(min_idle=0, max_size=1, fork_server=server) as pool:
        session = await pool.acquire()
        with pytest.warns(ResourceWarning, match="unclosed session"):
            del session
            gc.collect()
        async with pool.session() as session:  # its place is free again
            assert await session.execute("1") == 1

    async def open_and_drop() -> int:
        pool = WorkerPool(min_idle=1, fork_server=server)
        await pool.__aenter__()
        await _full(pool)
        await eventually(lambda: pool._replacing is None)
        return _pids(pool)[0]

    with pytest.warns(ResourceWarning, match="unclosed pool"):
        pid = await open_and_drop()
        gc.collect()
    await eventually(lambda: not os.path.exists(f"/proc/{pid}"))


@on_other_loops
@requirement("7.7-pool")
async def test_the_kind_of_the_hosts_loop_makes_no_difference(server: ForkServer) -> None:
    async with WorkerPool(min_idle=1, max_size=2, fork_server=server) as pool:

        async def user(number: int) -> int:
            async with pool.session() as session:
                result: int = await session.execute(f"{number} + 1")
                return result

        assert await asyncio.gather(*(user(number) for number in range(5))) == [1, 2, 3, 4, 5]


STEPS = 60


@requirement("7.7-pool")
@pytest.mark.parametrize(
    ("seed", "on_return"), [(1, "replace"), (2, "replace"), (3, "reset"), (4, "reset")]
)
async def test_any_order_of_taking_returning_giving_up_and_dying_keeps_the_books(
    server: ForkServer, seed: int, on_return: Literal["replace", "reset"]
) -> None:
    """A random walk: at each step the counts add up, and at the end everybody can be served."""
    chance = random.Random(seed)
    pool = WorkerPool(min_idle=1, max_size=3, on_return=on_return, fork_server=server)
    held: list[PooledSession] = []
    asking: set[asyncio.Task[PooledSession]] = set()

    def take() -> None:
        asking.add(asyncio.ensure_future(pool.acquire()))

    def give_up() -> None:
        if asking:
            chance.choice(sorted(asking, key=id)).cancel()

    async def give_back() -> None:
        if held:
            await held.pop(chance.randrange(len(held))).close()

    def kill_one() -> None:
        pids = _pids(pool) + [it.pid for it in held if it.pid is not None]
        if pids:
            with suppress(ProcessLookupError):  # it was killed before, and nobody has noticed yet
                os.kill(chance.choice(pids), signal.SIGKILL)

    async with pool:
        for _ in range(STEPS):
            action = chance.choice([take, take, take, give_up, give_back, give_back, kill_one])
            if (work := action()) is not None:
                await work
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            for task in [it for it in asking if it.done()]:
                asking.discard(task)
                if not task.cancelled():
                    held.append(task.result())
            stats = pool.stats()
            assert stats.idle + stats.in_use + stats.starting <= pool.max_size
            assert stats.waiting <= len(asking)
        for session in held:
            await session.close()
        async with asyncio.timeout(WAIT_SECONDS):
            for each in asyncio.as_completed(asking):
                try:
                    session = await each
                except asyncio.CancelledError:
                    continue
                await session.close()
        await eventually(lambda: pool.stats().in_use == 0, lambda: str(pool.stats()))
        sessions = await asyncio.gather(*(pool.acquire() for _ in range(pool.max_size)))
        assert len({it.pid for it in sessions}) == pool.max_size
        await asyncio.gather(*(it.close() for it in sessions))
