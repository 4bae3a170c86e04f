"""A coroutine that begins at once. Owns the step before there is a task.

A task begins a turn of the loop later than it is made, and tells of its end one turn after that.
What most cells do ends within the first step, and needs neither.

Refuses to know: what is done.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any


def begin_now(
    work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop
) -> asyncio.Task[None] | None:
    """Step *work* until it waits or ends; the task that does the rest, None where it has ended.

    Arguments:
        work: It must not ask which task it runs in before it waits: there is none.
        loop: The loop that runs here.

    Raises whatever the first step raises. Cancel: the task's.
    """
    try:
        trap = work.send(None)
    except StopIteration:
        return None
    return asyncio.Task(_go_on(work, trap), loop=loop)


async def _go_on(work: Coroutine[Any, Any, None], trap: Any) -> None:
    await _steps(work, trap)


@types.coroutine
def _steps(work: Coroutine[Any, Any, None], trap: Any) -> Generator[Any, Any, None]:
    """Wait for *trap*, for which *work* waits, and so on to its end."""
    try:
        while True:
            try:
                value = yield trap
            except BaseException as error:  # a boundary: it is for the code that waits
                trap = work.throw(error)
            else:
                trap = work.send(value)
    except StopIteration:
        return
