"""A child process of the host: its start, its output, its end. Owns the process and its pipes.

It is a session and a process group of its own: Ctrl-C in the host's terminal is not for it, and
what its cells have started ends with it. The end is seen through a descriptor of the process
(``pidfd_open``, Linux 5.3), elsewhere by a thread that waits.

Refuses to know: messages, cells.

Threads: the loop's. Close: :meth:`WorkerProcess.discard`, or its end.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from isthmus.events import StreamName
from isthmus.interrupts import SIGNAL
from isthmus.worker.limits import WorkerLimits
from isthmus.worker.usage import OutOfMemoryCount, peak_memory

PIPE_BYTES = 1 << 20
"""How much a worker may write to a descriptor before it waits for the host, where the system allows
that much: C code that writes may hold what its other threads need."""

READ_BYTES = 1 << 16
"""How much of that to read at once: a pipe's default."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a worker.

    Attributes:
        python: The interpreter, in which this package can be imported.
        cwd: The working directory; None for the host's.
        env: The environment; None for the host's.
        limits: What it may use of the machine.
    """

    python: str = field(default_factory=lambda: sys.executable)
    cwd: str | os.PathLike[str] | None = None
    env: Mapping[str, str] | None = None
    limits: WorkerLimits = field(default_factory=WorkerLimits)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process has ended.

    Attributes:
        exit_code: What it ended with; None where a signal ended it, or somebody else has asked.
        signal: The name of the signal; None where it was none.
        out_of_memory: Its control group has run out of memory meanwhile.
        peak_memory_bytes: The most that it has held; 0 where that is not known.
    """

    exit_code: int | None = None
    signal: str | None = None
    out_of_memory: bool = False
    peak_memory_bytes: int = 0


class WorkerProcess:
    """A running child process.

    Arguments:
        launch: How to start it.
        connection: The child's end of the socket, which it inherits.
        on_output: Called with what it writes to its descriptors 1 and 2.
        on_exit: Called when it has ended.

    Raises:
        OSError: It cannot be started.

    Attributes:
        ending: How it has ended; None as long as it runs.
    """

    def __init__(
        self,
        launch: Launch,
        connection: socket.socket,
        on_output: Callable[[StreamName, bytes], object],
        on_exit: Callable[[], object],
    ) -> None:
        self.ending: Ending | None = None
        self._loop = asyncio.get_running_loop()
        self._on_output, self._on_exit = on_output, on_exit
        self._pipes: dict[StreamName, int] = {}
        self._process = self._start(launch, connection)
        self._memory = OutOfMemoryCount(self._process.pid)
        for stream, descriptor in self._pipes.items():
            self._loop.add_reader(descriptor, self._loop.call_soon, self._read, stream)
        self._descriptor = self._watch()

    def _start(self, launch: Launch, connection: socket.socket) -> subprocess.Popen[bytes]:
        number = connection.fileno()
        command = [launch.python, "-m", "isthmus.worker", str(number), launch.limits.to_argument()]
        with ExitStack() as undo, ExitStack() as theirs:
            undo.callback(self._close_pipes)
            ends: dict[StreamName, int] = {}
            for stream in _STREAMS:
                self._pipes[stream], ends[stream] = _pipe()
                theirs.callback(os.close, ends[stream])
            command += [str(self._pipes[stream]) for stream in _STREAMS]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=ends["stdout"],
                stderr=ends["stderr"],
                pass_fds=(number, *self._pipes.values()),
                cwd=launch.cwd,
                env=None if launch.env is None else dict(launch.env),
                start_new_session=True,
            )
            undo.pop_all()
        return process

    @property
    def pid(self) -> int:
        """Its number, also when it has ended."""
        return self._process.pid

    # -- output ------------------------------------------------------------------------------
    #
    # What is there is read one turn of the loop later: what was sent over the connection before it
    # was written is then there too, and has been taken.

    def _read(self, stream: StreamName) -> bool:
        """Pass on a piece of what the process has written; whether there was one."""
        descriptor = self._pipes.get(stream)
        if descriptor is None:
            return False
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            self._on_output(stream, data)
        else:
            self._close_pipe(stream)
        return bool(data)

    def drain(self) -> None:
        """Pass on what it has written so far: a pipe full at most, as it may go on writing."""
        for stream in _STREAMS:
            for _ in range(PIPE_BYTES // READ_BYTES):
                if not self._read(stream):
                    break

    def _close_pipe(self, stream: StreamName) -> None:
        descriptor = self._pipes.pop(stream)
        if not self._loop.is_closed():
            self._loop.remove_reader(descriptor)
        os.close(descriptor)

    def _close_pipes(self) -> None:
        for stream in tuple(self._pipes):
            self._close_pipe(stream)

    # -- the end -----------------------------------------------------------------------------

    def _watch(self) -> int | None:
        """Have the end noticed; the descriptor of the process, if there is one."""
        if hasattr(os, "pidfd_open"):
            with suppress(OSError):  # the kernel is older
                descriptor = os.pidfd_open(self.pid)
                self._loop.add_reader(descriptor, self._exited)
                return descriptor
        threading.Thread(target=self._wait_in_thread, daemon=True).start()
        return None

    def _wait_in_thread(self) -> None:
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with suppress(RuntimeError):  # the loop is closed, and so is the process
            self._loop.call_soon_threadsafe(self._exited)

    def _exited(self) -> None:
        if self.ending is None:
            self._reap()
            self._on_exit()

    def _reap(self) -> None:
        """Take the exit status. As long as nobody has, the number is the process's own."""
        if self._descriptor is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
        self.kill()  # what cells have started, in its group
        try:
            _, status, used = os.wait4(self.pid, 0)
        except ChildProcessError:  # somebody in the host waits for any child
            self._process.returncode = 0
            self.ending = Ending()
            return
        code = self._process.returncode = os.waitstatus_to_exitcode(status)
        self.ending = Ending(
            None if code < 0 else code,
            _signal_name(-code) if code < 0 else None,
            code == -signal.SIGKILL and self._memory.has_risen(),
            peak_memory(used),
        )

    def signal(self) -> None:
        """Have it read its messages, whatever it does."""
        if self.ending is None and SIGNAL is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, SIGNAL)

    def kill(self) -> None:
        """End it, and what it has started, at once. Idempotent."""
        if self.ending is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)  # before it has become a group

    def discard(self) -> None:
        """Close what is left of it, and end it first if it runs. Idempotent. Waits for its end."""
        if self.ending is None:
            self.kill()
            self._reap()
        self._close_pipes()


_STREAMS: tuple[StreamName, ...] = ("stdout", "stderr")


def _pipe() -> tuple[int, int]:
    """Where to read, without waiting, and where to write."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):  # more than this user may have
            fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return ours, theirs


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
