"""Looking at all objects of the process, whatever state they are in."""

from __future__ import annotations

import pytest

from support import run_in_child

requirement = pytest.mark.requirement


@requirement("5.1-ledger")
def test_a_census_meets_tasks_that_were_never_made_to_the_end() -> None:
    """Python 3.11 crashes where such a task is asked for its coroutine."""
    program = """
    import asyncio
    from isthmus import Session

    async def main():
        async with Session() as session:
            await session.execute(
                "half = asyncio.Task.__new__(asyncio.Task)\\n"
                "task = asyncio.create_task(asyncio.sleep(60))"
            )
            print(session.census())

    asyncio.run(main())
    """
    done = run_in_child(program)
    expected = "{'coroutine': 0, 'task': 1, 'async generator': 0, 'thread': 0}\n"
    assert (done.status, done.stdout) == (0, expected), done.stderr
