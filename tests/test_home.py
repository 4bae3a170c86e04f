"""The home's parts, by themselves: the mailbox, turns, hogging."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from isthmus import Session
from isthmus.mailbox import Mailbox
from support import eventually

requirement = pytest.mark.requirement


@requirement("3.2-cancel-idle")
async def test_a_cancellation_does_not_wake_who_waits_for_a_mailbox() -> None:
    mailbox = Mailbox(asyncio.get_running_loop())
    steps: list[Any] = []

    async def reader() -> None:
        steps.append(await mailbox.get())
        mailbox.redeliver()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            steps.append("cancelled")

    task = asyncio.ensure_future(reader())
    await asyncio.sleep(0)
    task.cancel("while idle")
    for _ in range(5):
        await asyncio.sleep(0)
    assert steps == []
    item: Any = object()
    mailbox.put(item)
    await task
    assert steps == [item, "cancelled"]


@requirement("3.2-cancel-idle")
async def test_a_cancellation_that_was_taken_back_meanwhile_is_not_delivered() -> None:
    mailbox = Mailbox(asyncio.get_running_loop())
    steps: list[Any] = []

    async def reader() -> None:
        await mailbox.get()
        asyncio.current_task().uncancel()  # type: ignore[union-attr]
        mailbox.redeliver()
        await asyncio.sleep(0)
        steps.append("not cancelled")

    task = asyncio.ensure_future(reader())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    mailbox.put(object())  # type: ignore[arg-type]
    await task
    assert steps == ["not cancelled"]


@requirement("3.4-order")
async def test_a_mailbox_keeps_the_order() -> None:
    mailbox = Mailbox(asyncio.get_running_loop())
    items: list[Any] = [object() for _ in range(5)]
    for item in items:
        mailbox.put(item)
    assert [await mailbox.get() for _ in items] == items


@requirement("close")
async def test_an_idle_session_holds_no_thread_and_no_cell(make_session: Any) -> None:
    import threading

    before = threading.active_count()
    session = make_session()
    await session.execute("class Big: pass\nx = 1")
    assert session.manager.current_home.thread is None
    big = await session.execute("Big()")
    seen = weakref.ref(big)
    del big
    await session.execute("_ = __ = ___ = None")
    gc.collect()
    assert seen() is None
    assert threading.active_count() <= before + 1


@requirement("close")
async def test_sessions_opened_and_closed_by_the_hundred_leave_nothing(context: str) -> None:
    seen = []
    for _ in range(100):
        async with Session() as session:
            await session.execute("x = 1\nawait asyncio.sleep(0)", context=context)
            seen.append(weakref.ref(session.manager))
        del session
    gc.collect()
    await eventually(lambda: not any(it() for it in seen))


@requirement("3.4-order")
async def test_bursts_of_mixed_cells_neither_lose_nor_reorder_anything(session: Session) -> None:
    await session.execute("log = []")
    for burst in range(5):
        kinds = ["thread", "thread", "async", "thread", "sync", "sync", "thread", "async"]
        codes = [
            f"log.append(({burst}, {number}))"
            + ("\nawait asyncio.sleep(0)" if number % 3 == burst % 3 else "")
            for number in range(len(kinds))
        ]
        await asyncio.gather(
            *[session.execute(code, context=kind) for code, kind in zip(codes, kinds, strict=True)]
        )
    assert session.namespace["log"] == [(b, n) for b in range(5) for n in range(8)]
