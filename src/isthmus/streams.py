"""The process's standard streams while sessions are open. Owns what ``sys.stdout`` and
``sys.stderr`` are, to whom, and the ways around them: their buffers, and logging.

Refuses to know: what becomes of what a cell writes.

A standard stream has three faces, told apart by the context variable ``current_job``:

- The *front* stands in ``sys.__dict__``, where ``print`` and CPython's own C code look. It is never
  replaced while a session is open.
- Code of a cell that reads ``sys.stdout`` gets the *routed* stream, which writes to the cell. What
  it assigns there is a *diversion*: it holds where a context variable set at the same place would
  hold, in this cell and those after it and the tasks and threads that they start. So
  ``contextlib.redirect_stdout`` works across an ``await``, in many cells at once, and what others
  print meanwhile does not end up in it.
- Code of no cell reads and assigns what was there before, the *original*, as if nothing were. A
  host that swaps its streams around a cell, or puts them back in the middle of one, takes nothing
  away from the cell.

For the reading and assigning, the class of the module ``sys`` is one with two properties while a
session is open (https://docs.python.org/3/reference/datamodel.html, "Customizing module attribute
access"). A ``logging.StreamHandler`` that holds the original gets the routed stream from a property
in the same way, in code of a cell.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
import threading
import types
from contextvars import ContextVar
from typing import Any

from isthmus.events import StreamName
from isthmus.hooks import Hook
from isthmus.jobs import current_job
from isthmus.output import ENCODING, STREAMS, plain_text

Stream = Any
"""What stands for a stream: anything that can write text, or None."""

_NAMES = vars(sys)
"""Where the interpreter keeps its streams; ``sys.stdout = x`` may go elsewhere."""


_job_here = current_job.get
"""Bound once: looking up ``get`` costs three times the call, twice for each ``print``."""

_NOT_DIVERTED: Stream = object()
"""No code of a cell has assigned the stream in this context."""


class StandardStream:
    """One of the process's standard streams, in its three faces.

    Arguments:
        name: ``"stdout"`` or ``"stderr"``.

    Attributes:
        direct: The front, where whoever prints in a cell writes to the cell and to nothing else;
            None where a cell has assigned the stream, or it is not installed.

    Made once and never freed: ``print`` on CPython up to 3.13 holds a borrowed reference to
    ``sys.stdout``, so that a front which another thread is printing to must not go away.

    Threads: any.
    """

    def __init__(self, name: StreamName) -> None:
        self.name = name
        self.front = _FACES[name](self)
        self.routed = _FACES[name](self)
        self.buffer = RoutedBuffer(self)
        self.installed = False
        self.diverted = False
        self.direct: RoutedStream | None = None
        self._original: Stream = None
        self._found: Stream = None
        self._diversion: ContextVar[Stream] = ContextVar(f"isthmus_{name}", default=_NOT_DIVERTED)

    def install(self) -> None:
        """Take the place in ``sys``."""
        self._original = self._found = _NAMES.get(self.name)
        self.installed = True
        self.direct = self.front
        _NAMES[self.name] = self.front

    def remove(self) -> None:
        """Leave the place to what code of no cell has put there. Somebody else's front stays."""
        self.installed = self.diverted = False
        self.direct = None
        if _NAMES.get(self.name) is self.front:
            _NAMES[self.name] = self._original
        for method in ("write", "flush"):
            vars(self.front).pop(method, None)

    @property
    def original(self) -> Stream:
        """Where code of no cell writes."""
        if not self.installed:  # a routed stream that somebody has kept
            there = _NAMES.get(self.name)
            return self._original if there is self.front else there
        return self._original

    @original.setter
    def original(self, stream: Stream) -> None:
        # The front is what mock.patch finds in the module's dict, and puts back.
        self._original = self._found if stream is self.front else stream
        if not self.installed:  # a class that somebody has derived from ours
            _NAMES[self.name] = self._original

    # -- what `sys.stdout` is ----------------------------------------------------------------

    def read(self) -> Stream:
        """What the calling code reads."""
        if _job_here() is None:
            return self.original
        diverted = self._diversion.get()
        return self.routed if diverted is _NOT_DIVERTED else diverted

    def assign(self, stream: Stream) -> None:
        """The calling code assigns *stream*.

        In a cell the original, and ``sys.__stdout__``, mean the routed stream: code that assigns
        them wants to end a diversion.
        """
        if _job_here() is None:
            self.original = stream
            return
        self.flush_diversion()  # its last text would come when it is freed, in any context
        if stream is not None and self.is_undiverted(stream):
            self._diversion.set(_NOT_DIVERTED)
        else:
            self._diversion.set(stream)
            self.diverted = True
            self.direct = None
            self.front.write = self._write_diverted  # type: ignore[method-assign]
            self.front.flush = self._flush_diverted  # type: ignore[method-assign]

    def is_undiverted(self, stream: object) -> bool:
        """Whether *stream* is one of the faces, or the process's own stream."""
        dunder = _NAMES.get(f"__{self.name}__")
        return any(stream is it for it in (self.routed, self.front, self._original, dunder))

    def flush_diversion(self) -> None:
        """Flush what a cell has assigned, as Python does with its streams when a program ends."""
        diverted = self._diversion.get()
        if diverted is not None and diverted is not _NOT_DIVERTED:
            try:
                diverted.flush()
            except Exception:  # a boundary: the stream is the cell's, and may be closed
                return

    def _write_diverted(self, text: str) -> int:
        """Stand for the front's ``write``, once any cell has assigned the stream."""
        stream = self.read()
        return len(text) if stream is None else int(stream.write(text) or 0)

    def _flush_diverted(self) -> None:
        stream = self.read()
        if stream is not None:
            stream.flush()


class RoutedStream(io.TextIOBase):
    """A standard stream that writes to the cell whose code writes, or to the original.

    It has no ``__getattr__``: with one, each ``print`` took a quarter longer to find ``write``.
    """

    def __init__(self, standard: StandardStream) -> None:
        self._standard = standard

    def write(self, text: str) -> int:
        """Write *text* where it belongs. Raises TypeError when it is not a ``str``."""
        job = _job_here()
        if job is None:
            return self._write_outside(text)
        output = job.output
        if output is None:
            output = job.open_output()
        if type(text) is not str:
            text = plain_text(text)
        return output.write_to(self._standard.name, text)

    def _write_outside(self, text: str) -> int:
        original = self._standard.original
        return 0 if original is None else int(original.write(text) or 0)

    def flush(self) -> None:
        """Pass on what is held back."""
        job = _job_here()
        original = self._standard.original
        if job is not None:
            (job.output or job.open_output()).flush()
        elif original is not None and not original.closed:
            original.flush()

    def close(self) -> None:
        """Do nothing: the stream is everybody's, and its owner closes the original."""

    def detach(self) -> Any:
        """In a cell the buffer, and nothing is detached; else what the original does."""
        return self.buffer if _in_cell() else self._other("detach")()

    def reconfigure(self, **options: Any) -> None:
        """Do nothing in a cell: the options are the host's. Else what the original does."""
        if not _in_cell():
            self._other("reconfigure")(**options)

    def writable(self) -> bool:
        """Always true."""
        return True

    def isatty(self) -> bool:
        """False in a cell; else what the original says."""
        original = self._standard.original
        return not _in_cell() and original is not None and original.isatty()

    def fileno(self) -> int:
        """The original's descriptor; what is written there is not routed."""
        original = self._standard.original
        if original is None:
            raise io.UnsupportedOperation("fileno")
        return int(original.fileno())

    @property
    def buffer(self) -> Any:
        """In a cell, takes bytes for the cell; else the original's."""
        return self._standard.buffer if _in_cell() else self._other("buffer")

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """What bytes are decoded from, in a cell; else the original's encoding."""
        if _in_cell():
            return ENCODING
        return getattr(self._standard.original, "encoding", None) or ENCODING

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """What the original does with characters that it cannot encode; a cell's are all taken."""
        if _in_cell():
            return "backslashreplace"
        return getattr(self._standard.original, "errors", None)

    @property
    def name(self) -> Any:
        """The original's name."""
        return self._other("name")

    @property
    def mode(self) -> Any:
        """The original's mode."""
        return self._other("mode")

    @property
    def line_buffering(self) -> Any:
        """Whether the original passes each line on."""
        return self._other("line_buffering")

    @property
    def write_through(self) -> Any:
        """Whether the original passes everything on."""
        return self._other("write_through")

    def _other(self, name: str) -> Any:
        return getattr(self._standard.original, name)


class RoutedStdout(RoutedStream):
    """The same for ``sys.stdout``, by a shorter way: most that is written comes here."""

    def write(self, text: str) -> int:
        """Write *text* where it belongs. Raises TypeError when it is not a ``str``."""
        job = _job_here()
        if job is None:
            return self._write_outside(text)
        output = job.output
        if output is None:
            output = job.open_output()
        if type(text) is not str:
            text = plain_text(text)
        output.write(text)
        return len(text)


_FACES: dict[StreamName, type[RoutedStream]] = {"stdout": RoutedStdout, "stderr": RoutedStream}


class RoutedBuffer(io.BufferedIOBase):
    """The ``buffer`` of a routed stream: takes bytes for the cell whose code writes."""

    def __init__(self, standard: StandardStream) -> None:
        self._standard = standard

    def write(self, data: Any) -> int:
        """Write *data*, a bytes-like object, in order with the text; the number of its bytes."""
        job = _job_here()
        if job is None:
            return int(self._standard.original.buffer.write(data))
        output = job.output or job.open_output()
        return output.write_to(self._standard.name, bytes(memoryview(data)))

    def flush(self) -> None:
        """Pass on what is held back; half a character waits for the rest of it."""
        job = _job_here()
        if job is not None:
            (job.output or job.open_output()).flush()
        elif self._standard.original is not None:
            self._standard.original.buffer.flush()

    def close(self) -> None:
        """Do nothing: a text stream that a cell puts on top closes it when it goes."""

    def writable(self) -> bool:
        """Always true."""
        return True

    def isatty(self) -> bool:
        """As the text stream."""
        return self._standard.routed.isatty()

    def fileno(self) -> int:
        """As the text stream."""
        return self._standard.routed.fileno()


def _in_cell() -> bool:
    return _job_here() is not None


def _module_class(base: type[types.ModuleType], streams: Any) -> type[types.ModuleType]:
    """A class for the module ``sys`` in which the streams are properties."""

    def property_of(standard: StandardStream) -> Any:
        return property(
            lambda module: standard.read(),
            lambda module, stream: standard.assign(stream),
            lambda module: standard.assign(None),
        )

    def reduce(module: types.ModuleType) -> Any:
        """Pickle by name, as cloudpickle does with modules of the plain class."""
        return importlib.import_module, (module.__name__,)

    body = {name: property_of(standard) for name, standard in streams.items()}
    return type(base.__name__, (base,), {**body, "__reduce__": reduce})


class _HandlersStream:
    """The attribute ``stream`` of logging's handlers: in a cell, the original means the cell's."""

    def __init__(self, streams: Any) -> None:
        self._streams = streams

    def __get__(self, handler: Any, owner: Any = None) -> Any:
        stream = vars(handler).get("stream", self) if handler is not None else self
        if stream is self:
            raise AttributeError("stream")
        if _in_cell():
            for standard in self._streams.values():
                if stream is standard.original:
                    return standard.routed
        return stream

    def __set__(self, handler: Any, stream: Any) -> None:
        vars(handler)["stream"] = stream

    def __delete__(self, handler: Any) -> None:
        vars(handler).pop("stream", None)


class StreamHooks(Hook):
    """The three faces of both streams.

    A child process made by ``fork`` belongs to no cell: what it prints goes where the process's
    output went, since nobody reads the copy of the cell's that it has.

    """

    def __init__(self) -> None:
        super().__init__()
        self._streams = {name: StandardStream(name) for name in STREAMS}
        self.stdout = self._streams["stdout"]
        self._handlers_stream = _HandlersStream(self._streams)
        self._module_class = types.ModuleType
        self._found_class = types.ModuleType
        self._told_of_forks = False

    @property
    def diverted(self) -> bool:
        """Whether any cell has assigned a stream."""
        return self.stdout.diverted or self._streams["stderr"].diverted

    def flush_diversions(self) -> None:
        """Flush the streams that the calling cell has assigned."""
        for standard in self._streams.values():
            standard.flush_diversion()

    def _put_in(self) -> None:
        for standard in self._streams.values():
            standard.install()
        self._found_class = type(sys)
        if self._module_class.__base__ is not self._found_class:
            self._module_class = _module_class(self._found_class, self._streams)
        sys.__class__ = self._module_class
        logging.StreamHandler.stream = self._handlers_stream  # type: ignore[misc]
        if not self._told_of_forks and hasattr(os, "register_at_fork"):
            self._told_of_forks = True
            os.register_at_fork(after_in_child=self._after_fork)

    def _take_out(self) -> None:
        """Take out what is still ours: who came later may have built on it."""
        if type(sys) is self._module_class:
            sys.__class__ = self._found_class
        for standard in self._streams.values():
            standard.remove()
        if vars(logging.StreamHandler).get("stream") is self._handlers_stream:
            del logging.StreamHandler.stream  # type: ignore[misc]

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # another thread may have held it
        current_job.set(None)
        if self._users:
            self._users = 0
            self._take_out()


stream_hooks = StreamHooks()
"""The process has one ``sys``, so there is one of these."""
