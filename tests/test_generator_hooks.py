"""The hook that sees async generators begin."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from isthmus import Session
from support import make_runner

requirement = pytest.mark.requirement

BEGINS = "async def count():\n    yield 1\ng = count()\nawait anext(g)\nNone"


@requirement("5.1-ledger", "6.5-hooks")
def test_it_is_in_for_each_run_of_the_loop_and_out_with_the_last_session() -> None:
    with make_runner("asyncio") as runner:
        first, second = Session("first"), Session("second")
        for _ in range(2):
            runner.run(first.execute(BEGINS))
            assert [it.kind for it in first.ledger()] == ["async generator"]

        async def end() -> tuple[Any, Any]:
            loops_own = sys.get_asyncgen_hooks().firstiter
            await first.execute(BEGINS)
            await second.execute("1")
            await first.close()
            with_one = sys.get_asyncgen_hooks().firstiter
            assert with_one is not loops_own
            await second.close()
            return sys.get_asyncgen_hooks().firstiter, loops_own

        after, before = runner.run(end())
        assert after == before


@requirement("6.5-hooks")
async def test_a_hook_that_passes_on_to_ours_is_not_wrapped_again(
    make_session: Callable[..., Session],
) -> None:
    session = make_session()
    await session.execute("1")
    ours = sys.get_asyncgen_hooks().firstiter
    assert ours is not None
    begun: list[object] = []

    class Passing:
        previous = ours

        def __call__(self, generator: Any) -> None:
            begun.append(generator)
            self.previous(generator)

    passing: Any = Passing()
    sys.set_asyncgen_hooks(firstiter=passing)
    await session.execute(BEGINS)
    assert sys.get_asyncgen_hooks().firstiter is passing
    assert begun == [session.namespace["g"]]
    assert [it.kind for it in session.ledger()] == ["async generator"]
    await session.close()
    assert sys.get_asyncgen_hooks().firstiter is passing
    sys.set_asyncgen_hooks(firstiter=ours)


@requirement("6.5-hooks")
async def test_a_session_that_another_thread_closes_takes_it_out_too(
    make_session: Callable[..., Session],
) -> None:
    before = sys.get_asyncgen_hooks().firstiter
    session = make_session()
    await session.execute("1")
    await asyncio.to_thread(lambda: asyncio.run(session.close()))
    await asyncio.sleep(0)
    assert sys.get_asyncgen_hooks().firstiter == before
