"""Plain values: what crosses without pickle, and comes back as it was. Owns their encoding.

Plain are None, ``bool``, ``int`` of any size, ``float``, ``complex``, ``str``, ``bytes``,
``bytearray``, and ``list``, ``tuple``, ``dict``, ``set`` and ``frozenset`` of plain values: these
very classes, as a subclass would come back as something else. The encoding is MessagePack, with
extension types for what that does not have.

Refuses to know: pickle, messages.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from isthmus.errors import ProtocolError

TUPLE = 1
"""Extension: an array of the items."""

SET = 2
"""The same."""

FROZENSET = 3
"""The same."""

PAIRS = 4
"""A dict with keys that are no ``str``: an array of keys and values in turn."""

INTEGER = 5
"""An ``int`` of more than 64 bits: its two's complement, the most significant byte first."""

TEXT = 6
"""A ``str`` with lone surrogates: UTF-8, but for those, which have three bytes each."""

COMPLEX = 7
"""A ``complex``: two doubles, the most significant byte first."""

BYTEARRAY = 8
"""A ``bytearray``: its bytes."""

BUFFER = 9
"""Long ``bytes``: the place among the value's buffers, four bytes, the most significant first."""

OUT_OF_BAND_BYTES = 1 << 15
"""From which length on bytes are not copied into the message; below, a buffer of its own costs
more than the copy. From the air."""

MAX_DEPTH = 100
"""How deep containers may be nested: each level of tuples is copied into the one around it."""

MAX_CONTAINERS = 10_000
"""How many containers one value may hold where pickle would do: that is faster by then."""

MAX_CONTAINERS_OTHERWISE = 200_000
"""How many where it would not. Without a bound, 100 lists that each hold the next one twice take
for ever."""

INT64 = range(-(1 << 63), 1 << 64)
"""The whole numbers of MessagePack."""

_DOUBLES = struct.Struct(">2d")
_INDEX = struct.Struct(">I")

_ENCODE = msgspec.msgpack.Encoder().encode
_SIMPLE = frozenset({type(None), bool, int, float, str})


class NotPlainError(TypeError):
    """The value cannot be encoded as a plain one."""


def encode_plain(value: object, *, exactly: bool, room: int) -> tuple[bytes, list[bytes]]:
    """*value*, encoded, and up to *room* long ``bytes``, which the encoding refers to.

    Arguments:
        exactly: Refuse what pickle does better: a list, dict, set or bytearray that occurs twice
            (it would come back as two), and very many containers.

    Raises:
        NotPlainError: It is not plain, or nested too deeply.

    Threads: any; each container is seen at one moment, though not all at the same one.
    """
    if type(value) in _SIMPLE:
        try:
            return _ENCODE(value), []
        except (OverflowError, UnicodeEncodeError):
            pass  # a long int, a surrogate
    try:
        encoding = _Encoding(exactly, room, hasty=True)
        return _ENCODE(encoding.form(value)), encoding.buffers
    except (OverflowError, UnicodeEncodeError):  # somewhere inside
        encoding = _Encoding(exactly, room, hasty=False)
        return _ENCODE(encoding.form(value)), encoding.buffers


class _Encoding:
    """A value on its way into MessagePack.

    A *hasty* one does not look at the single items of a container whose items are all simple; it
    fails in the end where one is a long int or holds a surrogate.
    """

    def __init__(self, exactly: bool, room: int, *, hasty: bool) -> None:
        self.buffers: list[bytes] = []
        self._exactly = exactly
        self._room = room
        self._hasty = hasty
        self._depth = 0
        self._containers_left = MAX_CONTAINERS if exactly else MAX_CONTAINERS_OTHERWISE
        self._seen: dict[int, object] = {}

    def form(self, value: object) -> Any:
        """What msgspec makes *value* of."""
        make = _FORMS.get(type(value))
        if make is None:
            raise NotPlainError(f"a {type(value).__name__} is not plain")
        return make(self, value)

    def of_atom(self, value: Any) -> Any:
        return value

    def of_int(self, value: int) -> Any:
        if value in INT64:
            return value
        size = value.bit_length() // 8 + 1
        return msgspec.msgpack.Ext(INTEGER, value.to_bytes(size, "big", signed=True))

    def of_str(self, value: str) -> Any:
        if value.isascii() or self._hasty:
            return value
        try:
            value.encode()
        except UnicodeEncodeError:
            return msgspec.msgpack.Ext(TEXT, value.encode("utf-8", "surrogatepass"))
        return value

    def of_key(self, value: object) -> Any:
        """A ``str`` if *value* is one that a map can have as its key."""
        return self.of_str(value) if type(value) is str else None

    def of_complex(self, value: complex) -> Any:
        return msgspec.msgpack.Ext(COMPLEX, _DOUBLES.pack(value.real, value.imag))

    def of_bytes(self, value: bytes) -> Any:
        if len(value) < OUT_OF_BAND_BYTES or len(self.buffers) >= self._room:
            return value
        self.buffers.append(value)
        return msgspec.msgpack.Ext(BUFFER, _INDEX.pack(len(self.buffers) - 1))

    def of_bytearray(self, value: bytearray) -> Any:
        self._note(value)
        return msgspec.msgpack.Ext(BYTEARRAY, bytes(value))

    def of_list(self, value: list[Any]) -> Any:
        self._note(value)
        return self._items(value.copy())

    def of_tuple(self, value: tuple[Any, ...]) -> Any:
        return self._extension(TUPLE, list(value))

    def of_set(self, value: set[Any]) -> Any:
        self._note(value)
        return self._extension(SET, list(value))

    def of_frozenset(self, value: frozenset[Any]) -> Any:
        return self._extension(FROZENSET, list(value))

    def of_dict(self, value: dict[Any, Any]) -> Any:
        self._note(value)
        value = value.copy()
        keys = value if self._hasty else [self.of_key(key) for key in value]
        if all(type(key) is str for key in keys):
            return dict(zip(value, self._items(list(value.values())), strict=True))
        return self._extension(PAIRS, [it for pair in value.items() for it in pair])

    def _extension(self, code: int, items: list[Any]) -> Any:
        return msgspec.msgpack.Ext(code, _ENCODE(self._items(items)))

    def _items(self, items: list[Any]) -> list[Any]:
        """*items*, which nobody else has, in their forms."""
        self._containers_left -= 1
        if not self._containers_left:
            raise NotPlainError("it holds too many containers")
        if self._hasty and _SIMPLE.issuperset(map(type, items)):
            return items
        if self._depth == MAX_DEPTH:
            raise NotPlainError(f"it is nested deeper than {MAX_DEPTH}")
        self._depth += 1
        formed = [self.form(it) for it in items]
        self._depth -= 1
        return formed

    def _note(self, value: object) -> None:
        """Refuse what has occurred before. It is held, so that nothing else gets its id."""
        if not self._exactly:
            return
        if id(value) in self._seen:
            raise NotPlainError(f"it holds the same {type(value).__name__} twice")
        self._seen[id(value)] = value


_FORMS: dict[type[Any], Callable[[_Encoding, Any], Any]] = {
    type(None): _Encoding.of_atom,
    bool: _Encoding.of_atom,
    float: _Encoding.of_atom,
    int: _Encoding.of_int,
    str: _Encoding.of_str,
    complex: _Encoding.of_complex,
    bytes: _Encoding.of_bytes,
    bytearray: _Encoding.of_bytearray,
    list: _Encoding.of_list,
    tuple: _Encoding.of_tuple,
    set: _Encoding.of_set,
    frozenset: _Encoding.of_frozenset,
    dict: _Encoding.of_dict,
}


# -- and back --------------------------------------------------------------------------------------

_MALFORMED = (msgspec.MsgspecError, UnicodeError, RecursionError, MemoryError, TypeError)
"""What reading something that is no plain value raises; TypeError: an item cannot be hashed."""


def decode_plain(data: bytes | bytearray | memoryview, buffers: Sequence[Any] = ()) -> Any:
    """The value that *data* and *buffers* hold. Buffers that are ``bytes`` are not copied.

    Raises:
        ProtocolError: It is no plain value.
    """
    try:
        return _decoder_for(buffers)(data)
    except _MALFORMED as error:
        raise _malformed(error) from error


def _decoder_for(buffers: Sequence[Any]) -> Callable[[Any], Any]:
    if not buffers:
        return _DECODE
    return msgspec.msgpack.Decoder(ext_hook=functools.partial(_extension, buffers)).decode


def _extension(buffers: Sequence[Any], code: int, data: memoryview) -> Any:
    """The value of one extension."""
    if code == BUFFER:
        (index,) = _unpacked(_INDEX, data)
        if index >= len(buffers):
            raise _malformed(f"buffer {index} of {len(buffers)}")
        return bytes(buffers[index])
    if code == INTEGER:
        return int.from_bytes(data, "big", signed=True)
    if code == TEXT:
        return str(data, "utf-8", "surrogatepass")
    if code == COMPLEX:
        return complex(*_unpacked(_DOUBLES, data))
    if code == BYTEARRAY:
        return bytearray(data)
    return _container(code, _decoder_for(buffers)(data))


def _container(code: int, items: object) -> Any:
    if not isinstance(items, list):
        raise _malformed("a container that is no array")
    if code == TUPLE:
        return tuple(items)
    if code == SET:
        return set(items)
    if code == FROZENSET:
        return frozenset(items)
    if code == PAIRS and len(items) % 2 == 0:
        return dict(zip(items[::2], items[1::2], strict=True))
    raise _malformed(f"extension {code}")


def _unpacked(form: struct.Struct, data: memoryview) -> tuple[Any, ...]:
    if len(data) != form.size:
        raise _malformed(f"an extension of {len(data)} bytes instead of {form.size}")
    return form.unpack(data)


def _malformed(what: object) -> ProtocolError:
    return ProtocolError(f"this is no plain value: {what}")


_DECODE = msgspec.msgpack.Decoder(ext_hook=functools.partial(_extension, ())).decode
