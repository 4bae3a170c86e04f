"""Signatures of functions of the host, as ``inspect`` shows them in the worker. Owns how one is
made of its text.

Defaults and annotations are the host's objects, and are not here. Constants, builtin classes and
annotations that are text come as they are; in place of any other stands an object that looks so.

Refuses to know: functions.
"""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Iterator
from typing import Any


class Shown:
    """Stands for an object of the host, and looks like it.

    Arguments:
        text: How that looks.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        """That of the object."""
        return self._text


def signature_of(text: str) -> inspect.Signature | None:
    """The signature that looks like *text*; None where that is no Python."""
    source = f"def function{text}: ..."
    try:
        function = ast.parse(source).body[0]
    except (SyntaxError, ValueError):  # a default like <object object at 0x7f...>
        return None
    if not isinstance(function, ast.FunctionDef):
        return None
    returns = _found(source, function.returns, inspect.Signature.empty)
    return inspect.Signature(list(_parameters(source, function.args)), return_annotation=returns)


def _parameters(source: str, arguments: ast.arguments) -> Iterator[inspect.Parameter]:
    kinds = inspect.Parameter
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + arguments.defaults
    for number, (one, default) in enumerate(zip(plain, defaults, strict=True)):
        only = number < len(arguments.posonlyargs)
        kind = kinds.POSITIONAL_ONLY if only else kinds.POSITIONAL_OR_KEYWORD
        yield _parameter(source, one, kind, default)
    if arguments.vararg is not None:
        yield _parameter(source, arguments.vararg, kinds.VAR_POSITIONAL)
    for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _parameter(source, one, kinds.KEYWORD_ONLY, default)
    if arguments.kwarg is not None:
        yield _parameter(source, arguments.kwarg, kinds.VAR_KEYWORD)


def _parameter(
    source: str, one: ast.arg, kind: Any, default: ast.expr | None = None
) -> inspect.Parameter:
    empty = inspect.Parameter.empty
    annotation = _found(source, one.annotation, empty)
    return inspect.Parameter(
        one.arg, kind, default=_found(source, default, empty), annotation=annotation
    )


def _found(source: str, node: ast.expr | None, missing: Any) -> Any:
    """What stands at *node*, or looks like it."""
    if node is None:
        return missing
    if isinstance(node, ast.Name) and isinstance(vars(builtins).get(node.id), type):
        return vars(builtins)[node.id]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return Shown(ast.get_source_segment(source, node) or "...")
