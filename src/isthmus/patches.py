"""Attributes replaced on an object for a while. Owns putting them back.

Refuses to know: what they are replaced by, and when.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any


def own_attribute(target: object, name: str) -> Any:
    """What *target* itself, not its class, holds as *name*; None where it holds nothing.

    The ``__dict__`` of an object is left alone: once somebody has looked at it, CPython 3.11 and
    3.12 keep the attributes there for good, and each turn of an event loop takes 13 to 20 % longer.
    """
    if isinstance(target, ModuleType | type):
        return vars(target).get(name)
    value, method = getattr(target, name, None), getattr(type(target), name, None)
    return None if method is not None and value == method.__get__(target) else value


class Patch:
    """Attributes replaced on one object, to be put back unless somebody replaced them since.

    Arguments:
        target: A module, a class, or an object whose class has them as methods.
        replacements: The new values, by name.

    Threads: any, one at a time.
    """

    def __init__(self, target: object, replacements: dict[str, Any]) -> None:
        self._target = target
        self._replacements = replacements
        self._own = {name: own_attribute(target, name) for name in replacements}
        for name, value in replacements.items():
            setattr(target, name, value)

    def undo(self) -> None:
        """Put back what was there, or take away what was added."""
        for name, value in self._replacements.items():
            if getattr(self._target, name, None) is not value:
                continue
            if self._own[name] is not None:
                setattr(self._target, name, self._own[name])
            else:
                delattr(self._target, name)
