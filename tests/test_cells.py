"""Cells compile to a body and a last expression; what cannot be compiled says why and where."""

from __future__ import annotations
import __future__

import ast
import builtins
import gc
import threading
import traceback
import warnings
import weakref
from collections.abc import Awaitable, Callable
from types import CodeType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.blocking import blocking_names
from isthmus.cells import FUTURE_FLAGS, CellCompiler, CompiledCell
from isthmus.sources import SourceBook


@pytest.fixture
def compiler() -> CellCompiler:
    return CellCompiler(SourceBook("cells_test"))


def compile_cell(source: str, *, blocking: bool = False, number: int = 1) -> CompiledCell:
    return CellCompiler(SourceBook("cells_test")).compile(source, number=number, blocking=blocking)


def drive(awaitable: Awaitable[Any]) -> Any:
    steps = awaitable.__await__()
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        return stop.value


def namespace_for_cells() -> dict[str, Any]:
    return {"__builtins__": {**vars(builtins), **blocking_names(drive)}, "__name__": "cells_test"}


def run(cell: CompiledCell, namespace: dict[str, Any]) -> Any:
    """Run *cell*, of either form; give its value."""
    if cell.body is not None:
        done = eval(cell.body, namespace)
        if cell.body_is_coroutine:
            drive(done)
    if cell.last is None:
        return None
    value = eval(cell.last, namespace)
    return drive(value) if cell.last_is_coroutine else value


@pytest.mark.parametrize("blocking", [False, True])
def test_the_value_of_a_cell_is_that_of_its_last_expression(blocking: bool) -> None:
    namespace = namespace_for_cells()
    for source, value in [
        ("x = 1; x + 1", 2),
        ("x + 2;", 3),
        ("x = 5", None),
        ("async def f(): return 7\nawait f()", 7),
        ("y = await f(); y + 1", 8),
        ("(z := 3)", 3),
        ("if True:\n    4", None),
    ]:
        assert run(compile_cell(source, blocking=blocking), namespace) == value


@pytest.mark.parametrize(
    "source", ["", "   ", "\n\n", "# a comment", "\n  # one\n\t\n#two", "\ufeff"]
)
def test_a_cell_without_code_has_no_parts(source: str) -> None:
    cell = compile_cell(source)
    assert (cell.body, cell.last, cell.bound, cell.exact) == (None, None, (), True)


def test_the_compiler_says_which_part_is_a_coroutine() -> None:
    cell = compile_cell("await x\ny")
    assert (cell.body_is_coroutine, cell.last_is_coroutine, cell.awaits) == (True, False, True)
    cell = compile_cell("x = 1\n[i async for i in y]")
    assert (cell.body_is_coroutine, cell.last_is_coroutine, cell.awaits) == (False, True, True)
    for source in ("async def f(): await x", "lambda: 1", "'await x'", "# await x\nx"):
        assert not compile_cell(source).awaits


def test_a_cell_that_awaits_nothing_has_one_form(compiler: CellCompiler) -> None:
    plain = compiler.compile("x = 1", number=1, blocking=False)
    assert compiler.compile("x = 1", number=2, blocking=True) is plain
    assert not plain.blocking


def test_the_blocking_form_is_no_coroutine_and_binds_the_same(compiler: CellCompiler) -> None:
    source = "async with m as x:\n    y = [await i async for i in x]\ndel z\nawait y"
    lowered = compiler.compile(source, number=1, blocking=True)
    plain = compiler.compile(source, number=2, blocking=False)
    assert lowered is compiler.compile(source, number=3, blocking=True)
    assert (lowered.blocking, lowered.awaits, plain.blocking, plain.awaits) == (
        True,
        True,
        False,
        True,
    )
    assert not (lowered.body_is_coroutine or lowered.last_is_coroutine)
    assert (lowered.bound, lowered.deleted) == (plain.bound, plain.deleted) == (("x", "y"), ("z",))
    assert lowered.filename == plain.filename == "<cells_test cell 1>"


def test_a_repeated_text_is_compiled_once_and_keeps_its_first_file_name(
    compiler: CellCompiler,
) -> None:
    first = compiler.compile("x = 1", number=1, blocking=False)
    assert compiler.compile("x = 1", number=2, blocking=False) is first
    assert first.filename == "<cells_test cell 1>"
    other = compiler.compile("x = 1", number=3, blocking=False, filename="given.py")
    assert other.filename == "given.py"


def test_future_flags_persist_over_cells(compiler: CellCompiler) -> None:
    namespace = namespace_for_cells()
    early = compiler.compile("def f(a: missing): pass", number=1, blocking=False)
    assert compiler.flags == 0
    compiler.compile("from __future__ import annotations", number=2, blocking=False)
    assert compiler.flags == __future__.annotations.compiler_flag
    later = compiler.compile("def f(a: missing): pass", number=3, blocking=False)
    run(later, namespace)
    assert namespace["f"].__annotations__ == {"a": "missing"}
    assert later is not early
    compiler.flags = 0
    assert compiler.compile("def f(a: missing): pass", number=4, blocking=False) is early


def test_a_future_import_holds_for_the_last_expression_of_its_cell(compiler: CellCompiler) -> None:
    source = "from __future__ import annotations\nlambda: None"
    cell = compiler.compile(source, number=1, blocking=True)
    assert cell.last is not None
    assert cell.last.co_flags & __future__.annotations.compiler_flag
    assert cell.flags == __future__.annotations.compiler_flag


def test_our_own_future_imports_do_not_reach_a_cell() -> None:
    namespace = namespace_for_cells()
    run(compile_cell("x: int = 1"), namespace)
    assert compile_cell("x = 1").flags == 0


def test_annotations_gather_over_cells() -> None:
    namespace = namespace_for_cells()
    run(compile_cell("x: int = 1"), namespace)
    run(compile_cell("y: str"), namespace)
    if "__annotations__" in namespace:  # 3.14 makes them lazily, per module
        assert namespace["__annotations__"] == {"x": int, "y": str}


@pytest.mark.parametrize("blocking", [False, True])
def test_an_opening_string_is_the_docstring_unless_it_is_all(blocking: bool) -> None:
    namespace = namespace_for_cells()
    assert run(compile_cell("'value'", blocking=blocking), namespace) == "value"
    assert "__doc__" not in namespace
    run(compile_cell("'doc'\nasync def f(): pass\nawait f()", blocking=blocking), namespace)
    assert namespace["__doc__"] == "doc"


# Bad input


def error_of(source: Any) -> SyntaxError:
    with pytest.raises(SyntaxError) as caught:
        compile_cell(source)
    return caught.value


@pytest.mark.parametrize(
    ("source", "line", "column", "text"),
    [
        ("x = 1\ny = = 2", 2, 5, "y = = 2"),
        ("x = 1\nreturn x", 2, 1, "return x\n"),
        ("x = 1\ndef f():\n    await x", 3, 5, "    await x\n"),
        ("def f(x): global x", 1, 11, "def f(x): global x\n"),
        ("x = 1\ny = 'a\0b'", 2, 7, "y = 'a\0b'"),
        ("é = 'ü\ud800'", 1, 7, "é = 'ü\\ud800'"),
        ("x = 1\n  y = 2", 2, 3, "  y = 2\n"),
        ("  x = 1\n  y = 2", 1, 3, "  x = 1\n"),
    ],
)
def test_a_syntax_error_says_where(source: str, line: int, column: int, text: str) -> None:
    error = error_of(source)
    assert (error.filename, error.lineno) == ("<cells_test cell 1>", line)
    assert error.offset in (column, column - 1)  # of indentation, versions differ
    assert (error.text or "").rstrip("\n") == text.rstrip("\n")
    traceback.format_exception(error)


def test_bad_text_is_named() -> None:
    assert "null byte" in str(error_of("x = 1\0"))
    assert "lone surrogate, '\\ud800'" in str(error_of("x = '\ud800'"))
    assert isinstance(error_of("x\n  y"), IndentationError)


@pytest.mark.parametrize(
    "source", ["-" * 200_000 + "1", "x" + ".x" * 200_000, "+".join(["x"] * 200_000)]
)
def test_code_that_is_nested_too_deeply_is_a_syntax_error(source: str) -> None:
    error = error_of(source)
    assert "nested too deeply" in str(error)
    assert error.filename == "<cells_test cell 1>"


@pytest.mark.parametrize("depth", [900, 1500, 2500])
def test_deep_code_that_python_compiles_is_compiled(depth: int) -> None:
    deep = "+".join(["x"] * depth)
    for source, value in [
        (deep, depth),
        (f"y = {deep}", None),
        (f"y = 2; z = 3\n# é\n{deep}  # end", depth),
        (f"y = {deep}\n\n(x +\n 'é'.count('é')) ;", 2),
    ]:
        assert run(compile_cell(source), {"x": 1}) == value
    with pytest.raises(NameError) as caught:
        run(compile_cell(f"y = 2\n{deep}"), {})
    assert traceback.extract_tb(caught.value.__traceback__)[-1].lineno == 2


@pytest.mark.parametrize("source", [b"x = 1", None, ["x"]])
def test_a_source_that_is_no_text_is_a_type_error(source: Any) -> None:
    with pytest.raises(TypeError, match="must be a str"):
        compile_cell(source)


def test_a_failed_compile_leaves_nothing(compiler: CellCompiler) -> None:
    with pytest.raises(SyntaxError):
        compiler.compile("from __future__ import annotations\nreturn", number=1, blocking=True)
    assert compiler.flags == 0


def test_ten_megabytes_of_source_are_compiled_and_not_kept(compiler: CellCompiler) -> None:
    class Text(str):
        """A string that can be watched."""

    source = Text("x = '" + "a" * 10_000_000 + "'\nlen(x)")
    watch = weakref.ref(source)
    cell = compiler.compile(source, number=1, blocking=False)
    assert run(cell, namespace_for_cells()) == 10_000_000
    del source, cell
    gc.collect()
    assert watch() is None


def test_a_text_too_long_to_be_kept_drives_no_other_out() -> None:
    compiler = CellCompiler(SourceBook("cells_test"), cache_bytes=100)
    kept = compiler.compile("x = 1", number=1, blocking=False)
    compiler.compile("y = '" + "a" * 200 + "'", number=2, blocking=False)
    assert compiler.compile("x = 1", number=3, blocking=False) is kept


def test_the_cache_is_bounded_by_count_and_by_size() -> None:
    compiler = CellCompiler(SourceBook("cells_test"), cache_cells=3, cache_bytes=60)
    first = compiler.compile("x = 1", number=1, blocking=False)
    for number in range(3):
        compiler.compile(f"y = {number}", number=number + 2, blocking=False)
    assert compiler.compile("x = 1", number=9, blocking=False) is not first
    long = compiler.compile("'" + "z" * 50 + "'", number=10, blocking=False)
    assert compiler.compile("'" + "z" * 50 + "'", number=11, blocking=False) is long
    compiler.clear()
    assert compiler.compile("'" + "z" * 50 + "'", number=12, blocking=False) is not long


# Warnings


@pytest.mark.parametrize(
    "source", ["x = 1\nx is 1\nasync def f(): pass\nawait f()", "await f('\\d')\nassert (x, 'y')"]
)
def test_a_compiler_warning_is_given_once_and_names_the_cell(
    compiler: CellCompiler, source: str
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiler.compile(source, number=1, blocking=True)
        compiler.compile(source, number=2, blocking=False)
    lines = [warning.lineno for warning in caught]
    assert lines and len(lines) == len(set(lines))
    assert {warning.filename for warning in caught} == {"<cells_test cell 1>"}


def test_a_warning_that_is_an_error_is_a_syntax_error_of_the_cell() -> None:
    error = error_of("x = 1\nx is 1")
    assert (error.filename, error.lineno) == ("<cells_test cell 1>", 2)


# Robustness


def test_two_threads_may_compile_at_once() -> None:
    compiler = CellCompiler(SourceBook("cells_test"), cache_cells=8)
    failures: list[BaseException] = []

    def work(salt: int) -> None:
        try:
            for number in range(2_000):
                text = f"x = {(number * salt) % 23}"
                assert compiler.compile(text, number=number, blocking=False).source == text
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(salt,)) for salt in (3, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures


def test_another_parse_may_come_between() -> None:
    class Parses:
        """Garbage that parses while it is collected, as another thread may when one is switched."""

        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            compile("a + (b + (c + (d + e)))", "x", "exec", ast.PyCF_ONLY_AST)

    text = "await f()\n" + "x = [a, [b, [c, f(1, [2, 3])]]]\n" * 300
    threshold = gc.get_threshold()
    gc.collect()
    try:
        for number in range(20):
            gc.set_threshold(0)
            for _ in range(5):
                Parses()
            gc.set_threshold(700)  # in the middle of what is made for this many lines
            assert compile_cell(text, blocking=True, number=number).blocking
    finally:
        gc.set_threshold(*threshold)


@given(st.text())
def test_any_text_compiles_or_is_a_syntax_error(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cell = compile_cell(text)
        except SyntaxError as error:
            assert error.filename == "<cells_test cell 1>"
            traceback.format_exception(error)
        else:
            assert cell.source == text


# From text and from a tree


def parts_of_the_tree(source: str) -> list[CodeType | None]:
    """Compile as the module's docstring says: through the tree, cut before a last expression."""
    flag = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    text = source.removeprefix("\ufeff")
    tree = compile(text, "<cells_test cell 1>", "exec", ast.PyCF_ONLY_AST | flag, True)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    parts: list[CodeType | None] = [None, None]
    if tree.body:
        parts[0] = compile(tree, "<cells_test cell 1>", "exec", flag, True)
    if last is not None:
        expression = ast.Expression(last.value)
        flag |= parts[0].co_flags & FUTURE_FLAGS if parts[0] else 0
        parts[1] = compile(expression, "<cells_test cell 1>", "eval", flag, True)
    return parts


def contents(code: object) -> object:
    """Give all of *code*, to the columns of its instructions."""
    if not isinstance(code, CodeType):
        return repr(code)
    constants = [contents(constant) for constant in code.co_consts]
    return (code.co_code, code.co_names, constants, list(code.co_positions()), code.co_firstlineno)


def outcome(compile_parts: Callable[[], list[CodeType | None]]) -> object:
    try:
        return [contents(part) for part in compile_parts()]
    except (SyntaxError, ValueError) as error:
        return isinstance(error, SyntaxError) and (error.msg, error.lineno)


def parts_of_the_cell(source: str) -> list[CodeType | None]:
    cell = compile_cell(source)
    return [cell.body, cell.last]


PIECES = (
    *("lambda x=1: x", "lambda: 1", "not ", "lambda ", "d[k] = 1", "]=", ")=", "f'{x[0]=}'", ":="),
    *(
        "x",
        "y",
        "1",
        "'a'",
        "'",
        "'''",
        '"',
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "f(x)",
        "f(",
        "g(a, (b))",
    ),
    *(
        " ",
        "  ",
        "\t",
        "\f",
        "\r",
        "\\",
        "\\\n",
        "#",
        "# c",
        ";",
        ",",
        ".",
        ":",
        "=",
        "==",
        " = 1",
        "+=",
    ),
    *("x = 1", "x: int = 1", "if x:", "else:", "try: x", "except E: y", "finally: z", "def f(): y"),
    *(
        "return x",
        "await x",
        "async for i in x: y",
        "lambda: x",
        "(x := 1)",
        "import a",
        "@d",
        "del x",
    ),
    *(
        "match x:",
        "case 1: y",
        "from __future__ import annotations",
        "not x",
        "*x",
    ),
    *(
        "é",
        "\u2028",
        "\x85",
        "\x0b",
        "\x0c",
        "x if y",
        "else z",
        "for i in j",
        "\ufeff",
        "pass",
        "yield",
    ),
)
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.just("\n"), st.just("\n  "))).map("".join)


@settings(max_examples=500, deadline=None)  # a deadline is a wall-clock assert
@given(TEXTS)
def test_the_code_of_a_cell_is_that_of_its_tree(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert outcome(lambda: parts_of_the_cell(text)) == outcome(lambda: parts_of_the_tree(text))


@pytest.mark.parametrize(
    "source",
    [
        "x = f(1)[0]\n",
        "\nf(x)",
        "\n\n# c\nf(x)\n\n",
        "x = 1\nf(x)  # c\n",
        "x = 1\nx == 2",
        "f(\nx = 1)",
        "f(\nx,\n  y)",
        "y = '''\nx = 1'''\nz",
        "'''\n  x'''",
        "y == \\\nx",
        "y + \\\n  x",
        "y\n  # c",
        "y = 1\n\fx",
        "if x:\n  y\n  \fz",
        "if x:\n  y\rf(z)",
        "if x:\n  y\nelse: z",
        "if x:\n  y; z",
        "x = 1; y",
        "'doc'\nx",
        "from __future__ import annotations\nlambda a: a",
        "x = 1\na, *b",
        "match x:\n  case 1: pass\ncase",
        "x = 1\nx\u2028",
        "f(\nx",
        "if x:\ny",
        "@d\nx",
        "\\\n\nx",
        "# c\n\nx",
        "# c\ny = 1\nx",
        "lambda x=1: x",
        "not lambda x=1: x",
        "a, lambda x=1: x",
        "lambda: 1",
        "f = lambda x=1: x",
        "d['k'] = 1",
        "d[k] = f(1)",
        "d[k] == 1",
        "f(x)[0] += 1",
        "print(f'{x[0]=}')",
        "f'{x[0]=} {y}'",
        "f(lambda a=(1), b=2: a)",
        "x: int = 1",
        "x[0]: int",
        "x <= 1",
        "x **= 2",
    ],
)
def test_how_a_cell_ends_is_seen_as_its_tree_has_it(source: str) -> None:
    assert outcome(lambda: parts_of_the_cell(source)) == outcome(lambda: parts_of_the_tree(source))
