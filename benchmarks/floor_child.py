"""The child of the worker's floors: what has to be done to run a cell elsewhere, and nothing else.

Run as a script, with the descriptor of a socket: it reads frames (four bytes of size, then a map in
MessagePack), compiles and executes the source of each, and answers each. With the word ``loop``
after that it does so in an event loop. With the word ``lines`` and a number it writes so many lines
to its stdout instead, each by a call of its own, as often as a byte comes on its stdin.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import Callable

LINE = b"x" * 99 + b"\n"
"""One of the lines, of 100 bytes."""

SIZE = struct.Struct(">I")
"""What stands before each message."""


def serving(connection: socket.socket) -> Callable[[], bool]:
    """What reads once, and runs and answers what has come; whether there was anything."""
    import msgspec  # not needed for lines

    names = dict[str, object]()
    decode, encode = msgspec.msgpack.Decoder().decode, msgspec.msgpack.Encoder().encode
    data = b""

    def serve_once() -> bool:
        nonlocal data
        more = connection.recv(1 << 16)
        data, at = data + more, 0
        while len(data) - at >= SIZE.size:
            end = at + SIZE.size + SIZE.unpack_from(data, at)[0]
            if end > len(data):
                break
            request = decode(data[at + SIZE.size : end])
            exec(compile(request["source"], "<floor>", "exec"), names)
            answer = encode({"id": request["id"], "status": "ok"})
            connection.sendall(SIZE.pack(len(answer)) + answer)
            at = end
        data = data[at:]
        return bool(more)

    return serve_once


def serve(descriptor: int) -> None:
    """Run what comes until nothing comes any more."""
    serve_once = serving(socket.socket(fileno=descriptor))
    while serve_once():
        pass


async def serve_in_loop(descriptor: int) -> None:
    """The same, in the event loop that runs here."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    serve_once = serving(socket.socket(fileno=descriptor))

    def readable() -> None:
        if not serve_once():
            loop.remove_reader(descriptor)
            ended.set()

    loop.add_reader(descriptor, readable)
    await ended.wait()


def write_lines(count: int) -> None:
    """Write *count* lines for each byte that comes."""
    while os.read(0, 1):
        for _ in range(count):
            os.write(1, LINE)


if __name__ == "__main__":
    if sys.argv[1] == "lines":
        write_lines(int(sys.argv[2]))
    elif sys.argv[2:] == ["loop"]:
        asyncio.run(serve_in_loop(int(sys.argv[1])))
    else:
        serve(int(sys.argv[1]))
