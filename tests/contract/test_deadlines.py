"""Deadlines: what they may be, and that control comes back at them, whatever the cell is doing."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from either_home import beside
from isthmus import AnySession
from support import WAIT_SECONDS

requirement = pytest.mark.requirement


@requirement("6.2-timeout")
@pytest.mark.parametrize("concurrent", [False, True], ids=["ordered", "concurrent"])
async def test_a_deadline_that_passes_before_the_loop_has_begun_the_cell_harms_nobody(
    session: AnySession, context: str, concurrent: bool
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


BAD_TIMEOUTS = [(math.nan, ValueError), (-1, ValueError), ("1", TypeError), (True, TypeError)]


@requirement("6.2-timeout-values")
@pytest.mark.parametrize(
    ("timeout", "refusal"), BAD_TIMEOUTS, ids=["nan", "negative", "str", "bool"]
)
async def test_a_timeout_that_is_none_is_refused_before_anything_is_done(
    session: AnySession, context: str, timeout: Any, refusal: type[Exception]
) -> None:
    await session.execute("def f(): ran.append(1)\nran = []")
    loop_timers_fire = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.001, loop_timers_fire.set_result, None)
    for attempt in (
        session.run("f()", context=context, timeout=timeout),
        session.run("await asyncio.sleep(0)", context=context, timeout=timeout),
        session.run_call("f", context=context, timeout=timeout),
        session.await_pending_coroutines(timeout=timeout),
    ):
        with pytest.raises(refusal, match="timeout"):
            await attempt
    with pytest.raises(refusal, match="timeout"):
        type(session)(timeout=timeout)
    assert await session.get("ran") == []
    await asyncio.wait_for(loop_timers_fire, WAIT_SECONDS)
    assert (await session.run("f()", context=context)).cell == 2


@requirement("6.2-timeout-values")
@pytest.mark.parametrize(
    ("timeout", "refusal"), BAD_TIMEOUTS, ids=["nan", "negative", "str", "bool"]
)
async def test_an_executor_refuses_it_too(
    session: AnySession, timeout: Any, refusal: type[Exception]
) -> None:
    with pytest.raises(refusal, match="timeout"):
        await session.executor.execute("1", timeout=timeout)


@requirement("6.2-timeout-values")
async def test_infinity_lifts_the_timeout_of_the_session(
    make_session: Callable[..., AnySession], context: str
) -> None:
    session = make_session(timeout=0.01)
    await session.execute("go = asyncio.Event()")
    running = asyncio.ensure_future(
        session.run("await go.wait()", context=context, timeout=math.inf)
    )
    bounded = await session.run("await asyncio.Event().wait()", context=context, concurrent=True)
    assert bounded.status == "timeout"
    assert not running.done()
    await beside(session, "go.set()")
    assert (await running).value is True
