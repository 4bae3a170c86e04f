"""The list of tests that run over one home only is true."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import homes
from homes import ALSO, HERE, HERE_ONLY, HERE_ONLY_FILES, WORKER, Reason, needed
from support import CONTEXTS

_TESTS = Path(__file__).parent

LISTED = [
    (file, test, reason)
    for reason, files in HERE_ONLY.items()
    for file, tests in files.items()
    for test in tests
]


LISTED_FILES = {file: reason for reason, files in HERE_ONLY_FILES.items() for file in files}

_ASKS = re.compile(r"^(?:async )?def test_\w+\([^)]*\b(?:session|make_session)\b", re.MULTILINE)
_HAS_ITS_OWN = re.compile(r"^def session\(", re.MULTILINE)


def files_with_sessions() -> Iterator[str]:
    """Those outside of the contract whose tests ask for the fixtures."""
    for path in _TESTS.glob("test_*.py"):
        text = path.read_text()
        if _ASKS.search(text) and not _HAS_ITS_OWN.search(text):
            yield path.name


@cache
def definitions(file: str) -> dict[str, str]:
    """The source of each function and class of *file*, by name."""
    path = next(it for it in (_TESTS / "contract" / file, _TESTS / file) if it.exists())
    lines = path.read_text().splitlines()
    return {
        node.name: "\n".join(lines[node.lineno - 1 : node.end_lineno])
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }


def code_of(test: str, there: dict[str, str]) -> Iterator[str]:
    """The source of *test*, and of what it uses of its file."""
    waiting, seen = [test], {test}
    while waiting:
        source = there[waiting.pop()]
        yield source
        found = set(re.findall(r"\w+", source)) & set(there) - seen
        seen |= found
        waiting += found


@pytest.mark.requirement("7.1-same-interface")
@pytest.mark.parametrize(("file", "test", "reason"), LISTED, ids=[test for _, test, _ in LISTED])
def test_a_test_that_is_listed_is_there_and_its_code_shows_why(
    file: str, test: str, reason: Reason
) -> None:
    there = definitions(file)
    assert test in there, "there is no such test any more"
    code = "\n".join(code_of(test, there))
    assert re.search(r"\b(make_session|session)\b", there[test]), (
        "it has no session of the fixtures"
    )
    assert re.search(reason.shown_by, code), f"nothing in it shows that {reason.text}"


@pytest.mark.requirement("7.1-same-interface")
def test_every_file_with_sessions_has_both_homes_or_is_listed() -> None:
    assert sorted([*ALSO, *LISTED_FILES]) == sorted(files_with_sessions())


@pytest.mark.requirement("7.1-same-interface")
@pytest.mark.parametrize("file", LISTED_FILES)
def test_a_file_that_is_listed_shows_why(file: str) -> None:
    reason = LISTED_FILES[file]
    assert re.search(reason.shown_by, (_TESTS / file).read_text()), reason.text


@pytest.mark.requirement("7.1-same-interface")
@pytest.mark.parametrize(
    ("test", "turns"),
    [
        ("tests/contract/test_a.py::test_a", [("a", 0), ("b", 1), ("c", 2), ("d", 0)]),
        ("tests/test_a.py::test_b", [("a", 1), ("b", 2), ("c", 0), ("d", 1)]),
    ],
)
def test_over_workers_each_case_has_its_turn_in_one_context(
    monkeypatch: pytest.MonkeyPatch, test: str, turns: list[tuple[str, int]]
) -> None:
    monkeypatch.setattr(homes, "_EVERY_CASE", False)
    parameters = [
        {"home": home, "context": context, "kind": kind}
        for home in (HERE, WORKER)
        for context in CONTEXTS
        for kind in "abcd"
    ]
    before = SimpleNamespace(
        nodeid="tests/test_a.py::test_a", callspec=SimpleNamespace(params={"home": WORKER})
    )
    items: list[Any] = [
        SimpleNamespace(nodeid=f"{test}[{it}]", callspec=SimpleNamespace(params=it))
        for it in parameters
    ]
    chosen = [item.callspec.params for item in needed([before, *items])][1:]
    assert [it for it in chosen if it["home"] == HERE] == parameters[: len(parameters) // 2]
    found = [(it["kind"], CONTEXTS.index(it["context"])) for it in chosen if it["home"] == WORKER]
    assert sorted(found) == turns
