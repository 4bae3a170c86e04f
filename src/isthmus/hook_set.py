"""All that a session replaces in the process and in its loop. Owns the list, and its order.

Refuses to know: what each of them does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from isthmus.collector import collector_hook
from isthmus.failure_hooks import exception_handler_hooks, unawaited_hook
from isthmus.generator_hooks import generator_hooks
from isthmus.interrupts import main_thread_interrupts
from isthmus.ownership import Ownership
from isthmus.runner_hooks import runner_hooks
from isthmus.streams import stream_hooks
from isthmus.task_factory import task_factory_hooks
from isthmus.thread_hooks import thread_hooks
from isthmus.watchdog import watchdog


def install_hooks(
    loop: asyncio.AbstractEventLoop, namespace: int, ownership: Ownership, *, all_of_them: bool
) -> Callable[[], None]:
    """Count a session in, and give what counts it out again, to be called once. Any thread.

    Arguments:
        loop: The home loop.
        namespace: The ``id`` of the session's mapping, which must not be held.
        ownership: Who is told of failures of the session's code; not held either.
        all_of_them: Without this only what keeps the process from crashing and deadlines in time.
    """
    removals: list[Callable[[], object]] = []
    collector_hook.install()
    removals.append(collector_hook.remove)
    watchdog.install()
    removals.append(watchdog.remove)
    if all_of_them:
        runner_hooks.install(loop, namespace)
        removals.append(partial(runner_hooks.remove, loop, namespace))
        task_factory_hooks.install(loop)
        removals.append(partial(task_factory_hooks.remove, loop))
        exception_handler_hooks.install(loop)
        removals.append(partial(exception_handler_hooks.remove, loop))
        removals.append(partial(unawaited_hook.discard, unawaited_hook.add(ownership)))
        generator_hooks.install(loop)
        removals.append(partial(generator_hooks.remove, loop))
        stream_hooks.install()
        removals.append(stream_hooks.remove)
        thread_hooks.install()
        removals.append(thread_hooks.remove)
        if main_thread_interrupts.install():
            removals.append(main_thread_interrupts.remove)
    return partial(_remove, removals)


def _remove(removals: list[Callable[[], object]]) -> None:
    """Call *removals*, last first; all of them, though one fails.

    They wait in a list, as an ExitStack would weigh 7 kB in each session.
    """
    with ExitStack() as hooks:
        for removal in removals:
            hooks.callback(removal)
