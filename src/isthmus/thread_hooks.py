"""Threads and executor jobs that session code starts. Owns the wrappers around starting them.

Refuses to know: what such a thread may do then, who is told when it dies.

A thread has the context variables of its ``start()``, an executor's job those of its ``submit()``;
so what they print goes to the cell that started them, and ``run_sync`` and capabilities reach the
home loop. (Python 3.14 can do the first part itself, where ``sys.flags.thread_inherit_context``.)
Threads that code of the host starts are what they were. The threads of an executor are the
executor's, whoever fills it, and end with it.
"""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.thread
import contextvars
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import Any, TypeVar

from isthmus.hooks import Hook
from isthmus.jobs import Job, current_job
from isthmus.visitors import visiting

T = TypeVar("T")


def _visit(job: Job, context: contextvars.Context, function: Callable[[], T]) -> T:
    """In the new thread: run *function* for *job*."""
    with visiting(job.owner):
        return context.run(function)


def _is_worker(thread: Thread) -> bool:
    """Whether *thread* serves an executor: its jobs have contexts of their own."""
    return getattr(thread, "_target", None) is concurrent.futures.thread._worker


class ThreadHooks(Hook):
    """Replaces ``threading.Thread.start`` and ``ThreadPoolExecutor.submit``."""

    def __init__(self) -> None:
        super().__init__()
        self._plain: tuple[Any, Any] = (None, None)
        self._ours: tuple[Any, Any] = (None, None)

    def _put_in(self) -> None:
        self._plain = Thread.start, ThreadPoolExecutor.submit
        self._ours = _starting(self._plain[0]), _submitting(self._plain[1])
        Thread.start, ThreadPoolExecutor.submit = self._ours  # type: ignore[method-assign]

    def _take_out(self) -> None:
        start, submit = self._ours
        if Thread.start is start:
            Thread.start = self._plain[0]  # type: ignore[method-assign]
        if ThreadPoolExecutor.submit is submit:
            ThreadPoolExecutor.submit = self._plain[1]  # type: ignore[method-assign]


def _starting(plain: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(plain)
    def start(self: Thread, /) -> None:
        job = current_job.get()
        if job is not None and self.ident is None and not _is_worker(self):
            self.run = _prepared(self, job)  # type: ignore[method-assign]
            job.owner.ownership.note_thread(self)
        plain(self)

    return start


def _submitting(plain: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    @functools.wraps(plain)
    def submit(
        self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        job = current_job.get()
        if job is None:
            return plain(self, fn, *args, **kwargs)
        call = functools.partial(fn, *args, **kwargs)
        return plain(self, _visit, job, contextvars.copy_context(), call)

    return submit


def _prepared(thread: Thread, job: Job) -> Callable[[], None]:
    """What *thread* has to run instead of its ``run``, which is then as it was."""
    replaced = vars(thread).get("run")
    function, context = thread.run, contextvars.copy_context()

    def run() -> None:
        if replaced is None:
            del thread.run
        else:
            thread.run = replaced  # type: ignore[method-assign]
        try:
            _visit(job, context, function)
        except SystemExit:
            raise  # which threading takes for an end like any other
        except BaseException as error:  # a boundary: nobody else asks for what a thread raises
            told = job.owner.ownership.thread_died(thread, error, job)
            foreign = threading.excepthook is not threading.__excepthook__
            if not told and (foreign or job.state == "ended"):
                raise  # else Python's own hook would say it a second time
        finally:
            job.owner.ownership.thread_ended(thread)

    return run


thread_hooks = ThreadHooks()
"""The process has one ``threading``, so there is one of these."""
