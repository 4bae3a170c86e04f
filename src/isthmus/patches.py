"""Attributes replaced on an object for a while. Owns putting them back.

Refuses to know: what they are replaced by, and when.
"""

from __future__ import annotations

from typing import Any


class Patch:
    """Attributes replaced on one object, to be put back unless somebody replaced them since.

    Arguments:
        target: A module, a class, or an object with a ``__dict__``.
        replacements: The new values, by name.

    Threads: any, one at a time.
    """

    def __init__(self, target: object, replacements: dict[str, Any]) -> None:
        self._target = target
        self._replacements = replacements
        self._own = {name: vars(target)[name] for name in replacements if name in vars(target)}
        for name, value in replacements.items():
            setattr(target, name, value)

    def undo(self) -> None:
        """Put back what was there, or take away what was added."""
        for name, value in self._replacements.items():
            if vars(self._target).get(name) is not value:
                continue
            if name in self._own:
                setattr(self._target, name, self._own[name])
            else:
                delattr(self._target, name)
