"""Work on another event loop, by one task there."""

from __future__ import annotations

import asyncio

import pytest

from isthmus.delegates import Delegate, DelegateTask
from support import WAIT_SECONDS


async def test_what_it_was_given_is_answered_when_its_task_is_cancelled_before_it_begins() -> None:
    """Nothing of such a task ever runs, its ``finally`` blocks included."""
    made: list[DelegateTask] = []
    loop = asyncio.get_running_loop()

    def began(task: DelegateTask) -> None:
        made.append(task)
        task.cancel()

    early = Delegate(loop, began).begin(asyncio.sleep(0))
    late = Delegate(loop, made.append).begin(asyncio.sleep(0))

    def cancel() -> None:
        made[1].cancel()

    loop.call_soon(cancel)
    for order in (early, late):
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.wrap_future(order.outcome), WAIT_SECONDS)
