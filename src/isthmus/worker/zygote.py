"""The fork server's own process: it forks a worker for each request. Owns its children.

It has imported what its children need, and runs neither an event loop nor a thread: nothing is in
the middle of something when it forks. Each child goes on where the server stood, and is from then
on what ``python -m isthmus.worker`` makes of a process.

The server takes the exit status of a child when the host says so and not before: until then the
child's number is its own, and a signal of the host cannot hit another process. A child that the
host no longer wants is killed, and so are all of them when the host has gone.

Refuses to know: messages of sessions.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from isthmus.tracebacks import format_error
from isthmus.wire.codec import message_decoder
from isthmus.worker import fork_messages
from isthmus.worker.descriptors import receive_along
from isthmus.worker.groups import kill_group
from isthmus.worker.limits import WorkerLimits
from isthmus.worker.process_state import reseed, set_environment
from isthmus.worker.usage import peak_memory

READ_BYTES = 1 << 16
"""How much to read of requests at once."""

FAREWELL_SECONDS = 1.0
"""How long children have to notice that their host has gone; twice what they give themselves."""


class Child:
    """A child process, as the server knows it.

    Arguments:
        pid: Its number.
        leash: Tells the host of it, and ends when the host has had enough.
    """

    __slots__ = ("has_ended", "is_wanted", "leash", "pid")

    def __init__(self, pid: int, leash: socket.socket) -> None:
        self.pid = pid
        self.leash = leash
        self.has_ended = False
        self.is_wanted = True

    def look(self) -> bool:
        """Whether it has ended since it was last looked at. Its status is left where it is."""
        if self.has_ended:
            return False
        flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
        self.has_ended = os.waitid(os.P_PID, self.pid, flags) is not None
        return self.has_ended

    def tell(self, message: Any) -> None:
        """Tell the host, if it is still there."""
        with suppress(OSError):
            self.leash.sendall(fork_messages.encoded(message))

    def kill(self) -> None:
        """End it, and what it has started."""
        kill_group(self.pid)

    def bury(self) -> None:
        """Take its status, after which its number may become another's, and tell that."""
        self.kill()  # what it has started
        _, status, used = os.wait4(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self.tell(fork_messages.Status(code, peak_memory(used)))
        self.leash.close()


class Zygote:
    """The server.

    Arguments:
        control: Where requests come from.
        problem: Why no child can be made, if so.
    """

    def __init__(self, control: socket.socket, problem: str | None) -> None:
        self._control = control
        self._problem = problem
        self._window = memoryview(bytearray(READ_BYTES))
        self._requests = fork_messages.Messages()
        self._given: deque[list[int]] = deque()
        self._children: dict[int, Child] = {}
        self._deaths, self._alarm = socket.socketpair()
        self._poll = select.poll()

    def serve(self) -> list[str] | None:
        """Fork until the host has gone.

        Returns:
            In each child: the arguments of its ``main``. In the server: None.
        """
        self._hear_of_deaths()
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(self._deaths, select.POLLIN)
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._deaths.fileno():
                    self._look_at_all()
                elif descriptor != self._control.fileno():
                    self._look_at_leash(descriptor)
                elif (messages := self._read()) is None:
                    self._end_all()
                    return None
                else:
                    for message in messages:
                        if (arguments := self._make_child(message)) is not None:
                            return arguments

    def _hear_of_deaths(self) -> None:
        self._deaths.setblocking(False)
        self._alarm.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._alarm.fileno(), warn_on_full_buffer=False)

    def _read(self) -> list[Any] | None:
        """The requests that have come; None when the host has gone."""
        try:
            count, given, some_lost = receive_along(
                self._control, self._window, fork_messages.DESCRIPTORS
            )
        except ConnectionResetError:
            return None
        if given or some_lost:  # the kernel gives those of one request at a time
            self._given.append(given)
        return list(self._requests.feed(bytes(self._window[:count]))) if count else None

    # -- making ------------------------------------------------------------------------------

    def _make_child(self, request: fork_messages.Fork) -> list[str] | None:
        """Fork; in the child, its arguments."""
        descriptors = self._given.popleft()
        if not descriptors:  # the host sees the end of the leash
            return None
        leash, *given = descriptors
        child = Child(0, socket.socket(fileno=leash))
        pid = self._fork(child, len(descriptors) == fork_messages.DESCRIPTORS)
        if pid == 0:
            self._leave(child)
            return _become_worker(request, given)
        for descriptor in given:
            os.close(descriptor)
        if pid is None:
            child.leash.close()
        else:
            self._keep(child, pid)
        return None

    def _fork(self, child: Child, is_complete: bool) -> int | None:
        """What ``os.fork`` gives; None where there is no child, which the host has been told.

        Arguments:
            is_complete: All descriptors of the child have come: the kernel drops those for which
                this process has no room.
        """
        if not _is_wanted(child.leash):
            return None
        reason = self._problem
        if not is_complete:
            reason = "the fork server has no descriptors left: it needs one for each worker"
        elif reason is None:
            try:
                return os.fork()
            except OSError as error:
                reason = f"the fork server cannot fork: {error}"
        child.tell(fork_messages.Unborn(reason))
        return None

    def _keep(self, child: Child, pid: int) -> None:
        child.pid = pid
        self._children[child.leash.fileno()] = child
        self._poll.register(child.leash, select.POLLIN)
        child.tell(fork_messages.Started(pid))

    def _leave(self, child: Child) -> None:
        """In a child: let go of what is the server's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        theirs = (it.leash for it in self._children.values())
        for each in (self._control, self._deaths, self._alarm, child.leash, *theirs):
            each.close()

    # -- ending ------------------------------------------------------------------------------

    def _look_at_all(self) -> None:
        """Some child has ended."""
        with suppress(BlockingIOError):
            self._deaths.recv(READ_BYTES)
        for number, child in tuple(self._children.items()):
            if not child.look():
                continue
            if child.is_wanted:
                child.tell(fork_messages.Exited())
            else:
                self._bury(number, child)

    def _look_at_leash(self, number: int) -> None:
        """The host may have let go of a child. Or the number is another's since it was polled."""
        child = self._children.get(number)
        if child is None or _is_wanted(child.leash):
            return
        child.is_wanted = False
        self._poll.unregister(number)
        if child.has_ended:
            self._bury(number, child)
        else:
            child.kill()

    def _bury(self, number: int, child: Child) -> None:
        del self._children[number]
        child.bury()

    def _end_all(self) -> None:
        """The host has gone: so do the children, by themselves or not."""
        latest = time.monotonic() + FAREWELL_SECONDS
        left = list(self._children.values())
        while left and (seconds := latest - time.monotonic()) > 0:
            select.select([self._deaths], [], [], seconds)
            self._look_at_all()
            left = [it for it in self._children.values() if not it.has_ended]
        for child in left:
            child.kill()


def _is_wanted(leash: socket.socket) -> bool:
    """Whether the host still holds the other end of *leash*, on which it never writes."""
    try:
        return bool(leash.recv(1, socket.MSG_DONTWAIT))
    except BlockingIOError:
        return True
    except OSError:
        return False


# -- the server, before its first child ------------------------------------------------------------


def main(arguments: Sequence[str]) -> list[str] | None:
    """Be a fork server, until the host has gone.

    Arguments:
        arguments: The descriptor on which requests come; the modules to import before.

    Returns:
        In each child: the arguments of its own ``main``. In the server: None.
    """
    control = socket.socket(fileno=int(arguments[0]))
    control.set_inheritable(False)
    gc.disable()  # it would leave holes, which children fill and thereby copy
    _warm_up()
    problem = _preloaded(arguments[1:])
    sys.stdout.flush()  # else each child would
    gc.collect()
    gc.freeze()  # so that collections in children do not touch, and copy, what is shared
    return Zygote(control, problem).serve()


def _warm_up() -> None:
    """Have made what every child would make for its first messages: decoders, above all."""
    importlib.import_module("isthmus.worker.vacancy")
    message_decoder("worker")
    WorkerLimits.from_argument("{}")


def _preloaded(names: Sequence[str]) -> str | None:
    """Import the modules *names*; what is wrong with one, if something is."""
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException as error:  # a boundary: whoever wants a worker is told
            return f"the fork server cannot import {name!r}: {format_error(error).strip()}"
        if others := [it.name for it in threading.enumerate() if it is not threading.main_thread()]:
            found = ", ".join(map(repr, others))
            return f"importing {name!r} has started threads, which a fork would cut off: {found}"
    return None


# -- a child, from the fork to its own main --------------------------------------------------------


def _become_worker(request: fork_messages.Fork, given: Sequence[int]) -> list[str]:
    """Make of a fork what a fresh process is; the arguments of its ``main``."""
    os.setsid()
    connection, stdout, stderr, *ends = given
    for ours, number in ((stdout, 1), (stderr, 2)):
        os.dup2(ours, number)
        os.close(ours)
    gc.enable()
    main_thread = threading.main_thread()
    if main_thread.native_id != threading.get_native_id():  # Python 3.11 and 3.12 keep the server's
        main_thread._set_native_id()  # type: ignore[attr-defined]
    reseed()
    if request.env is not None:
        set_environment(request.env)
    _enter(request.cwd)
    arguments = [str(connection), request.limits, *map(str, ends)]
    sys.argv[1:] = arguments
    return arguments


def _enter(folder: bytes) -> None:
    """Change the working directory, and with it where ``python -m`` looks for modules first."""
    before = os.getcwd()
    os.chdir(folder)
    if not sys.flags.safe_path and sys.path and sys.path[0] == before:
        sys.path[0] = os.getcwd()
