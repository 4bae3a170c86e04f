"""A future that wakes its task at once."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from isthmus.prompt_future import PromptFuture

requirement = pytest.mark.requirement

who: ContextVar[str] = ContextVar("who", default="nobody")


async def waits(future: PromptFuture[None], log: list[str]) -> None:
    who.set("the waiter")
    await future
    log.append(f"woken as {who.get()}, in {asyncio.current_task().get_name()}")  # type: ignore[union-attr]


@requirement("3.4-order")
async def test_a_callback_of_the_loop_wakes_the_waiter_before_it_goes_on() -> None:
    future, log = PromptFuture[None](), list[str]()
    task = asyncio.create_task(waits(future, log), name="T")
    await asyncio.sleep(0)

    def callback() -> None:
        future.resolve(None)
        log.append("callback goes on")

    asyncio.get_running_loop().call_soon(callback)
    await task
    assert log == ["woken as the waiter, in T", "callback goes on"]


@requirement("3.4-order")
async def test_a_task_that_resolves_it_goes_on_first() -> None:
    future, log = PromptFuture[None](), list[str]()
    task = asyncio.create_task(waits(future, log), name="T")
    await asyncio.sleep(0)
    future.resolve(None)
    log.append("resolver goes on")
    await task
    assert log == ["resolver goes on", "woken as the waiter, in T"]


@requirement("3.4-order")
async def test_several_waiters_are_all_woken() -> None:
    future, log = PromptFuture[None](), list[str]()
    tasks = [asyncio.create_task(waits(future, log), name=str(number)) for number in range(3)]
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(future.resolve, None)
    await asyncio.gather(*tasks)
    assert sorted(log) == [f"woken as the waiter, in {number}" for number in range(3)]


@requirement("3.4-order")
async def test_a_cancelled_waiter_hears_of_it_and_one_that_leaves_is_not_called() -> None:
    future, log = PromptFuture[None](), list[str]()
    task = asyncio.create_task(waits(future, log))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert future.cancelled() and log == []
    done, _ = await asyncio.wait([other := PromptFuture[None]()], timeout=0)
    assert not done and other.remove_done_callback(print) == 0
    other.resolve(None)
    await other
