"""A pipe that holds nothing: when its writing end has gone, those who hold the other one are ended.

The host has the writing end, and with the host it goes, however that ends. The kernel then kills
the worker and its process group, by a signal that the file was set up to send (``O_ASYNC``,
``F_SETSIG``). So a worker ends whose interpreter C code holds, which no thread of its own could
see to. (``PR_SET_PDEATHSIG`` follows the *thread* that has started it, not the host.)

Refuses to know: who is on either end.
"""

from __future__ import annotations

import fcntl
import os
import signal

IS_SUPPORTED = hasattr(fcntl, "F_SETSIG")
"""Whether a file can be set up to send that signal: on Linux."""


def hold(descriptor: int) -> None:
    """Have this process, and the group that it leads, end when the pipe's other end has gone."""
    leads = os.getpgrp() == os.getpid()
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, -os.getpid() if leads else os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
