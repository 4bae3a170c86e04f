"""Source text of cells is found by tracebacks and by inspect, and goes when it is not needed."""

from __future__ import annotations

import gc
import inspect
import linecache
import sys
import traceback
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.cells import CellCompiler
from isthmus.sources import SourceBook, split_lines


class Running:
    """A session reduced to a module, a book and a compiler."""

    def __init__(self, name: str, module_file: str | None = None, **cache: int) -> None:
        self.book = SourceBook(name, module_file)
        self.compiler = CellCompiler(self.book, **cache)
        self.module = ModuleType(name)
        self.module.__file__ = self.book.module_file
        sys.modules[name] = self.module
        self.number = 0

    def __getitem__(self, name: str) -> Any:
        return self.module.__dict__[name]

    def run(self, source: str, filename: str | None = None) -> Any:
        self.number += 1
        cell = self.compiler.compile(source, number=self.number, blocking=False, filename=filename)
        if cell.body:
            exec(cell.body, self.module.__dict__)
        return eval(cell.last, self.module.__dict__) if cell.last else None

    def close(self) -> None:
        self.compiler.clear()
        self.book.close()
        del sys.modules[self.module.__name__]


@pytest.fixture
def session() -> Iterator[Running]:
    running = Running("sources_test")
    yield running
    running.close()


def entries(name: str = "sources_test") -> list[str]:
    gc.collect()
    return [key for key in linecache.cache if isinstance(key, str) and name in key]


def test_a_traceback_shows_the_line_of_the_cell(session: Running) -> None:
    session.run("def f():\n    return 1 / 0  # here")
    with pytest.raises(ZeroDivisionError) as caught:
        session.run("x = 1\nf()")
    text = "".join(traceback.format_exception(caught.value))
    assert 'File "<sources_test cell 2>", line 2, in <module>\n    f()' in text
    assert 'File "<sources_test cell 1>", line 2, in f\n    return 1 / 0  # here' in text


def test_functions_of_each_kind_have_their_source(session: Running) -> None:
    sources = {
        "f": "def f():\n    return 1\n",
        "g": "async def g():\n    return 1\n",
        "d": "@functools.wraps(f)\ndef d():\n    return 2\n",
        "k": "k = lambda: 3\n",
    }
    session.run("import functools")
    for source in sources.values():
        session.run("\n# a comment\n" + source)
    assert inspect.getsource(session["f"]) == sources["f"]
    assert inspect.getsource(session["g"]) == sources["g"]
    assert inspect.getsource(session["k"]) == sources["k"]
    assert inspect.unwrap(session["d"]) is session["f"]
    del session["d"].__wrapped__
    assert inspect.getsource(session["d"]) == sources["d"]


def test_two_classes_in_two_cells_have_their_source(session: Running) -> None:
    session.run("x = 1\nclass A:\n    a = 1\n")
    session.run("class B:\n    '''Doc.'''\n    def method(self):\n        return 1\n")
    assert inspect.getsource(session["A"]) == "class A:\n    a = 1\n"
    assert inspect.getsource(session["B"]).startswith("class B:\n    '''Doc.'''\n    def")
    assert inspect.getsource(session["B"].method) == "    def method(self):\n        return 1\n"
    assert session["B"].__doc__ == "Doc."


def test_a_class_that_is_redefined_has_its_newest_source(session: Running) -> None:
    session.run("class A:\n    a = 1\n")
    session.run("y = 2\n\n\nclass A:\n    a = 2\n")
    assert inspect.getsource(session["A"]) == "class A:\n    a = 2\n"


@pytest.mark.skipif(sys.version_info < (3, 13), reason="older inspect searches for the name")
def test_a_replaced_class_keeps_its_own_source(session: Running) -> None:
    session.run("class A:\n    a = 1\n")
    old = session["A"]
    session.run("class A:\n    a = 2\n")
    assert inspect.getsource(old) == "class A:\n    a = 1\n"


def test_nested_and_decorated_classes_have_their_source(session: Running) -> None:
    session.run("class Outer:\n    class Inner:\n        x = 1\n    y = 2\n")
    session.run("def make():\n    class Made:\n        z = 1\n    return Made\n")
    session.run("import dataclasses\n@dataclasses.dataclass\nclass Data:\n    x: int\n")
    session.run("import enum\nif True:\n    class Color(enum.Enum):\n        RED = 1\n")
    assert inspect.getsource(session["Outer"].Inner) == "    class Inner:\n        x = 1\n"
    assert inspect.getsource(session["make"]()) == "    class Made:\n        z = 1\n"
    decorated = "@dataclasses.dataclass\nclass Data:\n    x: int\n"
    assert inspect.getsource(session["Data"]) == decorated
    assert inspect.getsource(session["Color"]) == "    class Color(enum.Enum):\n        RED = 1\n"
    assert [member.name for member in session["Color"]] == ["RED"]


def test_the_line_of_a_class_does_not_change_its_traceback(session: Running) -> None:
    session.run("class A:\n    a = 1\n")
    with pytest.raises(ZeroDivisionError) as caught:
        session.run("\nclass B:\n    b = 1 / 0\n")
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (frame.filename, frame.lineno, frame.line) == (
        "<sources_test cell 2>",
        3,
        "b = 1 / 0",
    )


def test_cells_of_a_script_share_its_file() -> None:
    running = Running("sources_script", "/no/such/script.py")
    first, second = "class A:\n    a = 1\n", "class B:\n    b = 1\ndef f(): return 1 / 0\n"
    running.run(first, "/no/such/script.py")
    running.run("\n\n" + second, "/no/such/script.py")
    assert inspect.getsource(running["A"]) == first
    assert inspect.getsource(running["B"]) == "class B:\n    b = 1\n"
    assert inspect.getsource(running["f"]) == "def f(): return 1 / 0\n"
    running.run("class C:\n    c = 1\n")  # a cell that is not of the script
    assert inspect.getsource(running["C"]) == "class C:\n    c = 1\n"
    assert inspect.getsource(running["A"]) == first
    running.close()
    assert not entries("sources_script")
    assert "/no/such/script.py" not in linecache.cache


def test_a_given_file_name_is_used_for_tracebacks(session: Running) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        session.run("1 / 0", "notebook.ipynb cell 3")
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (frame.filename, frame.line) == ("notebook.ipynb cell 3", "1 / 0")
    session.close()
    assert "notebook.ipynb cell 3" not in linecache.cache
    sys.modules["sources_test"] = session.module


def test_closing_drops_every_entry_and_only_ours(session: Running) -> None:
    linecache.getlines(__file__)
    session.run("class A: pass")
    session.run("def f(): pass")
    assert entries()
    session.book.close()
    session.book.close()
    assert not entries()
    assert __file__ in linecache.cache


def test_many_cells_leave_linecache_bounded_and_a_function_its_source(session: Running) -> None:
    session.run("def first():\n    return [i for i in range(3)]\n")
    session.run("class Kept:\n    def method(self): pass\n")
    for number in range(20_000):
        session.run(f"x = {number}")
    assert len(entries()) < 300
    assert inspect.getsource(session["first"]).startswith("def first():")
    assert inspect.getsource(session["Kept"]).startswith("class Kept:")
    del session.module.__dict__["first"], session.module.__dict__["Kept"]
    gc.collect()
    for number in range(300):
        session.run(f"y = {number}")
    assert "<sources_test cell 1>" not in linecache.cache


def test_only_a_nested_function_keeps_its_cell(session: Running) -> None:
    session.compiler = CellCompiler(session.book, cache_cells=1)
    session.run("def outer():\n    def inner(): return 'inner'\n    return inner")
    session.module.__dict__["inner"] = session["outer"]()
    session.run("del outer")
    session.run("x = 1")
    gc.collect()
    session.run("x = 2")
    assert inspect.getsource(session["inner"]) == "    def inner(): return 'inner'\n"


def test_a_repeated_source_that_is_too_long_for_the_cache_is_let_go(session: Running) -> None:
    session.compiler = CellCompiler(session.book, cache_bytes=100)
    for number in range(5):
        session.run(f"x = {number} # " + "long " * 100)
    session.run("y = 1")
    assert len(entries()) <= 2


def test_text_of_dead_classes_is_bounded(session: Running) -> None:
    session.compiler = CellCompiler(session.book, cache_cells=2)
    filler = "    # filler\n" * 1000
    for number in range(200):
        session.run(f"class A{number}:\n    x = 1\n{filler}")
        del session.module.__dict__[f"A{number}"]
    newest = session.run("class B:\n    x = 1\nB")
    assert inspect.getsource(newest) == "class B:\n    x = 1\n"
    assert session.book._classes.size < 1_100_000


@given(st.text(alphabet="ab \n\r\f\x1c\x85\u2028"))
def test_lines_are_split_where_python_splits_them(text: str) -> None:
    lines = split_lines(text)
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in lines)
    joined = "".join(lines)
    wanted = text.replace("\r\n", "\n").replace("\r", "\n")
    assert joined == (wanted if not wanted or wanted.endswith("\n") else wanted + "\n")
