"""Answers that are there at once, or are asked for when they are awaited. Owns their types.

A session in another process has to be asked, so that its answers are awaited. One in this process
gives the answers themselves; that they may be awaited too lets code that does not know which kind
of session it has treat both alike.

Refuses to know: sessions, and what is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


async def _given(value: T) -> T:
    return value


class ReadyDict(dict[K, V]):
    """A dict, which awaiting it gives as well."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, dict[K, V]]:
        """Give it, without waiting."""
        return _given(self).__await__()


class ReadyList(list[T]):
    """A list, which awaiting it gives as well."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, list[T]]:
        """Give it, without waiting."""
        return _given(self).__await__()


class ReadyText(str):
    """A text, which awaiting it gives as well."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, str]:
        """Give it, without waiting."""
        return _given(self).__await__()


class Ready(Awaitable[None]):
    """Says that something is done."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        """Give None, without waiting."""
        return _given(None).__await__()


DONE = Ready()


class Asked(Awaitable[T]):
    """An answer that is asked for whenever this is awaited, and not before.

    Arguments:
        ask: Asks, and gives what is to be awaited.
    """

    __slots__ = ("_ask",)

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask

    def __await__(self) -> Generator[Any, Any, T]:
        """Ask, and wait for the answer."""
        return self._ask().__await__()
