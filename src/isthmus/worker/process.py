"""A worker's process: its output and its end. Owns the pipes, and the process, however started.

It is a session and a process group of its own: Ctrl-C in the host's terminal is not for it, and
what its cells have started ends with it.

Refuses to know: messages, cells, how a process is started.

Threads: the loop's. Close: :meth:`WorkerProcess.discard`, or its end.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from isthmus.events import StreamName
from isthmus.interrupts import SIGNAL
from isthmus.worker.forked import ForkedChild
from isthmus.worker.launch import Ends, Launch
from isthmus.worker.spawned import SpawnedChild
from isthmus.worker.usage import OutOfMemoryCount

PIPE_BYTES = 1 << 20
"""How much a worker may write to a descriptor before it waits for the host, where the system allows
that much: C code that writes may hold what its other threads need."""

READ_BYTES = 1 << 16
"""How much of that to read at once: a pipe's default."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process has ended.

    Attributes:
        exit_code: What it ended with; None where a signal ended it, or nobody knows.
        signal: The name of the signal; None where it was none.
        out_of_memory: Its control group has run out of memory meanwhile.
        peak_memory_bytes: The most that it has held; 0 where that is not known.
        why_unknown: Where there is neither code nor signal: why.
    """

    exit_code: int | None = None
    signal: str | None = None
    out_of_memory: bool = False
    peak_memory_bytes: int = 0
    why_unknown: str = ""


class WorkerProcess:
    """A running worker process.

    Arguments:
        launch: How to start it.
        connection: The worker's end of the socket, which it inherits.
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
        self._child = self._start(launch, connection)
        self._memory: OutOfMemoryCount | None = None
        for stream, descriptor in self._pipes.items():
            self._loop.add_reader(descriptor, self._loop.call_soon, self._read, stream)

    def _start(self, launch: Launch, connection: socket.socket) -> SpawnedChild | ForkedChild:
        start = SpawnedChild if launch.fork_server is None else ForkedChild
        with ExitStack() as undo, ExitStack() as theirs:
            undo.callback(self._close_pipes)
            ends: dict[StreamName, int] = {}
            for stream in _STREAMS:
                self._pipes[stream], ends[stream] = _pipe()
                theirs.callback(os.close, ends[stream])
            given = Ends(connection.fileno(), **ends, **_named_back(self._pipes))
            child = start(launch, given, self._child_ended)
            undo.pop_all()
        return child

    def serve(
        self, on_output: Callable[[StreamName, bytes], object], on_exit: Callable[[], object]
    ) -> None:
        """Call others from now on."""
        self._on_output, self._on_exit = on_output, on_exit

    async def started(self) -> None:
        """Wait until there is a process.

        Raises:
            OSError: There will be none.
        """
        await self._child.started()
        self._memory = OutOfMemoryCount(self.pid)

    @property
    def pid(self) -> int:
        """Its number, also when it has ended."""
        return self._child.pid

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

    def _child_ended(self, code: int | None, peak_memory_bytes: int) -> None:
        self.ending = self._ending(code, peak_memory_bytes)
        self._on_exit()

    def _ending(self, code: int | None, peak_memory_bytes: int) -> Ending:
        if code is None:
            return Ending(why_unknown=self._child.why_unknown)
        ran_out = self._memory is not None and self._memory.has_risen()
        return Ending(
            None if code < 0 else code,
            _signal_name(-code) if code < 0 else None,
            code == -signal.SIGKILL and ran_out,
            peak_memory_bytes,
        )

    def signal(self) -> None:
        """Have it read its messages, whatever it does."""
        if self.ending is None and SIGNAL is not None:
            self._child.signal(SIGNAL)

    def kill(self) -> None:
        """End it, and what it has started, at once. Idempotent."""
        if self.ending is None:
            self._child.kill()

    def discard(self) -> None:
        """Close what is left of it, and end it first if it runs. Idempotent. Waits for its end."""
        if self.ending is None:
            self._on_exit = lambda: None  # nobody is told of what he does himself
            self._child.kill()
            self._child.bury()
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


def _named_back(pipes: Mapping[StreamName, int]) -> dict[str, int]:
    return {f"{stream}_back": descriptor for stream, descriptor in pipes.items()}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
