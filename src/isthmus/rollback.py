"""What an atomic cell puts back when it fails. Owns the copies of a namespace that such cells take.

Refuses to know: how cells run and when they fail, the namespace's lock, coroutines.

A copy is the namespace as it would be without its cell: taken when the cell starts, and kept up to
date with what others write from then on. So a roll-back makes the namespace what the copy is. It
compares objects by identity alone, since ``==`` is code of theirs.

A dict does not tell who wrote a name. What goes through the namespace's manager says so itself;
other cells are judged by the names in their code. When such a cell ends, what these names hold
counts as its work; as long as it runs, they are left alone, whichever of the two has written them.
A cell that was given up may run for ever: it has no say in a name that the atomic cell can bind.
What neither shows (``globals()``, ``exec``, a function that binds globals, a task or a thread that
an earlier cell has left running) counts as work of the atomic cell.

Threads: any, with the namespace's lock held; whether :attr:`Rollbacks.copies` is empty may be asked
without. Objects that a method lets go are returned, to be dropped once the lock is released: their
``__del__`` may be anybody's code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

_UNBOUND: Any = object()


class Writer(Protocol):
    """A cell, as far as it matters who has written a name.

    Attributes:
        abandoned: It was given up, and its code may run on.
        rolled_back: The names that were put back, sorted; None unless it was rolled back.
    """

    abandoned: bool
    rolled_back: tuple[str, ...] | None

    @property
    def names(self) -> frozenset[str]:
        """Names that its code shows to be bound or deleted by it."""


class Undone(NamedTuple):
    """What a roll-back has taken out of a namespace.

    *held* says what the names held that were put back; None where the cell had deleted them.
    *dropped* is there to live until the lock is released.
    """

    held: dict[str, Any]
    dropped: list[Any]


class Rollbacks:
    """The atomic cells that run in one namespace.

    Attributes:
        copies: The copy of each, oldest first; empty most of the time.
    """

    __slots__ = ("_mapping", "copies")

    def __init__(self, mapping: dict[str, Any]) -> None:
        self.copies: dict[Writer, dict[str, Any]] = {}
        self._mapping = mapping

    def begin(self, cell: Writer) -> None:
        """Copy the namespace for *cell*, whose code is about to run."""
        self.copies[cell] = self._mapping.copy()

    # -- what others write -------------------------------------------------------------------

    def note(self, names: Iterable[str]) -> list[Any]:
        """Count what *names* hold now as no atomic cell's work. What is to be dropped."""
        written = list(names)
        return [it for copy in self.copies.values() for it in self._take_over(copy, written)]

    def forget(self) -> list[Any]:
        """The namespace begins anew: there is nothing to put back. What is to be dropped."""
        dropped = list(self.copies.values())
        for cell in self.copies:
            self.copies[cell] = self._mapping.copy()
        return dropped

    def replace(self, name: str, old: object, new: object) -> None:
        """Put *new* where *old* would be put back: a task for its coroutine, or its result."""
        for copy in self.copies.values():
            if copy.get(name) is old:
                copy[name] = new

    def would_bind(self, name: str, value: object) -> bool:
        """Whether a roll-back would bind *name* to *value*."""
        return any(copy.get(name) is value for copy in self.copies.values())

    def leave(self, cell: Writer) -> list[Any]:
        """*cell*, atomic or not, has ended and its work stays. What is to be dropped."""
        dropped: list[Any] = [self.copies.pop(cell, None)]
        for other, copy in self.copies.items():
            dropped += self._take_over(copy, _claims(cell, other))
        return dropped

    def _take_over(self, copy: dict[str, Any], names: Iterable[str]) -> list[Any]:
        """Have *copy* hold for *names* what the namespace holds. What is to be dropped."""
        return [_put(copy, name, self._mapping.get(name, _UNBOUND)) for name in names]

    # -- rolling back ------------------------------------------------------------------------

    def roll_back(self, cell: Writer, running: Iterable[Writer]) -> Undone | None:
        """Make the namespace what it would be without *cell*. None when that has been done before.

        Copies that later cells have taken hold what *cell* had written, and are put right as well.

        Arguments:
            running: The cells whose code runs beside that of *cell*.
        """
        before = self.copies.get(cell)
        if before is None:
            return None
        cells = list(self.copies)
        younger = cells[cells.index(cell) + 1 :]
        del self.copies[cell]
        claimed = {it: _claims(it, cell) for it in running}
        now = self._mapping.copy()  # to be compared at leisure: cells write without the lock
        held = _put_back(self._mapping, now, before, _union(claimed.values()))
        dropped: list[Any] = [now, before]
        for other in younger:
            copy = self.copies[other]
            others_names = _union(names for it, names in claimed.items() if it is not other)
            dropped.append(_put_back(copy, copy, before, others_names))
        cell.rolled_back = tuple(sorted(name for name in held if type(name) is str))
        return Undone(held, dropped)


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names that only one of them binds, or that they bind to different objects.

    A name keeps its place in a dict until it is deleted. So most often the names that both bind
    stand side by side, and need not be looked up, which would take more than twice as long.
    """
    names, others = list(one), list(other)
    if others[: len(names)] == names:
        pairs = zip(names, one.values(), other.values(), strict=False)
        changed = [name for name, value, now in pairs if value is not now]
        return changed + others[len(names) :]
    changed = [name for name, value in one.items() if other.get(name, _UNBOUND) is not value]
    return changed + [name for name in others if name not in one]


def _put_back(
    target: dict[str, Any], now: dict[str, Any], before: dict[str, Any], claimed: frozenset[str]
) -> dict[str, Any]:
    """Make *target*, which is like *now*, like *before*, but for *claimed*. What names held."""
    held = {}
    for name in differing(before, now):
        if name not in claimed:
            replaced = _put(target, name, before.get(name, _UNBOUND))
            held[name] = None if replaced is _UNBOUND else replaced
    return held


def _put(mapping: dict[str, Any], name: str, value: Any) -> Any:
    """Bind *name*, or unbind it; give what it held."""
    if value is _UNBOUND:
        return mapping.pop(name, _UNBOUND)
    replaced = mapping.get(name, _UNBOUND)
    mapping[name] = value
    return replaced


def _claims(cell: Writer, atomic: Writer) -> frozenset[str]:
    """The names that count as written by *cell*, and not by *atomic* beside it."""
    return cell.names - atomic.names if cell.abandoned else cell.names


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset[str]().union(*sets)
