"""Something of the process that is replaced as long as anybody needs it. Owns the count of users.

Refuses to know: what is replaced.
"""

from __future__ import annotations

import threading
from collections import deque


class Hook:
    """In with the first user, out with the last. A subclass says what, in two methods.

    Threads: any. The lock guards the count and what the subclass replaces. A session that is
    dropped counts itself out in a finalizer, which can run in the middle of anything, this class's
    own work included; so nobody waits for the lock in order to leave: who holds it looks again.
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
