"""Text that a worker holds back, where its host can read it. Owns the memory that both share.

Lines that come fast are gathered and sent together. Code that holds the interpreter may follow, and
for as long as it does nothing is sent; and a worker may die. So what is held back is written on a
*slate*, line by line, for less than a call of the system: the host looks at it when it has had no
message for a while, and when the worker has died. Before the text is sent the slate is wiped, so
that what is read there is on its way, and no message has it yet.

Refuses to know: when text is held back, messages.

    8 bytes   how often it was wiped, by which a reader notices that it was
    4 bytes   the number of the cell
    the rest  its text in UTF-8, whole lines, up to the first zero
"""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import suppress

BYTES = 1 << 17
"""The slate's size: more than is ever gathered (1,024 pieces of less than 64 characters, or so)."""

_FOLDER = "/dev/shm"  # noqa: S108 (not temporary: gone as soon as both have it)

_HEAD = struct.Struct("<QI")
_BLANK = bytes(BYTES)


class Slate:
    """The worker's side.

    Arguments:
        path: Where the host has made it.

    Raises:
        OSError: It is not there.

    Threads: one at a time.
    """

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._memory = mmap.mmap(descriptor, BYTES)
        finally:
            os.close(descriptor)
        self._wiped = 0
        self.cell = 0

    def write(self, cell: int, text: str) -> bool:
        """Put down whole lines of a cell; false where they cannot be, and have to be sent."""
        if self.cell != cell:
            if self.cell:
                return False
            self.cell = cell
            _HEAD.pack_into(self._memory, 0, self._wiped, cell)
            self._memory.seek(_HEAD.size)
        try:
            data = text.encode()
        except UnicodeEncodeError:  # a lone surrogate
            return False
        if b"\0" in data or self._memory.tell() + len(data) >= BYTES:  # a zero has to follow
            return False
        self._memory.write(data)
        return True

    def wipe(self) -> None:
        """What is on it is about to be sent."""
        end = self._memory.tell()
        self._wiped += 1
        _HEAD.pack_into(self._memory, 0, self._wiped, 0)
        self._memory[_HEAD.size : end] = _BLANK[: end - _HEAD.size]
        self.cell = 0


class HostSlate:
    """The host's side: makes the memory, and reads there.

    Where the system has no such memory there is none, and nothing is ever read.

    Attributes:
        path: What the worker is told; empty where there is nothing to tell.
    """

    def __init__(self) -> None:
        self.path = ""
        self._memory: mmap.mmap | None = None
        self._cell = 0
        self._early = ""  # what was read, and has not been sent
        path = f"{_FOLDER}/isthmus-{os.getpid()}-{os.urandom(8).hex()}"
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self.path = path
            try:
                os.ftruncate(descriptor, BYTES)
                self._memory = mmap.mmap(descriptor, BYTES)
            finally:
                os.close(descriptor)

    def unlink(self) -> None:
        """The worker has it, or never will: leave no name behind. Idempotent."""
        path, self.path = self.path, ""
        if path:
            with suppress(FileNotFoundError):
                os.unlink(path)

    def read(self) -> tuple[int, str]:
        """A cell and what it has held back since this was asked last; 0 where it holds nothing.

        What a worker has put there is not trusted: it is text, whatever it is.
        """
        cell, text = self._read()
        known = self._early if cell == self._cell and text.startswith(self._early) else ""
        if cell:
            self._cell, self._early = cell, text
        return cell, text[len(known) :]

    def _read(self) -> tuple[int, str]:
        memory = self._memory
        if memory is None:
            return 0, ""
        head = memory[: _HEAD.size]
        end = memory.find(b"\0", _HEAD.size)
        text = memory[_HEAD.size : end]
        if memory[: _HEAD.size] != head:  # it was wiped meanwhile
            return 0, ""
        cell: int = _HEAD.unpack(head)[1]
        return cell, text[: text.rfind(b"\n") + 1].decode("utf-8", "replace")

    def rest_of(self, cell: int, text: str) -> str:
        """What of *text*, which has been sent now, was not read here before."""
        early = self._early
        if not early or cell != self._cell:
            return text
        if len(text) < len(early) and early.startswith(text):
            self._early = early[len(text) :]
            return ""
        self._early = ""
        return text.removeprefix(early)

    def close(self) -> None:
        """Let go of the memory. Idempotent."""
        self.unlink()
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()
