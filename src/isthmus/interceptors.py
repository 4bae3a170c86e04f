"""What stands between a cell and a capability. Owns the chain, and four interceptors.

An interceptor is an async function of two arguments:

    async def interceptor(call, proceed):
        ...                                     # look at call, refuse it by raising
        result = await proceed()                # or proceed(call.with_arguments(...)), or twice
        ...                                     # look at the result
        return result

The first of a chain is the outermost. The chain runs where the capability runs: on the loop of the
host that registered it, in whichever context the cell is.

Refuses to know: colours, loops, sessions.

Guarantees: an interceptor object may serve several sessions, on several loops and threads.
"""

from __future__ import annotations

import asyncio
import reprlib
import sys
import threading
import time
from asyncio import timeout
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import isawaitable, isclass
from typing import Any, Literal

from isthmus.colours import Colour
from isthmus.durations import checked_seconds
from isthmus.errors import BudgetExceeded, CapabilityRefused, CapabilityTimeout
from isthmus.events import Context

JOURNAL_ENTRIES = 1000
"""Calls that a journal keeps unless told otherwise; from the air."""

JOURNAL_TEXT = 200
"""Characters of each argument, result and error in a journal; from the air."""


@dataclass(frozen=True, slots=True)
class CapabilityCall:
    """One call of a capability, as interceptors see it.

    Attributes:
        name: The capability's name.
        args: The positional arguments, as the cell gave them or an interceptor changed them.
        kwargs: The keyword arguments.
        session: The session's name.
        cell: The number of the cell whose code calls; 0 for code of no cell.
        context: Where that cell runs; None for code of no cell.
        colour: Of the code that calls: ``"async"`` or ``"sync"``.
    """

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    session: str = ""
    cell: int = 0
    context: Context | None = None
    colour: Colour = "async"

    def with_arguments(self, *args: Any, **kwargs: Any) -> CapabilityCall:
        """The same call with other arguments."""
        return replace(self, args=args, kwargs=kwargs)


Perform = Callable[[CapabilityCall], Awaitable[Any]]
"""Makes a call and gives its result."""

Proceed = Callable[..., Awaitable[Any]]
"""Goes on with a call: without argument the one that came, or the changed one that it is given."""

Interceptor = Callable[[CapabilityCall, Proceed], Awaitable[Any]]


def checked_chain(interceptors: Iterable[Interceptor]) -> tuple[Interceptor, ...]:
    """*interceptors* as a chain.

    Raises:
        TypeError: It is one interceptor alone, or holds what cannot be called, or a class.
    """
    if callable(interceptors) or not isinstance(interceptors, Iterable):
        raise TypeError(f"interceptors are given as a list, such as [{interceptors!r}]")
    chain = tuple(interceptors)
    for it in chain:
        if isclass(it):
            raise TypeError(f"an interceptor is an object, not its class: {it.__name__}(...)")
        if not callable(it):
            raise TypeError(f"an interceptor is an async function (call, proceed), not {it!r}")
    return chain


def intercepted(interceptors: Sequence[Interceptor], perform: Perform) -> Perform:
    """*perform* with *interceptors* around it, the first one outermost."""
    for interceptor in reversed(interceptors):
        perform = _around(interceptor, perform)
    return perform


def _around(interceptor: Interceptor, perform: Perform) -> Perform:
    def call_interceptor(call: CapabilityCall) -> Awaitable[Any]:
        def proceed(changed: CapabilityCall | None = None) -> Awaitable[Any]:
            return perform(call if changed is None else changed)

        answer = interceptor(call, proceed)
        if not isawaitable(answer):
            raise TypeError(f"the interceptor {interceptor!r} is not async: it gave {answer!r}")
        return answer

    return call_interceptor


class Approve:
    """Asks the host before each call.

    Arguments:
        callback: A sync or async function of the :class:`CapabilityCall`; True approves, a text
            refuses with that reason. Anything else refuses too, so that a forgotten ``return``
            does not let everything pass. What it raises arrives in the cell.

    Raises, in the cell:
        CapabilityRefused: The call was not approved.
    """

    def __init__(
        self, callback: Callable[[CapabilityCall], bool | str | Awaitable[bool | str]]
    ) -> None:
        self._callback = callback

    async def __call__(self, call: CapabilityCall, proceed: Proceed) -> Any:
        """Go on if the host approves."""
        answer = self._callback(call)
        if isawaitable(answer):
            answer = await answer
        if isinstance(answer, str):
            raise CapabilityRefused(f"{call.name}() was refused: {answer}")
        if answer is not True:
            raise CapabilityRefused(f"the host did not approve the call of {call.name}()")
        return await proceed()


class Timeout:
    """Bounds the time of each call.

    Arguments:
        seconds: How long one call may take. Only what awaits can be cut short.

    Raises:
        TypeError: *seconds* is no number.
        ValueError: *seconds* is negative or NaN.

    Raises, in the cell:
        CapabilityTimeout: The call took longer; the capability was cancelled.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = checked_seconds(seconds, "seconds")

    async def __call__(self, call: CapabilityCall, proceed: Proceed) -> Any:
        """Go on for as long as the call may take."""
        try:
            async with timeout(self.seconds) as scope:
                return await proceed()
        except TimeoutError as error:
            if not scope.expired():  # the capability's own
                raise
            message = f"{call.name}() took longer than {self.seconds} s and was cancelled"
            raise CapabilityTimeout(message) from error


class Budget:
    """Bounds what all calls together may spend.

    Arguments:
        calls: How many may be made; None sets no bound.
        seconds: How long they may take in sum; None sets no bound. A call in flight is cut short
            when what was left at its start is spent.

    Raises:
        TypeError: *calls* is no whole number, or *seconds* no number.
        ValueError: One of them is negative, or *seconds* NaN.

    Attributes:
        used_calls: How many were made.
        used_seconds: How long those that have ended took.

    Raises, in the cell:
        BudgetExceeded: The budget is spent.

    Threads: any. The lock guards both attributes; nothing is called inside.
    """

    def __init__(self, calls: int | None = None, seconds: float | None = None) -> None:
        self.calls = _checked_calls(calls)
        self.seconds = checked_seconds(seconds, "seconds")
        self.used_calls = 0
        self.used_seconds = 0.0
        self._lock = threading.Lock()

    async def __call__(self, call: CapabilityCall, proceed: Proceed) -> Any:
        """Go on if there is budget left, for as long as there is."""
        left = self._take(call)
        started = time.monotonic()
        try:
            async with timeout(left) as scope:
                return await proceed()
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise self._exceeded(call) from error
        finally:
            with self._lock:
                self.used_seconds += time.monotonic() - started

    def _take(self, call: CapabilityCall) -> float | None:
        """Count *call*; the seconds that are left, or None where they are not bounded."""
        with self._lock:
            left = None if self.seconds is None else self.seconds - self.used_seconds
            spent = self.calls is not None and self.used_calls >= self.calls
            if spent or (left is not None and left <= 0):
                raise self._exceeded(call)
            self.used_calls += 1
        return left

    def _exceeded(self, call: CapabilityCall) -> BudgetExceeded:
        bounds = []
        if self.calls is not None:
            bounds.append(f"{self.calls} calls")
        if self.seconds is not None:
            bounds.append(f"{self.seconds} s")
        return BudgetExceeded(f"{call.name}(): the budget of {' and '.join(bounds)} is spent")


def _checked_calls(given: int | None) -> int | None:
    """*given*, if it is a number of calls."""
    if given is not None and (not isinstance(given, int) or isinstance(given, bool)):
        raise TypeError(f"calls is a whole number or None, not {given!r}")
    if given is not None and given < 0:
        raise ValueError(f"calls is a number that is not negative, not {given!r}")
    return given


Outcome = Literal["returned", "raised", "cancelled"]


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One call that has ended. Texts, not objects: a journal pins nothing.

    Attributes:
        name: The capability's name.
        arguments: What it was called with, as ``'a', limit=3``.
        outcome: How it ended.
        result: The ``repr`` of what it returned or raised, shortened.
        session: The session's name.
        cell: The number of the cell; 0 for code of no cell.
        context: Where the cell runs; None for code of no cell.
        wall_time: When it was called, in seconds since the epoch.
        duration: How long it took, in seconds.
    """

    name: str
    arguments: str
    outcome: Outcome
    result: str
    session: str
    cell: int
    context: Context | None
    wall_time: float
    duration: float


class Journal:
    """Keeps a record of each call, once it has ended. Put it first, to see what others refuse.

    Arguments:
        limit: How many entries to keep; the oldest goes first.
        on_entry: Called with each entry, on the loop where the capability runs.

    Threads: any.
    """

    def __init__(
        self,
        limit: int = JOURNAL_ENTRIES,
        on_entry: Callable[[JournalEntry], object] | None = None,
    ) -> None:
        self._entries: deque[JournalEntry] = deque(maxlen=limit)
        self._on_entry = on_entry

    @property
    def entries(self) -> tuple[JournalEntry, ...]:
        """What is kept, oldest first."""
        return tuple(self._entries.copy())

    async def __call__(self, call: CapabilityCall, proceed: Proceed) -> Any:
        """Go on, and note how it ended."""
        arguments = _shown_arguments(call)
        wall_time, started = time.time(), time.monotonic()

        result: Any = _NOTHING
        try:
            result = await proceed()
        finally:  # and no handler: whatever it is goes on to the cell
            error = sys.exc_info()[1] if result is _NOTHING else None
            outcome: Outcome = "returned"
            if error is not None:
                cancelled = isinstance(error, asyncio.CancelledError | GeneratorExit)
                outcome = "cancelled" if cancelled else "raised"
            shown = _shown(result if error is None else error)
            where = call.session, call.cell, call.context
            duration = time.monotonic() - started
            self._note(
                JournalEntry(call.name, arguments, outcome, shown, *where, wall_time, duration)
            )
        return result

    def _note(self, entry: JournalEntry) -> None:
        self._entries.append(entry)
        if self._on_entry is not None:
            self._on_entry(entry)


_NOTHING = object()


class _ShortRepr(reprlib.Repr):
    """``repr`` in a few hundred characters, of large containers and of broken objects too."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = JOURNAL_TEXT


_short_repr = _ShortRepr()


def _shown(value: object) -> str:
    return _short_repr.repr(value)


def _shown_arguments(call: CapabilityCall) -> str:
    named = [f"{name}={_shown(value)}" for name, value in call.kwargs.items()]
    return ", ".join([*map(_shown, call.args), *named])
