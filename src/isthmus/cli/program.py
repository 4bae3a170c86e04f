"""What ``isthmus run`` runs: a file or standard input, as cells. Owns reading it.

Refuses to know: how cells run, how they are shown.
"""

from __future__ import annotations

import io
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from isthmus import UsageError
from isthmus.cli.magics import find_magics
from isthmus.cli.notebook import NotebookError, read_notebook
from isthmus.cli.script import ScriptCell, read_script

STDIN = "-"


class UnusableInputError(UsageError):
    """What was given cannot be read as a program. Nothing was run."""


@dataclass(frozen=True, slots=True)
class Program:
    """Cells to run, and where they come from.

    Attributes:
        name: What the user called it: ``sys.argv[0]``.
        path: The file's absolute path; None for standard input.
        cells: The cells, in order.
        docstring: A script's ``__doc__``.
    """

    name: str
    path: Path | None
    cells: tuple[ScriptCell, ...]
    docstring: str | None = None

    @property
    def is_notebook(self) -> bool:
        """Whether it comes from a notebook."""
        return self.path is not None and self.path.suffix == ".ipynb"

    def magics(self) -> list[str]:
        """A line for each IPython magic of a notebook, naming cell and line."""
        if not self.is_notebook:
            return []
        return [
            f"{self.name}: cell {cell.number}, line {magic.line}: "
            f"{magic.text!r} is IPython's own syntax, not Python; {magic.advice}"
            for cell in self.cells
            for magic in find_magics(cell.source)
        ]


def load(name: str, stdin: BinaryIO) -> Program:
    """Read the program *name*: a path, or ``-`` for *stdin*.

    Raises:
        UnusableInputError: It cannot be read, or is neither a script nor a notebook.
    """
    if name == STDIN:
        script = read_script(_decode(name, stdin.read()), "<stdin>")
        return Program(name, None, script.cells, script.docstring)
    path = Path(name).absolute()
    data = _read(name, path)
    if path.suffix == ".ipynb":
        return Program(name, path, _notebook_cells(name, path, data))
    script = read_script(_decode(name, data), str(path))
    return Program(name, path, script.cells, script.docstring)


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except IsADirectoryError:
        raise UnusableInputError(f"{name}: this is a directory; name a file in it") from None
    except FileNotFoundError:
        raise UnusableInputError(f"{name}: there is no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnusableInputError(f"{name}: cannot be read: {reason}") from error


def _notebook_cells(name: str, path: Path, data: bytes) -> tuple[ScriptCell, ...]:
    try:
        return tuple(entry.cell for entry in read_notebook(data, str(path)))
    except NotebookError as error:
        raise UnusableInputError(f"{name}: {error}") from error


def _decode(name: str, data: bytes) -> str:
    """Decode a script as Python does: by its byte order mark, its coding line, or as UTF-8."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UnusableInputError(f"{name}: this is no text: {error}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UnusableInputError(f"{name}: this is no text: line {line} holds a null byte")
    return text
