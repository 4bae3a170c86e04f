"""Notebooks: the JSON of a ``.ipynb`` file to cells. Owns what is read of nbformat 4.

Pure: reads no files, runs nothing. The saved outputs are kept, for whoever wants to compare.
"""

from __future__ import annotations

from typing import Any

import msgspec

from isthmus.cli.script import ScriptCell, holds_code

_Text = str | list[str]


class NotebookError(ValueError):
    """The data is no notebook that can be run. The message says why, and what to do."""


class SavedOutput(msgspec.Struct, frozen=True):
    """One output that the notebook was saved with; what it holds goes by *output_type*."""

    output_type: str
    name: str = "stdout"
    text: _Text = ""
    data: dict[str, Any] = {}

    @property
    def plain_text(self) -> str:
        """The text of a stream, or the ``text/plain`` form of a result."""
        return _joined(self.data.get("text/plain", self.text))


class _Cell(msgspec.Struct):
    cell_type: str
    source: _Text
    outputs: list[SavedOutput] = []


class _Version(msgspec.Struct):
    nbformat: int


class _Notebook(msgspec.Struct):
    cells: list[_Cell]
    metadata: dict[str, Any] = {}


class NotebookCell(msgspec.Struct, frozen=True):
    """A code cell, with the outputs that it was saved with."""

    cell: ScriptCell
    saved: tuple[SavedOutput, ...] = ()

    @property
    def saved_stdout(self) -> str:
        """What it had printed when it was saved."""
        streams = [out for out in self.saved if out.output_type == "stream"]
        return "".join(out.plain_text for out in streams if out.name == "stdout")

    @property
    def saved_value(self) -> str | None:
        """The ``text/plain`` form of its value when it was saved, or None."""
        results = [out for out in self.saved if out.output_type == "execute_result"]
        return results[-1].plain_text if results else None


def read_notebook(data: bytes, filename: str = "notebook.ipynb") -> list[NotebookCell]:
    """The code cells of a notebook that hold code.

    Their numbers are those that Jupyter shows after "Restart and run all"; their file names are
    *filename* with the number in brackets.

    Raises:
        NotebookError: *data* is no JSON, no notebook, of another format than nbformat 4, or of
            another language than Python.
    """
    notebook = _decode(data.removeprefix(b"\xef\xbb\xbf"))
    cells: list[NotebookCell] = []
    for entry in notebook.cells:
        source = _joined(entry.source)
        if entry.cell_type == "code" and holds_code(source):
            number = len(cells) + 1
            cell = ScriptCell(number, source, filename=f"{filename}[{number}]")
            cells.append(NotebookCell(cell, tuple(entry.outputs)))
    return cells


def _decode(data: bytes) -> _Notebook:
    try:
        version = msgspec.json.decode(data, type=_Version).nbformat
        if version != 4:
            _refuse_version(version)
        notebook = msgspec.json.decode(data, type=_Notebook)
    except msgspec.ValidationError as error:
        raise NotebookError(f"not a notebook: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotebookError(f"invalid JSON: {error}") from error
    _check_language(notebook.metadata)
    return notebook


def _refuse_version(version: int) -> None:
    how = "; convert it: jupyter nbconvert --to notebook --nbformat 4" if version < 4 else ""
    raise NotebookError(f"nbformat {version}, and only nbformat 4 can be read{how}")


def _check_language(metadata: dict[str, Any]) -> None:
    for section, key in (("language_info", "name"), ("kernelspec", "language")):
        language = metadata.get(section, {}).get(key)
        if isinstance(language, str) and language.lower() not in ("python", "ipython", ""):
            raise NotebookError(f"a notebook in {language}, and only Python can be run")


def _joined(text: Any) -> str:
    return "".join(text) if isinstance(text, list) else str(text)
