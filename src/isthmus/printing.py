"""The ``print`` of cells: a line by one write. Owns the short way from there to a cell's output.

Python's ``print`` writes the value and the end of the line one after the other. To a stream that is
written in Python, as a cell's is, that costs more than all that becomes of the line: two calls from
C, each of which finds the cell anew. So what cells have is a function in Python that does what most
calls want, to print one value, by one write, and leaves all else to Python's own. Nor do lines that
several threads print in this way run into each other.

Refuses to know: what becomes of what a cell writes.
"""

from __future__ import annotations

import builtins
import inspect
import sys
from typing import Any

from isthmus.jobs import current_job
from isthmus.output import plain_text
from isthmus.stacks import passes_on
from isthmus.streams import stream_hooks

_NOTHING: Any = object()

_print = builtins.print
_job_here = current_job.get
_streams = vars(sys)
_stdout = stream_hooks.stdout


@passes_on
def print(value: object = _NOTHING, /, *values: object, **options: Any) -> None:  # noqa: A001
    """As the builtin function, whose documentation it has."""
    job = _job_here()
    if values or options or job is None or _streams["stdout"] is not _stdout.direct:
        first = () if value is _NOTHING else (value,)
        _print(*first, *values, **options)
        return
    text = value if type(value) is str else _text(value)
    output = job.output
    if output is None:
        output = job.open_output()
    output.write(text + "\n")


@passes_on
def _text(value: object) -> str:
    return "" if value is _NOTHING else plain_text(str(value))


print.__doc__ = _print.__doc__
print.__signature__ = inspect.signature(_print)  # type: ignore[attr-defined]
