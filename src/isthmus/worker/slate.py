"""Text that a worker holds back, where its host can read it. Owns the memory that both share.

Lines that come fast are gathered and sent together. Code that holds the interpreter may follow, and
for as long as it does nothing is sent; and a worker may die. So they are gathered on a *slate*: the
host looks at it when it has had no message for a while, and when the worker has died. Before the
text is sent the slate is wiped, so that what is read there is on its way, and in no message yet.

A line costs one call of a function in C, the *pen*, which knows its place on the slate, and refuses
what does not fit. It is taken away by moving it to the end. A thread may be about to use it just
then: so the slate is for the next cell only when nobody has the pen any more.

Refuses to know: when text is held back, messages.

    8 bytes   how often it was wiped: one less than the host has heard that something is held back,
              or else what was there before is still on its way
    4 bytes   the number of the cell
    the rest  its text in UTF-8, up to the first byte of 255, which is never in UTF-8
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

from isthmus.events import Output
from isthmus.live_output import WINDOW_SECONDS

BYTES = (1 << 16) - 512
"""The slate's size, and so what is gathered at most: a message of it can be read by one call."""

_FOLDER = "/dev/shm"

_HEAD = struct.Struct("<QI")
_NOTHING = b"\xff"
_BLANK = _NOTHING * BYTES

Pen = Callable[[bytes], int]
"""Writes bytes where the last ones end, all or none; ValueError where it cannot any more."""


class Slate:
    """The worker's side.

    Arguments:
        path: Where the host has made it.
        begin: Called when a cell has the slate, with the cell's number.

    Raises:
        OSError: It is not there.

    Threads: any. Locks: one guards all fields; innermost.
    """

    def __init__(self, path: str, begin: Callable[[int], object]) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._memory = mmap.mmap(descriptor, BYTES)
        finally:
            os.close(descriptor)
        self._begin = begin
        self._lock = threading.Lock()
        self._wiped = 0
        self._cell = 0
        self._pen: Callable[[], Pen | None] = _gone

    def claim(self, cell: int, size: int) -> Pen | None:
        """The pen, for a cell that begins with so many bytes; None where it cannot have it."""
        with self._lock:
            if self._cell or self._pen() is not None or size > BYTES - _HEAD.size:
                return None
            self._cell = cell
            _HEAD.pack_into(self._memory, 0, self._wiped, cell)
            self._memory.seek(_HEAD.size)
            self._begin(cell)
            pen = self._memory.write
            self._pen = weakref.ref(pen)
        return pen

    def wipe(self, cell: int) -> str:
        """Take the pen away from a cell; what it has written, which is about to be sent."""
        with self._lock:
            if self._cell != cell:
                return ""
            memory = self._memory
            memory.seek(0, os.SEEK_END)
            text = memory[_HEAD.size :].partition(_NOTHING)[0]
            self._wiped += 1
            self._cell = 0
            _HEAD.pack_into(memory, 0, self._wiped, 0)
            memory[_HEAD.size : _HEAD.size + len(text)] = _BLANK[: len(text)]
        return text.decode()

    def leave(self) -> None:
        """This is a child process of the worker now: the slate is the parent's."""
        self._lock = threading.Lock()
        self._memory.seek(0, os.SEEK_END)
        self._cell = -1


def _gone() -> None:
    """Stand for a reference to a pen that was never there."""


class HostSlate:
    """The host's side: makes the memory, and reads there what has not been sent for a while.

    Arguments:
        session: The name that events carry.
        tell: Takes the output.

    Threads: the loop's.
    """

    def __init__(self, session: str, tell: Callable[[Output], object]) -> None:
        self._session = session
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._path = ""
        self._memory: mmap.mmap | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._begun = 0  # how often the worker has begun to hold back
        self._early: dict[int, str] = {}  # of each cell what was read, and has not been sent

    def make(self) -> str:
        """Make the memory; its path. Where the system has none, it is empty."""
        path = f"{_FOLDER}/isthmus-{os.getpid()}-{os.urandom(8).hex()}"
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._path = path
            try:
                os.ftruncate(descriptor, BYTES)
                self._memory = mmap.mmap(descriptor, BYTES)
                self._memory[:] = bytes(_HEAD.size) + _BLANK[_HEAD.size :]
            finally:
                os.close(descriptor)
        return self._path

    def unlink(self) -> None:
        """The worker has it, or never will: leave no name behind. Idempotent."""
        path, self._path = self._path, ""
        if path:
            with suppress(FileNotFoundError):
                os.unlink(path)

    # -- what is held back -------------------------------------------------------------------

    def watch(self) -> None:
        """The worker holds something back: look in a moment."""
        self._begun += 1
        self._look_soon()

    def _look_soon(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(WINDOW_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._read_on():
            self._look_soon()

    def _read_on(self, *, is_last: bool = False) -> bool:
        """Tell of whole lines that were not read before; whether something is held back."""
        cell, text = self._read()
        if not cell:
            return False
        if not is_last:
            text = text[: text.rfind(b"\n") + 1]
        lines = text.decode("utf-8", "replace")
        fresh = lines.removeprefix(self._early.get(cell, ""))
        self._early[cell] = lines
        if fresh:
            self._tell(Output(self._session, cell, "stdout", fresh))
        return True

    def _read(self) -> tuple[int, bytes]:
        """A cell, and its text; 0 where there is none, or it is being sent.

        What a worker has put there is not trusted: it is text, whatever it is.
        """
        memory = self._memory
        if memory is None:
            return 0, b""
        head = memory[: _HEAD.size]
        text = memory[_HEAD.size :].partition(_NOTHING)[0]
        if memory[: _HEAD.size] != head:  # it was wiped meanwhile
            return 0, b""
        wiped, cell = _HEAD.unpack(head)
        if wiped + 1 != self._begun:  # what was on it before is still on its way
            return 0, b""
        return cell, text

    def pass_on(self, output: Output) -> None:
        """Tell of what was sent, but for what was read here before."""
        if output.cell in self._early and output.stream == "stdout":
            text, left = _without(output.text, self._early.pop(output.cell))
            if left:
                self._early[output.cell] = left
            if not text:
                return
            output = Output(output.session, output.cell, "stdout", text)
        self._tell(output)

    # -- the end -----------------------------------------------------------------------------

    def end(self) -> None:
        """The worker has died: tell of the last it has written, and let go of the memory."""
        self._read_on(is_last=True)
        self.unlink()
        if self._timer is not None:
            self._timer.cancel()
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()


def _without(text: str, early: str) -> tuple[str, str]:
    """*text* without *early*, with which it begins; and what of *early* is still to come."""
    if len(text) < len(early) and early.startswith(text):
        return "", early[len(text) :]
    return text.removeprefix(early), ""
