"""How to start a worker, and what it is given. Owns the records of these.

Refuses to know: how either kind of start is done.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from isthmus.worker.fork_server import ForkServer
from isthmus.worker.limits import WorkerLimits


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a worker.

    Attributes:
        python: The interpreter, in which this package can be imported.
        cwd: The working directory; None for the host's.
        env: The environment; None for the host's.
        limits: What it may use of the machine.
        fork_server: What forks it; None to start *python*.
        reuse: It may have another session when one has ended.
    """

    python: str = field(default_factory=lambda: sys.executable)
    cwd: str | os.PathLike[str] | None = None
    env: Mapping[str, str] | None = None
    limits: WorkerLimits = field(default_factory=WorkerLimits)
    fork_server: ForkServer | None = None
    reuse: bool = False


@dataclass(frozen=True, slots=True)
class Ends:
    """Descriptors for a worker, open in this process until it has been started.

    Attributes:
        connection: Its end of the socket.
        stdout, stderr: Where it writes.
        stdout_back, stderr_back: Where that can be read.
    """

    connection: int
    stdout: int
    stderr: int
    stdout_back: int
    stderr_back: int
