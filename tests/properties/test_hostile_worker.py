"""Whatever a worker sends, its host goes on: who waits has an answer or a named error."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus import IsthmusError, MemoryTransport
from isthmus.errors import WorkerDied
from isthmus.transport import Emitter
from isthmus.wire import handshake, requests
from isthmus.wire.codec import Encoder
from isthmus.worker.answers import AnswerReader
from isthmus.worker.callbacks import HostFunctions
from isthmus.worker.flight import Flight
from isthmus.worker.launch import Launch
from isthmus.worker.supervisor import Supervisor
from wire_messages import messages_of

requirement = pytest.mark.requirement

REQUESTS = 6
"""That the host has made, and waits for."""


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """What a worker sends that knows the protocol and does not keep to it; damaged, perhaps."""
    stream = b""
    for message in draw(st.lists(messages_of("worker"), min_size=1, max_size=8)):
        fields = {"id": st.integers(1, REQUESTS + 1), "cell": st.integers(0, 2)}
        changes = {
            name: draw(values)
            for name, values in fields.items()
            if name in type(message).__struct_fields__
        }
        stream += Encoder().encode(msgspec.structs.replace(message, **changes))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(stream)))
        stream = stream[:at] + draw(st.binary(max_size=4)) + stream[at + draw(st.integers(0, 4)) :]
    return stream


class Wire(asyncio.Transport):
    """Takes what is sent, and says whether it was ended."""

    def __init__(self) -> None:
        super().__init__()
        self.is_over = False

    def write(self, data: Any) -> None:
        """Nobody reads it."""

    def writelines(self, parts: Any) -> None:
        """Nobody reads it."""

    def is_closing(self) -> bool:
        """Whether it was ended."""
        return self.is_over

    def abort(self) -> None:
        """End it."""
        self.is_over = True


class Host:
    """A host that has opened a session and waits for answers of all kinds."""

    def __init__(self, trusted: bool) -> None:
        self.transport = MemoryTransport()
        flight = Flight("session", Emitter(self.transport), 1000, trusted)
        functions = HostFunctions("session", (), trusted)
        functions.add("key", lambda *args, **kwargs: None)
        self.supervisor = Supervisor(Launch(), flight, functions, 0.1)
        self.connection = self.supervisor._connection
        self.wire = Wire()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.connection.greet(ours, "a test", reuse=False)
        self.connection.connection_made(self.wire)
        self.take(Encoder().encode(handshake.Welcome(1)))
        flight.add(1)
        read = AnswerReader(trusted)
        ask = self.supervisor.ask
        self.waiting = [
            ask(requests.Open),
            ask(requests.RunCell, lambda it: flight.result(1, it), cell=1, source="1"),
            ask(requests.GetName, read.value, name="x"),
            ask(requests.Snapshot, read.snapshot),
            ask(requests.AwaitPending, read.settled),
            ask(requests.Ping),
        ]
        assert len(self.waiting) == REQUESTS

    def take(self, data: bytes) -> None:
        """Have *data* arrive."""
        while data and not self.wire.is_over:
            window = self.connection.get_buffer(-1)
            count = min(len(window), len(data))
            window[:count] = data[:count]
            self.connection.buffer_updated(count)
            data = data[count:]

    async def end(self) -> list[Any]:
        """The worker ends; what those have got who waited."""
        self.connection.connection_lost(None)
        answers = await asyncio.gather(*self.waiting, return_exceptions=True)
        self.connection.close()
        await asyncio.sleep(0)  # calls of capabilities end
        return answers


@requirement("7.5-faults")
@settings(max_examples=150)
@given(stream=streams(), trusted=st.booleans())
def test_whatever_a_worker_sends_is_an_answer_or_a_named_error(
    stream: bytes, trusted: bool
) -> None:
    async def meet() -> None:
        host = Host(trusted)
        host.take(stream)
        for answer in await host.end():
            if isinstance(answer, BaseException):
                assert isinstance(answer, IsthmusError), repr(answer)
        assert isinstance(host.supervisor.death, WorkerDied)
        assert host.wire.is_over or host.connection._fault is None

    asyncio.run(meet())
