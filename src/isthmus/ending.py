"""The end of what a session owns, when it is reset or closed. Owns its order, and the report.

Refuses to know: what comes after.

Cells and tasks are told first, children before parents, and waited for; what they leave is then
closed: async generators, whose clean-up may await, and coroutines. Threads cannot be told: those
that wait for the loop get their answer, the rest is waited for. Each wait is bounded.

Assumes: every function is called on the home loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from asyncio import wait
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field, replace
from threading import Thread
from typing import Any

from isthmus.async_namespace import AsyncNamespaceManager
from isthmus.census import within_reach
from isthmus.holders import Canary, holders
from isthmus.home import Home
from isthmus.ownership import Ownership, state_of
from isthmus.task_factory import end_with, own
from isthmus.winding_down import have_ended, wind_down

CLOSING_STEPS = 4
"""For how many things in turn a session waits that is closed: cells and tasks, async generators,
threads; and one more, for what it does in between."""

_log = logging.getLogger("isthmus.session")
_log.addHandler(logging.NullHandler())  # all that it says is in the report as well


@dataclass(frozen=True, slots=True)
class CloseReport:
    """What would not end when a session was closed, or reset.

    Attributes:
        cells: Numbers of cells whose code still runs.
        tasks: Names of tasks of the session that ignored their cancellation.
        thread: Whether the home thread still runs.
        threads: Names of threads that the session's code has started and that still run.
        coroutines: Names of coroutines that went on when they were closed.
        async_generators: Names of async generators whose clean-up takes longer.
        loop: Whether the loop of a :class:`BlockingSession` still runs.
    """

    cells: tuple[int, ...] = ()
    tasks: tuple[str, ...] = ()
    thread: bool = False
    threads: tuple[str, ...] = ()
    coroutines: tuple[str, ...] = ()
    async_generators: tuple[str, ...] = ()
    loop: bool = False
    canary: Canary | None = field(default=None, repr=False, compare=False)

    @property
    def clean(self) -> bool:
        """Whether everything has ended."""
        return not self.left

    @property
    def left(self) -> tuple[str, ...]:
        """What would not end, each in a few words."""
        return (
            *(f"cell {number}" for number in self.cells),
            *(f"task {name!r}" for name in self.tasks),
            *(["the thread of the cells"] if self.thread else []),
            *(f"thread {name!r}" for name in self.threads),
            *(f"coroutine {name!r}" for name in self.coroutines),
            *(f"async generator {name!r}" for name in self.async_generators),
            *(["the event loop"] if self.loop else []),
        )

    def held_by(self) -> tuple[str, ...]:
        """What still holds the namespace of a closed session: the types of its holders, and names.

        Nothing, once the session object is dropped and nobody keeps a function or an object of it;
        and nothing after a reset, as the namespace lives on.

        Costs a full collection, and three looks at all objects of the process.
        """
        return () if self.canary is None else holders(self.canary)


def log_end(session: str, what: str, report: CloseReport) -> None:
    """Log the end of *session*, or that it was reset: what would not end is a warning."""
    extra = {"session": session, "left": report.left}
    if report.clean:
        _log.debug("%s: %r", what, session, extra=extra)
    else:
        _log.warning(
            "%s: %r; would not end: %s", what, session, ", ".join(report.left), extra=extra
        )


async def end_owned(manager: AsyncNamespaceManager, home: Home, timeout: float) -> CloseReport:
    """End cells, tasks, async generators and coroutines; what would not end of the last three.

    Arguments:
        timeout: Seconds for cells and tasks, and again for generators.

    What runs the caller is left alone.
    """
    ownership = manager.ownership
    ownership.ending = True
    stubborn = await wind_down(home, timeout)
    await manager.ledger.clean_up(0)
    found = within_reach(manager.namespace, ownership)
    generators = await _close_generators(home, ownership, found.generators, timeout)
    return CloseReport(
        tasks=tuple(sorted(ownership.name_of(task) for task in stubborn)),
        coroutines=_close_coroutines(ownership, found.coroutines),
        async_generators=generators,
    )


async def end_threads(
    report: CloseReport,
    ownership: Ownership,
    home: Home,
    ends: set[asyncio.Future[Any]],
    timeout: float,
) -> CloseReport:
    """Wait for what is left: threads that cells have started, and *ends*, those of the home.

    Returns:
        *report* with these, and with the cells whose code still runs.
    """
    caller = getattr(asyncio.current_task(), "thread", None)

    def alive() -> list[threading.Thread]:
        return [it for it in ownership.of_kind("thread") if it.is_alive() and it is not caller]

    home.dismiss_waits()
    joined = [_join(alive, timeout)] if alive() else []
    await have_ended({*ends, *home.ends_of_retired(), *joined}, timeout)
    return replace(
        report,
        cells=home.cells_left(),
        thread=not all(it.done() for it in ends),
        threads=tuple(sorted(it.name for it in alive())),
    )


def still_running(ownership: Ownership, home: Home) -> CloseReport:
    """What runs on in threads where the loop does not run. Nothing is told, or waited for."""
    return CloseReport(
        cells=home.cells_in_threads(),
        threads=tuple(sorted(it.name for it in ownership.of_kind("thread") if it.is_alive())),
    )


# -- async generators and coroutines -------------------------------------------------------------


async def _close_generators(
    home: Home, ownership: Ownership, found: Iterable[Any], timeout: float
) -> tuple[str, ...]:
    """Have the loop close all that are not running; names of those that take longer."""
    known = {id(it): it for it in (*ownership.of_kind("async generator"), *found)}
    waiting = [it for it in known.values() if state_of("async generator", it) == "waiting"]
    tasks = {_closing(home, ownership, it): it.__qualname__ for it in waiting}
    if not tasks:
        return ()
    _, late = await wait(tasks, timeout=timeout)
    for task in late:
        task.cancel("the session ends what it owns")
    return tuple(sorted(tasks[task] for task in late))


async def _aclose(generator: Any) -> None:
    await generator.aclose()


def _closing(home: Home, ownership: Ownership, generator: Any) -> asyncio.Task[None]:
    """A task of the session that closes *generator*: its ``finally`` may use ``run_sync``."""
    closing, name = _aclose(generator), f"closing {generator.__qualname__}"
    task: asyncio.Task[None] = asyncio.Task(
        own(closing), loop=home.loop, name=name, context=home.context.copy()
    )
    ownership.note_task(task, generator, name)
    end_with(task, closing, ownership.task_ended)
    return task


def _close_coroutines(ownership: Ownership, found: Iterable[Any]) -> tuple[str, ...]:
    """Close those that nobody awaits; names of those that go on."""
    noted = ownership.of_kind("coroutine")
    known = {id(it): it for it in noted if state_of("coroutine", it) == "created"}
    known |= {id(it): it for it in found}
    left = [it.__qualname__ for it in known.values() if not _closes(it, ownership)]
    return tuple(sorted(left))


def _closes(coroutine: Any, ownership: Ownership) -> bool:
    """Close *coroutine*; whether that has ended it."""
    try:
        coroutine.close()
    except BaseException as error:  # a boundary: its finally blocks are code of the user's
        if coroutine.cr_frame is not None:
            return False
        ownership.close_failed(coroutine, error)
    return True


# -- threads -------------------------------------------------------------------------------------


def _join(alive: Callable[[], list[threading.Thread]], timeout: float) -> asyncio.Future[None]:
    """What comes when none is *alive*, or *timeout* seconds later; a thread waits for them.

    It asks anew after each, since a thread may have started another one before it ended.
    """
    loop, deadline = asyncio.get_running_loop(), time.monotonic() + timeout
    joined = loop.create_future()

    def resolve() -> None:
        if not joined.done():
            joined.set_result(None)

    def join() -> None:
        while (threads := alive()) and (left := deadline - time.monotonic()) > 0:
            threads[0].join(left)
        threads.clear()
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            loop.call_soon_threadsafe(resolve)

    joiner = Thread(target=join, name="isthmus join", daemon=True)
    Context().run(joiner.start)  # by no cell: it is ours
    return joined
