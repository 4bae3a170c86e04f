"""What session code has left lying about, found by looking at objects. Owns the two ways to look.

Refuses to know: what becomes of what is found.

- :func:`sweep` asks the garbage collector for every object of the process. It finds all there is,
  and costs what the host's heap makes it cost: some 30 ms for 300,000 objects.
- :func:`within_reach` follows references from a namespace, over a bounded number of objects: enough
  for the end of a session, and no matter to a large host.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from itertools import islice
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType, ModuleType
from typing import Any

from isthmus.jobs import current_job
from isthmus.ownership import Ownership
from isthmus.task_factory import belongs_to_task, with_portal

REACH_OBJECTS = 2_000
"""How many objects :func:`within_reach` looks at: about 2 ms. From the air."""

_PACKAGE = os.path.dirname(__file__)

_AWAITING = {
    CoroutineType: "cr_await",
    AsyncGeneratorType: "ag_await",
    GeneratorType: "gi_yieldfrom",
}
"""What says of an object of each of these types which other one it waits for."""

_NOT_ENTERED = (ModuleType, asyncio.Future, asyncio.AbstractEventLoop, Context, threading.Thread)
"""What leads to everything else; and what it leads to has been told to end."""

_CONTAINERS = (dict, list, tuple, set, frozenset)


@dataclass(slots=True)
class Found:
    """What one look has found of one session.

    Attributes:
        coroutines: Those that nobody awaits: never begun, or begun by hand.
        generators: Async generators that have not ended.
        tasks: Tasks that are not done.
    """

    coroutines: list[Coroutine[Any, Any, Any]] = field(default_factory=list)
    generators: list[AsyncGenerator[Any, Any]] = field(default_factory=list)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)


def sweep(ownership: Ownership) -> Found:
    """Everything of the session that there is in the process. Threads: any."""
    return _sorted(gc.get_objects(), ownership)


def within_reach(namespace: dict[str, Any], ownership: Ownership) -> Found:
    """What of the session hangs on *namespace*, among the first objects. Threads: any."""
    return _sorted(_reached(namespace), ownership)


def _sorted(objects: Iterable[Any], ownership: Ownership) -> Found:
    found, awaited = Found(), set[int]()
    for it in objects:
        kind = type(it)
        if kind in _AWAITING:
            awaited.update(_awaited_by(it, _AWAITING[kind]))
        if kind is CoroutineType:
            if not it.cr_running and ownership.owns(it):
                found.coroutines.append(it)
        elif kind is AsyncGeneratorType:
            if ownership.owns(it):
                found.generators.append(it)
        elif issubclass(kind, asyncio.Task) and not it.done() and _made_by_job_of(it, ownership):
            found.tasks.append(it)
    found.coroutines = [
        it for it in found.coroutines if id(it) not in awaited and not belongs_to_task(it)
    ]
    return found


def _awaited_by(it: Any, attribute: str) -> Iterator[int]:
    """The identity of what *it* waits for; and of the coroutine in it, for its ``__await__()``."""
    awaited = getattr(it, attribute)
    if awaited is not None:
        yield id(awaited)
        if type(awaited).__name__ == "coroutine_wrapper":
            yield from map(id, gc.get_referents(awaited))


def _made_by_job_of(task: asyncio.Task[Any], ownership: Ownership) -> bool:
    """Whether code of the session made *task*, by its context variables; and not we for it.

    ``Task.get_context`` is there from Python 3.12 on only; and on 3.11 ``get_coro`` crashes for a
    task whose making has failed.
    """
    parts = gc.get_referents(task)
    steps = [it.cr_code for it in parts if type(it) is CoroutineType]
    ours = [code for code in steps if code.co_filename.startswith(_PACKAGE)]
    if ours and with_portal.__code__ not in ours:
        return False
    contexts = [it for it in parts if type(it) is Context]
    jobs = [it.get(current_job) for it in contexts]
    return any(job is not None and job.owner.ownership is ownership for job in jobs)


def _reached(namespace: dict[str, Any]) -> Iterator[Any]:
    """The objects on which *namespace* depends, nearest first; not those of other modules."""
    seen = {id(namespace), id(namespace.get("__builtins__"))}
    queue = deque(_held_by(namespace, namespace))
    for _ in range(REACH_OBJECTS):
        if not queue:
            return
        it = queue.popleft()
        if id(it) not in seen and gc.is_tracked(it):
            seen.add(id(it))
            yield it
            queue.extend(_held_by(it, namespace))


def _held_by(it: Any, namespace: dict[str, Any]) -> Iterable[object]:
    """What *it* holds, as far as that can be the session's. Calls no code of the user's."""
    kind = type(it)
    for base in _CONTAINERS:
        if issubclass(kind, base):
            with suppress(RuntimeError):  # another thread changes it just now
                return list(islice(_values(it, base), REACH_OBJECTS))
            return ()
    if kind is FunctionType:
        foreign = it.__globals__ is not namespace
    elif issubclass(kind, type):
        foreign = type.__getattribute__(it, "__module__") != namespace.get("__name__")
    else:
        foreign = issubclass(kind, _NOT_ENTERED)
    return () if foreign else gc.get_referents(it)


def _values(it: Any, base: Any) -> Iterator[object]:
    """What a container holds, by the built-in type's own iteration."""
    return iter(dict.values(it)) if base is dict else base.__iter__(it)
