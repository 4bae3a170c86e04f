"""IPython's magics in a cell. Owns recognising them, and what to say about them.

``%matplotlib inline``, ``%%time``, ``!ls``, ``name?`` and ``files = !ls`` are no Python: IPython
rewrites them before it compiles a cell. A cell that compiles has none, whatever it looks like (a
line that begins with the modulo operator continues the one above), so only a cell that does not
is searched; and there a line is a magic only if the cell compiles without it, or if it is where the
compiler stumbles first.

Pure: compiles cells, runs nothing.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass

_CELL_MAGIC = re.compile(r"%%\w")
_LINE = re.compile(r"\s*(?:%{1,2}\w|!{1,2} *[\w./~$\"'(\[{-]|\?{1,2}[\w.%*]|[,;/][A-Za-z_]\w*\s)")
_HELP = re.compile(r"\s*%{0,2}[A-Za-z_*][\w.*\[\]]*\?{1,2}\s*$")
_ASSIGNMENT = re.compile(r"\s*[A-Za-z_][\w.,\s\[\]*]*=\s*(?:!|%\w)")


@dataclass(frozen=True, slots=True)
class Magic:
    """A magic: *line* of its cell, from 1, and the *text* there."""

    line: int
    text: str

    @property
    def advice(self) -> str:
        """What to write instead."""
        if self.text.startswith("%%"):
            return "remove this line, or the cell if it is not Python"
        if "!" in self.text:
            return "use subprocess.run()"
        if self.text.startswith("?") or self.text.endswith("?"):
            return "use help()"
        return "remove it, or write it in Python"


def find_magics(source: str) -> list[Magic]:
    """The magics of a cell, in order. Empty for every cell that compiles as Python."""
    error = _compile_error(source)
    if error is None:
        return []
    lines = source.splitlines()
    first = next((index for index, line in enumerate(lines) if line.strip()), 0)
    if lines and _CELL_MAGIC.match(lines[first]):  # what follows it may be in any language
        return [Magic(first + 1, lines[first].strip())]
    found = [n for n, line in enumerate(lines, 1) if _is_magic(line)]
    if _compile_error(_without(lines, found)) is not None:
        found = [n for n in found if n == getattr(error, "lineno", None)]
    return [Magic(n, lines[n - 1].strip()) for n in found]


def _is_magic(line: str) -> bool:
    return any(pattern.match(line) for pattern in (_LINE, _HELP, _ASSIGNMENT))


def _without(lines: list[str], numbers: list[int]) -> str:
    """The text with statements that do nothing in place of the lines *numbers*."""
    kept = list(lines)
    for number in numbers:
        line = lines[number - 1]
        kept[number - 1] = line[: len(line) - len(line.lstrip())] + "pass"
    return "\n".join(kept)


def _compile_error(source: str) -> Exception | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are given when the cell runs
        try:
            compile(source, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return error
    return None
