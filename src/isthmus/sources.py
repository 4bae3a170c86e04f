"""Source text of a session's cells, where tracebacks and ``inspect`` look for it.

Owns the entries that a session has in :mod:`linecache`, and their end. Two kinds of file:

- one per cell, which the cell's code objects name: tracebacks and ``inspect.getsource`` of
  functions read it;
- one per session, :attr:`SourceBook.module_file`, for classes: ``inspect`` looks for a class in the
  ``__file__`` of its module. Python 3.13 takes the line from ``__firstlineno__`` of the class, so
  each cell with a class gets lines of its own there, which the compiler writes into the class.
  Older versions search the text for the qualified name and take the first: the newest cell comes
  first. No traceback names this file, unless it is a script that is run.

Refuses to know what code means; never touches a file system.

Guarantees: an entry lives as long as a compiled cell is held, and after that as long as any code
object made from it. Assumes: the session's name is unique in the process.

Threads: ``add`` and ``release`` of one file name from one thread at a time. Code objects may die in
any thread: what they leave is only queued there, and swept at the next ``add``.
"""

from __future__ import annotations

import linecache
import sys
import weakref
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from types import CodeType
from typing import Any, SupportsIndex, cast, overload

from isthmus.bindings import code_within

NUMBERED_CLASSES = sys.version_info >= (3, 13)
"""Whether ``inspect`` finds a class by ``__firstlineno__`` rather than by searching the text."""

_FIRST_CLASS_LINE = 1_000_001
"""Where cells' own lines begin in the module's file: past any script that may have that name."""

_RETIRED_BYTES = 1_000_000
"""How much text of class statements is kept once no code of their cells is left, in characters.

A class without methods (a dataclass, an enum) holds no code object, so its life cannot be seen.
From the air: some thousand classes.
"""


def split_lines(source: str) -> list[str]:
    """Split *source* where Python does, each line with a newline at its end.

    ``str.splitlines`` would also split at form feeds and at Unicode's line separators.
    """
    if "\n" not in source and "\r" not in source:
        return [source + "\n"] if source else []
    if "\r" in source:
        source = source.replace("\r\n", "\n").replace("\r", "\n")
    lines = [line + "\n" for line in source.split("\n")]
    if lines[-1] == "\n":
        del lines[-1]
    return lines


class _CodeRef(weakref.ref[CodeType]):
    """A weak reference to a code object that knows its file name. Compared by identity."""

    __slots__ = ("name",)
    name: str
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


class SourceBook:
    """The linecache entries of one session.

    Args:
        session: the session's name, unique in the process; part of each file name.
        module_file: the ``__file__`` of the session's module, when it is a real one (a script that
            is run). By default a name that no file has.

    Attributes:
        cell_prefix: how the name of each cell's file begins that gets none from its caller.

    Close: by the session; idempotent. Drops every entry.
    """

    def __init__(self, session: str, module_file: str | None = None) -> None:
        self.session = session
        self.module_file = f"<{session}>" if module_file is None else module_file
        self.cell_prefix = f"<{session} cell "
        # How many hold each file's text: compiled cells that are kept, and code objects that
        # outlive theirs.
        self._holders: dict[str, int] = {}
        self._survivors: set[_CodeRef] = set()
        self._dead: list[_CodeRef] = []
        self._classes = _ClassText()
        self._class_lines: dict[str, list[int]] = {}
        self._retired: deque[int] = deque()

    def cell_file(self, number: int) -> str:
        """Give the file name of the cell *number*."""
        return f"{self.cell_prefix}{number}>"

    @property
    def files(self) -> Collection[str]:
        """The files whose text is kept, by name. Live."""
        return self._holders

    def is_cell_file(self, name: str) -> bool:
        """Tell whether *name* is, or was, the file of a cell. Threads: any."""
        return name.startswith(self.cell_prefix) or name in self._holders

    def number_of(self, name: str) -> int:
        """Give the number of the cell in whose file name it stands, else 0."""
        start = len(self.cell_prefix)
        return int(name[start:-1]) if name.startswith(self.cell_prefix) else 0

    def class_line(self, name: str) -> int:
        """Give the line of the module's file at which a cell with a class, of the file *name*,
        will begin when it is added next; 0 where no line is given out, or the file is that one."""
        return 0 if name == self.module_file or not NUMBERED_CLASSES else self._classes.end

    def add(self, name: str, source: str, *, has_class: bool = False) -> None:
        """Enter the text of a cell under the file *name*; to be called once it has compiled.

        A name that is in use gets the new text laid over the old, but for leading blank lines: so
        the cells of one script, each padded with newlines to its place in it, share the file.
        Each call is to be answered by one of :meth:`release`.
        """
        if self._dead:
            self._sweep()
        lines = split_lines(source)
        if name in self._holders:
            lines = _laid_over(self._lines(name), lines)
            self._holders[name] += 1
        else:
            self._holders[name] = 1
        if name == self.module_file:
            self._classes.script = lines
            self._enter_module_file()
            return
        # Without a modification time linecache takes the entry as it is (`checkcache`).
        linecache.cache[name] = (len(lines), None, lines, name)
        if has_class:
            self._class_lines.setdefault(name, []).append(self._classes.append(lines))
            self._enter_module_file()

    def release(self, name: str, leaves: Iterable[weakref.ref[CodeType]]) -> None:
        """Let a cell's text go as soon as none of *leaves* is left.

        *leaves* are its innermost code objects (:func:`innermost`). Those that are dead by now
        cost least.
        """
        for leaf in leaves:
            code = leaf()
            if code is not None:
                survivor = _CodeRef(code, self._dead.append)
                survivor.name = name
                self._survivors.add(survivor)
                self._holders[name] = self._holders.get(name, 0) + 1
        self._let_go(name)

    def close(self) -> None:
        """Drop every entry of this session. Idempotent."""
        for name in [*self._holders, self.module_file]:
            linecache.cache.pop(name, None)
        for held in (self._holders, self._survivors, self._dead, self._class_lines, self._retired):
            held.clear()
        self._classes = _ClassText()

    def _lines(self, name: str) -> list[str]:
        """Give the text of a file in use. Never `linecache.getlines`, which may read a real one."""
        if name == self.module_file:
            return self._classes.script
        entry = linecache.cache.get(name)
        return entry[2] if entry is not None and len(entry) == 4 else []

    def _sweep(self) -> None:
        """Count off the code objects that have died."""
        while self._dead:
            try:
                survivor = self._dead.pop()
            except IndexError:  # another thread, compiling too, was quicker
                return
            self._survivors.discard(survivor)
            self._let_go(survivor.name)

    def _let_go(self, name: str) -> None:
        """Count one holder less; drop the file with the last."""
        holders = self._holders.pop(name, 1) - 1  # after close() there are none
        if holders:
            self._holders[name] = holders
            return
        if name != self.module_file:  # which classes need for as long as the session lasts
            linecache.cache.pop(name, None)
        if name in self._class_lines:
            self._retire_classes(self._class_lines.pop(name))

    def _retire_classes(self, first_lines: list[int]) -> None:
        self._retired.extend(first_lines)
        while self._retired and self._classes.size > _RETIRED_BYTES:
            self._classes.remove(self._retired.popleft())

    def _enter_module_file(self) -> None:
        # Typed as a list, read as a sequence by linecache and inspect.
        lines = cast(list[str], self._classes)
        linecache.cache[self.module_file] = (0, None, lines, self.module_file)


def _laid_over(older: Sequence[str], lines: list[str]) -> list[str]:
    """Put *lines* over *older*, whose lines stay where *lines* begins blank, or has ended."""
    start = next((index for index, line in enumerate(lines) if line.strip()), 0)
    gap = ["\n"] * (start - len(older))
    return [*older[:start], *gap, *lines[start:], *older[len(lines) :]]


class _ClassText(Sequence[str]):
    """The lines of the module's file: a script's own, and those of each cell with a class.

    Numbered, these never move and no number is used twice, so that a class finds its own text or
    none. The sequence is sparse: only the text that is kept takes room.
    """

    def __init__(self) -> None:
        self.script: list[str] = []
        self.size = 0  # characters, without the script
        self.end = _FIRST_CLASS_LINE
        self._ranges: dict[int, list[str]] = {}

    def append(self, lines: list[str]) -> int:
        """Add the lines of a cell; give the number of the first."""
        first = self.end
        self._ranges[first] = lines
        self.size += sum(map(len, lines))
        self.end += len(lines) + 1
        return first

    def remove(self, first: int) -> None:
        self.size -= sum(map(len, self._ranges.pop(first, ())))

    def __len__(self) -> int:
        return self.end - 1 if NUMBERED_CLASSES else len(self._searched())

    def __iter__(self) -> Iterator[str]:
        return iter(self._searched())

    @overload
    def __getitem__(self, index: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: Any) -> Any:
        if not NUMBERED_CLASSES:
            return self._searched()[index]
        if isinstance(index, slice):
            return self._from_line((index.start or 0) + 1)[: index.stop]
        return self._from_line(index + 1)[0]

    def _from_line(self, number: int) -> list[str]:
        """Give the lines from *number* on to the end of that cell."""
        if number <= len(self.script):
            return self.script[number - 1 :]
        for first, lines in self._ranges.items():
            if first <= number < first + len(lines):
                return lines[number - first :]
        # What inspect says itself of a class without source.
        raise OSError("source code not available")

    def _searched(self) -> list[str]:
        """Give all lines in the order in which a class is searched: the newest cell first."""
        return [*self.script, *chain.from_iterable(reversed(self._ranges.values()))]


def innermost(codes: Iterable[CodeType | None]) -> tuple[weakref.ref[CodeType], ...]:
    """List the innermost code objects: a code object holds those in it, so these die last.

    Code of a cell's top level is not among them: it runs once, and only a traceback keeps it.
    """
    found = []
    pending = [inner for code in codes if code for inner in code_within(code)]
    while pending:
        code = pending.pop()
        nested = code_within(code)
        if nested:
            pending += nested
        else:
            found.append(weakref.ref(code))
    return tuple(found)
