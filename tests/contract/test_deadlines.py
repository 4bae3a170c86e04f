"""Deadlines: what they may be, and that control comes back at them, whatever the cell is doing."""

from __future__ import annotations

import asyncio
import time

import pytest

from isthmus import Session
from support import WAIT_SECONDS

requirement = pytest.mark.requirement


@requirement("6.2-timeout")
@pytest.mark.parametrize("concurrent", [False, True], ids=["ordered", "concurrent"])
async def test_a_deadline_that_passes_before_the_loop_has_begun_the_cell_harms_nobody(
    session: Session, context: str, concurrent: bool
) -> None:
    code = "await asyncio.sleep(30)"
    running = asyncio.ensure_future(
        session.run(code, context=context, timeout=0, concurrent=concurrent)
    )
    await asyncio.sleep(0)
    due = time.monotonic() + 0.01
    while time.monotonic() < due:  # the timer is due before the loop's next turn: uvloop calls it
        pass
    result = await asyncio.wait_for(running, WAIT_SECONDS)
    assert (result.status, result.stopped) == ("timeout", True), result
    assert (await session.run("await asyncio.sleep(0, 'on')", context=context)).value == "on"
