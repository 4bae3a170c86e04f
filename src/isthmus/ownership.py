"""Who made what: the coroutines, tasks, async generators and threads of one session's code.

Owns the entries, their counts, and what is a failure. Refuses to know: namespaces, who is told of a
failure, how a task or a thread comes to be made, how it is ended.

An entry is a weak reference that knows the cell and the line. It goes when its object has ended or
is gone; a task that has failed keeps its entry until it is dropped. Counts stay. So what is kept is
bounded by what is alive, whatever the session has made before.

Threads: any, for every method. There is no lock, since entries go in finalizers, which run in the
middle of anything: each step is one operation on a dict.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from types import AsyncGeneratorType, CoroutineType, FrameType
from typing import Any

from isthmus.collector import collector
from isthmus.errors import SessionClosedError
from isthmus.failures import Failure, FailureReports, Kind
from isthmus.jobs import Job, current_job
from isthmus.sources import SourceBook
from isthmus.task_factory import belongs_to_task
from isthmus.tracebacks import format_error, trim

KINDS: tuple[Kind, ...] = ("coroutine", "task", "async generator", "thread")

LOOK_FRAMES = 40
"""How far up the stack the line of a cell is looked for; libraries start tasks some ten calls below
their callers. From the air."""

NEAR_FRAMES = 4
"""How far up the stack for an async generator of a library: one that the cell iterates over itself,
not one deep in what it calls. The blocking form of ``async for`` takes two."""

JUST_GONE = 100
"""Entries of coroutines kept a little longer than these, for their finalizers to find; more than
that in one sweep of the collector are told by the file of their line. From the air."""

DROPPED = "_isthmus_dropped"
"""The attribute of a failed task that is to be called where nobody has asked for its error."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One thing that the code of a session has made and that has not ended.

    Attributes:
        kind: ``"coroutine"``, ``"task"``, ``"async generator"`` or ``"thread"``.
        name: The name, or place in a container, where a cell has left it; else its own name.
        cell: The number of the cell that made it; 0 where the host did.
        line: The line that made it; 0 where that is not known.
        filename: The file of that line, as tracebacks call it.
        state: ``"created"`` (a coroutine that has not begun), ``"running"``, ``"waiting"``,
            ``"cancelling"`` (a task that was told to end) or ``"failed"`` (a task whose error
            nobody has asked for yet).
    """

    kind: Kind
    name: str
    cell: int
    line: int
    filename: str
    state: str


@dataclass(slots=True)
class LedgerCount:
    """How many of one kind there have been since the session was opened.

    Attributes:
        made: All that the ledger has seen.
        finished: Of these, those that have ended, in whatever way.
        failed: Of those, the ones that ended with an error; coroutines that nobody has awaited.

    CPython switches threads at calls and jumps only, so that ``+=`` loses nothing. A build without
    the GIL can lose one now and then.
    """

    made: int = 0
    finished: int = 0
    failed: int = 0


Place = tuple[str, int]
"""A file and a line in it."""

NOWHERE: Place = ("", 0)


def _state_of_task(task: asyncio.Task[Any]) -> str | None:
    if task.done():
        return "failed" if task._log_traceback else None
    return "cancelling" if task.cancelling() else "waiting"


def _state_of_thread(thread: threading.Thread) -> str | None:
    return "running" if thread.is_alive() or thread.ident is None else None


def _state_of_generator(generator: Any) -> str | None:
    if generator.ag_frame is None:
        return None
    return "running" if generator.ag_running else "waiting"


def _state_of_coroutine(coroutine: Any) -> str | None:
    try:
        state = inspect.getcoroutinestate(coroutine)
    except AttributeError:  # a compiled coroutine shows no state
        return "waiting"
    return None if belongs_to_task(coroutine) else _COROUTINE_STATES[state]


_COROUTINE_STATES = {
    inspect.CORO_CREATED: "created",
    inspect.CORO_RUNNING: "running",
    inspect.CORO_SUSPENDED: "waiting",
    inspect.CORO_CLOSED: None,
}

_STATE_OF: dict[Kind, Callable[[Any], str | None]] = {
    "coroutine": _state_of_coroutine,
    "task": _state_of_task,
    "async generator": _state_of_generator,
    "thread": _state_of_thread,
}


def state_of(kind: Kind, it: Any) -> str | None:
    """The state of *it*, as an entry shows it; None where it has ended."""
    return _STATE_OF[kind](it)


_NAME_OF: dict[Kind, Callable[[Any], str]] = {
    "coroutine": lambda it: getattr(it, "__qualname__", type(it).__name__),
    "task": lambda it: it.get_name(),
    "async generator": lambda it: it.__qualname__,
    "thread": lambda it: it.name,
}

_KIND_OF: dict[type, Kind] = {CoroutineType: "coroutine", AsyncGeneratorType: "async generator"}


class _Made(weakref.ref[Any]):
    """A weak reference that knows where its object comes from. Compared by identity."""

    __slots__ = ("cell", "failed", "job", "key", "kind", "name", "place")
    cell: int
    failed: bool
    job: weakref.ref[Job] | None
    key: int
    kind: Kind
    name: str
    place: Place
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def job_if_alive(self) -> Job | None:
        """The job that made it, where there may be something to tell it, and somebody holds it."""
        return None if self.job is None else self.job()


class Ownership:
    """The entries of one session.

    Arguments:
        namespace: The globals of the session's code, by which it is known; for identity only.
        sources: The session's files, by which its lines are.
        reports: Who is told of failures.

    Attributes:
        counts: What there has been, by kind.
        ending: The session is ending what it owns; what that cancels has not failed.
    """

    def __init__(
        self, namespace: dict[str, Any], sources: SourceBook, reports: FailureReports
    ) -> None:
        self.counts: dict[Kind, LedgerCount] = {kind: LedgerCount() for kind in KINDS}
        self.ending = False
        self._namespace = namespace
        self._sources = sources
        self._reports = reports
        self._made: dict[int, _Made] = {}
        self._just_gone: deque[_Made] = deque(maxlen=JUST_GONE)
        self._when_gone = self._gone

    # -- what is made ------------------------------------------------------------------------

    def note_task(self, task: asyncio.Task[Any], coroutine: object = None, name: str = "") -> None:
        """The running job has made *task*.

        Arguments:
            coroutine: What has become the task, where a cell had left it behind.
            name: The name under which it was left.
        """
        self._note("task", task, self.origin(coroutine) if coroutine else self._place(), name)

    def note_thread(self, thread: threading.Thread) -> None:
        """The running job starts *thread*.

        Noted is one that a line of the session's code starts, or that runs such code. What a
        library starts to run its own, as a pool that fills, is the library's.
        """
        if self._place(1) is not NOWHERE or self._is_run_by(thread):
            self._note("thread", thread, self._place())

    def note_generator(self, generator: Any) -> None:
        """The running job begins to iterate over *generator*.

        Noted is one of the session's own code, and one of a library that its code iterates over.
        """
        own = self.owns(generator)
        place = self._place(LOOK_FRAMES if own else NEAR_FRAMES)
        if own or place is not NOWHERE:
            self._note("async generator", generator, place)

    def note_coroutine(self, coroutine: Coroutine[Any, Any, Any], name: str = "") -> None:
        """*coroutine* was found, under *name* if it has one."""
        made = self._entry_of(coroutine)
        if made is None:
            made = self._note("coroutine", coroutine, self.origin(coroutine))
            job = current_job.get()
            made.job = None if job is None else weakref.ref(job)
        made.name = name or made.name

    def note_found(self, found: Any) -> None:
        """*found* was found by a look at all objects: whatever job runs is not what made it."""
        if self._entry_of(found) is None:
            made = self._note(_KIND_OF[type(found)], found, self.origin(found))
            made.cell = self._sources.number_of(made.place[0])

    def _is_run_by(self, thread: threading.Thread) -> bool:
        function = getattr(thread, "_target", None) or type(thread).run
        return getattr(function, "__globals__", None) is self._namespace

    def _note(self, kind: Kind, it: Any, place: Place, name: str = "") -> _Made:
        made = _Made(it, self._when_gone)
        job = current_job.get()
        made.cell = 0 if job is None else job.number
        made.kind, made.place, made.name = kind, place, name
        made.job, made.failed = None, False
        key = made.key = id(it)
        self._made[key] = made
        self.counts[kind].made += 1
        return made

    def _entry_of(self, it: object) -> _Made | None:
        made = self._made.get(id(it))
        return made if made is not None and made() is it else None

    def _place(self, frames: int = LOOK_FRAMES) -> Place:
        """The nearest line of a cell above whoever has called the hook that notes something.

        Each step up the stack makes an object of a frame: it is what a task's entry costs most.
        """
        prefix, files = self._sources.cell_prefix, self._sources.files
        frame: FrameType | None = sys._getframe(3)
        for _ in range(frames):
            if frame is None:
                break
            filename = frame.f_code.co_filename
            if filename.startswith(prefix) or filename in files:
                return filename, frame.f_lineno
            frame = frame.f_back
        return NOWHERE

    def origin(self, coroutine: Any) -> Place:
        """The line that made *coroutine*, where that is a cell's; else where it is defined."""
        calls = getattr(coroutine, "cr_origin", None)
        if calls and self._sources.is_cell_file(calls[0][0]):
            filename, line, _ = calls[0]
            return filename, line
        code = getattr(coroutine, "cr_code", None) or getattr(coroutine, "ag_code", None)
        return NOWHERE if code is None else (code.co_filename, code.co_firstlineno)

    def owns(self, coroutine: Any) -> bool:
        """Whether *coroutine*, which has not ended, is one of the session's code, or made by it.

        Its own code is known by its globals, since a session that has ended may have had the same
        name, and so the same files; a library's by the line that made it.
        """
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is None or self._sources.is_cell_file(frame.f_code.co_filename):
            return frame is not None and frame.f_globals is self._namespace
        return self._sources.is_cell_file(self.origin(coroutine)[0])

    # -- what there is -----------------------------------------------------------------------

    def of_kind(self, kind: Kind) -> list[Any]:
        """The objects themselves, in the order in which they were made; ended ones may be left."""
        entries = [made for made in list(self._made.values()) if made.kind == kind]
        return [it for made in entries if (it := made()) is not None]

    def name_of(self, task: asyncio.Task[Any]) -> str:
        """The name under which what became *task* was left behind, else the task's own."""
        made = self._entry_of(task)
        return task.get_name() if made is None else made.name or task.get_name()

    def entries(self) -> list[LedgerEntry]:
        """What there is now, in the order in which it was made."""
        return [it for made in list(self._made.values()) if (it := self._entry(made)) is not None]

    def _entry(self, made: _Made) -> LedgerEntry | None:
        """The entry for a reader; None, and let go, where what it stands for has ended."""
        it = made()
        if it is None:
            return None
        state = state_of(made.kind, it)
        if state is None:
            if made.kind != "task" or made.failed:  # else it has yet to say how it has ended
                self._gone(made)
            return None
        name = made.name or _NAME_OF[made.kind](it)
        filename, line = made.place
        return LedgerEntry(made.kind, name, made.cell, line, filename, state)

    # -- what ends ---------------------------------------------------------------------------

    def _gone(self, made: _Made) -> None:
        """The object of an entry is gone, or has ended."""
        if self._made.pop(made.key, None) is made and not made.failed:
            self.counts[made.kind].finished += 1
            if made.kind == "coroutine":
                self._just_gone.append(made)

    def task_ended(self, task: asyncio.Task[Any]) -> None:
        """*task* is done. One that has failed stays until it is dropped."""
        made = self._made.pop(id(task), None)
        if made is None:
            return
        count = self.counts["task"]
        count.finished += 1
        # Not by exception(): that would count as somebody's having asked.
        if task.cancelled() or task._exception is None:
            return
        count.failed += 1
        self._made[made.key] = made
        made.failed = True
        job = current_job.get()  # a task calls what waits for its end in the context of its maker
        made.job = None if job is None else weakref.ref(job)
        with suppress(AttributeError):  # a class of tasks of the host's, without room for it
            setattr(task, DROPPED, functools.partial(self._task_dropped, made))

    def thread_ended(self, thread: threading.Thread) -> None:
        """The code of *thread* has run."""
        made = self._entry_of(thread)
        if made is not None:
            self._gone(made)

    # -- what fails --------------------------------------------------------------------------

    def _task_dropped(self, made: _Made, task: asyncio.Task[Any]) -> bool:
        """*task* has failed, and is dropped without anybody's having asked for its error.

        Returns:
            Whether a listener was told.
        """
        error = task._exception
        assert error is not None
        name, (filename, line) = made.name or task.get_name(), made.place
        where = f", made in {filename}, line {line}" if line else ""
        text = f"Task exception was never retrieved: {name!r}{where}\n{format_error(trim(error))}"
        job = made.job_if_alive()
        return self._reports.tell(
            Failure("task", name, made.cell, filename, line, error, text, job)
        )

    def thread_died(self, thread: threading.Thread, error: BaseException, job: Job) -> bool:
        """The code of *thread*, which *job* has started, has raised *error*.

        Returns:
            Whether a listener was told, or nobody need be: the session ends, and *error* says so.
        """
        if self.ending and isinstance(error, asyncio.CancelledError | SessionClosedError):
            return True
        self.counts["thread"].failed += 1
        made = self._entry_of(thread)
        filename, line = NOWHERE if made is None else made.place
        text = f"Exception in thread {thread.name}:\n{format_error(trim(error))}"
        return self._reports.tell(
            Failure("thread", thread.name, job.number, filename, line, error, text, job)
        )

    def close_failed(self, coroutine: Any, error: BaseException) -> None:
        """*coroutine* was closed at the end of what owns it, and has raised *error*."""
        name, (filename, line) = coroutine.__qualname__, self.origin(coroutine)
        made = self._entry_of(coroutine)
        job = None if made is None else made.job_if_alive()
        cell = self._sources.number_of(filename) if made is None else made.cell
        text = f"Exception in coroutine {name!r}, closed:\n{format_error(trim(error))}"
        self.counts["coroutine"].failed += 1
        self._reports.tell(Failure("coroutine", name, cell, filename, line, error, text, job))

    def coroutine_dropped(self, coroutine: Any) -> None:
        """*coroutine* is dropped, and nobody has awaited it. In its finalizer.

        Where the session ends what it owns, that is how.

        Warns:
            RuntimeWarning: In the output of the cell that made it.
        """
        if self.ending:
            return
        filename, line = self.origin(coroutine)
        made = self._take_just_gone(coroutine)
        if made is None:
            self.counts["coroutine"].made += 1
            self.counts["coroutine"].finished += 1
        self.counts["coroutine"].failed += 1
        cell, job = self._maker_of(made, filename)
        name = coroutine.__qualname__
        message = f"coroutine {name!r} was never awaited"
        text = warnings.formatwarning(message, RuntimeWarning, filename, line)
        failure = Failure("coroutine", name, cell, filename, line, None, text, job)
        self._reports.warn(failure, message)

    def _take_just_gone(self, coroutine: Any) -> _Made | None:
        """The entry that *coroutine* had: CPython clears weak references before it finalizes."""
        place = self.origin(coroutine)
        for made in reversed(list(self._just_gone)):
            if made.key == id(coroutine) and made.place == place:
                with suppress(ValueError):  # another thread was quicker
                    self._just_gone.remove(made)
                return made
        return None

    def _maker_of(self, made: _Made | None, filename: str) -> tuple[int, Job | None]:
        """The cell that made a coroutine: by its entry, by who runs, or by the file of its line.

        Where the collector is at work it is no matter whose code runs.
        """
        if made is not None:
            return made.cell, made.job_if_alive()
        job = None if collector.at_work else current_job.get()
        if job is not None and job.owner.ownership is self:
            return job.number, job
        return self._sources.number_of(filename), None
