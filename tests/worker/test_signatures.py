"""Signatures that are made of their text."""

from __future__ import annotations

import inspect

import pytest

from isthmus.worker.signatures import signature_of


@pytest.mark.parametrize(
    "text",
    [
        "()",
        "(url: 'str', *rest: 'int', times: 'int' = 1, **more: 'dict[str, int]') -> 'list[str]'",
        "(a, /, b=(1, 2), *, c: int, d: float = -1.5) -> None",
        "(path: pathlib.Path = PosixPath('/tmp'), *args) -> list[bytes]",
        "(colour=Colour.RED, text='a\\nb')",
    ],
)
def test_a_signature_looks_like_its_text(text: str) -> None:
    assert str(signature_of(text)) == text


def test_constants_and_builtin_classes_are_there_themselves() -> None:
    made = signature_of("(a: int = 3, b: 'text' = None) -> bytes")
    assert made is not None
    found = [(it.annotation, it.default) for it in made.parameters.values()]
    assert found == [(int, 3), ("text", None)]
    assert made.return_annotation is bytes


def test_every_parameter_has_its_kind() -> None:
    def function(a, /, b, *c, d, **e):  # type: ignore[no-untyped-def]
        """Has one of each."""

    expected = inspect.signature(function)
    made = signature_of(str(expected))
    assert made == expected


@pytest.mark.parametrize("text", ["(a=<object object at 0x7f>)", "(...)", "", "(a): x\nimport os"])
def test_what_is_no_signature_gives_none(text: str) -> None:
    assert signature_of(text) is None
