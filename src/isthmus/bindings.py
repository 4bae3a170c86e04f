"""Which names a code object can bind or delete. Owns the scan of bytecode; runs nothing.

The namespace of a cell is its globals *and* its locals, so it is written by ``STORE_NAME`` at the
cell's top level and by ``STORE_GLOBAL`` at any depth. Names of comprehensions, functions and
classes are local to these and not reported. What a cell binds through ``exec``, ``globals()`` and
the like is not seen; :attr:`Bindings.exact` says so.
"""

from __future__ import annotations

import opcode
import re
from types import CodeType
from typing import NamedTuple

_OPMAP = opcode.opmap
_STORE_NAME = _OPMAP["STORE_NAME"]
_STORE = (_STORE_NAME, _OPMAP["STORE_GLOBAL"])
_DELETE = (_OPMAP["DELETE_NAME"], _OPMAP["DELETE_GLOBAL"])
_GLOBAL = (_OPMAP["STORE_GLOBAL"], _OPMAP["DELETE_GLOBAL"])
_ANNOTATIONS = _OPMAP["SETUP_ANNOTATIONS"]
_EXTENDED_ARG = _OPMAP["EXTENDED_ARG"]
# `from m import *` is an instruction of its own on 3.11, and an intrinsic since.
_INTRINSICS: list[str] = getattr(opcode, "_intrinsic_1_descs", [])
_STAR = _OPMAP.get("IMPORT_STAR", _OPMAP.get("CALL_INTRINSIC_1", -1))
_STAR_ARGUMENT = _INTRINSICS.index("INTRINSIC_IMPORT_STAR") if _INTRINSICS else None


def _any_of(*instructions: int) -> re.Pattern[bytes]:
    """Match one of *instructions*: searching the opcodes in C is what makes a scan cheap."""
    return re.compile(b"[" + b"".join(re.escape(bytes([op])) for op in instructions) + b"]", re.S)


_NOTED = _any_of(_OPMAP["STORE_GLOBAL"], *_DELETE, _STAR, _ANNOTATIONS)
_NESTED = _any_of(*_GLOBAL)
_DEFINES = bytes([_OPMAP["MAKE_FUNCTION"]])  # of a function, a class body or a comprehension

DYNAMIC_NAMES = frozenset(
    (
        *("exec", "eval", "globals", "locals", "vars", "setattr", "delattr", "modules"),
        *("f_globals", "f_locals", "__import__", "__main__", "__dict__", "__globals__"),
        *("__builtins__", "__setattr__", "__delattr__"),
    )
)
"""Names through which code can bind what its bytecode does not show."""

_QUIET_NAMES = (
    *("CACHE", "EXTENDED_ARG", "NOP", "NOT_TAKEN", "RESUME", "POP_TOP", "COPY", "SWAP"),
    *("PUSH_NULL", "LOAD_CONST", "LOAD_SMALL_INT", "LOAD_NAME", "LOAD_GLOBAL", "STORE_NAME"),
    *("STORE_GLOBAL", "DELETE_NAME", "DELETE_GLOBAL", "SETUP_ANNOTATIONS", "MAKE_FUNCTION"),
    *("SET_FUNCTION_ATTRIBUTE", "BUILD_TUPLE", "BUILD_LIST", "LIST_EXTEND", "RETURN_VALUE"),
    *("RETURN_CONST", "JUMP_FORWARD"),
)
_QUIET = bytes(_OPMAP[name] for name in _QUIET_NAMES if name in _OPMAP)
"""Instructions that run no code of anybody's (but for a ``__del__`` of what is replaced)."""
_PLAIN = _NOTED.sub(b"", _QUIET).replace(_DEFINES, b"")
"""Those of them that a scan need not look at."""

_INLINE = frozenset(("<listcomp>", "<setcomp>", "<dictcomp>"))
"""Code with a frame of its own (3.11) that runs where it stands, as its enclosing code does."""
_CO_OPTIMIZED = 0x1  # set for functions, not for class bodies


class Bindings(NamedTuple):
    """What some code can do to the names of its namespace.

    *bound* and *deleted* are sorted. *exact* is False where it may bind what is not listed.
    *defines_global* says that it makes a function that can bind or delete a global when it is
    called, which a later cell may do. *calls* is False where it can call nothing at all. *nested*
    says that there is code within the code: of functions, classes or comprehensions.
    """

    bound: tuple[str, ...]
    deleted: tuple[str, ...]
    exact: bool
    defines_global: bool
    calls: bool
    nested: bool = False


def scan(*codes: CodeType | None) -> Bindings:
    """Tell which names *codes*, run as a cell with one mapping for globals and locals, can bind.

    None stands for a part that is missing. Each new cell is scanned, and most are plain: so one
    pass in C asks for all that is rare.
    """
    bound: set[str] = set()
    deleted: set[str] = set()
    exact = True
    calls = defines_global = False
    nested: list[CodeType] = []
    for code in codes:
        if code is None:
            continue
        raw = code.co_code
        operations = raw[::2]
        names = code.co_names
        wide = len(names) > 256  # or else each argument is its instruction's own byte
        index = operations.find(_STORE_NAME)
        while index >= 0:  # nearly all there is
            bound.add(names[_argument(raw, index) if wide else raw[2 * index + 1]])
            index = operations.find(_STORE_NAME, index + 1)
        if not DYNAMIC_NAMES.isdisjoint(names):
            exact = False
        rare = operations.translate(None, _PLAIN)
        if rare:
            calls = calls or rare.translate(None, _QUIET) != b""
            if _DEFINES in rare:
                nested += code_within(code)
            if _NOTED.search(rare):
                for match in _NOTED.finditer(operations):
                    exact = _note(raw, names, match.start(), bound, deleted) and exact
    if nested:
        inner = _scan_nested(nested, bound, deleted)
        exact, defines_global = exact and inner.exact, inner.defines_global
    names_bound = tuple(sorted(bound) if len(bound) > 1 else bound)
    names_deleted = tuple(sorted(deleted)) if deleted else ()
    fields = names_bound, names_deleted, exact, defines_global, calls, bool(nested)
    return tuple.__new__(Bindings, fields)  # what Bindings(…) does, at half its cost


def code_within(code: CodeType) -> list[CodeType]:
    """List the code objects of what *code* defines: functions, classes, comprehensions."""
    return [constant for constant in code.co_consts if type(constant) is CodeType]


class _Nested(NamedTuple):
    exact: bool
    defines_global: bool


def _scan_nested(codes: list[CodeType], bound: set[str], deleted: set[str]) -> _Nested:
    """Scan code that has names of its own, where only globals count."""
    exact, defines_global = True, False
    pending = [(code, _runs_later(code)) for code in codes]
    while pending:
        code, later = pending.pop()
        raw = code.co_code
        matches = list(_NESTED.finditer(raw[::2]))
        for match in matches:
            _note(raw, code.co_names, match.start(), bound, deleted)
        dynamic = not DYNAMIC_NAMES.isdisjoint(code.co_names)
        exact = exact and not dynamic
        defines_global = defines_global or (later and (dynamic or bool(matches)))
        pending.extend((inner, later or _runs_later(inner)) for inner in code_within(code))
    return _Nested(exact, defines_global)


def _note(
    raw: bytes, names: tuple[str, ...], index: int, bound: set[str], deleted: set[str]
) -> bool:
    """Note what the instruction at *index* does. Say whether it does only what can be noted."""
    operation = raw[2 * index]
    argument = _argument(raw, index)
    if operation in _STORE:
        bound.add(names[argument])
    elif operation in _DELETE:
        deleted.add(names[argument])
    elif operation == _ANNOTATIONS:
        bound.add("__annotations__")
    else:
        return _STAR_ARGUMENT is not None and argument != _STAR_ARGUMENT
    return True


def _argument(raw: bytes, index: int) -> int:
    """Decode the argument of the instruction at *index*, counted in code units of two bytes."""
    argument, shift = raw[2 * index + 1], 8
    while index and raw[2 * index - 2] == _EXTENDED_ARG:
        index -= 1
        argument |= raw[2 * index + 1] << shift
        shift += 8
    return argument


def _runs_later(code: CodeType) -> bool:
    """Say whether *code* is a function's: a class body or a comprehension runs where it stands."""
    return bool(code.co_flags & _CO_OPTIMIZED) and code.co_name not in _INLINE
