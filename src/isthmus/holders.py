"""Who still holds a namespace whose session has ended. Owns the way to find that out.

Refuses to know: sessions.

A dict takes no weak reference, and a module can go before its dict does. What dies with a namespace
is its prelude: the namespace holds it, and so does every function that was defined there. So a
weak reference to something that only the prelude holds tells whether anything is left.
"""

from __future__ import annotations

import gc
import weakref
from types import FunctionType, ModuleType
from typing import Any

Canary = weakref.ref[Any]
"""A weak reference to a value of the prelude that nobody else holds."""


def holders(canary: Canary) -> tuple[str, ...]:
    """What holds the namespace of *canary*, or its prelude; nothing once both are gone.

    Costs a full collection and two looks at all objects.
    """
    gc.collect()
    value = canary()
    if value is None:
        return ()
    preludes = [it for it in _referrers([value]) if type(it) is dict and "__import__" in it]
    users = _referrers(preludes)
    namespaces = [it for it in users if type(it) is dict and "__builtins__" in it]
    ours = {id(it) for it in (preludes, users, namespaces, *preludes, *namespaces)}
    users += _referrers(namespaces)
    return tuple(sorted({_name(it) for it in users if id(it) not in ours}))


def _referrers(objects: list[Any]) -> list[Any]:
    """What holds one of *objects*, but for this call; CPython 3.13 finds its arguments too."""
    asked = tuple(objects)
    return [it for it in gc.get_referrers(*asked) if it is not asked and it is not objects]


def _name(holder: Any) -> str:
    """What *holder* is, and its name where it has one that is plain to read."""
    kind = type(holder)
    if kind is FunctionType:
        return f"function {holder.__qualname__}"
    if kind is ModuleType:
        return f"module {holder.__name__}"
    return kind.__qualname__
