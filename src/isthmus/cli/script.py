"""Scripts: source text to cells. Owns the percent format.

A line ``# %%`` begins a cell. Behind it may stand a context in brackets, a title, or both:
``# %% [thread] Fetch the pages``, ``# %% Fetch the pages [thread]``. Cells that are tagged
``[markdown]``, ``[md]`` or ``[raw]``, and cells without code, are left out. Text without such a
line is one cell. A marker inside a string is no marker. As in Jupytext, from which the format
comes, ``# %%time`` (a magic that was commented out) begins no cell, and metadata behind the title
(``key="value"``) is not part of it.

Pure: reads no files, runs nothing.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast, get_args

from isthmus import Context, RequestedContext

CONTEXTS: tuple[str, ...] = (*get_args(Context), "auto")
"""What a marker or ``--context`` may ask for."""

_TEXT_TAGS = frozenset({"markdown", "md", "raw"})

_MARKER = re.compile(r"#[ \t]*%%+(?=[\s\[]|$)(.*)")
_TAG_FIRST = re.compile(r"\[(\w+)\]\s*(.*)")
_TAG_LAST = re.compile(r"(.*\S)\s*\[(\w+)\]")
_METADATA = re.compile(r"""(?:(?:^|\s+)[\w.-]+=(?:"[^"]*"|\[[^\]]*\]|\{.*\}|true|false|null))+$""")


@dataclass(frozen=True, slots=True)
class ScriptCell:
    """One cell of a script or a notebook.

    Attributes:
        number: Its place among the cells that run, from 1.
        source: Its text.
        title: What the author called it, or an empty string.
        context: Where the author wants it to run; None leaves that to the caller.
        first_line: The line of the file on which *source* begins, from 1.
        filename: What tracebacks are to call its file; None leaves that to the session.
    """

    number: int
    source: str
    title: str = ""
    context: RequestedContext | None = None
    first_line: int = 1
    filename: str | None = None

    @property
    def padded_source(self) -> str:
        """The text behind as many empty lines as there are before it in the file.

        So its code objects carry the file's own line numbers, and linecache, where the cells of
        one file are laid over each other, shows the file's own lines.
        """
        return "\n" * (self.first_line - 1) + self.source


@dataclass(frozen=True, slots=True)
class Script:
    """A script in cells.

    Attributes:
        cells: Those that run, in order.
        docstring: The string that stands alone before the first marker: the script's ``__doc__``.
    """

    cells: tuple[ScriptCell, ...]
    docstring: str | None = None


@dataclass(frozen=True, slots=True)
class _Section:
    """What stands between two markers; *line* is its first, the marker's own where it has one."""

    marker: str | None
    line: int
    text: str


def read_script(text: str, filename: str | None = None) -> Script:
    """Split *text*, the source of a script, into cells.

    Arguments:
        text: The source. It need not be valid Python: the cell that is not will say so.
        filename: What tracebacks are to call the script.
    """
    sections = list(_sections(text))
    docstring = None
    if len(sections) > 1 and sections[0].marker is None:
        docstring = _lone_docstring(sections[0].text)
    cells: list[ScriptCell] = []
    for section in sections:
        title, context, is_text = _read_marker(section.marker)
        is_docstring = section.marker is None and docstring is not None
        if is_text or is_docstring or not holds_code(section.text):
            continue
        number = len(cells) + 1
        cells.append(ScriptCell(number, section.text, title, context, section.line, filename))
    return Script(tuple(cells), docstring)


def _sections(text: str) -> Iterator[_Section]:
    lines = _split_lines(text)
    marker, start = None, 0
    for index in _marker_lines(text, lines):
        if index > start:
            yield _Section(marker, start + 1, "".join(lines[start:index]))
        marker, start = lines[index], index
    yield _Section(marker, start + 1, "".join(lines[start:]))


def _split_lines(text: str) -> list[str]:
    """Split where Python does: not at form feeds or Unicode's line separators."""
    return io.StringIO(text, newline=None).readlines()


def _marker_lines(text: str, lines: list[str]) -> list[int]:
    """The indices of lines that begin a cell."""
    candidates = [index for index, line in enumerate(lines) if _MARKER.match(line)]
    if not candidates:
        return []
    within = _lines_within_strings(text)
    return [index for index in candidates if index + 1 not in within]


def _lines_within_strings(text: str) -> set[int]:
    """Numbers of lines that begin inside a string, as far as *text* can be tokenized."""
    within: set[int] = set()
    try:
        for token in tokenize.generate_tokens(io.StringIO(text, newline=None).readline):
            if token.type not in (tokenize.NEWLINE, tokenize.NL, tokenize.DEDENT):
                within.update(range(token.start[0] + 1, token.end[0] + 1))
    except (tokenize.TokenError, SyntaxError):  # also IndentationError: the cell itself will tell
        pass
    return within


def _read_marker(line: str | None) -> tuple[str, RequestedContext | None, bool]:
    """Title and context of a marker, and whether it begins text instead of code."""
    match = _MARKER.match(line) if line is not None else None
    if match is None:
        return "", None, False
    rest = _METADATA.sub("", match[1].strip()).strip()
    title, tag = _split_tag(rest)
    context = cast(RequestedContext, tag) if tag in CONTEXTS else None
    return title, context, tag in _TEXT_TAGS


def _split_tag(rest: str) -> tuple[str, str | None]:
    """Title and tag of what follows ``# %%``; brackets that hold no known word are the title's."""
    known = {*CONTEXTS, *_TEXT_TAGS}
    if (match := _TAG_FIRST.fullmatch(rest)) and match[1].lower() in known:
        return match[2], match[1].lower()
    if (match := _TAG_LAST.fullmatch(rest)) and match[2].lower() in known:
        return match[1], match[2].lower()
    return rest, None


def holds_code(text: str) -> bool:
    """Whether *text* holds more than comments and empty lines."""
    return any(line.strip() and not line.lstrip().startswith("#") for line in _split_lines(text))


def _lone_docstring(text: str) -> str | None:
    """The string that is all the code of *text*, or None."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if len(body) == 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        value = body[0].value.value
        return value if isinstance(value, str) else None
    return None
