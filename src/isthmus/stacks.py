"""Where code stands: whose it is, whether it may be interrupted there, and how to show it.

Owns the reading of frames, of any thread. Refuses to know: who asks, and why.

A stack says whose code runs by two kinds of frames of ours: :meth:`Job.evaluate` is below all code
of a cell, :func:`~isthmus.portal.await_for` below all that a task awaits for one.

Assumes: the interpreter lock, so that no frame moves while it is read.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeVar

from isthmus.jobs import Job, outside_cells
from isthmus.portal import await_for, suspended_stack
from isthmus.tracebacks import is_ours

SHOWN_FRAMES = 30
"""How many of the innermost frames a text shows: more than a screen is not read; from the air."""

_ASYNCIO = str(Path(asyncio.__file__).parent)

_LIBRARY = (str(Path(asyncio.__file__).parent.parent), "<frozen ")
"""Where the files of Python's own library are, and how those are named that it is built with."""

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


def job_of(frame: FrameType | None) -> tuple[Job | None, bool]:
    """Whose code runs in *frame*, and whether it is the job's own, not that of a task.

    The innermost job, where one is nested in another. (None, False) for code of no job, and for
    what follows a cell's code.
    """
    while frame is not None:
        if frame.f_code is await_for.__code__:
            return frame.f_locals["job"], False
        job = _entered(frame)
        if job is not None:
            return (None, False) if job.left else (job, True)
        frame = frame.f_back
    return None, False


def _entered(frame: FrameType) -> Job | None:
    """The job whose :meth:`Job.evaluate` *frame* is, or None."""
    if frame.f_code.co_name != "evaluate":
        return None
    job = frame.f_locals.get("self")
    return job if isinstance(job, Job) else None


def may_be_struck(frame: FrameType | None, *, on_loop: bool) -> bool:
    """Whether an exception may be raised in *frame*, the innermost of a stack of a job.

    Not in our own code, nor in what that calls of Python's library (a condition that is entered
    just then would stay locked); not in what it calls outside of cells; nor, in the thread of an
    event loop, in the loop's.
    """
    if frame is None or (on_loop and is_of_loop(frame)):
        return False
    called_by_others = False
    while frame is not None and frame.f_code is not await_for.__code__ and not _entered(frame):
        if frame.f_code is outside_cells.__code__:
            return False
        if frame.f_code in _passing_on:
            called_by_others = True
        elif is_ours(frame) and not called_by_others:
            return False
        elif not frame.f_code.co_filename.startswith(_LIBRARY) or _is_installed(frame):
            called_by_others = True
        frame = frame.f_back
    return True


def is_of_loop(frame: FrameType) -> bool:
    """Whether the event loop's own code runs in *frame*."""
    caller = frame.f_back
    if frame.f_code.co_filename == selectors.__file__ and caller is not None:
        frame = caller  # the loop's, or that of subprocess.run()
    return frame.f_code.co_filename.startswith(_ASYNCIO)


def _is_installed(frame: FrameType) -> bool:
    return "-packages" in frame.f_code.co_filename  # site-packages, dist-packages


def codes_of(frame: FrameType | None) -> set[CodeType]:
    """The code on the stack of the innermost job, other than ours and the loop's, from *frame*."""
    codes = set()
    while frame is not None and frame.f_code is not await_for.__code__ and not _entered(frame):
        if not is_ours(frame) and not is_of_loop(frame):
            codes.add(frame.f_code)
        frame = frame.f_back
    return codes


def codes_where_it_waits(job: Job) -> set[CodeType]:
    """The code on the whole stack of *job*, which is not running; the same without ours.

    Threads: the loop's.
    """
    frames = (frame for frame, _ in _places(job))
    return {it.f_code for it in frames if not is_ours(it) and not is_of_loop(it)}


# -- showing ---------------------------------------------------------------------------------------


def stack_of(job: Job) -> str:
    """Where the code of *job* stands, as in a traceback, innermost last; empty where it has ended.

    Threads: the loop's.
    """
    return _shown(_places(job))


def stack_of_thread(thread: int) -> str:
    """What the thread of this identifier is doing, without our own frames. Threads: any."""
    return _shown(_outermost_first(sys._current_frames().get(thread)))


def _places(job: Job) -> list[Place]:
    """Where the code of *job* stands, which does not run on this thread, outermost first."""
    if job.context == "thread":
        frame = sys._current_frames().get(job.thread) if job.thread is not None else None
        return _of_job(job, frame)
    frame, awaited = suspended_stack(job.task)
    return [*_of_job(job, frame), *_awaiting(awaited)]


def _outermost_first(frame: FrameType | None) -> list[Place]:
    return list(traceback.walk_stack(frame))[::-1] if frame is not None else []


def _of_job(job: Job, frame: FrameType | None) -> list[Place]:
    """The part of the stack that belongs to *job*; nothing where it is not on it."""
    places = _outermost_first(frame)
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
