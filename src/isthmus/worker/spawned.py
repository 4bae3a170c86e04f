"""A worker that was started as a program: a child process of this one. Owns the process.

Its end is seen through a descriptor of the process (``pidfd_open``, Linux 5.3), elsewhere by a
thread that waits.

Refuses to know: output, messages.

Threads: the loop's.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress

from isthmus.worker.groups import kill_group
from isthmus.worker.launch import Ends, Launch
from isthmus.worker.usage import peak_memory


class SpawnedChild:
    """A child process.

    Arguments:
        launch: How to start it.
        ends: What it inherits.
        on_end: Called when it has ended, with its exit code, or the negative number of a signal, or
            None where other code of this process has taken that; and the most memory that it held.

    Raises:
        OSError: It cannot be started.
    """

    why_unknown = "its exit status was taken by other code of this process"

    def __init__(
        self, launch: Launch, ends: Ends, on_end: Callable[[int | None, int], object]
    ) -> None:
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._process = _popen(launch, ends)
        self._descriptor = self._watch()

    @property
    def pid(self) -> int:
        """Its number, also when it has ended."""
        return self._process.pid

    async def started(self) -> None:
        """It is."""

    def _watch(self) -> int | None:
        """Have the end noticed; the descriptor of the process, if there is one."""
        if hasattr(os, "pidfd_open"):
            with suppress(OSError):  # the kernel is older
                descriptor = os.pidfd_open(self.pid)
                self._loop.add_reader(descriptor, self.bury)
                return descriptor
        threading.Thread(target=self._wait_in_thread, daemon=True).start()
        return None

    def _wait_in_thread(self) -> None:
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with suppress(RuntimeError):  # the loop is closed, and so is the process
            self._loop.call_soon_threadsafe(self.bury)

    def signal(self, number: int) -> None:
        """Send it a signal. As long as nobody has taken its status, the number is its own."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it, and what it has started, at once."""
        kill_group(self.pid)

    def bury(self) -> None:
        """Take its exit status; wait for its end, if that is to come. Idempotent."""
        if self._process.returncode is not None:
            return
        if self._descriptor is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
        self.kill()  # what cells have started, in its group
        try:
            _, status, used = os.wait4(self.pid, 0)
        except ChildProcessError:  # somebody in the host waits for any child
            self._process.returncode = 0
            self._on_end(None, 0)
            return
        self._process.returncode = code = os.waitstatus_to_exitcode(status)
        self._on_end(code, peak_memory(used))


def _popen(launch: Launch, ends: Ends) -> subprocess.Popen[bytes]:
    kept = (ends.connection, ends.stdout_back, ends.stderr_back)
    connection, *back = map(str, kept)
    command = [
        *(launch.python, "-m", "isthmus.worker"),
        *(connection, launch.limits.to_argument(), *back),
    ]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=ends.stdout,
        stderr=ends.stderr,
        pass_fds=kept,
        cwd=launch.cwd,
        env=None if launch.env is None else dict(launch.env),
        start_new_session=True,
    )
