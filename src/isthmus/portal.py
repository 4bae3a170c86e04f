"""The portal: sync code that waits for an awaitable while the event loop goes on.

Owns the greenlets in which cell code runs on the loop's thread, ``run_sync``, and the refusal of
crossings that cannot work. Refuses to know: cells, namespaces, sessions; of a job, only its owner.

A task that drives :func:`in_portal` runs a function in a greenlet of its own. Inside, ``run_sync``
steps the awaitable right there, in the greenlet; only what really suspends (the *trap*, a future)
is switched out to the task, which yields it to the loop and switches the outcome back in. So an
awaitable that does not suspend costs no switch, nesting needs nothing, and tracebacks are whole.
The idea of moving traps only is greenback's (https://greenback.readthedocs.io, "principle").

Guarantees:
- A portal belongs to one task. Code under another task, or under none, is refused by name.
- Errors cross as values and are thrown into the coroutine that waits, with their traceback.
Assumes: all functions here but :func:`run_sync` are called on the thread of the running loop.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import types
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable, Generator
from sys import get_coroutine_origin_tracking_depth, set_coroutine_origin_tracking_depth
from types import CoroutineType, FrameType
from typing import Any, NoReturn, TypeVar

from greenlet import getcurrent, greenlet

from isthmus.collector import collector
from isthmus.errors import (
    CallbackError,
    CellInterrupted,
    CollectorError,
    CrossingError,
    ForeignGreenletError,
    ForeignTaskError,
    ForeignThreadError,
    ForkedProcessError,
    TaskDestroyedError,
)
from isthmus.jobs import Crossing, Job, current_job
from isthmus.steppers import check_begun, check_returned, stepper_of
from isthmus.strikes import strikes

T = TypeVar("T")

ORIGIN_DEPTH = 1
"""How many frames a coroutine made by session code keeps of where it was made (``cr_origin``).

The setting is the thread's, no matter which greenlet runs; so it goes in and out with the code of
portals, and the host's coroutines cost what they did.
"""

POOLED_RUNNERS = 64
"""Greenlets kept per thread, 17 kB each: more cells than that parked at once is rare."""


class Portal:
    """One task's way between its greenlet and the loop.

    Attributes:
        task: The task, until the portal is closed: what still holds it then (the traceback of an
            error) may be held by the task.
        driver: The greenlet of the task, to which a trap is switched. Set anew before every
            switch in: an eagerly started task is driven from another greenlet than later steps.
        waiting: The greenlet that switched the trap out, to be resumed; not always the runner,
            since libraries (SQLAlchemy) start greenlets of their own inside a cell.
        thrown: The error to raise where the code waits.
        closing: The task is being destroyed; further waits are refused.
    """

    driver: greenlet
    thrown: BaseException | None = None
    error: BaseException | None = None
    value: Any = None
    finished = False
    closing = False

    def __init__(self, runner: Runner, task: asyncio.Task[Any]) -> None:
        self.runner = runner
        self.task = task
        self.waiting: greenlet = runner


class Runner(greenlet):
    """A greenlet that runs one function after another.

    Kept, because the first Python frame in a fresh greenlet costs a page fault (about 8 µs).

    Attributes:
        portal: The portal whose function runs, or None.
    """

    portal: Portal | None = None

    def run(self) -> None:
        """Wait for a portal and a function, run it, switch back to the portal's driver; again.

        They come by a later switch, not as arguments: a greenlet keeps those for its whole life.
        """
        creator = self.parent
        assert creator is not None
        portal, function = creator.switch()
        del creator
        while function is not None:
            try:
                portal.value = function()
            except BaseException as error:
                portal.error = error
            if strikes.on_their_way:
                try:
                    strikes.settle()
                except CellInterrupted:  # too late: the function has ended
                    strikes.settle()
            portal.finished = True
            driver = portal.driver
            portal = function = None  # a pooled runner pins nothing,
            sys._getframe().f_trace = None  # nor a debugger, which marks each frame below it
            portal, function = driver.switch()


class _ThreadState:
    """What one thread knows: like asyncio's own table of current tasks, it must be global.

    Attributes:
        portals: The portal of each task that has one.
        idle: Runners that wait for a function.
        crossing: Set in threads whose awaits are done by a loop elsewhere.
        inherited: In a forked child, what the parent's tasks had here: kept, since a suspended
            greenlet that is dropped runs its ``finally`` blocks, which are the parent's to run.
    """

    __slots__ = ("crossing", "idle", "inherited", "portals")

    def __init__(self) -> None:
        self.portals: dict[asyncio.Task[Any], Portal] = {}
        self.idle: list[Runner] = []
        self.crossing: Crossing | None = None
        self.inherited: list[object] = []


class _Local(threading.local):
    """One attribute, since each look at one is a look into a dict of the thread."""

    def __init__(self) -> None:
        self.state = _ThreadState()


_local = _Local()


def _forget_parent() -> None:
    """In a forked child: the loop that waits for this code's awaitables is not here any more."""
    state = _local.state
    if state.portals or state.crossing is not None:
        for portal in state.portals.values():
            portal.runner.portal = None
        state.inherited += [state.portals, state.crossing]
        state.portals, state.crossing = {}, None
    current_job.set(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


def set_crossing(crossing: Crossing | None) -> None:
    """Say how ``run_sync`` in the calling thread reaches a loop."""
    _local.state.crossing = crossing


def crossing_here() -> Crossing | None:
    """How the calling thread reaches a loop that runs elsewhere, or None."""
    return _local.state.crossing


def _new_runner() -> Runner:
    """A runner that waits for its first function."""
    runner = Runner()
    runner.switch()
    return runner


def open_portal(function: Callable[[], Any], task: asyncio.Task[Any]) -> tuple[Portal, Any]:
    """Run *function* in a new portal of *task* until it ends or waits; the portal and its trap.

    The caller looks at ``portal.finished``. If it is false, *task* has to go on with
    :func:`drive_portal`; it need not be the task that runs now, only the current one meanwhile.
    """
    state = _local.state
    runner = state.idle.pop() if state.idle else _new_runner()
    portal = runner.portal = state.portals[task] = Portal(runner, task)
    driver = portal.driver = getcurrent()
    if runner.parent is not driver:  # to ask is a third of what setting costs
        runner.parent = driver
    runner.gr_context = driver.gr_context  # a new greenlet has an empty context of its own
    tracked = get_coroutine_origin_tracking_depth()
    if not tracked:
        set_coroutine_origin_tracking_depth(ORIGIN_DEPTH)
    trap = runner.switch(portal, function)
    if not tracked:
        set_coroutine_origin_tracking_depth(0)
    if portal.finished:
        _close_portal(portal, task)
    return portal, trap


def _close_portal(portal: Portal, task: asyncio.Task[Any]) -> None:
    """Take *portal* from its task, and keep its runner if it ended cleanly."""
    state, runner = _local.state, portal.runner
    del state.portals[task]
    runner.portal = None
    del portal.task
    if not portal.finished:
        return  # it cannot be reached: its task is destroyed on another thread
    runner.gr_context = None
    if len(state.idle) < POOLED_RUNNERS:
        state.idle.append(runner)
    else:
        runner.parent = getcurrent()
        runner.switch(None, None)  # a suspended greenlet that is dropped would never be freed


def end_idle_runners() -> None:
    """Let the runners kept by the calling thread, which is about to end, end before it."""
    idle = _local.state.idle
    while idle:
        runner = idle.pop()
        runner.parent = getcurrent()
        runner.switch(None, None)


@types.coroutine
def drive_portal(portal: Portal, task: asyncio.Task[Any], trap: Any) -> Generator[Any, Any, None]:
    """In *task*: wait for what *portal* waits for, until its function has ended.

    Cancel: a cancellation of the task arrives in the function at the ``run_sync`` that waits.
    """
    runner = portal.runner
    try:
        while not portal.finished:
            try:
                value = yield trap
            except BaseException as error:
                portal.thrown = error
                portal.closing = isinstance(error, GeneratorExit)
                value = None
            driver = getcurrent()
            if driver is not portal.driver:  # setting a parent is 7 % of a wait
                portal.driver = runner.parent = driver
            tracked = get_coroutine_origin_tracking_depth()
            if not tracked:
                set_coroutine_origin_tracking_depth(ORIGIN_DEPTH)
            trap = portal.waiting.switch(value)
            if not tracked:
                set_coroutine_origin_tracking_depth(0)
    finally:
        _close_portal(portal, task)
    if portal.closing:
        raise GeneratorExit  # the task is being destroyed, and must not go on


async def in_portal(function: Callable[[], T]) -> T:
    """Run *function* in the calling task so that ``run_sync`` works inside, at any depth.

    Raises whatever *function* raises. In a task that has a portal already the function is called
    as it is, since traps find their way through the portal that is there.

    Cancel: a cancellation of the task arrives in *function* at the ``run_sync`` that waits.
    """
    value, error = await outcome_in_portal(function)
    if error is None:
        return value  # type: ignore[return-value]
    try:
        raise error
    finally:
        # The traceback holds this frame: an error that it holds again would be in a cycle, and the
        # failure of a task be reported when the garbage collector comes by.
        del error


async def outcome_in_portal(function: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """The same, but with what *function* raises as a value.

    A ``GeneratorExit`` that leaves this coroutine says that its task is being destroyed; one that
    *function* raises on its own account is a value like any other.
    """
    task = asyncio.current_task()
    assert task is not None
    outer = _local.state.portals.get(task)
    if outer is None:
        portal, trap = open_portal(function, task)
        if not portal.finished:
            await drive_portal(portal, task, trap)
        return portal.value, portal.error
    try:
        return function(), None
    except BaseException as error:
        if outer.closing:
            raise
        return None, error


def _wait_in_portal(portal: Portal, awaitable: Awaitable[Any]) -> Any:
    """Step *awaitable* here, in the greenlet, and switch out at each trap."""
    if type(awaitable) is CoroutineType and not awaitable.cr_suspended:  # spares most a call
        stepper: Any = awaitable
    else:
        stepper = stepper_of(awaitable)
    try:
        trap = stepper.send(None)
        _check_running(portal, awaitable)
        while True:
            if portal.closing or collector.thread is not None:
                _check_leaving(portal, awaitable)
            if strikes.on_their_way:
                strikes.settle()
            portal.waiting = getcurrent()
            value = portal.driver.switch(trap)
            error, portal.thrown = portal.thrown, None
            if error is None:
                trap = stepper.send(value)
            else:
                if error.__context__ is None:  # a future's iterator does not say what is handled
                    error.__context__ = sys.exc_info()[1]
                trap = stepper.throw(error)
    except StopIteration as stop:
        # A coroutine that returns adds no traceback. This one holds this frame, which must not hold
        # it: what was awaited would wait for the garbage collector.
        if stop.__traceback__ is not None and stop.__traceback__.tb_next is not None:
            check_returned(stepper, stop)
        if strikes.put_off:
            strikes.come_out(sys._getframe(2))
        return stop.value
    except (RuntimeError, ValueError) as error:
        check_begun(stepper, error)
        raise


def _refuse(kind: type[CrossingError], awaitable: object, message: str) -> NoReturn:
    """Close a coroutine that nobody will await, then raise.

    Raises:
        CrossingError: Always: *kind*, with *message*.
    """
    if isinstance(awaitable, CoroutineType):
        awaitable.close()
    raise kind(message)


def _check_leaving(portal: Portal, awaitable: object) -> None:
    """Refuse to switch out of the greenlet where nobody would come back, or something would break.

    Raises:
        TaskDestroyedError: The portal's task is being destroyed.
        CollectorError: The garbage collector is at work below.
    """
    if portal.closing:
        message = "run_sync() cannot wait: its task is being destroyed"
        _refuse(TaskDestroyedError, awaitable, message)
    if collector.at_work:
        _refuse(
            CollectorError,
            awaitable,
            "run_sync() cannot wait in a finalizer that the garbage collector runs: close the "
            "object before it is dropped, or start a task instead, with asyncio.create_task()",
        )


def _check_running(portal: Portal, awaitable: object) -> None:
    """See that the loop of *portal* is the one that runs here.

    Raises:
        ForeignTaskError: Code of the cell runs another loop (nest_asyncio allows it), which would
            be left in the middle. Asked only here, since on Python 3.11 that is a system call.
    """
    if _get_running_loop() is not portal.task.get_loop():
        _refuse(
            ForeignTaskError,
            awaitable,
            "run_sync() cannot wait within another event loop that the cell runs, as that would "
            "stand still: make the function async and await it there",
        )


def _refuse_without_loop(awaitable: object) -> NoReturn:
    """Refuse in a thread in which no loop runs, and from which none can be reached."""
    if _local.state.inherited:
        _refuse(
            ForkedProcessError,
            awaitable,
            "run_sync() cannot wait in a forked child: the session's loop runs in the parent; use "
            "asyncio.run() here, or the 'spawn' start method of multiprocessing",
        )
    _refuse(
        ForeignThreadError,
        awaitable,
        "run_sync() needs the event loop of a session, and this thread has none: call it from a "
        "cell or from a thread that a cell has started, or use asyncio.run() here",
    )


def _reaches(portal: Portal) -> bool:
    """Whether the current greenlet was started, at whatever depth, from the portal's runner."""
    current: greenlet | None = getcurrent()
    while current is not None:
        if current is portal.runner:
            return True
        current = current.parent
    return False


def _portal_here(loop: asyncio.AbstractEventLoop, awaitable: object) -> Portal:
    """The portal of the task that runs in *loop*, the one of this thread.

    Raises:
        CrossingError: There is none that could be used from here; says why and what to do.
    """
    task = asyncio.current_task(loop)
    if task is None:
        _refuse(
            CallbackError,
            awaitable,
            "run_sync() cannot wait in a callback of the event loop, which would wait for itself: "
            "start a task instead, with asyncio.create_task()",
        )
    portal = _local.state.portals.get(task)
    if portal is None:
        _refuse(
            ForeignTaskError,
            awaitable,
            f"run_sync() cannot wait in task {task.get_name()!r}, which no cell runs in: "
            "make the function async and await it there",
        )
    if getcurrent() is not portal.runner and not _reaches(portal):
        _refuse(
            ForeignGreenletError,
            awaitable,
            "run_sync() was called in a greenlet that does not belong to the cell (gevent?): "
            "call it from the cell's own code",
        )
    return portal


def _crossing_here(awaitable: object) -> Crossing:
    """How this thread, in which no loop of its own runs, reaches one that runs elsewhere.

    Raises:
        CrossingError: None can be reached.
    """
    crossing = _local.state.crossing
    if crossing is None:
        job = current_job.get()
        if job is None:
            _refuse_without_loop(awaitable)
        crossing = job.owner.crossing()
    return crossing


def run_sync(awaitable: Awaitable[T]) -> T:
    """Wait for *awaitable* from sync code and return its result, while the event loop goes on.

    Works in the code of a cell, at any depth: in a ``sorted`` key, a property, ``__init__``, a
    comprehension, a sync function called by an async one; and in threads that such code has
    started. The name is Pyodide's.

    Returns:
        What ``await awaitable`` would give. Raises what it would raise.

    Raises:
        CrossingError: There is no way to wait from here; each reason has a subclass of its own. A
            coroutine that was given is closed, so that it warns of nothing, unless it is awaited
            elsewhere.
        TypeError: *awaitable* cannot be awaited.

    Threads: the loop's, under a cell; threads of a session. Cancel: a cancellation of the cell is
    raised here, as ``asyncio.CancelledError``.
    """
    runner = getcurrent()
    portal = runner.portal if type(runner) is Runner else None  # the usual case, without a look-up
    if portal is None or asyncio.current_task(portal.task.get_loop()) is not portal.task:
        loop = _get_running_loop() if _local.state.crossing is None else None
        if loop is None:
            return _crossing_here(awaitable).wait_in_loop(awaitable)  # type: ignore[no-any-return]
        portal = _portal_here(loop, awaitable)
    return _wait_in_portal(portal, awaitable)  # type: ignore[no-any-return]


def await_for(job: Job | None, awaitable: Awaitable[T]) -> T:
    """``run_sync`` on behalf of *job*, if any, which a look at the stack of a task finds here."""
    return run_sync(awaitable)


def suspended_stack(task: asyncio.Task[Any] | None) -> tuple[FrameType | None, Any]:
    """Where the code in the portal of *task* waits: its innermost frame, and what it awaits there.

    (None, None) where it has no portal, or does not wait. Threads: the loop's.
    """
    portal = _local.state.portals.get(task) if task is not None else None
    frame = portal.waiting.gr_frame if portal is not None else None
    return frame, frame.f_locals.get("stepper") if frame is not None else None


def can_run_sync() -> bool:
    """Whether :func:`run_sync` would work here. Threads: any."""
    loop = _get_running_loop() if _local.state.crossing is None else None
    try:
        if loop is None:
            return _crossing_here(None).can_wait()
        portal = _portal_here(loop, None)
    except CrossingError:
        return False
    return not (portal.closing or collector.at_work)
