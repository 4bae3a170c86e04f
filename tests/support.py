"""What the tests share: event loop flavours, forced interleavings, child processes, leak checks.

Refuses to know: what is tested.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import json
import linecache
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import pytest

from isthmus import ThreadAwareLoop, WorkerSession

WAIT_SECONDS = 10.0
"""The bound of every single wait in a test."""

TEST_SECONDS = 30.0
"""The bound of one whole async test."""

CONTEXTS = ("async", "thread", "sync")
NewWorker = Callable[..., WorkerSession]
"""Makes sessions in workers."""

PAIRS = [(first, second) for first in CONTEXTS for second in CONTEXTS]


def cell(source: str) -> str:
    """*source* without the indentation that it has in the test's own text."""
    return textwrap.dedent(source).strip("\n")


def assert_as_expected(found: Mapping[str, object], expected: Mapping[str, object]) -> None:
    """Fail with every entry that differs, by its name; pytest cuts long comparisons short."""
    wrong = [
        f"{name}: {found.get(name)!r}" for name in expected if found.get(name) != expected[name]
    ]
    assert not wrong, "\n".join(wrong)


# -- event loops -------------------------------------------------------------------------------

FLAVOURS = [
    "asyncio",
    "debug",
    pytest.param(
        "eager",
        marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks: Python 3.12"),
    ),
    "uvloop",
]
"""The kinds of event loop."""

on_every_loop = pytest.mark.parametrize("flavour", FLAVOURS, indirect=True)
"""For a test in whose outcome the kind of loop can have a part."""

on_one_loop = pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
"""For a test in whose outcome the loop has no part, or one with many cases on plain asyncio."""

on_other_loops = pytest.mark.parametrize("flavour", FLAVOURS[1:], indirect=True)
"""For a test that runs those many cases in one session, on all the other kinds."""


def prepare_flavour(flavour: str) -> str:
    """See that *flavour* can be had, and that having it leaves nothing behind; give it back."""
    if flavour == "uvloop":
        pytest.importorskip("uvloop")
        _warm_up_uvloop()
    return flavour


@functools.cache
def _warm_up_uvloop() -> None:
    """Have uvloop open the pair of descriptors that it keeps for the life of the process."""
    with make_runner("uvloop") as runner:
        runner.run(asyncio.sleep(0))


def make_runner(flavour: str) -> asyncio.Runner:
    """A runner with an event loop of one flavour, whose ways the tests cannot tell apart."""
    if flavour == "uvloop":
        import uvloop

        return asyncio.Runner(loop_factory=uvloop.new_event_loop)
    if flavour.startswith("ours"):
        return asyncio.Runner(loop_factory=ThreadAwareLoop, debug=flavour == "ours-debug")
    return asyncio.Runner(debug=flavour == "debug")


@dataclass
class LoopWatch:
    """What one test's event loop complained of, and what is left in it."""

    complaints: list[dict[str, Any]] = field(default_factory=list)

    def note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's exception handler."""
        if not _is_of_anyio(context):
            self.complaints.append(context)


def _is_of_anyio(context: Mapping[str, Any]) -> bool:
    """Whether it is what anyio's scope says, now and then, when a thread leaves it meanwhile."""
    deliver = "CancelScope._deliver_cancellation" in str(context.get("handle"))
    return deliver and str(context.get("exception")) == "Set changed size during iteration"


def _other_tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


class HungError(AssertionError):
    """A test did not end, not even when it was cancelled."""


async def _bounded(task: asyncio.Future[None], seconds: float) -> None:
    """Wait for *task*, which runs beside the caller: a hang must not hold the caller too."""
    _, running = await asyncio.wait({task}, timeout=seconds)
    if running:
        task.cancel()
        await asyncio.wait({task}, timeout=1)
        raise HungError(f"{task} did not end in {seconds} s; there are {_other_tasks()}")
    await task


async def _guarded(
    test: Coroutine[Any, Any, None], close: Callable[[], Coroutine[Any, Any, None]], flavour: str
) -> None:
    loop = asyncio.get_running_loop()
    host_factory = None
    if flavour == "eager":
        host_factory = asyncio.eager_task_factory  # type: ignore[attr-defined,unused-ignore]
        loop.set_task_factory(host_factory)
    current_task = asyncio.current_task
    own_attributes = set(getattr(loop, "__dict__", ()))
    try:
        await _bounded(asyncio.ensure_future(test), TEST_SECONDS)
    finally:
        await _bounded(asyncio.ensure_future(close()), WAIT_SECONDS)
    await eventually(lambda: not _other_tasks(), lambda: f"the end of {_other_tasks()}")
    assert loop.get_task_factory() is host_factory, "the loop's task factory was not put back"
    assert asyncio.current_task is current_task, "asyncio.current_task was not put back"
    added = set(getattr(loop, "__dict__", ())) - own_attributes
    assert not {name for name in added if {"call", "create", "run"} & set(name.split("_"))}, added


def run_async(
    test: Coroutine[Any, Any, None],
    close: Callable[[], Coroutine[Any, Any, None]],
    flavour: str,
    watch: LoopWatch,
) -> None:
    """Run *test* in a loop of its own, then *close*; nothing of either may be left in the loop."""
    runner = make_runner(flavour)
    loop = runner.get_loop()
    loop.set_exception_handler(watch.note)
    try:
        runner.run(_guarded(test, close, flavour))
    except HungError:
        raise  # closing the runner would wait for what hangs
    except BaseException:
        runner.close()
        raise
    runner.close()


# -- interleavings -----------------------------------------------------------------------------


class Sequencer:
    """Forces an order on code in several tasks and threads: point 0 passes first, then 1, …

    ``sequencer.point(n)`` blocks a thread, ``await sequencer.reach(n)`` a task, until all points
    before *n* have passed.
    """

    def __init__(self) -> None:
        self._next = 0
        self._changed = threading.Condition()
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def _pass(self) -> None:
        self._next += 1
        self._changed.notify_all()
        for loop, event in self._waiters:
            loop.call_soon_threadsafe(event.set)
        self._waiters.clear()

    def point(self, number: int) -> None:
        """Wait in a thread for the turn of *number*, and pass it."""
        with self._changed:
            reached = self._changed.wait_for(lambda: self._next >= number, WAIT_SECONDS)
            assert reached, f"point {number} was not reached: still before {self._next}"
            self._pass()

    async def reach(self, number: int) -> None:
        """Wait in a task for the turn of *number*, and pass it."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                with self._changed:
                    if self._next >= number:
                        self._pass()
                        return
                    event = asyncio.Event()
                    self._waiters.append((asyncio.get_running_loop(), event))
                await event.wait()

    @property
    def passed(self) -> int:
        """How many points have passed."""
        return self._next


async def eventually(
    condition: Callable[[], object], what: Callable[[], str] = lambda: "the condition"
) -> None:
    """Let the loop go round until *condition*, or what it gives to await, holds."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not await _holds(condition):
        assert time.monotonic() < deadline, f"{what()} did not come about"
        await asyncio.sleep(0.001)


async def _holds(condition: Callable[[], object]) -> object:
    found = condition()
    return await found if inspect.isawaitable(found) else found


def wait_until(condition: Callable[[], object]) -> None:
    """Wait, where no loop runs, until other threads have made *condition* true."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come about"
        time.sleep(0.001)


def in_threads(*functions: Callable[[], Any]) -> list[Any]:
    """What *functions* give, each called in a thread of its own."""
    with ThreadPoolExecutor(len(functions)) as pool:
        futures = [pool.submit(function) for function in functions]
        return [future.result(WAIT_SECONDS) for future in futures]


class LoopThread:
    """An event loop in a thread of its own, as a host with several loops has it."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._main, daemon=True)

    def _main(self) -> None:
        with asyncio.Runner() as runner:
            self.loop = runner.get_loop()
            self._stop = asyncio.Event()
            self.loop.call_soon(self._started.set)
            runner.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        await self._stop.wait()

    def submit(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Start *work* there; a ``concurrent.futures.Future``."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run *work* there and wait for it, blocking."""
        return self.submit(work).result(WAIT_SECONDS)

    async def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run *work* there and wait for it in the caller's loop."""
        return await asyncio.wait_for(asyncio.wrap_future(self.submit(work)), WAIT_SECONDS)

    def __enter__(self) -> LoopThread:
        self._thread.start()
        assert self._started.wait(WAIT_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive()


# -- child processes ---------------------------------------------------------------------------


@dataclass(frozen=True)
class ChildResult:
    """How a child process ended."""

    status: int
    stdout: str
    stderr: str


def run_in_child(
    program: str,
    *arguments: str,
    seconds: float = 20.0,
    interrupt_at: str | None = None,
    stdin: str | None = None,
) -> ChildResult:
    """Run *program* in a Python of its own, which is killed at the deadline.

    Arguments:
        program: Its source.
        seconds: The deadline; missing it fails the test.
        interrupt_at: Send ``SIGINT`` once this line was printed.
        stdin: What it reads; by default it has what this process has.
    """
    command = [sys.executable, "-X", "faulthandler", "-c", cell(program), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command,
        stdin=None if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as child:
        assert child.stdout is not None
        before = ""
        if interrupt_at is not None:
            for line in child.stdout:
                before += line
                if line.strip() == interrupt_at:
                    child.send_signal(signal.SIGINT)
                    break
        try:
            stdout, stderr = child.communicate(stdin, timeout=seconds)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGABRT)  # faulthandler prints where every thread stands
            stdout, stderr = child.communicate()
            raise AssertionError(f"the child hangs:\n{before}{stdout}\n{stderr}") from None
    return ChildResult(child.returncode, before + stdout, stderr)


_FORKS = """
import asyncio, faulthandler, json, os, sys
from isthmus import Session
folder, seconds, cases = json.loads(sys.argv[1])
statuses = []
for number, arguments in enumerate(cases):
    if not (child := os.fork()):
        break
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    print(json.dumps(statuses))
    sys.exit()
for descriptor in (1, 2):
    file = os.open(f"{folder}/{number}.{descriptor}", os.O_CREAT | os.O_WRONLY)
    os.dup2(file, descriptor)
    os.close(file)
faulthandler.dump_traceback_later(seconds, exit=True)
sys.argv[1:] = arguments
"""
"""What a program begins with that is to run several times, and to import a session once."""


def run_in_forks(
    program: str, cases: Sequence[Sequence[str]], seconds: float = 20.0
) -> list[ChildResult]:
    """Run *program* with the arguments of each case, in a process for each.

    All are forks of one that has imported a session and done nothing else, which takes a tenth of
    the time of :func:`run_in_child`. They run from the first line of the program to the end of the
    interpreter, one after another.

    Arguments:
        seconds: The deadline of each; one that misses it fails.
    """
    with TemporaryDirectory() as folder:
        settings = json.dumps([folder, seconds, cases])
        forks = run_in_child(_FORKS + cell(program), settings, seconds=seconds * (len(cases) + 1))
        assert forks.status == 0, forks
        return [
            ChildResult(status, *(Path(folder, f"{number}.{it}").read_text() for it in (1, 2)))
            for number, status in enumerate(json.loads(forks.stdout))
        ]


# -- leaks ---------------------------------------------------------------------------------------


def _descriptors() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # the listing's own descriptor
            continue
    return found


def _children(process: str = "self") -> set[str]:
    """The children of *process*, and theirs: workers are those of the process that forks them."""
    found: set[str] = set()
    tasks = f"/proc/{process}/task"
    with suppress(OSError):  # it has ended, or the kernel does not tell
        for thread in os.listdir(tasks):
            with suppress(OSError), open(f"{tasks}/{thread}/children") as file:
                found.update(file.read().split())
    return found.union(*map(_children, found))


def _shared_memory() -> set[str]:
    """What we, or a process that is no more, have put into the memory that processes share."""
    names = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    with open("/proc/self/maps") as file:
        mapped = [line.split()[5] for line in file if "isthmus" in line]
    return {name for name in names if "isthmus" in name and not _is_of_another(name)} | {
        path for path in mapped if path.startswith(("/memfd:", "/dev/shm/"))
    }


def _is_of_another(name: str) -> bool:
    """Whether a process that runs, and is not this one, has made what has its number in *name*."""
    pid = name.split("-")[1]
    return pid != str(os.getpid()) and os.path.exists(f"/proc/{pid}")


def _is_of_a_session(source: str) -> bool:
    return "isthmus" in source and not os.path.exists(source)


@dataclass
class Census:
    """What a process has that a session could leave behind."""

    threads: set[threading.Thread]
    descriptors: dict[str, str]
    children: set[str]
    shared_memory: set[str]
    modules: set[str]
    sources: set[str]
    hooks: dict[str, object]

    @classmethod
    def take(cls) -> Census:
        """What there is now."""
        hooks: dict[str, object] = {
            "sys.stdout": sys.stdout,
            "sys.stderr": sys.stderr,
            "sys.excepthook": sys.excepthook,
            "threading.excepthook": threading.excepthook,
            "threading.Thread.start": threading.Thread.start,
            "ThreadPoolExecutor.submit": ThreadPoolExecutor.submit,
            "gc.callbacks": [it for it in gc.callbacks if "isthmus" in str(it)],
            "warnings._warn_unawaited_coroutine": warnings._warn_unawaited_coroutine,  # type: ignore[attr-defined]
            "coroutine origins": sys.get_coroutine_origin_tracking_depth(),
            "asyncio.current_task": asyncio.current_task,
            "asyncio.tasks.current_task": asyncio.tasks.current_task,
            "asyncio.run": asyncio.run,
            "asyncio.runners.run": asyncio.runners.run,
            "asyncio.Runner": asyncio.Runner,
            "asyncio.Runner.__init__": asyncio.Runner.__init__,
            "asyncio.runners.Runner": asyncio.runners.Runner,
            "the hooks for async generators": sys.get_asyncgen_hooks(),
            "SIGURG": signal.getsignal(signal.SIGURG),
            "SIGINT": signal.getsignal(signal.SIGINT),
            "__main__": sys.modules["__main__"],
            "the class of sys": type(sys),
            "logging.StreamHandler.stream": hasattr(logging.StreamHandler, "stream"),
        }
        return cls(
            set(threading.enumerate()),
            _descriptors(),
            _children(),
            _shared_memory(),
            set(sys.modules),
            set(linecache.cache),
            hooks,
        )

    def left_behind(self) -> Iterator[str]:
        """What there is now and was not then, in words."""
        now = Census.take()
        for thread in now.threads - self.threads:
            yield f"thread {thread.name!r}"
        for number, target in now.descriptors.items():
            if self.descriptors.get(number) != target:
                yield f"descriptor {number}: {target}"
        for child in now.children - self.children:
            yield f"child {child}"
        for name in now.shared_memory - self.shared_memory:
            yield f"shared memory {name}"
        for module in now.modules - self.modules:
            if module.startswith("isthmus_"):
                yield f"module {module}"
        for source in now.sources - self.sources:
            if _is_of_a_session(source):
                yield f"source {source}"
        for name, value in now.hooks.items():
            if value != self.hooks[name]:
                yield f"hook {name}: {value!r} where {self.hooks[name]!r} was"

    def check(self) -> None:
        """Fail when something is left behind that does not go away by itself.

        Daemon threads that were told to end and objects in garbage get some time.
        """
        start = time.monotonic()
        deadline, collected = start + WAIT_SECONDS, False
        while left := list(self.left_behind()):
            if not collected and time.monotonic() > start + 0.05:
                gc.collect()
                collected = True
            elif time.monotonic() > deadline:
                raise AssertionError("left behind: " + "; ".join(left))
            time.sleep(0.002)
