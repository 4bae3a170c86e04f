"""Large values cross in memory that both processes map, and are freed."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus import ProtocolError, RemoteError, ValueLoadError, WorkerLimits, WorkerSession
from isthmus.wire.frames import Buffer, SharedBuffer
from isthmus.worker import companions, shared_memory
from isthmus.worker.shared_memory import SHARED_BYTES, MemoryChannel, Parcel
from support import eventually, on_other_loops

requirement = pytest.mark.requirement

pytestmark = pytest.mark.skipif(not shared_memory.IS_SUPPORTED, reason="memfd_create: Linux")

LARGE = SHARED_BYTES + 12_345

MEMORY = """
import pickle
class Memory:
    "What numpy's arrays are to pickle: an object around memory that is not its own."
    def __init__(self, of):
        self.of = of
    def __reduce_ex__(self, protocol):
        return memoryview, (pickle.PickleBuffer(self.of),)
"""
exec(MEMORY)


def maps(pid: int | str = "self") -> int:
    """How many pieces of shared memory a process maps."""
    return Path(f"/proc/{pid}/maps").read_text().count("memfd:isthmus")


def files(pid: int | str = "self") -> int:
    """How many of its descriptors are of such memory."""
    found = 0
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += "memfd:isthmus" in os.readlink(f"/proc/{pid}/fd/{number}")
        except OSError:  # that of the listing
            continue
    return found


@requirement("7.4-large")
@on_other_loops
async def test_large_memory_is_mapped_on_both_sides_and_freed() -> None:
    async def twice(memory: Any) -> Any:
        assert (maps(), memory.nbytes) == (1, LARGE)
        return Memory(bytes(memory) * 2)  # type: ignore[name-defined]  # noqa: F821

    async with WorkerSession(capabilities=[twice]) as session:
        pid = session.pid
        assert pid is not None
        await session.execute(MEMORY + f"data = bytes(range(256)) * ({LARGE} // 256)")
        for kind, is_fixed in (("bytes", True), ("bytearray", False)):
            view = await session.execute(f"Memory({kind}(data) + {kind}({LARGE} % 256))")
            assert (view.readonly, len(view), view[255], maps()) == (is_fixed, LARGE, 255, 1)
            if not is_fixed:
                view[0] = 99  # its own copy
            del view
            await eventually(lambda: not maps())
        plain = await session.execute("data")
        assert (type(plain), plain[:3], maps(), files()) == (bytes, b"\0\1\2", 0, 0)
        await session.set("given", Memory(bytearray(plain)))  # type: ignore[name-defined]  # noqa: F821
        assert await session.execute("given.readonly, given[255]") == (False, 255)
        assert (maps(pid), files(pid)) == (1, 0 if hasattr(os, "process_cpu_count") else 1)
        source = f"len(await twice(Memory(bytes({LARGE}))))"
        assert await session.execute(source) == 2 * LARGE
        assert await session.call("len", Memory(bytes(LARGE))) == LARGE  # type: ignore[name-defined]  # noqa: F821
        await session.execute("del given; _ = __ = ___ = None")
        await eventually(lambda: not (maps(pid) or files(pid)))  # it sends before it forgets
        assert (maps(), files()) == (0, 0)


@requirement("7.4-large")
async def test_arrays_of_numpy_cross_as_they_are() -> None:
    pytest.importorskip("numpy")
    async with WorkerSession() as session:
        array = await session.execute(f"import numpy; numpy.arange({LARGE})")
        assert maps() == 1
        assert int(array.sum()) == LARGE * (LARGE - 1) // 2
        array += 1
        await session.set("x", array)
        assert await session.execute("int(x[-1]), x.flags.writeable") == (LARGE, True)


@requirement("7.4-large")
async def test_where_memory_cannot_be_shared_it_goes_through_the_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_memory, "IS_SUPPORTED", False)
    async with WorkerSession() as session:
        await session.set("x", bytes(3 * LARGE))
        assert await session.execute("x") == bytes(3 * LARGE)
        assert session.pid is not None
        maps_there = await session.execute("open('/proc/self/maps').read()")
        assert "memfd:isthmus" not in maps_there


@requirement("7.4-large")
async def test_what_a_worker_has_no_room_for_is_an_error_of_who_sent_it() -> None:
    async with WorkerSession(limits=WorkerLimits(memory_bytes=600 << 20)) as session:
        await session.execute("x = bytearray(300 << 20)")
        with pytest.raises((ValueLoadError, RemoteError), match=r"could not map|MemoryError"):
            await session.set("y", bytes(400 << 20))
        assert await session.execute("len(x)") == 300 << 20


# -- the channel by itself -------------------------------------------------------------------------


SMALL = 1 << 16
"""From which size on buffers are shared here, so that hundreds of them are no matter."""


@pytest.fixture
def channels(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[MemoryChannel, MemoryChannel, socket.socket]]:
    """Both ends of a channel, and the socket of the first."""
    monkeypatch.setattr(shared_memory, "SHARED_BYTES", SMALL)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ends = MemoryChannel(ours), MemoryChannel(theirs)
    yield (*ends, ours)
    for end in ends:
        end.close()


Channels = tuple[MemoryChannel, MemoryChannel, socket.socket]


@requirement("7.4-large")
def test_small_buffers_and_those_beyond_the_limit_stay_in_the_stream(channels: Channels) -> None:
    ours, theirs, _ = channels
    given: list[Buffer] = [b"small", bytearray(SMALL), bytes(SMALL)]
    with Parcel(given) as parcel:
        assert parcel.buffers == [b"small", SharedBuffer(SMALL, True), SharedBuffer(SMALL)]
        assert ours.send(parcel)
        filled = list(parcel.buffers)
    theirs.fill(filled)
    assert filled == given
    assert [memoryview(it).readonly for it in filled] == [True, False, True]  # type: ignore[arg-type]
    assert files() == 0 or not hasattr(os, "process_cpu_count")
    with Parcel([bytes(SMALL)] * (shared_memory.SHARED_BUFFERS + 1)) as many:
        assert len(many.descriptors) == shared_memory.SHARED_BUFFERS
        assert len(many.buffers[-1]) == SMALL  # type: ignore[arg-type]
    assert many.descriptors == []


def _memory(size: int, seals: int) -> int:
    descriptor = os.memfd_create("hostile", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


HOSTILE = {
    "is not sealed": lambda: _memory(SMALL, 0),
    "not sealed": lambda: _memory(SMALL, fcntl.F_SEAL_SHRINK),
    "smaller than": lambda: _memory(SMALL - 1, shared_memory._SEALS),
    "something else": lambda: os.open(os.devnull, os.O_RDWR),
}


@requirement("7.4-large")
@pytest.mark.parametrize("what", HOSTILE)
def test_memory_that_its_sender_could_still_change_is_refused(
    what: str, channels: Channels
) -> None:
    _, theirs, wire = channels
    descriptor = HOSTILE[what]()
    socket.send_fds(wire, [b"m"], [descriptor])
    os.close(descriptor)
    with pytest.raises(ProtocolError, match=what):
        theirs.fill([SharedBuffer(SMALL)])


@requirement("7.4-large")
def test_memory_that_has_not_come_or_too_much_of_it_is_refused(channels: Channels) -> None:
    ours, theirs, wire = channels
    with pytest.raises(ProtocolError, match="has not come"):
        theirs.fill([SharedBuffer(SMALL)])
    with Parcel([bytes(SMALL)]) as parcel:
        ours.send(parcel)
    with pytest.raises(ProtocolError, match="2 files of memory, and 1 came"):
        theirs.fill([SharedBuffer(SMALL), SharedBuffer(SMALL)])
    wire.send(b"m")
    with pytest.raises(ProtocolError, match="1 files of memory, and 0 came"):
        theirs.fill([SharedBuffer(SMALL)])
    theirs.fill([b"nothing is shared"])


@requirement("7.4-large")
def test_a_channel_that_is_full_or_closed_takes_nothing_and_nobody_waits(
    channels: Channels,
) -> None:
    ours, theirs, _ = channels
    taken = 0
    while True:
        with Parcel([bytes(SMALL)]) as parcel:
            if not ours.send(parcel):
                break
        taken += 1
    assert taken > 10
    for _ in range(taken):
        buffers: list[Buffer] = [SharedBuffer(SMALL)]
        theirs.fill(buffers)
        assert buffers == [bytes(SMALL)]
    theirs.close()
    with Parcel([bytes(SMALL)]) as parcel:
        assert not ours.send(parcel)


@requirement("7.4-large")
def test_where_descriptors_run_out_a_value_is_missing_and_nothing_else(
    channels: Channels,
) -> None:
    ours, theirs, _ = channels
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = os.dup(0)
    os.close(highest)
    with Parcel([bytes(SMALL), bytes(SMALL)]) as parcel:
        ours.send(parcel)
        buffers = list(parcel.buffers)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limit[1]))
    try:
        theirs.fill(buffers)  # there is one for the first, and none for the second
        assert buffers == [SharedBuffer(SMALL), SharedBuffer(SMALL)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, limit[1]))
        with Parcel([bytes(SMALL)]) as parcel:
            assert parcel.buffers == [bytes(SMALL)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


@requirement("7.4-large")
def test_a_worker_takes_what_it_knows_and_has_come() -> None:
    assert companions.adopt(("shared-buffers", "lifeline"), []) == ((), None)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        features, memory = companions.adopt(("unheard-of", "shared-buffers"), [theirs.detach()])
        assert features == ("shared-buffers",)
        assert memory is not None
        memory.close()
