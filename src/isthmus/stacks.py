"""Where code stands: whose it is, whether it may be interrupted there, and how to show it.

Owns the reading of frames, of any thread. Refuses to know: who asks, and why.

A stack says whose code runs by two kinds of frames of ours: :meth:`Job.evaluate` is below all code
of a cell, :func:`~isthmus.portal.await_for` below all that a task awaits for one.

Assumes: the interpreter lock, so that no frame moves while the frames of a thread are collected.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import traceback
import weakref
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, TypeVar
from weakref import WeakSet

from isthmus.frames import Stack, stack_from, stack_in
from isthmus.jobs import Job, outside_cells
from isthmus.portal import await_for, suspended_stack
from isthmus.tracebacks import is_ours

SHOWN_FRAMES = 30
"""How many of the innermost frames a text shows: more than a screen is not read; from the air."""

_ASYNCIO = os.path.dirname(asyncio.__file__)

_LIBRARY = (os.path.dirname(_ASYNCIO), "<frozen ")
"""Where the files of Python's own library are, and how those are named that it is built with."""

_FINALIZERS = (weakref.__file__, WeakSet.__init__.__code__.co_filename)

F = TypeVar("F", bound=Callable[..., Any])

Place = tuple[FrameType, int]
"""A frame and the line at which it stands."""

_passing_on: set[CodeType] = set()


def passes_on(function: F) -> F:
    """Mark *function*, which is ours, as one that calls functions of others for cells.

    One of these that is made in C (``time.sleep``) has no frame of its own that would show that
    what runs may be interrupted.
    """
    _passing_on.add(function.__code__)
    return function


def job_of(stack: Stack) -> tuple[Job | None, bool]:
    """Whose code runs in *stack*, and whether it is the job's own, not that of a task.

    The innermost job, where one is nested in another. (None, False) for code of no job, and for
    what follows a cell's code.
    """
    for frame in stack:
        if frame.f_code is await_for.__code__:
            return frame.f_locals.get("job"), False
        job = _entered(frame)
        if job is not None:
            return (None, False) if job.left else (job, True)
    return None, False


def _entered(frame: FrameType) -> Job | None:
    """The job whose :meth:`Job.evaluate` *frame* is, or None."""
    if frame.f_code.co_name != "evaluate":
        return None
    job = frame.f_locals.get("self")
    return job if isinstance(job, Job) else None


def _inside(stack: Stack) -> Iterator[FrameType]:
    """The frames of *stack* above those in which the code of a job or of a task is begun."""
    for frame in stack:
        if frame.f_code is await_for.__code__ or _entered(frame):
            return
        yield frame


def may_be_struck(stack: Stack, *, on_loop: bool) -> bool:
    """Whether an exception may be raised in code of a job, at the top of *stack*.

    Not in a callback of a weak reference, where Python prints and drops what is raised. Not in our
    own code, nor in what that calls of Python's library (a condition that is entered just then
    would stay locked); not in what it calls outside of cells; nor, in the thread of an event loop,
    in the loop's.
    """
    if not stack or stack[0].f_code.co_filename in _FINALIZERS:
        return False
    if on_loop and is_of_loop(stack):
        return False
    called_by_others = False
    for frame in _inside(stack):
        if frame.f_code is outside_cells.__code__:
            return False
        if frame.f_code in _passing_on:
            called_by_others = True
        elif is_ours(frame) and not called_by_others:
            return False
        elif not frame.f_code.co_filename.startswith(_LIBRARY) or _is_installed(frame):
            called_by_others = True
    return True


def is_of_loop(stack: Stack) -> bool:
    """Whether the event loop's own code runs at the top of *stack*."""
    names = [frame.f_code.co_filename for frame in stack[:2]]
    if names and names[0] == selectors.__file__:
        del names[0]  # called by the loop, or by subprocess.run()
    return bool(names) and names[0].startswith(_ASYNCIO)


def _is_installed(frame: FrameType) -> bool:
    return "-packages" in frame.f_code.co_filename  # site-packages, dist-packages


def codes_of(stack: Stack) -> set[CodeType]:
    """The code of the innermost job in *stack*, other than ours and the loop's."""
    return {frame.f_code for frame in _inside(stack) if _is_of_others(frame)}


def _is_of_others(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return not is_ours(frame) and name != selectors.__file__ and not name.startswith(_ASYNCIO)


def codes_where_it_waits(job: Job) -> set[CodeType]:
    """The code on the whole stack of *job*, which is not running; the same without ours.

    Threads: the loop's.
    """
    frames = (frame for frame, _ in _places(job))
    return {frame.f_code for frame in frames if _is_of_others(frame)}


# -- showing ---------------------------------------------------------------------------------------


def stack_of(job: Job) -> str:
    """Where the code of *job* stands, as in a traceback, innermost last; empty where it has ended.

    Threads: the loop's.
    """
    return _shown(_places(job))


def stack_of_thread(thread: int) -> str:
    """What the thread of this identifier is doing, without our own frames. Threads: any."""
    return _shown(_outermost_first(stack_in(thread)))


def _places(job: Job) -> list[Place]:
    """Where the code of *job* stands, which does not run on this thread, outermost first."""
    if job.context == "thread":
        return _of_job(job, stack_in(job.thread) if job.thread is not None else [])
    frame, awaited = suspended_stack(job.task)
    return [*_of_job(job, stack_from(frame)), *_awaiting(awaited)]


def _outermost_first(stack: Stack) -> list[Place]:
    return [(frame, frame.f_lineno or 0) for frame in reversed(stack)]


def _of_job(job: Job, stack: Stack) -> list[Place]:
    """The part of *stack* that belongs to *job*; nothing where it is not on it."""
    places = _outermost_first(stack)
    for index, (place, _) in enumerate(places):
        if _entered(place) is job:
            return places[index:]
    return []


def _awaiting(awaited: Any) -> Iterator[Place]:
    """Where *awaited*, a suspended coroutine, waits, and what it awaits in turn."""
    while awaited is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(awaited, f"{kind}_frame", None)
            if frame is not None:
                yield frame, frame.f_lineno
                awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
                break
        else:
            return


def _shown(places: list[Place]) -> str:
    shown = [place for place in places if not is_ours(place[0])]
    return "".join(traceback.StackSummary.extract(iter(shown), limit=-SHOWN_FRAMES).format())
