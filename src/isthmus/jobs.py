"""A job: one function to run in one context, and its future. Owns what the contexts know of a cell.

Refuses to know: source code, namespaces, events; whoever builds a job puts those into its function.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextvars import Context as ContextSnapshot
from contextvars import ContextVar
from typing import Any, Literal, Protocol, TypeVar

from isthmus.events import Context, StreamName
from isthmus.mailbox import Mailbox
from isthmus.mime import MimeBundle
from isthmus.prompt_future import PromptFuture
from isthmus.strikes import strikes

T = TypeVar("T")

JobState = Literal["queued", "running", "finishing", "ended"]


class JobPursuit(Protocol):
    """The stopping of a job's code. Threads: any."""

    def ordered_since(self, when: float) -> bool:
        """Whether it was ordered at *when* or later, on the clock of ``time.monotonic``."""

    def tell(self) -> None:
        """The job's own code is told by a cancellation."""

    def come_back(self) -> None:
        """The calling thread, which is the job's, goes on after a wait that was not cancelled.

        Raises:
            CellInterrupted: It has to stop.
        """

    def pass_by(self) -> None:
        """Code of the job in this thread comes out of what must not be interrupted.

        Raises:
            CellInterrupted: It had to be, meanwhile.
        """

    def end(self) -> None:
        """The code has ended, or will never begin. Idempotent."""


class Crossing(Protocol):
    """How a thread that is not the loop's gets an awaitable waited for, and callbacks called."""

    def hold(self, handle: asyncio.Handle) -> None:
        """Have the loop run *handle* when the thread waits next, or has ended its job."""

    def wait_in_loop(self, awaitable: Awaitable[Any]) -> Any:
        """Have the loop wait for *awaitable*; return its result or raise its error."""

    def can_wait(self) -> bool:
        """Whether there is still a loop that would."""


class Belongings(Protocol):
    """What the code of jobs makes, and how it ends. Threads: any, for every method."""

    def note_task(self, task: asyncio.Task[Any]) -> None:
        """The running job has made *task*."""

    def task_ended(self, task: asyncio.Task[Any]) -> None:
        """*task* is done."""

    def note_thread(self, thread: threading.Thread) -> None:
        """The running job starts *thread*."""

    def thread_ended(self, thread: threading.Thread) -> None:
        """The code of *thread* has run."""

    def thread_died(self, thread: threading.Thread, error: BaseException, job: Job) -> bool:
        """The code of *thread* has raised *error*; whether somebody was told."""

    def note_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """The running job begins to iterate over *generator*."""


class JobOwner(Protocol):
    """Whose jobs they are: a home."""

    loop: asyncio.AbstractEventLoop
    """The loop that waits for what its jobs await."""

    loop_thread: int
    """The identifier of the loop's thread."""

    closed: bool
    """Whether the session has ended."""

    @property
    def ownership(self) -> Belongings:
        """What its jobs have made."""

    def crossing(self) -> Crossing:
        """The way to the loop, for one wait of a thread that belongs to no job. Threads: any."""

    def note_visit(self, task: asyncio.Task[Any]) -> None:
        """*task*, which has not begun, is to wait on behalf of one of its threads."""

    def beside(self, job: Job) -> list[Job]:
        """Jobs whose code may run now and does not wait for *job*. Threads: any."""

    def stop(self, job: Job, since: float | None = None) -> bool:
        """Have *job* stop, if it was not told since. Threads: the loop's."""

    def ended(self, job: Job) -> None:
        """*job* has run."""


class JobOutput(Protocol):
    """Where what a job's code writes goes. Threads: any, for every method."""

    def write(self, text: str) -> None:
        """Take *text*, a plain ``str``, for stdout."""

    def write_to(self, stream: StreamName, data: str | bytes) -> int:
        """Take *data*, a plain ``str`` or ``bytes``, for one of the streams; its length."""

    def display(self, bundle: MimeBundle) -> None:
        """Take an object's rich form."""

    def flush(self) -> None:
        """Pass on what has been held back."""


class Job:
    """A cell as the contexts see it. What a cell is made of comes with a subclass.

    Most attributes of most jobs never leave their defaults, which therefore are the class's: making
    a job is on the path of every cell. Not so *output*, which is on that of every ``print``: an
    attribute that the class has too is found more slowly.

    Attributes:
        number: The cell's number.
        context: Where it runs.
        awaits: Its code awaits; in a thread it then sees the home loop as its running loop.
        owner: Whose job it is (a home); nested jobs are recognised by it.
        done: A future of the home loop, set when the job has ended; made when somebody waits.
        parent: The job whose code started this one while it ran, or None.
        children: Jobs that its code started; its outcome waits for them.
        snapshot: For a thread job: the context variables that it starts with, or None when the
            thread has them already.
        mailbox: For a thread job: where the task reads that awaits for it.
        thread: For a thread job: the identifier of the thread that runs it, once one does.
        pursuit: The stopping of its code, where that was ordered or will be.
        output: Where what its code writes goes; None where :meth:`open_output` is to be asked.
        task: The task that runs it, or that awaits for it when it runs in a thread.
        cancels: Cancellations sent on its behalf, taken back at its end.
        cancel_requested: It was cancelled, perhaps before it could notice.
        cancel_delivered: Its code has been told, or will be at its next await.
        abandoned: Control went back to the caller while its code was running on.
        concurrent: It waits in the queue only because the session is being reset.
        left: Its code has ended, whatever has become of the job; nothing interrupts it any more.
    """

    owner: JobOwner
    done: PromptFuture[None] | None = None
    parent: Job | None = None
    children: tuple[Job, ...] = ()
    snapshot: ContextSnapshot | None = None
    mailbox: Mailbox | None = None
    thread: int | None = None
    pursuit: JobPursuit | None = None
    output: JobOutput | None
    task: asyncio.Task[Any] | None = None
    state: JobState = "queued"
    cancels: int = 0
    cancel_requested: bool = False
    cancel_delivered: bool = False
    abandoned: bool = False
    concurrent: bool = False
    left: bool = False

    def __init__(self, number: int, context: Context, *, awaits: bool) -> None:
        self.number = number
        self.context = context
        self.awaits = awaits
        self.output = None

    def evaluate(self) -> None:
        """Run the code and keep the outcome. Never raises. Called in the job's context."""
        raise NotImplementedError

    def refuse(self, error: BaseException) -> None:
        """Keep *error* as the outcome of code that cannot be run. In place of :meth:`evaluate`."""
        raise NotImplementedError

    def open_output(self) -> JobOutput:
        """Where what the code writes goes, asked when it first writes. Threads: any."""
        raise NotImplementedError

    def leave_code(self) -> None:
        """The code has ended: nothing is sent to it any more. The job's own call.

        Raises:
            CellInterrupted: It was on its way. To be called again; a second one cannot come.
        """
        self.state, self.left = "finishing", True
        strikes.settle()
        if self.pursuit is not None:
            self.pursuit.end()

    def wait_future(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """The future that is set when the job has ended. Threads: the loop's."""
        if self.done is None or self.done.cancelled():
            self.done = PromptFuture(loop=loop)
            if self.state == "ended":
                self.done.set_result(None)
        return self.done

    def give_up(self) -> None:
        """Control goes back to the caller while the code runs on. Threads: the loop's."""
        self.abandoned = True

    def end(self) -> None:
        """Mark the job as ended and wake whoever waits for it. Threads: the loop's."""
        self.state = "ended"
        if self.done is not None and not self.done.done():
            self.done.resolve(None)


current_job: ContextVar[Job | None] = ContextVar("isthmus_current_job", default=None)
"""The job whose code runs, or made the task or the thread that runs."""


def ancestry(job: Job | None) -> Iterator[Job]:
    """*job*, the job that started it, and so on."""
    while job is not None:
        yield job
        job = job.parent


_job_here, _set_job, _reset_job = current_job.get, current_job.set, current_job.reset
"""Bound once: looking the method of a context variable up takes longer than the call."""


def outside_cells(call: Callable[..., T], *arguments: object) -> T:
    """Call what belongs to no cell, and have no interrupt arrive in it.

    For code of the host, and of ours, that cell code has led to: what a transport prints is not the
    cell's, and a batch of output that is half sent must be sent to its end. Who interrupts looks
    for the frame of this function; what had to wait for it comes at its end.

    Raises:
        CellInterrupted: The cell was to be stopped meanwhile. *call* was done all the same.
    """
    job = _job_here()
    if job is None:
        return call(*arguments)
    token = _set_job(None)
    try:
        return call(*arguments)
    finally:
        _reset_job(token)
        if job.pursuit is not None or job.parent is not None:
            _pass_by(job)


def _pass_by(job: Job) -> None:
    for it in ancestry(job):
        if it.pursuit is not None:
            it.pursuit.pass_by()
