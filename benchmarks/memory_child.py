"""The floor of large values, as a process: for each byte that it reads it fills a file that is
nothing but memory, and passes it.

``python memory_child.py DESCRIPTOR SIZE``
"""

from __future__ import annotations

import os
import socket
import sys


def serve(connection: socket.socket, size: int) -> None:
    """Answer until the other end has gone."""
    data = b"x" * size
    while connection.recv(1):
        descriptor = os.memfd_create("floor")
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        socket.send_fds(connection, [b"m"], [descriptor])
        os.close(descriptor)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
