"""A loop whose plain calls may come from any thread."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from isthmus import Session, ThreadAwareLoop
from support import WAIT_SECONDS, LoopWatch, eventually, run_async

requirement = pytest.mark.requirement


async def _nothing() -> None: ...


def in_loop(test: Callable[[], Any], *, debug: bool = False) -> None:
    """Run *test* in a loop of the class; it may not complain of anything."""
    watch = LoopWatch()
    run_async(test(), _nothing, "ours-debug" if debug else "ours", watch)
    assert not watch.complaints, watch.complaints


both_modes = pytest.mark.parametrize("debug", [False, True], ids=["plain", "debug"])


class Sleep:
    """Tells when a loop has nothing to do and goes to sleep."""

    def __init__(self, loop: Any) -> None:
        self._select = loop._selector.select
        self._asleep = threading.Event()
        loop._selector.select = self

    def __call__(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout > 1:
            self._asleep.set()
        return self._select(timeout)

    def wait(self) -> None:
        """Wait in another thread."""
        assert self._asleep.wait(WAIT_SECONDS)


PLAIN_CALLS: dict[str, Callable[[Any, Any], object]] = {
    "call_soon": lambda loop, it: loop.call_soon(it.done.set),
    "call_later": lambda loop, it: loop.call_later(0, it.done.set),
    "call_at": lambda loop, it: loop.call_at(loop.time(), it.done.set),
    "create_task": lambda loop, it: loop.create_task(it.finish()),
    "event": lambda loop, it: it.done.set(),
    "queue": lambda loop, it: it.queue.put_nowait(None),
    "future": lambda loop, it: it.future.set_result(None),
    "cancel": lambda loop, it: it.sleeper.cancel(),
}


class _Waiters:
    """Loop-bound objects, each of which leads to ``done``."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.queue = asyncio.Queue[None]()
        self.future = asyncio.get_running_loop().create_future()
        self.future.add_done_callback(lambda _: self.done.set())
        self.sleeper = asyncio.ensure_future(asyncio.sleep(600))
        self.sleeper.add_done_callback(lambda _: self.done.set())
        self.getter = asyncio.ensure_future(self._get())

    async def _get(self) -> None:
        await self.queue.get()
        self.done.set()

    async def finish(self) -> None:
        self.done.set()


@requirement("3.5-own-loops")
@both_modes
@pytest.mark.parametrize("call", PLAIN_CALLS)
def test_a_plain_call_of_another_thread_wakes_a_sleeping_loop(call: str, debug: bool) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        waiters, sleep = _Waiters(), Sleep(loop)

        def elsewhere() -> None:
            sleep.wait()
            PLAIN_CALLS[call](loop, waiters)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        async with asyncio.timeout(WAIT_SECONDS):
            await waiters.done.wait()
        thread.join()
        waiters.sleeper.cancel()
        waiters.getter.cancel()

    in_loop(test, debug=debug)


@requirement("3.5-own-loops")
@both_modes
def test_callbacks_of_another_thread_begin_in_order_on_the_loops_own(debug: bool) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        variable = contextvars.ContextVar("variable", default="the loop's")
        done = asyncio.Event()
        seen: list[object] = []

        def note(*args: object) -> None:
            seen.append((threading.get_ident(), variable.get(), *args))
            if len(seen) == 5:
                done.set()

        def elsewhere() -> None:
            loop.call_soon(note, 0)
            variable.set("the thread's")
            loop.call_soon(note, 1)
            loop.call_soon(note, 2, context=contextvars.Context())
            loop.call_later(0, note, 3)
            loop.call_at(loop.time(), note, 4)
            loop.call_later(600, note, "cancelled").cancel()

        thread = threading.Thread(target=elsewhere)
        thread.start()
        async with asyncio.timeout(WAIT_SECONDS):
            await done.wait()
        thread.join()
        me = threading.get_ident()
        assert seen[:3] == [(me, "the loop's", 0), (me, "the thread's", 1), (me, "the loop's", 2)]
        assert set(seen[3:]) == {(me, "the thread's", 3), (me, "the thread's", 4)}

    in_loop(test, debug=debug)


@requirement("3.5-own-loops")
def test_a_method_that_wakes_several_tasks_is_not_torn_by_those_that_it_wakes() -> None:
    """On a loop that only hops, four of five such calls raise, or lose a waiter."""

    async def test() -> None:
        for _ in range(50):
            async with asyncio.timeout(WAIT_SECONDS):
                assert await _woken_together(8) == list(range(9))

    in_loop(test)


async def _woken_together(count: int) -> list[object]:
    """Have *count* tasks woken by one call in a thread; the order, and what the call raised."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    order: list[object] = []

    async def wait(number: int) -> None:
        await event.wait()
        order.append(number)

    def elsewhere() -> None:
        try:
            event.set()
        except RuntimeError as error:
            order.append(error)
        loop.call_soon(order.append, count)

    tasks = [asyncio.ensure_future(wait(number)) for number in range(count)]
    await asyncio.sleep(0)
    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.gather(*tasks)
    await eventually(lambda: count in order)
    thread.join()
    return order


@requirement("3.5-own-loops")
def test_what_a_function_of_asyncio_schedules_begins_when_it_has_been_left() -> None:
    """And what its thread schedules in the meantime does not overtake that."""
    names: dict[str, Any] = {"__name__": "asyncio.locks"}
    exec("def of_asyncio(first, then):\n    first()\n    then()", names)

    async def test() -> None:
        loop = asyncio.get_running_loop()
        order: list[str] = []
        left = asyncio.Event()

        def code_of_others() -> None:
            loop.call_soon(order.append, "second")
            for _ in range(20):  # rounds of the loop
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(WAIT_SECONDS)
            order.append("left")

        def elsewhere() -> None:
            names["of_asyncio"](lambda: loop.call_soon(order.append, "unheld"), code_of_others)

        def held() -> None:
            names["of_asyncio"](functools.partial(loop.call_soon, order.append, "first"), elsewhere)
            loop.call_soon(left.set)

        async with asyncio.timeout(WAIT_SECONDS):
            await asyncio.to_thread(held)
            await left.wait()
        assert order == ["left", "first", "unheld", "second"]

    in_loop(test)


@requirement("3.5-own-loops")
def test_a_task_group_takes_tasks_of_another_thread() -> None:
    async def test() -> None:
        done: list[int] = []

        async def work(number: int) -> None:
            done.append(number)

        for _ in range(20):
            done.clear()
            async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as group:

                def elsewhere(group: asyncio.TaskGroup = group) -> None:
                    for number in range(10):
                        group.create_task(work(number))

                await asyncio.to_thread(elsewhere)
            assert done == list(range(10))

    in_loop(test)


@requirement("3.5-own-loops")
def test_a_callback_whose_caller_never_returns_from_a_foreign_loop_is_not_held_up() -> None:
    """The frames of the other thread's own loop are no reason to wait."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        future, go_on = loop.create_future(), threading.Event()

        async def elsewhere() -> None:
            other = asyncio.get_running_loop()
            other.call_soon(future.set_result, "through a callback")
            await asyncio.to_thread(go_on.wait, WAIT_SECONDS)

        thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
        thread.start()
        async with asyncio.timeout(WAIT_SECONDS):
            assert await future == "through a callback"
        go_on.set()
        thread.join()

    in_loop(test)


@requirement("3.5-own-loops")
def test_readers_and_writers_are_added_from_another_thread() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        readable, writable = asyncio.Event(), asyncio.Event()

        def elsewhere() -> tuple[bool, bool, bool]:
            loop.add_reader(here, readable.set)
            loop.add_writer(there, writable.set)
            os.write(there.fileno(), b"x")
            return loop.remove_writer(there), loop.remove_writer(there), writable.is_set()

        with here, there:
            removed = await asyncio.to_thread(elsewhere)
            assert removed[:2] == (True, False)
            async with asyncio.timeout(WAIT_SECONDS):
                await readable.wait()
            assert await asyncio.to_thread(loop.remove_reader, here)
        with pytest.raises(ValueError, match="descriptor"):
            await asyncio.to_thread(loop.add_reader, -1, print)

    in_loop(test)


@requirement("3.5-own-loops")
def test_signal_handlers_are_added_from_another_thread() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()
        await asyncio.to_thread(loop.add_signal_handler, signal.SIGUSR1, heard.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        async with asyncio.timeout(WAIT_SECONDS):
            await heard.wait()
        assert await asyncio.to_thread(loop.remove_signal_handler, signal.SIGUSR1)

    in_loop(test)


@requirement("3.5-own-loops")
def test_who_waits_for_a_loop_that_is_closed_hears_of_it() -> None:
    loop = ThreadAwareLoop()
    held, errors = threading.Event(), []

    def elsewhere() -> None:
        held.wait(WAIT_SECONDS)
        try:
            loop.remove_reader(0)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()

    def stop_deaf() -> None:
        """Stop in this turn, with the call of the thread in the queue behind."""
        held.set()
        while not loop._awaited:
            pass
        loop.stop()

    loop.call_soon(stop_deaf)
    loop.run_forever()
    loop.close()
    thread.join(WAIT_SECONDS)
    assert errors == ["Event loop is closed"] and not thread.is_alive()


@requirement("3.5-own-loops")
def test_it_is_stopped_from_another_thread() -> None:
    loop = ThreadAwareLoop()
    sleep = Sleep(loop)

    def elsewhere() -> None:
        sleep.wait()
        loop.stop()

    def too_late() -> None:
        raise KeyboardInterrupt

    guard = loop.call_later(WAIT_SECONDS, too_late)
    thread = threading.Thread(target=elsewhere)
    thread.start()
    loop.run_forever()
    guard.cancel()
    thread.join()
    loop.close()


@requirement("3.5-own-loops")
def test_calls_are_refused_as_on_any_loop() -> None:
    loop = ThreadAwareLoop()
    loop.call_soon(print).cancel()  # while it does not run, any thread's call is a plain one
    assert not loop._visits
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(print)
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_later(0, print)
    with pytest.raises(TypeError):
        loop.call_at(None, print)  # type: ignore[arg-type]

    async def test() -> None:
        running = asyncio.get_running_loop()
        for call in (running.call_soon, running.call_soon_threadsafe):
            with pytest.raises(TypeError):
                call(asyncio.sleep)
            with pytest.raises(TypeError):
                await asyncio.to_thread(call, asyncio.sleep)

    in_loop(test, debug=True)


# -- with cells ----------------------------------------------------------------------------------


@requirement("3.5-own-loops")
def test_a_plain_thread_cell_wakes_the_loop_at_once() -> None:
    async def test() -> None:
        async with Session() as session:
            await session.execute("event = asyncio.Event(); seen = []")
            session.update_namespace({"woken": threading.Event()})
            await session.execute("""
async def wait(number):
    await event.wait()
    seen.append(number)
    if len(seen) == 3:
        woken.set()

tasks = [asyncio.create_task(wait(number)) for number in range(3)]
""")
            code = "event.set(); woken.wait(5)"
            assert await session.execute(code, context="thread")
            beside = "await asyncio.sleep(0); ready.set(); await asyncio.to_thread(go.wait, 5)"
            await session.execute("event.clear(); seen.clear(); woken.clear()")
            session.update_namespace({"ready": threading.Event(), "go": threading.Event()})
            sharing = asyncio.ensure_future(session.run(beside, context="thread", concurrent=True))
            await eventually(session.namespace["ready"].is_set)
            await session.execute(
                "tasks = [asyncio.create_task(wait(number)) for number in range(3)]"
            )
            assert await session.execute(code, context="thread")  # though another one shares it
            session.namespace["go"].set()
            assert (await sharing).status == "ok"

    in_loop(test)


@requirement("3.5-own-loops", "3.5-thread-view")
def test_in_a_thread_cell_that_awaits_what_it_starts_begins_when_it_awaits() -> None:
    async def test() -> None:
        async with Session() as session:
            loop = asyncio.get_running_loop()
            own = set(vars(loop))
            session.update_namespace({"own": own, "vars_of": lambda: set(vars(loop))})
            code = """
import threading
await asyncio.sleep(0)
loop = asyncio.get_running_loop()
replaced = {name for name in vars_of() - own if not name.startswith("run_")}
order = []

async def fail():
    order.append(threading.get_ident())
    raise ValueError("at once")

task = asyncio.create_task(fail())
loop.call_soon(order.append, "soon")
timer = loop.call_later(0, order.append, "later")
hidden = loop.call_later(600, print)
hidden.cancel()
for _ in range(5):  # rounds of the loop
    turned = threading.Event()
    loop.call_soon_threadsafe(turned.set)
    turned.wait(5)
started = [it for it in order if it != "later"]  # a timer does not wait for the thread
result = (await asyncio.gather(task, return_exceptions=True))[0]
while "later" not in order:
    await asyncio.sleep(0)
removed = loop.remove_reader(0)
started, repr(result), removed, replaced
"""
            value = await session.execute(code, context="thread")
            assert value == ([], "ValueError('at once')", False, set())
            order = [it for it in session.namespace["order"] if it != "later"]
            assert order == [threading.get_ident(), "soon"]

    in_loop(test)
