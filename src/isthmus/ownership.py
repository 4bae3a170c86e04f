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
import sys
import threading
import warnings
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from isthmus.collector import collector
from isthmus.errors import SessionClosedError
from isthmus.failures import Failure, FailureReports, Kind
from isthmus.jobs import Job, current_job
from isthmus.sources import SourceBook
from isthmus.tracebacks import format_error, trim

KINDS: tuple[Kind, ...] = ("coroutine", "task", "async generator", "thread")

LOOK_FRAMES = 40
"""How far up the stack the line of a cell is looked for; libraries start tasks some ten calls below
their callers. From the air."""

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
        """The job that made it, as long as anybody holds that."""
        return None if self.job is None else self.job()


class Ownership:
    """The entries of one session.

    Arguments:
        sources: The session's files, by which its code is known.
        reports: Who is told of failures.

    Attributes:
        counts: What there has been, by kind.
        ending: The session is ending what it owns; what that cancels has not failed.
    """

    def __init__(self, sources: SourceBook, reports: FailureReports) -> None:
        self.counts: dict[Kind, LedgerCount] = {kind: LedgerCount() for kind in KINDS}
        self.ending = False
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
        place = self._place() if coroutine is None else self.origin(coroutine)
        self._note("task", task, place, name)

    def note_thread(self, thread: threading.Thread) -> None:
        """The running job starts *thread*."""
        self._note("thread", thread, self._place())

    def note_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """The running job begins to iterate over *generator*."""
        self._note("async generator", generator, self._place())

    def note_coroutine(self, coroutine: Coroutine[Any, Any, Any], name: str = "") -> None:
        """*coroutine* was found, under *name* if it has one."""
        known = self._entry_of(coroutine)
        if known is None:
            self._note("coroutine", coroutine, self.origin(coroutine), name)
        elif name:
            known.name = name

    def _note(self, kind: Kind, it: Any, place: Place, name: str = "") -> None:
        made = _Made(it, self._when_gone)
        made.kind, made.name, made.place, made.failed = kind, name, place, False
        job = current_job.get()
        if job is None:
            made.cell, made.job = 0, None
        else:
            made.cell, made.job = job.number, weakref.ref(job)
        key = made.key = id(it)
        self._made[key] = made
        self.counts[kind].made += 1

    def _entry_of(self, it: object) -> _Made | None:
        made = self._made.get(id(it))
        return made if made is not None and made() is it else None

    def _place(self) -> Place:
        """The nearest line of a cell above the method's caller."""
        is_cell_file = self._sources.is_cell_file
        frame = sys._getframe(2)
        for _ in range(LOOK_FRAMES):
            if is_cell_file(frame.f_code.co_filename):
                return frame.f_code.co_filename, frame.f_lineno
            if frame.f_back is None:
                break
            frame = frame.f_back
        return NOWHERE

    def origin(self, coroutine: Any) -> Place:
        """The line that made *coroutine*, where that is a cell's; else where it is defined."""
        calls = getattr(coroutine, "cr_origin", None)
        if calls and self._sources.is_cell_file(calls[0][0]):
            filename, line, _ = calls[0]
            return filename, line
        code = getattr(coroutine, "cr_code", None)
        return NOWHERE if code is None else (code.co_filename, code.co_firstlineno)

    def owns(self, coroutine: Any) -> bool:
        """Whether the code of *coroutine*, or the line that made it, is the session's."""
        return self._sources.is_cell_file(self.origin(coroutine)[0])

    # -- what ends ---------------------------------------------------------------------------

    def _gone(self, made: _Made) -> None:
        """The object of an entry is gone, or has ended."""
        if self._made.pop(made.key, None) is made and not made.failed:
            self.counts[made.kind].finished += 1
            if made.kind == "coroutine":
                self._just_gone.append(made)

    def task_ended(self, task: asyncio.Task[Any]) -> None:
        """*task* is done. One that has failed stays until it is dropped."""
        made = self._entry_of(task)
        if made is None:
            return
        # Not by exception(): that would count as somebody's having asked.
        if task.cancelled() or task._exception is None:
            self._gone(made)
            return
        made.failed = True
        self.counts["task"].finished += 1
        self.counts["task"].failed += 1
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

    def coroutine_dropped(self, coroutine: Any) -> None:
        """*coroutine* is dropped, and nobody has awaited it. In its finalizer.

        Warns:
            RuntimeWarning: In the output of the cell that made it.
        """
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
