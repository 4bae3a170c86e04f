"""The names of a session as its host sees them. Owns the view; the mapping below is another's.

Refuses to know: sessions, and how names are bound.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from itertools import islice
from typing import Any

from isthmus.namespace import MODULE_NAMES

NAMES_SHOWN = 20
"""How many names a ``repr`` spells out: what fits on two lines or so."""


class NamespaceView(Mapping[str, Any]):
    """A live, read-only view of the names that a namespace's users have bound.

    The names are those of a snapshot: all but the module's own, such as ``__builtins__``.
    Iteration goes over a copy of the names, ``items()`` and ``values()`` over a copy of the
    mapping, so that cells may bind and delete names meanwhile.

    Arguments:
        name: The session's name, for the ``repr``.
        mapping: The live mapping.

    Threads: any. Atomic: per name; ``items()`` and ``values()`` show one moment, ``dict(view)``
    reads name by name, and fails if one is deleted meanwhile: ``dict(view.items())`` does not.
    """

    __slots__ = ("_mapping", "_name")

    def __init__(self, name: str, mapping: dict[str, Any]) -> None:
        self._name = name
        self._mapping = mapping

    def __getitem__(self, name: str) -> Any:
        """What *name* is bound to now. Raises KeyError when it is not bound."""
        if name in MODULE_NAMES:
            raise KeyError(name)
        return self._mapping[name]

    def __contains__(self, name: object) -> bool:
        """Whether *name* is bound now."""
        return name in self._mapping and name not in MODULE_NAMES

    def __iter__(self) -> Iterator[str]:
        """The names that are bound now, in the order in which they were bound first."""
        return iter([name for name in list(self._mapping) if name not in MODULE_NAMES])

    def __len__(self) -> int:
        """How many names are bound now."""
        return len(self._mapping) - sum(name in self._mapping for name in MODULE_NAMES)

    def items(self) -> ItemsView[str, Any]:
        """Names and values as they are now: a view of a copy."""
        return self._copy().items()

    def values(self) -> ValuesView[Any]:
        """Values as they are now: a view of a copy."""
        return self._copy().values()

    def __repr__(self) -> str:
        """As ``<names of 'demo': x, y>``; values are not asked for theirs."""
        names = list(self)
        shown = ", ".join(islice(names, NAMES_SHOWN))
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        return f"<names of {self._name!r}: {shown or 'none'}{more}>"

    def _copy(self) -> dict[str, Any]:
        copy = self._mapping.copy()
        for name in MODULE_NAMES:
            copy.pop(name, None)
        return copy
