"""A process that forks workers, as its host holds it. Owns that process, and what is sent to it.

Refuses to know: what becomes of a worker.

Assumes: nobody but the server reads the other end; requests are small, so that they are nearly
always taken at once.

Lock: one guards the process and the queue of requests. It is held for writing what fits and for
starting the process; nothing is waited for under it, but the end of a server that has let go of its
end.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType

from isthmus.errors import WorkerStartError
from isthmus.worker import fork_messages
from isthmus.worker.descriptors import send_along

CLOSING_SECONDS = 5.0
"""How long the server may take to end before it is killed: five times what it takes when its
workers hang; from the air."""


class ForkServer:
    """A process from which workers are forked: some milliseconds each, and memory in common.

    It has imported what workers need, and the modules that it is told. A worker that is forked is
    the same as one that is started, with these differences: the modules are there already, in the
    state in which importing has left them; all workers of one server hash alike; and what the
    interpreter reads at its own start (``PYTHONPATH`` and its like) is read from the server's
    environment.

    Use it as ``with ForkServer(["numpy"]) as server``; the process is started there, or by the
    first worker, and once more by the next worker when it has died.

    Arguments:
        preload: Names of modules to import before forking. One that starts threads cannot be
            preloaded; one that cannot be imported fails the start of each worker.
        python: The interpreter to start; None for the host's.
        env: The server's environment, and its workers' unless they have one of their own; None for
            the host's.

    Threads: any; workers may belong to different event loops. Close: idempotent.
    """

    def __init__(
        self,
        preload: Iterable[str] = (),
        *,
        python: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(preload, str):
            raise TypeError(f"preload is a list of names, not one: {preload!r}")
        self.preload = tuple(preload)
        self.python = python or sys.executable
        self._env = None if env is None else _as_bytes(env)
        self._lock = threading.Lock()
        self._is_closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._env_of_process: Mapping[bytes, bytes] = {}
        self._late: deque[tuple[bytes, list[int]]] = deque()

    @property
    def pid(self) -> int | None:
        """The number of the server's process; None as long as there is none."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    # -- requests ----------------------------------------------------------------------------

    def fork(
        self,
        descriptors: Sequence[int],
        *,
        cwd: str | os.PathLike[str] | None,
        env: Mapping[str, str] | None,
        limits: str,
    ) -> None:
        """Ask for a worker, which is told of on the first of the *descriptors*.

        Arguments:
            descriptors: What it gets, in the order of :data:`fork_messages.DESCRIPTORS`. The caller
                closes its own.
            cwd: Its working directory; None for this process's.
            env: Its environment; None for the server's, or for this process's if the server was
                given none.
            limits: What it may use of the machine.

        Raises:
            OSError: The server cannot be started, or is closed.
        """
        folder = os.fsencode(os.getcwd() if cwd is None else os.path.abspath(cwd))
        wanted = _as_bytes(env) if env is not None else self._env or dict(os.environb)
        with self._lock:
            try:
                self._request(descriptors, folder, wanted, limits)
            except BrokenPipeError:  # it has just died
                self._request(descriptors, folder, wanted, limits)

    def _request(
        self, descriptors: Sequence[int], folder: bytes, env: Mapping[bytes, bytes], limits: str
    ) -> None:
        self._start()
        given = None if env == self._env_of_process else dict(env)
        try:
            self._send(
                fork_messages.encoded(fork_messages.Fork(folder, given, limits)), descriptors
            )
        except BrokenPipeError:
            self._await_end()
            raise BrokenPipeError(f"the fork server {self.how_it_ended()}") from None

    def _send(self, data: bytes, descriptors: Sequence[int]) -> None:
        """Write what fits; leave the rest to a thread. The server may be busy importing."""
        assert self._control is not None
        sent = 0
        if not self._late:
            with suppress(BlockingIOError):
                sent = send_along(self._control, data, descriptors, socket.MSG_DONTWAIT)
        if sent < len(data):
            kept = [] if sent else [os.dup(it) for it in descriptors]
            self._late.append((data[sent:], kept))
            if len(self._late) == 1:
                name, target = "isthmus fork requests", self._send_late
                threading.Thread(target=target, args=(self._control,), name=name).start()

    def _send_late(self, control: socket.socket) -> None:
        """Write what has not fitted, in its own thread, until nothing is left of it."""
        while True:
            with self._lock:
                if not self._late:
                    return
                data, descriptors = self._late[0]
            with suppress(OSError):  # the server has died; whoever waits sees that by itself
                sent = send_along(control, data, descriptors)
                control.sendall(data[sent:])
            for descriptor in descriptors:
                os.close(descriptor)
            with self._lock:
                self._late.popleft()

    # -- the process -------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process now, which then imports what it is to import. Idempotent.

        Raises:
            WorkerStartError: It cannot be started. What it cannot import is told to who wants a
                worker.
        """
        try:
            with self._lock:
                self._start()
        except OSError as error:
            text = f"the fork server ({self.python}) could not be started: {error}"
            raise WorkerStartError(text) from error

    def _start(self) -> None:
        """Start the process if there is none, or none any more. Under the lock."""
        if self._is_closed:
            raise OSError("the fork server is closed")
        if self._process is not None and self._process.poll() is None:
            return
        if self._control is not None:
            self._control.close()
        self._process = self._control = None
        env = self._env or dict(os.environb)
        with ExitStack() as undo:
            control, theirs = map(undo.enter_context, socket.socketpair())
            number = theirs.fileno()
            self._process = subprocess.Popen(
                [self.python, "-m", "isthmus.worker", "--fork-server", str(number), *self.preload],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(number,),
                env=env,
                start_new_session=True,
            )
            undo.pop_all()
            theirs.close()
        self._control, self._env_of_process = control, env

    def how_it_ended(self) -> str:
        """What to say of a server that is gone."""
        process = self._process
        code = None if process is None else process.poll()
        if code is None:
            return "has ended, or has no descriptors left"
        return f"has ended with exit code {code}"

    def close(self) -> None:
        """End the server, and with it the workers that it has forked. Idempotent.

        Blocks until it has ended: some milliseconds, if no worker is left.
        """
        with self._lock:
            self._is_closed = True
            process, control = self._process, self._control
        if process is None or control is None:
            return
        with suppress(OSError):
            control.shutdown(socket.SHUT_RDWR)  # a thread that writes has an error
        control.close()
        self._await_end()

    def _await_end(self) -> None:
        """Wait for the end of a process whose connection has ended."""
        assert self._process is not None
        try:
            self._process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> ForkServer:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def __del__(self) -> None:
        """Say that a server was dropped without being closed, and close it."""
        process = getattr(self, "_process", None)
        if process is not None and process.returncode is None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.close()


def _as_bytes(env: Mapping[str, str]) -> dict[bytes, bytes]:
    return {os.fsencode(name): os.fsencode(value) for name, value in env.items()}
