"""Values between processes: plain, or pickled, or shown. Owns which way each takes.

A value is packed at once, when it is sent, and stays packed where it has arrived until somebody
asks for it: loading a pickle runs code of whoever made it.

Refuses to know: messages around values, how bytes travel.

Guarantees: packing never fails, whatever the object does; large ``bytes``, and the memory of arrays
and their like, are copied by neither side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from isthmus.errors import ProtocolError, UntrustedValueError, ValueLoadError
from isthmus.tracebacks import safe_repr, safe_str
from isthmus.wire.frames import Buffer, Bytes, SharedBuffer
from isthmus.wire.limits import BUFFERS
from isthmus.wire.parts import Value, ValueKind
from isthmus.wire.plain import OUT_OF_BAND_BYTES, NotPlainError, decode_plain, encode_plain

if TYPE_CHECKING:
    from pickle import PickleBuffer

TEXT_CHARACTERS = 100_000
"""How much of a ``repr`` is sent; it is for people."""

PROBLEM_CHARACTERS = 1_000
"""How much of the reason is sent why nothing else was."""

_MODULE = vars(type)["__module__"]
_QUALNAME = vars(type)["__qualname__"]
"""Where all classes have these: a metaclass may have something else in their place."""


def pack(value: object, buffers: list[Buffer], *, trusted: bool) -> Value:
    """Pack *value* for a message. Never raises, whatever the object does.

    Arguments:
        value: Any object.
        buffers: Those of the frame: memory of the object that is large is added here, and not
            copied. It is to be sent before the object may change, and then dropped (a ``bytearray``
            cannot grow as long as somebody refers to its memory).
        trusted: Whether a pickle may be sent. If not, what is not plain is sent as its ``repr``.

    Threads: any. It calls methods of the object.
    """
    try:
        return _as_it_can(value, buffers, trusted)
    except BaseException as error:  # a boundary: __reduce__ is user code
        return _shown(value, _reason(error))


def _as_it_can(value: object, buffers: list[Buffer], trusted: bool) -> Value:
    room = BUFFERS - len(buffers) - 1  # one is for the packed bytes themselves
    try:
        data, large = encode_plain(value, exactly=trusted, room=room)
        return _packed("plain", data, large, buffers)
    except NotPlainError:
        if not trusted:
            return _shown(value, "the receiver takes no pickles")
    data, out_of_band = _pickled(value, room)
    return _packed("pickle", data, out_of_band, buffers, type_name(value))


def type_name(value: object) -> str:
    """The qualified name of the class of *value*, as in ``"collections.OrderedDict"``."""
    kind = type(value)
    module, name = _MODULE.__get__(kind), _QUALNAME.__get__(kind)
    return f"{module}.{name}" if isinstance(module, str) else str(name)


def _packed(
    kind: ValueKind,
    data: bytes,
    own: Sequence[Buffer],
    buffers: list[Buffer],
    name: str = "",
) -> Value:
    """A value of *data* and its *own* buffers, which join those of the frame."""
    inline: bytes | None = data
    start = len(buffers)
    if len(data) >= OUT_OF_BAND_BYTES and start + len(own) < BUFFERS:
        inline, own = None, [data, *own]
    buffers += own
    return Value(kind, inline, tuple(range(start, len(buffers))), name)


def _pickled(value: object, room: int) -> tuple[bytes, list[Buffer]]:
    """*value* pickled, and up to *room* large buffers that the pickle refers to."""
    import cloudpickle  # 30 ms, and most values are plain

    out_of_band: list[Buffer] = []

    def stays_in_band(buffer: PickleBuffer) -> bool:
        memory = buffer.raw()
        if memory.nbytes < OUT_OF_BAND_BYTES or len(out_of_band) >= room:
            return True
        out_of_band.append(memory)
        return False

    return cloudpickle.dumps(value, protocol=5, buffer_callback=stays_in_band), out_of_band


def _shown(value: object, problem: str) -> Value:
    """All that can be said of *value*."""
    text = safe_repr(value)
    if len(text) > TEXT_CHARACTERS:
        text = f"{text[:TEXT_CHARACTERS]}… ({len(text)} characters)"
    return Value(
        "repr", type_name=type_name(value), text=text, problem=problem[:PROBLEM_CHARACTERS]
    )


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {safe_str(error)}"


class RemoteRepr:
    """Stands for an object of another process that could not be sent.

    Attributes:
        text: Its ``repr`` there, which is the ``repr`` of this object too.
        type: The qualified name of its class.
        problem: Why it could not be sent.
    """

    __slots__ = ("problem", "text", "type")

    def __init__(self, text: str, type: str, problem: str) -> None:  # noqa: A002 (the object's)
        self.text = text
        self.type = type
        self.problem = problem

    def __repr__(self) -> str:
        """That of the object."""
        return self.text


class PackedValue:
    """A value that has arrived, and is packed.

    Arguments:
        value: As the message holds it; None is None.
        buffers: Those of the frame. A :class:`~isthmus.wire.frames.SharedBuffer` among them has to
            be replaced by its memory before.

    Attributes:
        kind: ``"plain"``, ``"pickle"`` or ``"repr"``.
        type: The qualified name of the object's class, unless it is plain.
    """

    __slots__ = ("_buffers", "_value", "kind", "type")

    def __init__(self, value: Value | None, buffers: Sequence[Buffer] = ()) -> None:
        self._value = value
        self._buffers = buffers
        self.kind: ValueKind = "plain" if value is None else value.kind
        self.type = "" if value is None else value.type_name

    def __repr__(self) -> str:
        """As ``<packed value: pickle of numpy.ndarray>``."""
        return f"<packed value: {self.kind}{f' of {self.type}' if self.type else ''}>"

    def load(self, *, trusted: bool) -> Any:
        """The object: a new one with each call, but for the memory of large buffers.

        Arguments:
            trusted: Whether to load a pickle, which runs code of whoever made it.

        Returns:
            The object; a :class:`RemoteRepr` where it could not be sent.

        Raises:
            UntrustedValueError: It is a pickle, and *trusted* is false. It stays packed.
            ValueLoadError: Its pickle cannot be loaded here: a module is missing, or a class is
                another one, or its own code raises. It stays packed.
            ProtocolError: It is malformed.

        Threads: any.
        """
        value = self._value
        if value is None:
            return None
        if value.kind == "repr":
            return RemoteRepr(value.text, value.type_name, value.problem)
        if value.kind == "pickle" and not trusted:
            raise UntrustedValueError(
                f"a {value.type_name} has come as a pickle, and its sender is not trusted"
            )
        data, buffers = self._contents(value)
        return (
            decode_plain(data, buffers) if value.kind == "plain" else self._unpickle(data, buffers)
        )

    def _contents(self, value: Value) -> tuple[Bytes, list[Bytes]]:
        """The packed bytes, and the buffers that they refer to."""
        buffers = [self._buffer(index) for index in value.buffers]
        if value.data is not None:
            return value.data, buffers
        if not buffers:
            raise ProtocolError("a value has come without its bytes")
        return buffers[0], buffers[1:]

    def _buffer(self, index: int) -> Bytes:
        if not 0 <= index < len(self._buffers):
            raise ProtocolError(f"a value refers to buffer {index} of {len(self._buffers)}")
        buffer = self._buffers[index]
        if isinstance(buffer, SharedBuffer):
            raise ValueLoadError(
                f"a value of {buffer.size} bytes has come in memory that this process could not "
                "map: it has no descriptors or no address space left"
            )
        return buffer

    def _unpickle(self, data: Bytes, buffers: list[Bytes]) -> Any:
        import pickle  # not needed where all values are plain

        try:
            return pickle.loads(data, buffers=buffers)
        except (Exception, SystemExit) as error:  # a boundary: unpickling runs code of its class
            raise ValueLoadError(f"a {self.type} cannot be loaded: {_reason(error)}") from error
