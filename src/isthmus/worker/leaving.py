"""How a process ends that an exception has left. Owns its status, and what it says.

As Python does it, but at once: no thread is waited for, as one of a cell's may never end, and no
clean-up is done that could wait for one.

Refuses to know: who leaves, and why.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NoReturn

from isthmus.tracebacks import format_error


def leave(error: BaseException | None) -> NoReturn:
    """End this process as a program that *error* has ended; None is a good end."""
    status, text = _farewell(error)
    with suppress(OSError):  # cells may have closed it
        os.write(2, text.encode("utf-8", "backslashreplace"))
    os._exit(status & 0xFF)


def _farewell(error: BaseException | None) -> tuple[int, str]:
    """The exit status, and what is written to stderr."""
    if error is None:
        return 0, ""
    if not isinstance(error, SystemExit):
        return 1, format_error(error)
    if error.code is None or isinstance(error.code, int):
        return error.code or 0, ""
    return 1, f"{error.code}\n"
