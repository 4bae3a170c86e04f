"""Cells: source text to compiled code. Owns what a compiled cell is, and the cache of these.

A cell compiles to two code objects: all statements but a last expression, and that expression,
whose value is the cell's (a semicolon after it changes nothing). Both allow top-level ``await``;
the compiler's own flag says whether one is a coroutine. The blocking form, for threads and sync
cells, is derived only where that flag is set: it has the same meaning without being one.

As in a file that Python runs, a string that opens a cell is its docstring and is bound to
``__doc__``, unless it is all of the cell, which makes it the cell's value.

Pure: runs nothing, and touches nothing outside but linecache, through a
:class:`~isthmus.sources.SourceBook`.
"""

from __future__ import annotations
import __future__

import ast
import re
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from inspect import CO_COROUTINE
from types import CodeType
from typing import NoReturn
from weakref import ref

from isthmus.bindings import scan
from isthmus.blocking import lower
from isthmus.sources import SourceBook, innermost, split_lines

_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_TREE = ast.PyCF_ONLY_AST | _AWAIT
_FEATURES = [getattr(__future__, name).compiler_flag for name in __future__.all_feature_names]
# `nested_scopes` has the value of another flag of code objects (CO_NESTED), and is always on.
FUTURE_FLAGS = sum({*_FEATURES} - {__future__.nested_scopes.compiler_flag})
"""All ``__future__`` features that code objects carry in ``co_flags``."""


@dataclass(eq=False)
class CompiledCell:
    """One cell, compiled. Immutable by convention: cells of the same text share it.

    Attributes:
        source: the text that it was made from.
        filename: the file name in its code, and of its text in linecache.
        body: all statements but a last expression, to be run by ``exec`` (by ``eval`` where it is a
            coroutine); None when there are none.
        last: the last expression, for ``eval``; None when there is none.
        body_is_coroutine, last_is_coroutine: ``eval`` of it gives a coroutine.
        awaits: some part of the async form is a coroutine. The same in both forms.
        blocking: this is the blocking form, which needs the hidden names of
            :mod:`isthmus.blocking`. A cell that awaits nothing has one form only.
        bound, deleted: names that it can bind or delete, sorted.
        exact: False where it may bind or delete other names too.
        defines_global: it makes a function that binds globals when called, by a later cell say.
        calls: it can call something; so, after a cell that ``defines_global``, is not exact.
        nested: there is code within its code, of a function say.
        flags: the ``__future__`` flags in force after it.
        class_line: for the compiler alone: the first of its lines in the module's file; 0 where
            its classes are not numbered.
        leaves: for the compiler alone: the innermost code objects of all its forms, weakly.
        lowered: for the compiler alone: the blocking form, once made, of a cell that awaits.
    """

    source: str
    filename: str
    body: CodeType | None
    last: CodeType | None
    body_is_coroutine: bool
    last_is_coroutine: bool
    awaits: bool
    blocking: bool
    bound: tuple[str, ...]
    deleted: tuple[str, ...]
    exact: bool
    defines_global: bool
    calls: bool
    nested: bool
    flags: int
    # Few cells have these: without slots, and not being arguments, they cost the others nothing.
    class_line: int = field(default=0, init=False, repr=False)
    leaves: tuple[ref[CodeType], ...] = field(default=(), init=False, repr=False)
    lowered: CompiledCell | None = field(default=None, init=False, repr=False)

    @classmethod
    def empty(cls, source: str, filename: str) -> CompiledCell:
        """Give the cell of a *source* that does not compile: it does nothing."""
        return cls(
            source=source,
            filename=filename,
            body=None,
            last=None,
            body_is_coroutine=False,
            last_is_coroutine=False,
            awaits=False,
            blocking=False,
            bound=(),
            deleted=(),
            exact=True,
            defines_global=False,
            calls=False,
            nested=False,
            flags=0,
        )


_Key = tuple[str, int, str | None]
"""The text, the ``__future__`` flags in force before it, and the file name if one is given."""


class CellCompiler:
    """Compiles the cells of one session, and keeps the newest.

    Args:
        sources: where the text of cells is entered.
        cache_cells: how many texts are kept at most; the oldest goes first.
        cache_bytes: how long these may be together, in characters. A longer one is not kept.

    Threads: any; two that compile at once may compile the same text twice.
    """

    def __init__(
        self, sources: SourceBook, *, cache_cells: int = 256, cache_bytes: int = 4_000_000
    ) -> None:
        self.flags = 0
        """The ``__future__`` flags in force. A ``from __future__`` import takes effect when its
        cell is compiled, whether or not it is ever run."""
        self._sources = sources
        self._cache_cells = cache_cells
        self._cache_bytes = cache_bytes
        self._bytes = 0
        self._cells: dict[_Key, CompiledCell] = {}
        self._order: deque[_Key] = deque()  # oldest first

    def compile(
        self, source: str, *, number: int, blocking: bool, filename: str | None = None
    ) -> CompiledCell:
        """Compile *source*, or give the cell of the same text that was compiled before.

        *number* makes the file name, unless *filename* is given; a repeated text without one keeps
        the name that it got first. *blocking* asks for the blocking form.

        Raises:
            SyntaxError: *source* is no Python, with the cell's file name, line and column. Null
                bytes, lone surrogates and nesting that is too deep arrive as one too. Nothing has
                changed.
            TypeError: *source* is not a string.
        """
        if not isinstance(source, str):
            raise TypeError(f"a cell's source must be a str, not {type(source).__name__}")
        key = source, self.flags, filename
        cell = self._cells.get(key)
        if cell is None:
            cell = self._compile_new(key, number, blocking)
        self.flags = cell.flags
        if blocking and cell.awaits:
            return cell.lowered or self._lower(cell)
        return cell

    def clear(self) -> None:
        """Forget every cell. What still runs keeps its source."""
        while self._order:
            self._evict_oldest()

    def _compile_new(self, key: _Key, number: int, blocking: bool) -> CompiledCell:
        """Compile the async form; once that has worked, enter and keep it.

        All but :func:`_compile` is to cost a new `x = 1` no more than a third of its parsing and
        compiling; so what most cells do not have (a class, code within their code) is asked for
        once, and in C.
        """
        source, flags, filename = key
        book = self._sources
        name = book.cell_file(number) if filename is None else filename
        has_class = "class" in source
        class_line = book.class_line(name) if has_class else 0
        body, last = _compile(source, name, flags, class_line)
        body_awaits = body is not None and body.co_flags & CO_COROUTINE != 0
        last_awaits = last is not None and last.co_flags & CO_COROUTINE != 0
        cell = CompiledCell(
            source,
            name,
            body,
            last,
            body_awaits,
            last_awaits,
            body_awaits or last_awaits,
            False,
            *scan(body, last),
            _flags_after(flags, body),
        )
        if class_line:
            cell.class_line = class_line
        if cell.nested:
            cell.leaves = innermost((body, last))
        if blocking and cell.awaits:
            self._lower(cell)  # before it may be evicted, which must know all of its code
        book.add(name, source, has_class=has_class)
        self._keep(key, cell)
        return cell

    def _lower(self, cell: CompiledCell) -> CompiledCell:
        """Make the blocking form of *cell*."""
        with _without_warnings(cell.filename):
            body, last = _compile(
                cell.source, cell.filename, cell.flags, cell.class_line, blocking=True
            )
        cell.leaves += innermost((body, last))
        cell.lowered = replace(
            cell,
            body=body,
            last=last,
            body_is_coroutine=False,
            last_is_coroutine=False,
            blocking=True,
        )
        return cell.lowered

    def _keep(self, key: _Key, cell: CompiledCell) -> None:
        """Put *cell* into the cache, and the oldest out as long as it is too full.

        Each step is one operation on a dict or deque, so that two threads may be in here at once.
        """
        size = len(cell.source)
        # Too long to be kept; or else another thread was quicker with the same text.
        if size > self._cache_bytes or self._cells.setdefault(key, cell) is not cell:
            self._sources.release(cell.filename, cell.leaves)
            return
        self._bytes += size
        self._order.append(key)
        while self._order and (
            self._bytes > self._cache_bytes or len(self._cells) > self._cache_cells
        ):
            self._evict_oldest()

    def _evict_oldest(self) -> None:
        """Forget one cell. Its text goes with it, unless some of its code lives on."""
        cell = self._cells.pop(self._order.popleft())
        self._bytes -= len(cell.source)
        name, leaves = cell.filename, cell.leaves
        del cell
        self._sources.release(name, leaves)


_Parts = tuple[CodeType | None, CodeType | None]
"""The body and the last expression of a cell."""


def _compile(
    source: str, filename: str, flags: int, class_line: int, *, blocking: bool = False
) -> _Parts:
    """Compile *source*; whatever is wrong with it, the error is a SyntaxError that says where."""
    # Without the flag for `await`, whatever had not been lowered would not compile.
    flags = flags if blocking else flags | _AWAIT
    try:
        if not (blocking or class_line):
            parts = _compile_text(source.removeprefix("\ufeff"), filename, flags)
            if parts is not None:
                return parts
        tree = _parse(source, filename, flags)
        if blocking:
            lower(tree, flags)
        if class_line:
            _number_classes(tree, class_line)
        try:
            return _compile_tree(tree, filename, flags)
        except RecursionError:
            if blocking:
                raise
            return _compile_deep(source, filename, flags)
    except (SyntaxError, ValueError) as error:
        _check_text(source, filename)
        if isinstance(error, SyntaxError):
            _add_text(error, source, filename)
        raise
    except (RecursionError, MemoryError) as error:
        message = "the code is nested too deeply to be compiled; split it into several statements"
        raise SyntaxError(message, (filename, 1, 1, None)) from error


_ASSIGNS = r"[ \t]* (?: [-+@%&|^] | //? | \*\*? | << | >> )? = (?!=)"
_STATEMENT = re.compile(
    rf"""
    [ \t]+
    | (?: assert | async | class | def | del | elif | else | except | finally | for | from | global
        | if | import | nonlocal | pass | raise | return | try | while | with )\b
    | (?! [\w., \t]* \blambda\b ) [^\W\d] [\w., \t]* {_ASSIGNS}  # not a lambda's default
    | [^\W\d] .*? [\])] {_ASSIGNS}
    | (?! lambda\b ) [^\W\d] [\w.]* [ \t]* : (?!=)
    """,
    re.VERBOSE,
)
"""What begins a line without a value, if it is whole: an indented one ends a compound statement."""
_OTHER = r"[^()\[\]{}\"'\\;\#\f]*+"
_WHOLE = re.compile(
    rf"{_OTHER} (?: (?: \({_OTHER}\) | \[{_OTHER}\] | \{{{_OTHER}\}} ) {_OTHER} )*+", re.VERBOSE
)
"""What ends such a line: were it within brackets or a string, it would have to close these, or the
cell would not compile. Brackets in brackets, or strings, are left to the tree."""


_CODE = re.compile(r"^[ \t\f]*[^\s#\\]", re.MULTILINE)
"""What a text of comments and blank lines lacks: of that there is no code, not even empty code."""


def _compile_text(text: str, filename: str, flags: int) -> _Parts | None:
    """Compile from the text where the last line shows how the cell ends; else give None.

    Building a tree and reading it back is half of what a compile costs, and more of a long one
    (text alone, of a tree's time: `x = 1` 0.58, ten assignments 0.35, a module 0.4).
    """
    if "\r" in text:
        return None
    whole = text.rstrip(" \t\n")
    start = whole.rfind("\n") + 1
    head, tail = whole[:start], whole[start:]
    statement = _STATEMENT.match(tail)
    if statement:
        if _WHOLE.fullmatch(tail, statement.end()) and not head.endswith("\\\n"):
            return compile(text, filename, "exec", flags, dont_inherit=True), None
    elif tail[:1].isidentifier() and (not head or _CODE.search(head)):
        return _compile_halves(head, tail, filename, flags)
    return None


def _compile_halves(head: str, tail: str, filename: str, flags: int) -> _Parts | None:
    """Compile the lines of *head* and the line *tail*, if they are whole and *tail* has a value.

    If each compiles alone, then so they do together: no statement is open at the end of *head*,
    and none goes on with an expression at the margin.
    """
    if "__future__" in head:  # which might hold for the expression too
        return None
    try:
        expression = "\n" * head.count("\n") + tail
        last = compile(expression, filename, "eval", flags, dont_inherit=True)
        body = compile(head, filename, "exec", flags, dont_inherit=True) if head else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # whatever it is, the whole text says it better
    return body, last


def _compile_deep(source: str, filename: str, flags: int) -> _Parts:
    """Compile from the text what CPython 3.11 and 3.12 compile from text but not from a tree.

    A tree made of Python objects may be some 1,000 levels deep there, a text 3,000. The text is
    cut before the last expression, which must begin its line.
    """
    text = source.removeprefix("\ufeff")
    tree = _parse(source, filename, flags)
    last = tree.body[-1]
    if not isinstance(last, ast.Expr):
        return compile(text, filename, "exec", flags, dont_inherit=True), None
    if last.col_offset:
        raise RecursionError
    lines = split_lines(text)
    head, tail = lines[: last.lineno - 1], lines[last.lineno - 1 : last.end_lineno]
    tail[-1] = tail[-1].encode()[: last.end_col_offset].decode()
    body_code = None
    if tree.body[:-1]:
        body_code = compile("".join(head), filename, "exec", flags, dont_inherit=True)
        flags = _flags_after(flags, body_code)
    expression = "\n" * len(head) + "".join(tail)
    return body_code, compile(expression, filename, "eval", flags, dont_inherit=True)


_PARSES = 10
"""How often to parse a text. CPython before 3.11.8 counts how deep it is for all threads in one
place, and ends with a SystemError when another parse has come between (gh-106905)."""


def _parse(source: str, filename: str, flags: int) -> ast.Module:
    # A byte order mark is how some editors begin a file; within a str it would be an error.
    text = source.removeprefix("\ufeff")
    for left in reversed(range(_PARSES)):
        try:
            tree = compile(text, filename, "exec", _TREE | flags, dont_inherit=True)
            break
        except SystemError:
            if not left:
                raise
    assert isinstance(tree, ast.Module)
    return tree


def _compile_tree(tree: ast.Module, filename: str, flags: int) -> _Parts:
    """Compile *tree*, which loses its last expression."""
    statements = tree.body
    last = statements.pop() if statements and isinstance(statements[-1], ast.Expr) else None
    body_code = last_code = None
    if statements:
        body_code = compile(tree, filename, "exec", flags, dont_inherit=True)
        flags = _flags_after(flags, body_code)
    if isinstance(last, ast.Expr):
        expression = ast.Expression(last.value)
        last_code = compile(expression, filename, "eval", flags, dont_inherit=True)
    return body_code, last_code


def _flags_after(flags: int, body: CodeType | None) -> int:
    return flags if body is None else flags | body.co_flags & FUTURE_FLAGS


def _number_classes(tree: ast.Module, first: int) -> None:
    """Give each class its line in the module's file, which begins for this cell at *first*.

    Python 3.13 sets ``__firstlineno__`` at the start of a class body, from the line in the cell's
    own file; an assignment just behind that sets it anew.
    """
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.ClassDef):
            behind_docstring = int(ast.get_docstring(node, clean=False) is not None)
            node.body.insert(behind_docstring, _line(node, first))
        for block in ("body", "orelse", "handlers", "finalbody", "cases"):
            inner = getattr(node, block, None)
            if isinstance(inner, list):
                pending.extend(inner)


def _line(node: ast.ClassDef, first: int) -> ast.stmt:
    """Build the assignment of the line of *node*, at the position of its name."""
    top = node.decorator_list[0].lineno if node.decorator_list else node.lineno
    target = ast.Name("__firstlineno__", ast.Store())
    assignment = ast.Assign([target], ast.Constant(first + top - 1))
    return ast.fix_missing_locations(ast.copy_location(assignment, node))


def _check_text(source: str, filename: str) -> None:
    """Refuse text that no code has: Python's own errors name no file, or are no SyntaxError."""
    if "\0" in source:
        _refuse(source, filename, source.index("\0"), "a null byte; is this a binary file?")
    try:
        source.encode()
    except UnicodeEncodeError as error:
        lone = f"a lone surrogate, {source[error.start]!a}, which is no character; remove it"
        _refuse(source, filename, error.start, lone)


def _refuse(source: str, filename: str, index: int, what: str) -> NoReturn:
    line_number = source.count("\n", 0, index) + 1
    start = source.rfind("\n", 0, index) + 1
    text = source[start:].partition("\n")[0].encode(errors="backslashreplace").decode()
    place = (filename, line_number, index - start + 1, text)
    raise SyntaxError(f"the source contains {what}", place)


def _add_text(error: SyntaxError, source: str, filename: str) -> None:
    """Add the line, which the compiler would look for in a file (the parser has it)."""
    if error.text is None and error.filename == filename and error.lineno:
        lines = split_lines(source)
        if error.lineno <= len(lines):
            error.text = lines[error.lineno - 1]


@contextmanager
def _without_warnings(filename: str) -> Iterator[None]:
    """Silence the compiler's warnings about *filename*: its async form has given them.

    Filters belong to the process, so another thread that changes them now may lose or keep this
    one: it names this file, so that nothing else is silenced. A plain string is compared with the
    module's name as a whole (as in CPython's own default filters), which here is the file's.
    """
    with warnings.catch_warnings():
        module = filename.removesuffix(".py")
        warnings.filters.insert(0, ("ignore", None, Warning, module, 0))  # type: ignore[attr-defined]
        yield
