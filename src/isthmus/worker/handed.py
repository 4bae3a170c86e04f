"""What functions of the host have returned for use over time: generators, context managers and
their like. Owns them as long as a worker uses them, and the steps that it takes with them.

All steps of one object are taken in one task, so that a scope that is entered can be left, on the
loop on which the function has run; and in the order in which they were asked for. What entering a
manager gives lives in the same task.

Refuses to know: messages but for what they say of an object, calls.

Threads: the loop's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import Future
from functools import partial
from typing import Any, Literal

from isthmus.delegates import Delegate
from isthmus.tracebacks import safe_repr
from isthmus.values import type_name
from isthmus.wire.replies import Handed

Colour = Literal["", "async", "sync"]


class Exhausted:
    """There is no next item.

    Attributes:
        value: What a generator has returned.
    """

    def __init__(self, value: object = None) -> None:
        self.value = value


class HandedObject:
    """One of them.

    Arguments:
        value: The object.
        delegate: Takes the steps.

    Attributes:
        delegate: The same.
    """

    def __init__(self, value: Any, delegate: Delegate) -> None:
        self.delegate = delegate
        self._value = value
        kind = type(value)
        self._iterates = _colour(kind, "__aiter__", "__iter__")
        self._manages = _colour(kind, "__aenter__", "__enter__")
        self._is_entered = False

    def described(self, request: int, number: int, awaited: bool) -> Handed:
        """What a worker has to know of it."""
        next_ = "__anext__" if self._iterates == "async" else "__next__"
        return Handed(
            request,
            number,
            iterates=self._iterates,
            manages=self._manages,
            is_iterator=hasattr(type(self._value), next_),
            awaited=awaited,
            type_name=type_name(self._value),
            text=safe_repr(self._value),
        )

    async def take(self, step: str, argument: Any) -> Any:
        """Take a step, in the task of the object.

        Returns:
            What it gives; :class:`Exhausted` where there is no next item.

        Raises whatever the object raises.
        """
        return await self.delegate.perform(self._take(step, argument))

    async def _take(self, step: str, argument: Any) -> Any:
        colour = self._manages if step in ("enter", "exit") else self._iterates
        steps = _ASYNC_STEPS if colour == "async" else _SYNC_STEPS
        try:
            result = steps[step](self._value, argument)
            result = await result if colour == "async" and step != "iter" else result
        except StopAsyncIteration:
            return Exhausted()
        except StopIteration as stop:
            return Exhausted(stop.value)
        if step in ("enter", "exit"):
            self._is_entered = step == "enter"
        return result

    def leave(self, error: BaseException | None) -> Future[Any] | None:
        """Begin to end what is unfinished: nobody will take a step any more.

        Arguments:
            error: What ended the blocks of context managers; None leaves them alone.
        """
        if self._is_entered and error is not None:
            return self.delegate.begin(self._take("exit", error)).outcome
        if isinstance(self._value, AsyncGenerator | Generator):
            return self.delegate.begin(self._take("close", None)).outcome
        return None


def _colour(kind: type, for_async: str, for_sync: str) -> Colour:
    if hasattr(kind, for_async):
        return "async"
    return "sync" if hasattr(kind, for_sync) else ""


def _as_left(error: BaseException | None) -> tuple[Any, BaseException | None, Any]:
    """The arguments of ``__exit__`` for a block that *error* has ended, or nothing."""
    return (None, None, None) if error is None else (type(error), error, error.__traceback__)


_ASYNC_STEPS: dict[str, Any] = {
    "iter": lambda value, _: aiter(value),
    "next": lambda value, _: anext(value),
    "send": lambda value, item: value.asend(item),
    "throw": lambda value, error: value.athrow(error),
    "close": lambda value, _: value.aclose(),
    "enter": lambda value, _: type(value).__aenter__(value),
    "exit": lambda value, error: type(value).__aexit__(value, *_as_left(error)),
}

_SYNC_STEPS: dict[str, Any] = {
    "iter": lambda value, _: iter(value),
    "next": lambda value, _: next(value),
    "send": lambda value, item: value.send(item),
    "throw": lambda value, error: value.throw(error),
    "close": lambda value, _: value.close(),
    "enter": lambda value, _: type(value).__enter__(value),
    "exit": lambda value, error: type(value).__exit__(value, *_as_left(error)),
}


def stays_here(value: object) -> bool:
    """Whether *value* is used over time, whatever else it is: a copy of it would be another one."""
    kind = type(value)
    return any(hasattr(kind, name) for name in ("__aiter__", "__aenter__", "__next__"))


def can_be_handed(value: object) -> bool:
    """Whether *value* can be used from a worker, if there is no way to send it."""
    return stays_here(value) or any(
        hasattr(type(value), name) for name in ("__iter__", "__enter__")
    )


class HandedObjects:
    """Those of one worker."""

    def __init__(self) -> None:
        self._objects: dict[int, HandedObject] = {}
        self._last = 0
        self._users: Counter[Delegate] = Counter()

    def hand(self, value: object, delegate: Delegate, request: int, awaited: bool) -> Handed:
        """Keep *value*; what the worker has to know of it.

        Arguments:
            delegate: Takes the steps with it.
            request: The id of what is answered.
            awaited: The capability has given an awaitable, of which it is the result.
        """
        number = self._last = self._last + 1
        made = self._objects[number] = HandedObject(value, delegate)
        self._users[delegate] += 1
        return made.described(request, number, awaited)

    def get(self, number: int) -> HandedObject:
        """The object with this number."""
        return self._objects[number]

    def release(self, number: int, error: BaseException | None = None) -> None:
        """The worker has dropped an object: end what is unfinished.

        Arguments:
            number: Which one.
            error: What ended the blocks of context managers; None leaves them alone.
        """
        made = self._objects.pop(number)
        delegate = made.delegate
        if (outcome := made.leave(error)) is not None:
            outcome.add_done_callback(partial(_complain, delegate.loop, error))
        self._users[delegate] -= 1
        if not self._users[delegate]:
            del self._users[delegate]
            delegate.dismiss()

    def release_all(self, error: BaseException) -> None:
        """There is no worker any more; *error* says why."""
        for number in reversed(list(self._objects)):
            self.release(number, error)


def _complain(
    loop: asyncio.AbstractEventLoop, thrown: BaseException | None, outcome: Future[Any]
) -> None:
    """Tell of an error for which nobody waits, but for the one that was thrown in. On *loop*."""
    error = None if outcome.cancelled() else outcome.exception()
    if error not in (None, thrown):
        message = "an object that a capability has returned failed when it was ended"
        loop.call_exception_handler({"message": message, "exception": error})
