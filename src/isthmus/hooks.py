"""Something of the process that is replaced as long as anybody needs it. Owns the count of users.

Refuses to know: what is replaced.

Nobody waits for a lock in order to leave: a session that is dropped counts itself out in a
finalizer, which can run in the middle of anything, this module's own work included. Who holds the
lock looks again.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque


class Hook:
    """In with the first user, out with the last. A subclass says what, in two methods.

    Threads: any. The lock guards the count and what the subclass replaces.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._leaving: deque[None] = deque()

    def install(self) -> None:
        """Count a user in."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._put_in()
        self._let_leave()

    def remove(self) -> None:
        """Count a user out."""
        self._leaving.append(None)
        self._let_leave()

    def _let_leave(self) -> None:
        while self._leaving and self._lock.acquire(blocking=False):
            try:
                if self._leaving:
                    self._leaving.popleft()
                    self._users -= 1
                    if self._users == 0:
                        self._take_out()
            finally:
                self._lock.release()

    def _put_in(self) -> None:
        """Replace. Holds the lock."""
        raise NotImplementedError

    def _take_out(self) -> None:
        """Put back, unless somebody else has replaced it since. Holds the lock."""
        raise NotImplementedError


class LoopHook:
    """The same for something of each event loop: in with the loop's first user, out with its last.

    Threads: any that the subclass can do its work in. The lock guards the counts and what the
    subclass replaces.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[asyncio.AbstractEventLoop, int] = {}
        self._leaving: deque[asyncio.AbstractEventLoop] = deque()

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count a user of *loop* in."""
        with self._lock:
            self._users[loop] = self._users.get(loop, 0) + 1
            if self._users[loop] == 1:
                self._put_in(loop)
        self._let_leave()

    def remove(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count a user of *loop* out."""
        self._leaving.append(loop)
        self._let_leave()

    def _let_leave(self) -> None:
        while self._leaving and self._lock.acquire(blocking=False):
            try:
                if self._leaving:
                    self._count_out(self._leaving.popleft())
            finally:
                self._lock.release()

    def _count_out(self, loop: asyncio.AbstractEventLoop) -> None:
        self._users[loop] -= 1
        if not self._users[loop]:
            del self._users[loop]
            self._take_out(loop)

    def _put_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Replace. Holds the lock."""
        raise NotImplementedError

    def _take_out(self, loop: asyncio.AbstractEventLoop) -> None:
        """Put back, unless somebody else has replaced it since. Holds the lock."""
        raise NotImplementedError
