"""The scan of bytecode tells which names a cell can bind or delete."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.bindings import Bindings, scan

BOUND = {
    "x = 1": "x",
    "x, (y, *z) = 1, (2, 3)": "x y z",
    "x += 1": "x",
    "x: int = 3": "__annotations__ x",
    "x: int": "__annotations__",
    "(x := 1)": "x",
    "x.y = 1; x[0] = 2": "",
    "for i in (): pass": "i",
    "with a as b: pass": "b",
    "import a.b, c.d as e": "a e",
    "from a import b as c, d": "c d",
    "def f(a=1): b = 2": "f",
    "async def f(): b = 2": "f",
    "class A:\n    x = 1\n    def f(self): y = 1": "A",
    "class A:\n    global y\n    y = 1": "A y",
    "class A:\n    global __y\n    __y = 1": "A _A__y",
    "[a for a in ()]": "",
    "[(b := a) for a in ()]": "b",
    "[[(c := b) for b in a] for a in ()]": "c",
    "{a: b for a, b in ()}; {a for a in ()}; (a for a in ())": "",
    "lambda a: (b := a)": "",
    "try: pass\nexcept E as e: pass": "e",
    "try: pass\nexcept* E as e: pass": "e",
    "match x:\n    case [a, *b]: pass\n    case {'k': c, **d}: pass": "a b c d",
    "match x:\n    case int() as e: pass": "e",
    "global x; x = 1": "x",
    "def f():\n    global x\n    x = 1": "f x",
    "def f():\n    def g():\n        global x, y\n        x = 1\n        del y": "f x",
    "'docstring'\nx = 1": "__doc__ x",
    "async for i in x: j = i": "i j",
    "async with x as i: pass": "i",
    "y = [i async for i in x]": "y",
    "await x": "",
}


def scanned(source: str) -> Bindings:
    return scan(compile(source, "<cell>", "exec", 0x2000, dont_inherit=True))


@pytest.mark.parametrize(("source", "names"), BOUND.items())
def test_names_that_a_statement_binds_are_found(source: str, names: str) -> None:
    assert scanned(source).bound == tuple(names.split())
    assert scanned(source).exact


@pytest.mark.skipif(sys.version_info < (3, 12), reason="syntax of 3.12")
def test_type_aliases_and_type_parameters_are_read_as_what_they_bind() -> None:
    assert scanned("type X[T] = list[T]").bound == ("X",)
    assert scanned("def f[T](a: T) -> T: b = a").bound == ("f",)
    assert scanned("class A[T]:\n    x = 1").bound == ("A",)


def test_deleted_names_are_found_at_any_depth() -> None:
    assert scanned("del x, y").deleted == ("x", "y")
    assert scanned("def f():\n    global x\n    del x").deleted == ("x",)
    assert scanned("try: pass\nexcept E as e: pass").deleted == ("e",)
    assert scanned("del x.y, x[0]").deleted == ()


@pytest.mark.parametrize(
    "source",
    [
        "from os import *",
        "exec('x = 1')",
        "globals()['x'] = 1",
        "vars()['x'] = 1",
        "def f(): locals()",
        "setattr(m, 'x', 1)",
        "f.__globals__['x'] = 1",
        "import sys; sys.modules[__name__].x = 1",
        "import __main__; __main__.x = 1",
    ],
)
def test_code_that_can_bind_dynamically_is_not_exact(source: str) -> None:
    assert not scanned(source).exact


def test_a_function_that_binds_globals_is_told_from_code_that_runs_at_once() -> None:
    assert scanned("def f():\n    global x\n    x = 1").defines_global
    assert scanned("f = lambda: [exec(i) for i in ()]").defines_global
    assert scanned("g = ((x := i) for i in ())").defines_global
    assert not scanned("[(x := i) for i in ()]").defines_global
    assert not scanned("class A:\n    global x\n    x = 1").defines_global
    assert scanned("class A:\n    def f(self):\n        global x\n        x = 1").defines_global


def test_code_that_can_call_nothing_is_known() -> None:
    assert not scanned("x = 1; y = x; z = (x, [y]); del x").calls
    assert not scanned("def f(): return g()").calls
    for source in ("f()", "x + y", "x.y", "x[0]", "import a", "for i in x: pass", "-x", "await x"):
        assert scanned(source).calls, source


def test_several_code_objects_are_scanned_as_one_cell() -> None:
    body = compile("x = 1; del y", "<cell>", "exec")
    last = compile("(z := f())", "<cell>", "eval")
    assert scan(body, last) == Bindings(("x", "z"), ("y",), True, False, True)
    assert scan() == Bindings((), (), True, False, False)


@settings(deadline=None)  # a deadline is a wall-clock assert
@given(st.integers(0, 700), st.integers(1, 5))
def test_names_behind_extended_arguments_are_found(skipped: int, count: int) -> None:
    # Reading names fills the table of names, so that those bound have an index past one byte.
    reading = "[" + ",".join(f"r{i}" for i in range(skipped)) + "]\n"
    names = [f"b{i}" for i in range(count)]
    found = scanned(reading + "\n".join(f"{name} = 1" for name in names))
    assert found.bound == tuple(sorted(names))


def test_names_behind_two_extended_arguments_are_found() -> None:
    source = "\n".join(f"n{i} = 1" for i in range(66_000))
    assert scanned(source).bound == tuple(sorted(f"n{i}" for i in range(66_000)))


NAMES = st.sampled_from("abcde")
STATEMENTS = st.one_of(
    NAMES.map(lambda n: f"{n} = 1"),
    NAMES.map(lambda n: f"{n} = 1; del {n}"),
    NAMES.map(lambda n: f"[({n} := i) for i in range(2)]"),
    NAMES.map(lambda n: f"for {n} in range(2): pass"),
    NAMES.map(lambda n: f"def {n}(): {n} = 1"),
    NAMES.map(lambda n: f"class {n}: b = 1"),
    NAMES.map(lambda n: f"try: 1 / 0\nexcept Exception as {n}: pass"),
    NAMES.map(lambda n: f"import os as {n}"),
    NAMES.map(lambda n: f"match 3:\n    case {n}: pass"),
    NAMES.map(lambda n: f"def f():\n    global {n}\n    {n} = 1\nf()"),
)


@settings(deadline=None)  # a deadline is a wall-clock assert
@given(st.lists(STATEMENTS, max_size=6))
def test_whatever_running_binds_was_foretold(statements: list[str]) -> None:
    source = "\n".join(statements)
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    del namespace["__builtins__"]
    assert set(namespace) <= set(scanned(source).bound)
