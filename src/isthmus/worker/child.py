"""The worker process, from its first line to its last. Owns what it does with its descriptors, and
how it ends with its host.

The connection is moved to a descriptor of its own, above those that programs number by hand, and no
child process inherits it. What is written to descriptors 1 and 2, by whomever, goes into pipes that
the host reads: it never touches the connection, and can be read when this process has died.

When its host has gone the worker ends. The loop sees the end of the stream; where a cell keeps it
busy, a thread that does nothing else sees it. The process group of the worker ends with it.

Refuses to know: messages.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

from isthmus.thread_aware_loop import ThreadAwareLoop
from isthmus.worker.capture import Capture
from isthmus.worker.descriptors import moved
from isthmus.worker.leaving import leave
from isthmus.worker.link import Link
from isthmus.worker.service import Service

FAREWELL_SECONDS = 0.5
"""How long the loop has to notice that the host has gone before the process ends without it."""


def main(arguments: Sequence[str]) -> None:
    """Serve one host over the socket whose descriptor is the first argument, and end.

    Arguments:
        arguments: The descriptor; what :meth:`WorkerLimits.to_argument` has written; the reading
            ends of this process's stdout and stderr. All but the first may be left out.
    """
    if len(arguments) > 1 and arguments[1]:
        from isthmus.worker.limits import WorkerLimits  # few workers have any

        WorkerLimits.from_argument(arguments[1]).apply()
    connection, *ends = (moved(int(it)) for it in (arguments[0], *arguments[2:4]))
    link = Link(socket.socket(fileno=connection))
    threading.Thread(
        target=_watch_host, args=(link.fileno(),), name="isthmus host watch", daemon=True
    ).start()
    with asyncio.Runner(loop_factory=ThreadAwareLoop) as runner:
        try:
            host_has_gone = runner.run(_serve(link, Capture(ends)))
        except BaseException as error:  # a boundary: a callback of a cell's has left the loop
            leave(error)
        if host_has_gone:
            _end_group()
    _leave(link)


def _leave(link: Link) -> None:
    """End the process as an interpreter ends, but for taking its modules apart one by one.

    The system does that at once, and without touching memory that is shared with a fork server.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # cells have set, or closed, it
            stream.flush()
    link.part()
    os._exit(0)


async def _serve(link: Link, capture: Capture) -> bool:
    """Serve until the host has had enough; whether it has gone without saying so."""
    service = Service(link, capture)
    has_gone = link.open(service)

    def interrupt(number: int, frame: FrameType | None) -> None:
        service.interrupt_all()

    signal.signal(signal.SIGINT, interrupt)  # who sends it means the cells
    await asyncio.wait({has_gone, service.done}, return_when=asyncio.FIRST_COMPLETED)
    return not service.done.done()


def _watch_host(descriptor: int) -> None:
    """End the process when the host has gone and the loop does not notice."""
    poll = select.poll()
    poll.register(descriptor, 0)  # for what is always told: that the other end is closed
    poll.poll()
    poll.unregister(descriptor)
    select.select([], [], [], FAREWELL_SECONDS)
    _end_group()


def _end_group() -> None:
    """End this process and those that cells have started, at once."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
