"""An alarm rings at its deadline, unless the host itself was late."""

from __future__ import annotations

import asyncio
import time

import pytest

from isthmus.worker.alarm import LATE_SECONDS, Alarm
from support import eventually, on_every_loop

requirement = pytest.mark.requirement


def be_away() -> None:
    """Have the loop wait for longer than an alarm takes for being in time."""
    time.sleep(LATE_SECONDS + 0.1)


@requirement("7.5-faults")
@on_every_loop
async def test_an_alarm_rings_once_and_not_when_it_was_cancelled() -> None:
    rung: list[str] = []
    Alarm(0.0, lambda: rung.append("one"))
    cancelled = Alarm(0.0, lambda: rung.append("two"))
    cancelled.cancel()
    await eventually(lambda: rung)
    await asyncio.sleep(0.01)
    cancelled.cancel()
    assert rung == ["one"]


@requirement("7.5-faults")
async def test_what_has_come_while_the_host_was_away_is_read_before_an_alarm_rings() -> None:
    rung: list[str] = []
    ours, theirs = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    alarm = Alarm(0.01, lambda: rung.append("late"))
    loop.call_later(0.02, ours.set)
    be_away()
    await ours.wait()  # the deadline has passed as well, and was before this one
    loop.call_soon(theirs.set)
    await theirs.wait()
    assert rung == []
    alarm.cancel()
    again = Alarm(0.0, lambda: rung.append("in the end"))
    be_away()
    await eventually(lambda: rung)
    again.cancel()
    assert rung == ["in the end"]
