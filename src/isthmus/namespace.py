"""The one mapping in which all cells of a session run. Owns it, its module, lock and prelude.

Refuses to know: event loops, cells, contexts.

Guarantees:
- The mapping is the ``__dict__`` of one module and keeps its identity for life.
- ``update_namespace`` and ``snapshot`` are atomic against each other.
Assumes: an exact ``dict`` whose single reads and writes are atomic (every CPython build).

The lock is the innermost one of the package: it is held for dict work only, never across an
``await``, a callback or a wait, and no other lock of ours is taken inside it.
"""

from __future__ import annotations

import asyncio
import builtins
import itertools
import keyword
import logging
import os
import re
import sys
import threading
import types
import typing
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from isthmus.errors import ReservedNameError, UnknownNameError
from isthmus.rollback import Rollbacks

RESERVED_NAMES = frozenset({"__builtins__", "__name__", "__loader__", "__spec__", "__package__"})
"""What makes the mapping a module's: the host cannot rebind these."""

MODULE_NAMES = RESERVED_NAMES | {"__doc__", "__file__", "__annotations__"}
"""What a snapshot leaves out, because every module has it."""

_HISTORY_NAMES = ("_", "__", "___")

BOUND_NAMES = frozenset({"asyncio", *_HISTORY_NAMES})
"""What a namespace binds by itself, so that a capability below it could never be seen."""

_PACKAGE = os.path.dirname(__file__)

_log = logging.getLogger("isthmus.namespace")

SIMILAR_AMONG = 750
"""How many names are compared with one that is unknown; as in CPython's own suggestions."""

UpdateListener = Callable[[tuple[str, ...], tuple[str, ...], str], None]
"""Is told which names the host has bound, which it has deleted, and what it calls itself."""


def _register_module(wanted: str) -> types.ModuleType:
    """Put a new module into ``sys.modules`` under *wanted*, or under the next free name."""
    stem = re.sub(r"\W", "_", wanted)
    for count in itertools.count(1):
        name = stem if count == 1 else f"{stem}_{count}"
        module = types.ModuleType(name)
        if sys.modules.setdefault(name, module) is module:  # one step: two threads get two names
            return module
    raise AssertionError  # pragma: no cover (count never ends)


def _remove_module(name: str, module: types.ModuleType, replaced: types.ModuleType | None) -> None:
    """Take *module* out of ``sys.modules``, unless somebody else has put another one there."""
    if sys.modules.get(name) is module:
        if replaced is None:
            del sys.modules[name]
        else:
            sys.modules[name] = replaced


def forget_generic_types() -> None:
    """Empty the caches of :mod:`typing`, where ``list[C]``'s older form ``List[C]`` keeps a class.

    By the list that CPython keeps for its own tests; where that is not there, nothing is done.
    """
    for clear in getattr(typing, "_cleanups", ()):
        clear()


def check_name(name: object) -> str:
    """Return *name* when a host may bind it.

    Raises:
        ReservedNameError: It is not an identifier, a keyword, or a name of the runtime.
    """
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise ReservedNameError(f"{name!r} is not a Python identifier; choose another name")
    _refuse_reserved(name, "bound")
    return sys.intern(str(name))


def _refuse_reserved(name: str, what: str) -> None:
    if name in RESERVED_NAMES:
        raise ReservedNameError(f"{name!r} belongs to the module itself and cannot be {what}")


def _similar(name: str, known: Iterable[str]) -> str:
    """A question that names what is written almost like *name*."""
    import difflib  # 2 ms that only an error needs

    newest = itertools.islice(reversed(list(known)), SIMILAR_AMONG)
    found = [repr(it) for it in difflib.get_close_matches(name, newest)]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _level_outside() -> int:
    """The ``stacklevel`` with which the caller's warning is shown at the line of the host."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


class NamespaceManager:
    """One live namespace: the ``__dict__`` of a real module, with a prelude below it.

    Arguments:
        name: The session's name; the module's name is made from it.
        main: Register the module as ``__main__`` and put back the old one on :meth:`close`.
        history: Keep the last three values that are not None in ``_``, ``__`` and ``___``.

    Attributes:
        namespace: The live mapping itself; its identity never changes.
        module: The module that it belongs to.
        rollbacks: The atomic cells that run in it.

    Threads: any, for every method.
    """

    def __init__(self, name: str = "session", *, main: bool = False, history: bool = True) -> None:
        self.name = name
        self.history = history
        replaced = sys.modules.get("__main__") if main else None
        if main:
            self.module = sys.modules["__main__"] = types.ModuleType("__main__")
        else:
            self.module = _register_module(f"isthmus_{name}")
        self.module_name = self.module.__name__
        self._lock = (
            threading.RLock()
        )  # guards: multi-name changes of the mapping, _value_in_history, rollbacks
        self._prelude: dict[str, Any] = dict(vars(builtins))
        self._runtime_names: dict[str, Any] = {}
        self._replaced_builtins: dict[str, Any] = {}
        self._capabilities: dict[str, Callable[..., Any]] = {}
        self._value_in_history: object = None
        self._listeners: list[UpdateListener] = []
        self.namespace: dict[str, Any] = vars(self.module)
        self.namespace["__builtins__"] = self._prelude
        self.namespace["asyncio"] = asyncio
        self.rollbacks = Rollbacks(self.namespace)
        self._at_first = dict(self.namespace)
        self._remove = weakref.finalize(
            self, _remove_module, self.module_name, self.module, replaced
        )

    @property
    def lock(self) -> threading.RLock:
        """The lock of every change of several names. Hold it for dict work only.

        Reentrant, because replacing a value can run its ``__del__``, which may come back here.
        """
        return self._lock

    def update_namespace(self, updates: Mapping[str, Any], source_context: str = "unknown") -> None:
        """Bind every name in *updates*.

        Arguments:
            updates: Names and their values.
            source_context: Who asks, for the event and the debug log.

        Raises:
            ReservedNameError: *updates* holds a name of the runtime, or something that is not a
                name. Nothing was bound.

        Threads: any. Atomic: all or nothing against :meth:`snapshot` and other updates; code of a
        running cell reads the same mapping name by name, without the lock.
        """
        checked = [(check_name(name), value) for name, value in updates.items()]
        mapping = self.namespace
        with self._lock:
            replaced = [mapping.get(name) for name, _ in checked]
            for name, value in checked:
                mapping[name] = value
            if self.rollbacks.copies:
                replaced += self.rollbacks.note(name for name, _ in checked)
        del replaced  # a __del__ of a replaced value runs here, outside the lock
        names = tuple(name for name, _ in checked)
        _log.debug("%s binds %s in %r", source_context, ", ".join(names), self.name)
        for listener in self._listeners:
            listener(names, (), source_context)

    def get(self, name: str) -> Any:
        """What *name* is bound to in the namespace.

        Raises:
            UnknownNameError: It is not bound; what lies in the prelude below is not either.

        Threads: any. Atomic: per name.
        """
        try:
            return self.namespace[name]
        except KeyError:
            raise self._unknown(name, self.namespace) from None

    def resolve(self, name: str) -> Any:
        """What code of a cell gets for *name*: from the namespace, else from the prelude.

        Raises:
            UnknownNameError: It is in neither.

        Threads: any. Atomic: per name.
        """
        value = self.namespace.get(name, self)  # which no cell binds
        if value is self:
            value = self._prelude.get(name, self)
        if value is self:
            raise self._unknown(name, [*self._prelude, *self.namespace])
        return value

    def delete(self, name: str, source_context: str = "unknown") -> None:
        """Take *name* out of the namespace. What it hid in the prelude is back.

        Arguments:
            name: The name.
            source_context: Who asks, for the event and the debug log.

        Raises:
            ReservedNameError: It belongs to the module itself. Nothing was deleted.
            UnknownNameError: It is not bound.

        Threads: any. Atomic: per name.
        """
        _refuse_reserved(name, "deleted")
        with self._lock:
            deleted = [self.get(name)]
            del self.namespace[name]
            if self.rollbacks.copies:
                deleted += self.rollbacks.note((name,))
        del deleted  # its __del__ runs here, outside the lock
        _log.debug("%s deletes %s in %r", source_context, name, self.name)
        for listener in self._listeners:
            listener((), (name,), source_context)

    def _unknown(self, name: str, known: Iterable[str]) -> UnknownNameError:
        """The error for a *name* that is not among those *known*."""
        if name in self._prelude:
            what = "a capability" if name in self._capabilities else "a name of the prelude"
            message = f"{name!r} is {what}, not bound in namespace {self.name!r} but below it"
        else:
            what = f"there is no name {name!r} in namespace {self.name!r}"
            message = f"{what}{_similar(name, known) or '; bind it first'}"
        return UnknownNameError(message, name)

    def snapshot(self) -> dict[str, Any]:
        """A shallow copy of the user's names: all but the module's own attributes.

        Threads: any. Atomic: against :meth:`update_namespace` and cell boundaries.
        """
        with self._lock:
            copy = dict(self.namespace)
        for name in MODULE_NAMES:
            copy.pop(name, None)
        return copy

    def on_update(self, listener: UpdateListener) -> None:
        """Have *listener* called after each change of names by the host."""
        self._listeners.append(listener)

    def inject_capability(self, name: str, fn: Callable[..., Any]) -> None:
        """Put *fn* into the prelude, below the namespace: cells may shadow it; ``del`` uncovers it.

        Arguments:
            name: What cells call it. A capability that has this name is replaced.
            fn: Anything that can be called.

        Raises:
            ReservedNameError: *name* is not an identifier, or belongs to the runtime. Nothing was
                bound.
            TypeError: *fn* is not callable. Nothing was bound.

        Warns:
            UserWarning: *name* hides a builtin.

        Threads: any. Atomic: per name; functions already defined see it at their next look-up.
        """
        checked = check_name(name)
        if checked in self._runtime_names and checked not in self._overridable():
            raise ReservedNameError(f"{name!r} belongs to the runtime; choose another name")
        if checked in BOUND_NAMES:
            raise ReservedNameError(f"{name!r} is bound in every namespace, which would hide it")
        if not callable(fn):
            raise TypeError(f"a capability must be callable, and {name!r} is {fn!r}")
        if hasattr(builtins, checked) and checked not in self._overridable():
            warnings.warn(
                f"the capability {name!r} hides the builtin", UserWarning, _level_outside()
            )
        self._capabilities[checked] = fn
        self._prelude[checked] = fn

    def revoke_capability(self, name: str) -> None:
        """Take *name* out of the prelude at once; what it hid, a builtin say, is back.

        Raises:
            KeyError: No capability of this name.

        Threads: any. Atomic: per name.
        """
        if self._capabilities.pop(name, None) is None:
            raise KeyError(f"there is no capability {name!r}")
        below = {**vars(builtins), **self._replaced_builtins, **self._runtime_names}
        if name in below:
            self._prelude[name] = below[name]
        else:
            del self._prelude[name]

    @property
    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """What the host has injected, by name. A live, read-only view."""
        return types.MappingProxyType(self._capabilities)

    def add_prelude(self, names: Mapping[str, Any]) -> None:
        """Put the runtime's own names below the namespace."""
        self._runtime_names.update(names)
        self._prelude.update(names)

    def replace_builtin(self, name: str, function: Callable[..., Any]) -> None:
        """Put what does the same in another way in the place of a builtin function."""
        self._replaced_builtins[name] = self._prelude[name] = function

    def _overridable(self) -> Iterable[str]:
        """Builtins that a host is expected to replace, so that doing so is not worth a warning."""
        return ("input", "breakpoint", "help", "exit", "quit")

    def restore_module_names(self) -> None:
        """Put back what makes the mapping a module's, when a cell has deleted or replaced it.

        Without ``__builtins__`` the next cell would lose its prelude, without ``__name__`` its
        classes could not be pickled.
        """
        if self.namespace.get("__builtins__") is not self._prelude:
            self.namespace["__builtins__"] = self._prelude
        if "__name__" not in self.namespace:
            self.namespace["__name__"] = self.module_name

    def remember(self, value: object) -> None:
        """Move the last values on: ``_`` to ``__``, ``__`` to ``___``, *value* to ``_``.

        A ``_`` that a cell has bound stays, as in every Python REPL.
        """
        if value is None or not self.history:
            return
        mapping = self.namespace
        with self._lock:
            kept = mapping.get("_", self._value_in_history) is not self._value_in_history
            if kept:
                return
            older: tuple[Any, ...] = mapping.get("_"), mapping.get("__"), mapping.get("___")
            for name, moved in zip(_HISTORY_NAMES, (value, *older), strict=False):
                if moved is not None:
                    mapping[name] = moved
            if self.rollbacks.copies:
                older += (*self.rollbacks.note(_HISTORY_NAMES),)
            self._value_in_history = value
        del older  # the __del__ of what was in ___ runs here, outside the lock

    def keep_underscore(self) -> None:
        """A cell has bound ``_``: leave it alone from now on, until it is deleted."""
        self._value_in_history = object()

    def rebind(self, name: str, old: object, new: object) -> bool:
        """Bind *name* to *new* if it still holds *old*; whether it did. Atomic. Threads: any."""
        with self._lock:
            held = self.namespace.get(name) is old
            if held:
                self.namespace[name] = new
                if self._value_in_history is old:
                    self._value_in_history = new
            if self.rollbacks.copies:
                self.rollbacks.replace(name, old, new)
        return held

    def may_restore(self, name: str, value: object) -> bool:
        """Whether the failure of a cell that runs would bind *name* to *value*. Threads: any."""
        if not self.rollbacks.copies:
            return False
        with self._lock:
            return self.rollbacks.would_bind(name, value)

    def clear(self) -> None:
        """Bring the mapping back to what it was at first; the prelude stays as it is.

        Threads: any. Atomic: all or nothing against :meth:`snapshot` and updates.
        """
        mapping = self.namespace
        with self._lock:
            dropped: list[Any] = [dict(mapping)]
            for name in [name for name in mapping if name not in self._at_first]:
                mapping.pop(name, None)
            mapping.update(self._at_first)
            self._value_in_history = None
            dropped += self.rollbacks.forget()
        del dropped  # a __del__ of a value runs here, outside the lock
        forget_generic_types()

    def close(self) -> None:
        """Take the module out of ``sys.modules``. Idempotent. The mapping is left to its users."""
        self._remove()
        forget_generic_types()
