"""Context variables and scopes of cells that run beside each other, and of nested ones."""

from __future__ import annotations

import asyncio

import pytest

from either_home import error_name
from isthmus import AnySession
from support import cell, on_one_loop

requirement = pytest.mark.requirement

VARIABLE = "import contextvars\nvar = contextvars.ContextVar('var', default='unset')\n"


@requirement("3.2-concurrent")
async def test_variables_set_by_concurrent_cells_are_seen_by_nobody_else(
    session: AnySession, context: str
) -> None:
    await session.execute(f"{VARIABLE}_t = var.set('before')\nmet = asyncio.Barrier(2)")
    setting = "seen = [var.get()]\n_t = var.set({0!r})\nawait met.wait()\nseen + [var.get()]"
    seen = await asyncio.gather(
        *(
            session.execute(setting.format(name), context=context, concurrent=True)
            for name in ("one", "two")
        )
    )
    assert seen == [["before", "one"], ["before", "two"]]
    assert await session.execute("var.get()", context=context) == "before"


@requirement("3.2-concurrent")
async def test_what_is_set_while_a_concurrent_cell_runs_does_not_reach_it(
    session: AnySession, context: str
) -> None:
    await session.execute(f"{VARIABLE}begun, go = asyncio.Event(), asyncio.Event()")
    code = "await asyncio.sleep(0)\nawait note()\nawait go.wait()\nvar.get()"
    await session.execute("async def note(): begun.set()")
    beside = asyncio.ensure_future(session.execute(code, context=context, concurrent=True))
    await session.execute("await begun.wait()\n_t = var.set('later')")
    await session.execute("go.set()")
    assert await beside == "unset"


@requirement("3.2-concurrent")
async def test_a_scope_of_the_ordered_cells_does_not_bound_a_concurrent_one(
    session: AnySession, context: str
) -> None:
    await session.execute("go = asyncio.Event()\nscope = asyncio.timeout(None)")
    await session.execute("await scope.__aenter__()", context=context)
    code = "await go.wait()\n'untouched'"
    beside = asyncio.ensure_future(session.execute(code, context=context, concurrent=True))
    expiring = "scope.reschedule(asyncio.get_running_loop().time())\nawait asyncio.Event().wait()"
    assert (await session.run(expiring)).status == "cancelled"
    leaving = "await scope.__aexit__(asyncio.CancelledError, asyncio.CancelledError(), None)"
    assert error_name((await session.run(leaving)).error) == "TimeoutError"
    await session.execute("go.set()")
    assert await beside == "untouched"


@requirement("3.2-concurrent")
async def test_a_task_group_of_the_ordered_cells_takes_tasks_of_a_concurrent_one(
    session: AnySession, context: str
) -> None:
    await session.execute("group = await asyncio.TaskGroup().__aenter__()", context=context)
    code = "await asyncio.sleep(0)\ntask = group.create_task(asyncio.sleep(0, 'done'))"
    await session.execute(code, context=context, concurrent=True)
    leaving = "await group.__aexit__(None, None, None)\ntask.result()"
    assert await session.execute(leaving, context=context) == "done"


@requirement("3.2-concurrent")
async def test_a_scope_that_a_concurrent_cell_leaves_open_cancels_no_other_cell(
    session: AnySession, context: str
) -> None:
    await session.execute("scope = asyncio.timeout(None)\ngo = asyncio.Event()")
    await session.execute("await scope.__aenter__()", context=context, concurrent=True)
    expiring = (
        "loop = asyncio.get_running_loop()\nscope.reschedule(loop.time())\n"
        "_h = loop.call_later(0.001, go.set)\nawait go.wait()\nscope.expired()"
    )
    assert await session.execute(expiring) is True
    assert await session.execute("await asyncio.sleep(0, 'goes on')", context=context) == "goes on"


@requirement("3.2-concurrent")
@on_one_loop
async def test_a_nested_cell_shares_the_variables_of_its_parent(
    session: AnySession, context: str
) -> None:
    session.update_namespace({"session": session})
    await session.execute(f"{VARIABLE}_t = var.set('before')")
    parent = "await session.execute('_t = var.set(\"nested\")')\nvar.get()"
    assert await session.execute(parent, context=context) == "nested"
    assert await session.execute("var.get()", context=context) == "nested"


@requirement("3.2-concurrent")
@on_one_loop
async def test_a_scope_of_its_parent_covers_a_nested_cell(
    session: AnySession, context: str
) -> None:
    async def nested(code: str) -> str:
        return (await session.run(code)).status

    session.inject_capability("nested", nested)
    parent = (
        "async with asyncio.timeout(None) as scope:\n"
        "    expiring = 'scope.reschedule(0)\\nawait asyncio.Event().wait()'\n"
        "    inner = await nested(expiring)\n"
    )
    result = await session.run(parent, context=context)
    assert error_name(result.error) == "TimeoutError", result
    assert "inner" not in await session.snapshot()
    assert await session.execute("await asyncio.sleep(0, 'on')", context=context) == "on"


@requirement("3.2-scopes")
async def test_a_scope_that_its_thread_leaves_while_it_cancels_cancels_no_later_cell(
    session: AnySession,
) -> None:
    """As anyio's does: it cancels the task, and notes afterwards what it has to take back."""
    await session.execute(
        cell("""
        import threading

        class Scope:
            def __init__(self):
                self.noted, self.task = 0, asyncio.current_task()
                self.has_cancelled, self.is_left = threading.Event(), threading.Event()

            def expire(self):
                self.task.cancel()
                self.has_cancelled.set()
                assert self.is_left.wait(5)
                self.noted += 1

            def __enter__(self):
                asyncio.get_running_loop().call_soon_threadsafe(self.expire)

            def __exit__(self, *_):
                assert self.has_cancelled.wait(5)
                for _ in range(self.noted):
                    self.task.uncancel()
                self.is_left.set()
        """)
    )
    await session.execute("await asyncio.sleep(0)\nwith Scope(): pass", context="thread")
    assert await session.execute("await asyncio.sleep(0, 'goes on')") == "goes on"
    assert await session.execute("asyncio.current_task().cancelling()") == 0
