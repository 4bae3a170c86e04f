"""A worker that a fork server has forked, which is no child process of this one. Owns its leash.

The server keeps the number of the process for as long as the leash holds: until then signals can be
sent to the number, as to that of a child process. Where the server itself has died, only a
descriptor of the process (``pidfd_open``) still means it, and nothing else.

Refuses to know: output, messages of sessions.

Threads: the loop's.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from isthmus.worker import fork_messages
from isthmus.worker.groups import kill_group
from isthmus.worker.launch import Ends, Launch

READ_BYTES = 1 << 12
"""How much to read of a leash: all that ever comes, but for a long reason."""


PATIENCE_SECONDS = 5.0
"""How long the server may take to tell of the end of a process that was killed; from the air. One
that is stopped tells nothing, and nobody must wait for it."""


class ForkedChild:
    """A process that a fork server makes.

    Arguments are those of :class:`~isthmus.worker.spawned.SpawnedChild`.

    Raises:
        OSError: There is no server.

    Attributes:
        pid: Its number; 0 as long as it has not been made.
    """

    why_unknown = "its fork server cannot say how"

    def __init__(
        self, launch: Launch, ends: Ends, on_end: Callable[[int | None, int], object]
    ) -> None:
        assert launch.fork_server is not None
        self.pid = 0
        self._server = launch.fork_server
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._messages = fork_messages.Messages()
        self._descriptor: int | None = None
        self._has_ended = False
        self._alarm: asyncio.TimerHandle | None = None
        with ExitStack() as undo:
            self._leash, theirs = map(undo.enter_context, socket.socketpair())
            self._ask(launch, ends, theirs.fileno())
            undo.pop_all()
            theirs.close()
        self._leash.setblocking(False)
        self._loop.add_reader(self._leash, self._readable)

    def _ask(self, launch: Launch, ends: Ends, leash: int) -> None:
        given = (ends.connection, ends.stdout, ends.stderr, ends.stdout_back, ends.stderr_back)
        self._server.fork(
            (leash, *given), cwd=launch.cwd, env=launch.env, limits=launch.limits.to_argument()
        )

    async def started(self) -> None:
        """Wait until there is a process.

        Raises:
            OSError: There will be none.
        """
        await asyncio.shield(self._started)

    # -- what the server tells -----------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = self._leash.recv(READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._orphaned()
            return
        for message in self._messages.feed(data):
            self._take(message)

    def _take(self, message: Any) -> None:
        if isinstance(message, fork_messages.Started):
            self._born(message.pid)
        elif isinstance(message, fork_messages.Unborn):
            self._fail(message.reason)
        elif isinstance(message, fork_messages.Exited):
            kill_group(self.pid)  # what cells have started
            self._leash.shutdown(socket.SHUT_WR)
        elif isinstance(message, fork_messages.Status):
            self._end(message.code, message.peak_memory_bytes)

    def _born(self, pid: int) -> None:
        self.pid = pid
        if hasattr(os, "pidfd_open"):
            with suppress(OSError):  # the kernel is older
                self._descriptor = os.pidfd_open(pid)
        if not self._started.done():
            self._started.set_result(None)

    def _fail(self, reason: str) -> None:
        if not self._started.done():
            self._started.set_exception(OSError(reason))
            self._started.exception()  # whoever has started it may have gone
        self._end(None, 0)

    def _orphaned(self) -> None:
        """The server has gone."""
        if self._started.done():
            self._kill_by_descriptor()
            self._end(None, 0)
        else:
            self._fail(f"the fork server {self._server.how_it_ended()}")

    def _kill_by_descriptor(self) -> None:
        """End the process; it ends by itself as well, unless C code holds it."""
        if self._descriptor is None:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, 0)  # it is there, and so is its group
            kill_group(self.pid)

    # -- the end -----------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if self.pid and not self._has_ended:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it, and what it has started, at once; where there is no process yet, there will be
        none."""
        if self._has_ended:
            return
        if self.pid:
            kill_group(self.pid)
            if self._alarm is None:
                self._alarm = self._loop.call_later(PATIENCE_SECONDS, self.bury)
        else:
            self._loop.call_soon(self._fail, "it is not wanted any more")

    def bury(self) -> None:
        """Let go of it: the server ends it, if it runs. Idempotent."""
        self._end(None, 0)

    def _end(self, code: int | None, peak_memory_bytes: int) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        if self._alarm is not None:
            self._alarm.cancel()
        if not self._loop.is_closed():
            self._loop.remove_reader(self._leash)
        self._leash.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._on_end(code, peak_memory_bytes)
