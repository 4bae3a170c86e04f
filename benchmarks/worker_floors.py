"""The host's side of the worker's floors: blocking sockets and pipes, one call after another."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from types import TracebackType
from typing import Self

import msgspec

from benchmarks import floor_child
from benchmarks.floor_child import LINE, SIZE
from benchmarks.measure import cpu_clock

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class SocketChild:
    """A child at the other end of a socket, whose number is its first argument.

    Arguments:
        script: Its program.
        arguments: What else it is given.
    """

    def __init__(self, script: str, *arguments: str) -> None:
        self._script = script
        self._arguments = arguments

    def __enter__(self) -> Self:
        """Start it."""
        self._connection, theirs = socket.socketpair()
        number = theirs.fileno()
        command = [sys.executable, self._script, str(number), *self._arguments]
        self._child = subprocess.Popen(command, pass_fds=[number])
        self._clock = cpu_clock(self._child.pid)
        theirs.close()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """End it."""
        self._connection.close()
        self._child.wait()


class PingPong(SocketChild):
    """A child that compiles and executes what it is sent."""

    def __init__(self) -> None:
        super().__init__(floor_child.__file__)

    def one_by_one(self, source: str, count: int) -> float:
        """Seconds for each of *count* requests that wait for their answers."""
        start = self._clock()
        for number in range(count):
            self._ask(number, source)
            self._take_answers(1)
        return (self._clock() - start) / count

    def at_once(self, source: str, count: int) -> float:
        """Seconds for each of *count* requests that are sent before any answer is read."""
        start = self._clock()
        for number in range(count):
            self._ask(number, source)
        self._take_answers(count)
        return (self._clock() - start) / count

    def _ask(self, number: int, source: str) -> None:
        body = _encode({"id": number, "source": source})
        self._connection.sendall(SIZE.pack(len(body)) + body)

    def _take_answers(self, count: int) -> None:
        data = b""
        while count:
            data, at = data + self._connection.recv(1 << 16), 0
            while len(data) - at >= SIZE.size:
                end = at + SIZE.size + SIZE.unpack_from(data, at)[0]
                if end > len(data):
                    break
                _decode(data[at + SIZE.size : end])
                at, count = end, count - 1
            data = data[at:]


class Answers(asyncio.Protocol):
    """The host's end of a connection in an event loop: a future for each request.

    Attributes:
        waiting: Those that have no answer yet, by the request's number.
    """

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[object]] = {}
        self._data = b""

    def data_received(self, data: bytes) -> None:
        """Hand out the answers that have come."""
        data, at = self._data + data, 0
        while len(data) - at >= SIZE.size:
            end = at + SIZE.size + SIZE.unpack_from(data, at)[0]
            if end > len(data):
                break
            answer = _decode(data[at + SIZE.size : end])
            self.waiting.pop(answer["id"]).set_result(answer)
            at = end
        self._data = data[at:]


class Loops(SocketChild):
    """The same between two event loops, which pass requests and answers on and do nothing else."""

    def __init__(self) -> None:
        super().__init__(floor_child.__file__, "loop")

    async def one_by_one(self, source: str, count: int) -> float:
        """Seconds for each of *count* requests that wait for their answers."""
        loop = asyncio.get_running_loop()
        transport, answers = await loop.create_unix_connection(Answers, sock=self._connection.dup())
        start = self._clock()
        for number in range(count):
            answer = answers.waiting[number] = loop.create_future()
            body = _encode({"id": number, "source": source})
            transport.write(SIZE.pack(len(body)) + body)
            await answer
        seconds = self._clock() - start
        transport.close()
        return seconds / count


class Lines:
    """A child that writes lines to a pipe, each by a call of its own.

    Arguments:
        count: How many at a time.
    """

    def __init__(self, count: int) -> None:
        self._size = count * len(LINE)
        self._command = [sys.executable, floor_child.__file__, "lines", str(count)]

    def __enter__(self) -> Lines:
        """Start it."""
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, bufsize=0)
        self._clock = cpu_clock(self._child.pid)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """End it."""
        self._child.communicate()

    def read(self) -> float:
        """Seconds until all of them have come."""
        assert self._child.stdin is not None and self._child.stdout is not None
        start, missing = self._clock(), self._size
        self._child.stdin.write(b"x")
        while missing:
            missing -= len(os.read(self._child.stdout.fileno(), 1 << 16))
        return self._clock() - start
