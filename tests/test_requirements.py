"""The table of requirements and the suite know each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from requirements import REQUIREMENTS

TESTS = Path(__file__).parent


def _used_ids() -> Iterator[str]:
    """The ids in ``requirement`` markers of functions that are tests."""
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(
                "test"
            ):
                for decorator in node.decorator_list:
                    yield from _ids_of(decorator)


def _ids_of(decorator: ast.expr) -> Iterator[str]:
    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith("requirement"):
        for argument in decorator.args:
            yield str(ast.literal_eval(argument))


def test_each_requirement_has_a_test() -> None:
    assert sorted(set(REQUIREMENTS) - set(_used_ids())) == []


def test_each_id_that_a_test_carries_exists() -> None:
    assert sorted(set(_used_ids()) - set(REQUIREMENTS)) == []
