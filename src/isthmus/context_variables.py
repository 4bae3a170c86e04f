"""Context variables that cross between the loop and a thread. Owns making one context like another.

Refuses to know: threads, tasks, cells.

No ``Context`` is ever entered twice: a thread runs in a context of its own, and at each crossing
the side that waits is made equal to the side that ran. What one side has unset
(``var.reset(token)``) can be unset on the other only where the value had come by a crossing, since
a token is good for nothing in another context.
"""

from __future__ import annotations

from contextvars import Context, ContextVar, Token, copy_context
from typing import Any

_MISSING: Any = object()


class ContextMirror:
    """Makes the context that it is used in equal to another one, time and again.

    Arguments:
        private: Variables that never cross.

    Threads: always the same context, entered by one thread at a time.
    """

    __slots__ = ("_private", "_tokens")

    def __init__(self, private: frozenset[ContextVar[Any]]) -> None:
        self._private = private
        self._tokens: dict[ContextVar[Any], Token[Any]] = {}

    def has_work(self, source: Context) -> bool:
        """Whether *source* may hold anything to reflect; most sessions set no variable at all.

        Assumes: *source* holds every private variable.
        """
        return len(source) > len(self._private) or bool(self._tokens)

    def reflect(self, source: Context) -> None:
        """Give every variable of the current context the value that it has in *source*.

        Values are compared by identity: an ``==`` would run code of theirs.
        """
        for var, value in source.items():
            if var.get(_MISSING) is not value and var not in self._private:
                token = var.set(value)
                if token.old_value is Token.MISSING:
                    self._tokens[var] = token
        if self._tokens:
            self._unset_what_is_not_in(source)

    def _unset_what_is_not_in(self, source: Context) -> None:
        here = copy_context()
        for var in [var for var in self._tokens if var not in source]:
            token = self._tokens.pop(var)
            if var in here:
                var.reset(token)
