"""What a worker of one's own costs at least: a fork and an exchange, an interpreter's start."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping

import msgspec

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode

IMPORTS = "import asyncio, greenlet, msgspec"
"""What every worker imports of others."""


def fork_and_ask(source: str) -> float:
    """Seconds to fork this process and have the child compile and execute *source*."""
    start = time.perf_counter()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        ours.close()
        _answer(theirs)
        os._exit(0)
    theirs.close()
    ours.sendall(_encode({"source": source}))
    _decode(ours.recv(1 << 16))
    seconds = time.perf_counter() - start
    ours.close()
    os.waitpid(pid, 0)
    return seconds


def _answer(connection: socket.socket) -> None:
    request = _decode(connection.recv(1 << 16))
    exec(compile(request["source"], "<floor>", "exec"), {})
    connection.sendall(_encode({"status": "ok"}))


def start_interpreter(env: Mapping[str, str]) -> float:
    """Seconds to start an interpreter that imports what every worker does, to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], env=env, check=True)
    return time.perf_counter() - start


def cached_environment(folder: str) -> dict[str, str]:
    """This process's environment, but that compiled modules are kept, in *folder*: as installed."""
    env = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return env
