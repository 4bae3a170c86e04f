"""docs/protocol.md and the code say the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import NODEFAULT
from msgspec import inspect as types

from isthmus.mime import MimeBundle
from isthmus.wire import frames, limits, plain
from isthmus.wire.catalogue import ANSWERS, INTERIM, SENT_BY, SIDES
from isthmus.wire.conversation import LEGAL, Phase
from isthmus.wire.handshake import FEATURES, VERSION
from isthmus.wire.parts import (
    CapabilityDescription,
    Failure,
    MainProgram,
    NameDescription,
    Owned,
    ProcessLimits,
    Value,
)
from wire_messages import KINDS

requirement = pytest.mark.requirement

PAGE = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text()
PARTS = (
    *(Value, Failure, limits.Limits, CapabilityDescription, NameDescription, Owned, MimeBundle),
    *(MainProgram, ProcessLimits),
)


def table(heading: str) -> list[str]:
    """The rows of the table below *heading*, without its two lines of head."""
    after = PAGE.split(f"{heading}\n", 1)[1].split("\n## ", 1)[0]
    return [line for line in after.splitlines() if line.startswith("| ")][2:]


def message_row(kind: type[Any]) -> str:
    """As ``| `Ping` | host | id: int | `Pong`, `Failed` |``."""
    senders = " and ".join(side for side in SIDES if kind in SENT_BY[side])
    answers = sorted(it.__name__ for it in ANSWERS.get(kind, ()))
    first = [f"`{it.__name__}` first" for it in INTERIM & ANSWERS.get(kind, frozenset())]
    last = [f"`{name}`" for name in answers if name not in {it.__name__ for it in INTERIM}]
    return f"| `{kind.__name__}` | {senders} | {fields_of(kind)} | {', '.join(first + last)} |"


def part_row(kind: type[Any]) -> str:
    return f"| `{kind.__name__}` | {fields_of(kind)} |"


def fields_of(kind: type[Any]) -> str:
    """The fields with their types, and with their defaults where they may be missing."""
    info = types.type_info(kind)
    assert isinstance(info, types.StructType)
    return ", ".join(f"`{it.encode_name}` {name_of(it.type)}{default_of(it)}" for it in info.fields)


def default_of(field: types.Field) -> str:
    if field.required:
        return ""
    value = field.default
    if value is NODEFAULT:
        value = field.default_factory()
    text = "nil" if value is None else msgspec.json.encode(value).decode()
    return f" = {text}"


def name_of(kind: types.Type) -> str:
    """A type as the page calls it."""
    simple = {
        types.IntType: "int",
        types.FloatType: "float",
        types.StrType: "str",
        types.BytesType: "bin",
        types.BoolType: "bool",
        types.NoneType: "nil",
        types.AnyType: "any",
    }
    match kind:
        case types.StructType():
            return f"`{kind.cls.__name__}`"
        case types.UnionType():
            return " or ".join(name_of(it) for it in kind.types)
        case types.VarTupleType():
            return f"array of {name_of(kind.item_type)}"
        case types.DictType():
            return f"map of {name_of(kind.value_type)}"
        case types.LiteralType():
            return "/".join(f'"{it}"' for it in kind.values)
    return simple[type(kind)]


def phase_row(phase: Phase) -> str:
    cells = [
        ", ".join(
            f"`{it.__name__}`" for it in sorted(LEGAL[phase][side], key=lambda it: it.__name__)
        )
        for side in SIDES
    ]
    return f"| {phase.name} | {cells[0] or 'nothing'} | {cells[1] or 'nothing'} |"


@requirement("7.3-page")
def test_the_table_of_messages_is_that_of_the_structs() -> None:
    assert table("## Messages") == [message_row(KINDS[name]) for name in sorted(KINDS)]


@requirement("7.3-page")
def test_the_table_of_parts_is_that_of_the_structs() -> None:
    assert table("## Parts of messages") == [part_row(kind) for kind in PARTS]


@requirement("7.3-page")
def test_the_table_of_phases_is_the_one_that_is_kept() -> None:
    assert table("## Who may send what when") == [phase_row(phase) for phase in Phase]


@requirement("7.3-page")
def test_the_numbers_on_the_page_are_those_of_the_code() -> None:
    extensions = {name: value for name, value in vars(plain).items() if name.isupper()}
    for name in (
        "TUPLE",
        "SET",
        "FROZENSET",
        "PAIRS",
        "INTEGER",
        "TEXT",
        "COMPLEX",
        "BYTEARRAY",
        "BUFFER",
    ):
        assert re.search(rf"^\| {extensions[name]} \| {name.lower()} \|", PAGE, re.MULTILINE), name
    for text in (
        f"version {VERSION}",
        f"`{frames.MAGIC:#04x}`",
        f"{limits.BODY_BYTES >> 20} MiB",
        f"{limits.BUFFER_BYTES >> 30} GiB",
        f"{limits.BUFFERS} buffers",
        f"{limits.SHARED_BUFFERS} shared",
        *(f"`{feature}`" for feature in FEATURES),
    ):
        assert text.lower() in PAGE.lower(), text
