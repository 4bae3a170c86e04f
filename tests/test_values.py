"""Values between processes: plain, pickled, shown; buffers; what is not trusted."""

from __future__ import annotations

import array
import collections
import enum
import pickle
import threading
from typing import Any

import msgspec
import pytest

from isthmus import ProtocolError, UntrustedValueError, ValueLoadError
from isthmus.values import TEXT_CHARACTERS, PackedValue, RemoteRepr, pack, type_name
from isthmus.wire.codec import Encoder, message_decoder
from isthmus.wire.frames import Buffer, SharedBuffer
from isthmus.wire.limits import BUFFERS
from isthmus.wire.parts import Value
from isthmus.wire.plain import (
    MAX_CONTAINERS,
    MAX_DEPTH,
    OUT_OF_BAND_BYTES,
    NotPlainError,
    encode_plain,
)
from isthmus.wire.replies import Returned
from support import run_in_child

requirement = pytest.mark.requirement


class Colour(enum.IntEnum):
    RED = 1


Point = collections.namedtuple("Point", "x y")


class Table:
    """Like an array of numpy: its memory goes out of band."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory

    def __reduce_ex__(self, protocol: int) -> Any:
        assert protocol == 5
        return Table, (pickle.PickleBuffer(self.memory),)


class Stubborn:
    """An object that raises what it was given when it is pickled, and when it is shown."""

    def __init__(self, error: BaseException, shown: BaseException | None = None) -> None:
        self.error = error
        self.shown = shown

    def __reduce__(self) -> Any:
        raise self.error

    def __repr__(self) -> str:
        if self.shown is not None:
            raise self.shown
        return "<stubborn>"


class Late:
    """An object whose pickle cannot be loaded."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


def packed(value: object, *, trusted: bool = True) -> tuple[Value, list[Buffer]]:
    buffers: list[Buffer] = []
    return pack(value, buffers, trusted=trusted), buffers


def crossed(value: object, *, trusted: bool = True) -> PackedValue:
    """*value* as it arrives at the other side."""
    message, buffers = packed(value, trusted=trusted)
    decoder = message_decoder("host")
    for part in Encoder().encode_with_buffers(Returned(1, message), buffers):
        decoder.feed(part)
    received = decoder.next_frame()
    assert received is not None
    return PackedValue(received.message.value, received.buffers)


# -- plain -----------------------------------------------------------------------------------------


@requirement("7.4-plain")
def test_types_survive_and_aliases_are_a_matter_of_pickle() -> None:
    value = (
        1,
        [2.0, (True, None)],
        {"a": {(1, 2): b"x"}, "b": {3, 4}},
        frozenset({"\ud800"}),
        2**90,
    )
    there = crossed(value)
    assert there.kind == "plain"
    back = there.load(trusted=False)
    assert back == value
    assert repr(back) == repr(value)
    shared: list[int] = []
    assert packed([shared, shared])[0].kind == "pickle"
    one, two = crossed([shared, shared]).load(trusted=True)
    assert one is two
    assert crossed([shared, shared], trusted=False).load(trusted=False) == [[], []]


@requirement("7.4-plain")
@pytest.mark.parametrize(
    "value", [Colour.RED, Point(1, 2), collections.OrderedDict(a=1), {"x": [Colour.RED]}, range(3)]
)
def test_what_would_come_back_as_something_else_is_not_plain(value: object) -> None:
    assert packed(value)[0].kind == "pickle"
    assert packed(value, trusted=False)[0].kind == "repr"
    back = crossed(value).load(trusted=True)
    assert back == value and type(back) is type(value)


@requirement("7.4-plain")
@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, "\ud800", [2**64], {"\ud800": "\udfff"}])
def test_what_messagepack_cannot_hold_is_plain_all_the_same(value: object) -> None:
    assert crossed(value).load(trusted=False) == value


@requirement("7.3-malformed")
@pytest.mark.parametrize(
    "data",
    [
        msgspec.msgpack.encode(msgspec.msgpack.Ext(code, payload))
        for code, payload in [
            (10, b"\x90"),  # no such extension
            (1, b"\x80"),  # a tuple of a map
            (2, b"\x91\x90"),  # a set with a list
            (4, b"\x91\x01"),  # half a pair
            (6, b"\xff"),  # no text
            (7, b"1234567"),  # half a complex
            (9, b"\0\0\0\1"),  # a buffer that is not there
        ]
    ],
)
def test_what_is_no_plain_value_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="this is no plain value"):
        PackedValue(Value(data=data)).load(trusted=True)


@requirement("7.4-plain")
def test_none_is_nothing() -> None:
    assert PackedValue(None).load(trusted=False) is None
    assert crossed(None).load(trusted=False) is None


@requirement("7.4-plain")
def test_a_large_or_deep_value_goes_by_pickle_where_that_may_be() -> None:
    many: list[Any] = [(number,) for number in range(MAX_CONTAINERS)]
    assert packed(many)[0].kind == "pickle"
    assert packed(many, trusted=False)[0].kind == "plain"
    deep: Any = 1
    for _ in range(MAX_DEPTH + 2):
        deep = (deep, "x")
    assert packed(deep)[0].kind == "pickle"
    assert packed(deep, trusted=False)[0].kind == "repr"
    assert packed(deep[0])[0].kind == "plain"


@requirement("7.4-pickle")
def test_circles_and_explosions_end() -> None:
    circle: list[Any] = []
    circle.append(circle)
    assert packed(circle)[0].kind == "pickle"
    assert packed(circle, trusted=False)[0].kind == "repr"
    doubling: list[Any] = []
    for _ in range(MAX_DEPTH - 1):
        doubling = [doubling, doubling]
    assert packed(doubling)[0].kind == "pickle"
    with pytest.raises(NotPlainError, match="too many"):
        encode_plain(doubling, exactly=False, room=0)


# -- pickle ----------------------------------------------------------------------------------------


@requirement("7.4-pickle")
def test_functions_and_classes_of_a_main_module_arrive() -> None:
    program = """
        import sys
        from isthmus.values import PackedValue, pack

        class Box:
            def __init__(self, value):
                self.value = value

        double = lambda box: Box(box.value * 2)
        buffers = []
        value = pack((double, Box(21)), buffers, trusted=True)
        del Box
        function, box = PackedValue(value, buffers).load(trusted=True)
        print(value.kind, value.type_name, function(box).value)
        """
    ended = run_in_child(program)
    assert (ended.status, ended.stdout) == (0, "pickle builtins.tuple 42\n"), ended


@requirement("7.4-pickle")
def test_plain_values_need_neither_pickle_nor_cloudpickle() -> None:
    program = """
        import sys
        from isthmus.wire.codec import Encoder, message_decoder
        from isthmus.wire.conversation import Conversation
        from isthmus.values import PackedValue, pack

        before = set(sys.modules)
        PackedValue(pack({"x": (1, 2)}, [], trusted=True), []).load(trusted=True)
        print(sorted({"cloudpickle"} & set(sys.modules)), sorted(set(sys.modules) - before))
        """
    ended = run_in_child(program)
    assert (ended.status, ended.stdout) == (0, "[] []\n"), ended


@requirement("7.4-pickle")
def test_a_pickle_is_loaded_when_it_is_asked_for_and_trusted() -> None:
    there = crossed(Colour.RED)
    assert (there.kind, there.type) == ("pickle", f"{__name__}.Colour")
    assert repr(there) == f"<packed value: pickle of {__name__}.Colour>"
    with pytest.raises(UntrustedValueError, match="Colour has come as a pickle"):
        there.load(trusted=False)
    assert there.load(trusted=True) is Colour.RED


@requirement("7.4-pickle")
def test_a_pickle_that_cannot_be_loaded_says_why() -> None:
    with pytest.raises(
        ValueLoadError, match="Late cannot be loaded: ValueError: invalid"
    ) as caught:
        crossed(Late()).load(trusted=True)
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(ValueLoadError):
        PackedValue(Value("pickle", b"no pickle")).load(trusted=True)


# -- repr ------------------------------------------------------------------------------------------


@requirement("7.4-pickle")
def test_what_cannot_be_pickled_arrives_as_its_repr_and_says_so() -> None:
    lock = threading.Lock()
    there = crossed({"lock": [lock]})
    assert there.kind == "repr"
    shown = there.load(trusted=False)
    assert isinstance(shown, RemoteRepr)
    assert repr(shown) == shown.text == repr({"lock": [lock]})
    assert shown.type == "builtins.dict"
    assert "cannot pickle '_thread.lock' object" in shown.problem


@requirement("7.4-pickle")
@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3), RecursionError(), MemoryError()]
)
def test_nothing_that_an_object_raises_fails_its_cell(error: BaseException) -> None:
    value, buffers = packed([Stubborn(error)])
    assert (value.kind, value.text, buffers) == ("repr", "[<stubborn>]", [])
    assert type(error).__name__ in value.problem or "recursion" in value.problem
    value, _ = packed(Stubborn(error, shown=error))
    assert "whose __repr__ raised" in value.text


@requirement("7.4-pickle")
def test_a_repr_without_end_is_cut() -> None:
    class Endless:
        def __reduce__(self) -> Any:
            raise ValueError("x" * 10_000)

        def __repr__(self) -> str:
            return "x" * (TEXT_CHARACTERS + 1)

    value, _ = packed(Endless())
    assert value.text == "x" * TEXT_CHARACTERS + f"… ({TEXT_CHARACTERS + 1} characters)"
    assert len(value.problem) == 1000


@requirement("7.4-pickle")
def test_without_trust_nothing_is_pickled() -> None:
    class Spy:
        def __reduce__(self) -> Any:
            raise AssertionError("it was pickled")

        def __repr__(self) -> str:
            return "<spy>"

    value, _ = packed(Spy(), trusted=False)
    assert (value.kind, value.text) == ("repr", "<spy>")
    assert value.problem == "the receiver takes no pickles"


def test_the_name_of_a_class_is_found_without_asking_it() -> None:
    class Sly(type):
        @property
        def __module__(cls) -> str:  # type: ignore[override]
            raise AssertionError("it was asked")

    assert type_name(collections.OrderedDict()) == "collections.OrderedDict"
    assert type_name(1) == "builtins.int"
    named = Sly("Named", (), {"__module__": 5})
    assert type_name(named()) == "Named"


# -- buffers ---------------------------------------------------------------------------------------

LARGE = OUT_OF_BAND_BYTES


@requirement("7.4-buffers")
def test_large_bytes_are_not_copied_into_the_message() -> None:
    large = bytes(LARGE)
    value, buffers = packed({"large": large, "small": b"x", "more": (large,)})
    assert buffers[0] is large and buffers[1] is large
    assert value.data is not None and len(value.data) < 100
    back = PackedValue(value, buffers).load(trusted=False)
    assert back["large"] is large and back["more"][0] is large
    assert crossed([large]).load(trusted=False) == [large]


@requirement("7.4-buffers")
def test_memory_of_arrays_goes_beside_the_pickle_and_can_be_written_to_there() -> None:
    memory = array.array("d", range(LARGE))
    table = Table(memory)
    value, buffers = packed([table, "x"])
    assert (value.kind, len(buffers)) == ("pickle", 1)
    assert value.data is not None and len(value.data) < 1000
    memory[0] = 17.0
    ours = memoryview(buffers[0]).cast("d")  # type: ignore[arg-type]
    assert ours[0] == 17.0
    there = crossed([table, "x"]).load(trusted=True)[0].memory
    assert bytes(there) == memory.tobytes()
    assert not memoryview(there).readonly
    fixed = crossed(Table(bytes(LARGE))).load(trusted=True).memory
    assert memoryview(fixed).readonly


@requirement("7.4-buffers")
def test_small_and_scattered_memory_stays_in_the_pickle() -> None:
    small, buffers = packed(Table(bytearray(LARGE // 2)))
    assert (small.kind, len(buffers)) == ("pickle", 0)
    scattered, _ = packed(Table(memoryview(bytearray(4 * LARGE))[::2]))
    assert scattered.kind == "repr"
    assert "non-contiguous" in scattered.problem


@requirement("7.4-buffers")
def test_a_long_encoding_goes_beside_the_message_too() -> None:
    for value in (["text"] * LARGE, [collections.OrderedDict(a="text" * LARGE)]):
        message, buffers = packed(value)
        assert message.data is None and len(buffers) == 1
        assert crossed(value).load(trusted=True) == value


@requirement("7.4-buffers")
def test_values_of_one_message_share_its_buffers_up_to_their_number() -> None:
    buffers: list[Buffer] = []
    first = pack(bytes(LARGE), buffers, trusted=True)
    second = pack([b"y" * LARGE, Table(bytearray(LARGE))], buffers, trusted=True)
    assert (first.buffers, second.buffers) == ((0,), (1, 2))  # its bytes, and the table's
    assert PackedValue(first, buffers).load(trusted=False) == bytes(LARGE)
    assert PackedValue(second, buffers).load(trusted=True)[0] == b"y" * LARGE
    buffers = []
    many = [bytes(LARGE)] * (BUFFERS + 5)
    values = [pack(many, buffers, trusted=True), pack(Table(bytes(LARGE)), buffers, trusted=True)]
    assert len(buffers) <= BUFFERS
    assert PackedValue(values[0], buffers).load(trusted=False) == many
    assert PackedValue(values[1], buffers).load(trusted=True).memory == bytes(LARGE)


# -- what a bad peer sends -------------------------------------------------------------------------


@requirement("7.3-malformed")
def test_a_value_that_refers_to_nothing_is_refused_when_it_is_loaded() -> None:
    for value in (Value(), Value(buffers=(0,)), Value(buffers=(-1,)), Value(data=b"\xc1")):
        with pytest.raises(ProtocolError):
            PackedValue(value).load(trusted=True)


@requirement("7.4-shared")
def test_a_shared_buffer_has_to_be_mapped_before() -> None:
    value, buffers = packed(bytes(LARGE))
    with pytest.raises(ValueLoadError, match="could not map"):
        PackedValue(value, [SharedBuffer(LARGE)]).load(trusted=True)
    assert PackedValue(value, [memoryview(bytes(LARGE))]).load(trusted=True) == buffers[0]
