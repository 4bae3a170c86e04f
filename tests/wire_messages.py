"""Messages for tests, made from the types of their fields: one of each kind, or any.

``python tests/wire_messages.py`` prints frames for ``tests/data/frames_of_version_1.toml``, when
there is a new message; what is there already must not change.

Refuses to know: what a message means.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as types

from isthmus.wire.catalogue import SENT_BY, SIDES, Side

KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for side in SIDES for kind in sorted(SENT_BY[side], key=str)
}
"""Every message, by its name."""


def required(kind: type[Any], **given: Any) -> Any:
    """A message of *kind* with nothing but its required fields, and what is *given*."""
    return kind(**_required_fields(kind) | given)


@functools.cache
def _required_fields(kind: type[Any]) -> dict[str, Any]:
    fields = [it for it in msgspec.structs.fields(kind) if it.required]
    return {it.name: _sample(types.type_info(it.type)) for it in fields}


def full(kind: type[Any]) -> Any:
    """A message of *kind* in which every field has a value that is not its default."""
    return _sample(types.type_info(kind))


def _sample(kind: types.Type) -> Any:  # noqa: PLR0911 (a case for each type)
    match kind:
        case types.StructType():
            return kind.cls(**{field.name: _sample(field.type) for field in kind.fields})
        case types.UnionType():
            return _sample(next(it for it in kind.types if not isinstance(it, types.NoneType)))
        case types.VarTupleType():
            return (_sample(kind.item_type),)
        case types.DictType():
            return {"key": _sample(kind.value_type)}
        case types.LiteralType():
            return kind.values[-1]
        case types.AnyType():
            return [None, b"\x00\xff", {"key": 1.5}]
        case types.IntType():
            return 7
        case types.FloatType():
            return 2.5
        case types.BoolType():
            return True
        case types.BytesType():
            return b"\x00\xff"
        case types.StrType():
            return "text"
    raise AssertionError(kind)


# -- any message -----------------------------------------------------------------------------------

TEXTS = st.text(st.characters(), max_size=20) | st.text("\\\ud800\udcffu0", max_size=10)
"""Any text, lone surrogates and backslashes among it."""

INT64 = st.integers(-(1 << 63), (1 << 64) - 1)
FLOATS = st.floats(allow_nan=False)

_ANYTHING = st.recursive(
    st.none() | st.booleans() | INT64 | FLOATS | TEXTS | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


@functools.cache
def messages_of(side: Side) -> st.SearchStrategy[Any]:
    """Any message that *side* may ever send."""
    kinds = sorted(SENT_BY[side], key=lambda it: it.__name__)
    return st.one_of([_any(types.type_info(kind)) for kind in kinds])


def _any(kind: types.Type) -> st.SearchStrategy[Any]:  # noqa: PLR0911 (a case for each type)
    match kind:
        case types.StructType():
            return st.builds(kind.cls, **{it.name: _any_field(it) for it in kind.fields})
        case types.UnionType():
            return st.one_of([_any(it) for it in kind.types])
        case types.VarTupleType():
            return st.lists(_any(kind.item_type), max_size=3).map(tuple)
        case types.DictType():
            return st.dictionaries(TEXTS, _any(kind.value_type), max_size=3)
        case types.LiteralType():
            return st.sampled_from(kind.values)
        case types.IntType():
            least = kind.ge if kind.ge is not None else (kind.gt or 0) + 1
            return st.integers(least, (1 << 63) - 1)
    simple: dict[type[types.Type], st.SearchStrategy[Any]] = {
        types.AnyType: _ANYTHING,
        types.NoneType: st.none(),
        types.FloatType: FLOATS,
        types.BoolType: st.booleans(),
        types.BytesType: st.binary(max_size=50),
        types.StrType: TEXTS,
    }
    return simple[type(kind)]


def _any_field(field: types.Field) -> st.SearchStrategy[Any]:
    """Most of the time the default, where there is one: messages are large otherwise."""
    if field.required:
        return _any(field.type)
    if field.default_factory is not msgspec.NODEFAULT:
        default: Callable[[], Any] = field.default_factory
        return st.builds(default) | _any(field.type)
    return st.just(field.default) | _any(field.type)


if __name__ == "__main__":
    from isthmus.wire.codec import Encoder

    for made in (required, full):
        print(f"\n[{made.__name__}]")
        for name in sorted(KINDS):
            print(f'{name} = "{Encoder().encode(made(KINDS[name])).hex()}"')
