"""Whose colour a call has: async or sync. Owns reading it from the stack.

The colour of a call is that of the function in which it stands, which is the nearest one on the
stack whose globals are the session's namespace:

- ``async def``, and whatever else awaits by itself (an asynchronous generator expression, a
  generator of ``types.coroutine``), is async; ``def``, ``lambda`` and the body of a class, in
  which ``await`` cannot be written, are sync;
- a comprehension or a generator expression belongs to the code around it in the text;
- the top level of a cell has one colour throughout: async when the cell awaits anywhere there.

A stack without code of the session (a callback that a library keeps) is async where an event loop
runs, else sync.

Refuses to know: what is called.

The code around a comprehension is its caller, since Python calls it where it stands (3.12 and later
mostly inline it, PEP 709). A generator expression may be consumed anywhere: the code around it is
looked for on the stack, then in the text of its cell, compiled again.
"""

from __future__ import annotations

import ast
import asyncio
import linecache
import weakref
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_ITERABLE_COROUTINE, CO_NEWLOCALS
from types import CodeType, FrameType
from typing import Literal

from isthmus.bindings import code_within
from isthmus.cells import FUTURE_FLAGS, _without_warnings
from isthmus.jobs import current_job

Colour = Literal["async", "sync"]

_AWAITS = CO_COROUTINE | CO_ASYNC_GENERATOR | CO_ITERABLE_COROUTINE

_COMPREHENSIONS = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>"})

_SPECIAL = _COMPREHENSIONS | {"<genexpr>"}


def stands_in_async(frame: FrameType | None, namespace: int) -> bool:
    """Whether a call made from *frame* has the colour async.

    Arguments:
        frame: The caller's, or any below it.
        namespace: The ``id`` of the session's namespace, which nobody has to hold that way. Once
            it is gone another one's code may be taken for the session's.
    """
    while frame is not None and id(frame.f_globals) != namespace:
        frame = frame.f_back
    if frame is None:
        return asyncio._get_running_loop() is not None
    code = frame.f_code
    flags = code.co_flags
    if flags & _AWAITS:
        return True
    if flags & CO_NEWLOCALS and code.co_name not in _SPECIAL:  # def and lambda
        return False
    return _unusual_stands_in_async(frame, namespace)


def _nearest(frame: FrameType | None, namespace: int) -> FrameType | None:
    """*frame*, or the first one below it, that runs code of the session."""
    while frame is not None and id(frame.f_globals) != namespace:
        frame = frame.f_back
    return frame


def _unusual_stands_in_async(frame: FrameType, namespace: int) -> bool:
    """The same for a comprehension, a generator expression, a class body, or a top level."""
    code = frame.f_code
    if code.co_name in _COMPREHENSIONS:
        return stands_in_async(frame.f_back, namespace)
    if code.co_name == "<genexpr>":
        around = _around_on_stack(frame, namespace)
        return _by_text(code) if around is None else stands_in_async(around, namespace)
    return code.co_name == "<module>" and _cell_awaits(code)


def _around_on_stack(frame: FrameType, namespace: int) -> FrameType | None:
    """A frame below *frame* that runs the code in which the code of *frame* stands, if any."""
    code = frame.f_code
    around = _nearest(frame.f_back, namespace)
    while around is not None and not any(it is code for it in around.f_code.co_consts):
        around = _nearest(around.f_back, namespace)
    return around


def _cell_awaits(code: CodeType) -> bool:
    """Whether *code*, a top level, is of a cell that awaits. That of an ``exec`` is of none."""
    job = current_job.get()
    while job is not None:
        cell = getattr(job, "cell", None)  # a job made of source: known on a higher floor only
        if cell is not None and (cell.body is code or cell.last is code):
            return job.awaits
        job = job.parent
    return _by_text(code)


# -- the text of a cell, compiled again ----------------------------------------------------------

_known: dict[int, tuple[weakref.ref[CodeType], bool]] = {}
"""What was found by text, by the ``id`` of the code object.

For all sessions, like the sources themselves. Code objects are equal when their instructions are,
wherever they stand, so that a mapping by them would mix up the cells. Each entry ends with its
code; a single read or write of it is atomic.
"""


def _by_text(code: CodeType) -> bool:
    """Whether the code around *code*, in the text that its file name stands for, is async."""
    key = id(code)
    known = _known.get(key)
    if known is None or known[0]() is not code:
        answer = _search(code)
        known = weakref.ref(code, lambda _: _known.pop(key, None)), answer
        _known[key] = known
    return known[1]


def _search(code: CodeType) -> bool:
    top = _compiled_again(code)
    if top is None:  # of an exec, whose text nobody has
        return False
    if code.co_name == "<module>":
        return bool(top.co_flags & CO_COROUTINE)
    around = _around_in(top, _identity(code))
    while around is not None and around.co_name in _SPECIAL and not around.co_flags & _AWAITS:
        around = _around_in(top, _identity(around))
    return around is not None and bool(around.co_flags & _AWAITS)


def _compiled_again(code: CodeType) -> CodeType | None:
    """The whole of the cell in which *code* stands, in its async form."""
    entry = linecache.cache.get(code.co_filename)
    if entry is None or len(entry) == 1:  # one that linecache would load when asked: not ours
        return None
    flags = code.co_flags & FUTURE_FLAGS | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    text = "".join(entry[2])
    try:
        with _without_warnings(code.co_filename):
            top = compile(text, code.co_filename, "exec", flags, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # the cells of one script, laid over each other
    assert isinstance(top, CodeType)
    return top


def _identity(code: CodeType) -> tuple[object, ...]:
    """What tells a code object from all others of its text: its place, above all."""
    return code.co_qualname, code.co_firstlineno, code.co_code, tuple(code.co_positions())


def _around_in(top: CodeType, wanted: tuple[object, ...]) -> CodeType | None:
    """The code object below *top*, or *top* itself, in which the *wanted* one stands."""
    pending = [top]
    while pending:
        outer = pending.pop()
        inner = code_within(outer)
        if any(_identity(it) == wanted for it in inner):
            return outer
        pending += inner
    return None
