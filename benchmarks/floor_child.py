"""The child of the worker's floors: what has to be done to run a cell elsewhere, and nothing else.

Run as a script, with the descriptor of a socket: it reads frames (four bytes of size, then a map in
MessagePack), compiles and executes the source of each, and answers each. With the word ``lines``
and a number it writes so many lines to its stdout instead, each by a call of its own, as often as a
byte comes on its stdin.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

LINE = b"x" * 99 + b"\n"
"""One of the lines, of 100 bytes."""

SIZE = struct.Struct(">I")
"""What stands before each message."""


def serve(descriptor: int) -> None:
    """Run what comes until nothing comes any more."""
    import msgspec  # not needed for lines

    connection, names = socket.socket(fileno=descriptor), dict[str, object]()
    decode, encode = msgspec.msgpack.Decoder().decode, msgspec.msgpack.Encoder().encode
    data = b""
    while more := connection.recv(1 << 16):
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


def write_lines(count: int) -> None:
    """Write *count* lines for each byte that comes."""
    while os.read(0, 1):
        for _ in range(count):
            os.write(1, LINE)


if __name__ == "__main__":
    if sys.argv[1] == "lines":
        write_lines(int(sys.argv[2]))
    else:
        serve(int(sys.argv[1]))
