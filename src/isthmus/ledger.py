"""Coroutines that cells leave behind. Owns who adopted what, under which names, and how it ended.

Refuses to know: cells, contexts, order.

A bare coroutine bound to a name becomes a task of the home loop, and the name (all names that held
it) is rebound to that task, which can be awaited from any later cell, any number of times.

Threads: :meth:`CoroutineLedger.adopt` and what waits are for the loop's thread; the rest for any.
Changes of names are made under the namespace's lock.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import weakref
from asyncio import wait
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextvars import Context
from itertools import islice
from typing import Any, Literal, TypeGuard

from isthmus.failures import FailureReports
from isthmus.namespace import NamespaceManager
from isthmus.ownership import Ownership
from isthmus.sources import SourceBook
from isthmus.task_factory import belongs_to_task, end_with, own
from isthmus.tracebacks import safe_repr

CoroutinePolicy = Literal["adopt", "hold", "close"]
"""What becomes of a coroutine left in the namespace: a task, a note, or closed."""

SEARCH_DEPTH = 3
SEARCH_OBJECTS = 1_000
"""How far containers are searched for coroutines at the end of a cell."""

_CONTAINERS = (list, tuple, set, frozenset, dict)

SettledListener = Callable[[str, BaseException | None], None]


class SettledCoroutines(dict[str, Any]):
    """Results by name, as ``await_pending_coroutines`` gives them.

    Attributes:
        errors: What those raised that failed, by name.
        unfinished: Names of those that were still running at the timeout.
    """

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[str, BaseException] = {}
        self.unfinished: tuple[str, ...] = ()

    def raise_errors(self) -> None:
        """Raise what failed, if anything did.

        Raises:
            BaseExceptionGroup: With every error, each noting its name.
        """
        for name, error in self.errors.items():
            error.add_note(f"in the coroutine left behind as {name!r}")
        if self.errors:
            raise BaseExceptionGroup("coroutines left behind failed", list(self.errors.values()))


def is_coroutine(value: object) -> bool:
    """Whether *value* is a coroutine object: native, or of a compiled module."""
    return issubclass(type(value), Coroutine)  # isinstance() would ask the user's object


def is_untouched(coroutine: Any) -> bool:
    """Whether *coroutine* never started and belongs to no task."""
    try:
        created = inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
    except AttributeError:  # a compiled coroutine shows no state
        created = False
    return created and not belongs_to_task(coroutine)


def close_untouched(value: object) -> None:
    """Close *value* if it is a coroutine that never started and that nobody will await."""
    if is_coroutine(value) and is_untouched(value):
        value.close()  # type: ignore[attr-defined]


def coroutines_within(value: object, path: str) -> Iterator[tuple[str, Any]]:
    """Coroutines in *value*, a container, with the expressions that reach them; bounded."""
    yield from islice(_walk(value, path, SEARCH_DEPTH), SEARCH_OBJECTS)


def _walk(value: object, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    for where, item in islice(_items(value, path), SEARCH_OBJECTS):
        if is_coroutine(item):
            yield where, item
        elif depth > 1 and issubclass(type(item), _CONTAINERS):
            yield from _walk(item, where, depth - 1)


def _items(value: object, path: str) -> Iterator[tuple[str, Any]]:
    """What a container holds, by the built-in type's own iteration: a subclass is user code."""
    kind = type(value)
    if issubclass(kind, dict):
        pairs: list[tuple[Any, Any]] = list(dict.items(value))  # type: ignore[arg-type]
        for key, item in pairs:
            yield f"{path}[{safe_repr(key)}]", item
    elif issubclass(kind, list | tuple):
        base = list if issubclass(kind, list) else tuple
        for index, item in enumerate(base.__iter__(value)):  # type: ignore[arg-type]
            yield f"{path}[{index}]", item
    elif issubclass(kind, set | frozenset):
        for item in list((set if issubclass(kind, set) else frozenset).__iter__(value)):  # type: ignore[arg-type]
            yield f"{path}{{…}}", item


def _coroutines_of(value: object, path: str) -> list[Any]:
    """*value* itself if it is a coroutine, else those that it contains."""
    return [value] if is_coroutine(value) else [it for _, it in coroutines_within(value, path)]


def has_succeeded(it: object) -> TypeGuard[asyncio.Task[Any]]:
    """Whether *it* is a task that has ended with a result."""
    done = isinstance(it, asyncio.Task) and it.done() and not it.cancelled()
    return done and it.exception() is None  # type: ignore[attr-defined]


class CoroutineLedger:
    """What one namespace's cells have left behind.

    Arguments:
        manager: The namespace.
        policy: What becomes of a bare coroutine under a name.
        ownership: Where what is found is entered; None for a new one.
    """

    def __init__(
        self,
        manager: NamespaceManager,
        policy: CoroutinePolicy = "adopt",
        ownership: Ownership | None = None,
    ) -> None:
        if policy not in ("adopt", "hold", "close"):
            raise ValueError(f"a coroutine policy is 'adopt', 'hold' or 'close', not {policy!r}")
        self.policy = policy
        self.pending: dict[str, Any] = {}
        self.recorded: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        self.ownership = ownership or Ownership(
            manager.namespace, SourceBook(manager.name), FailureReports(manager.name)
        )
        self._manager = manager
        self._listeners: list[SettledListener] = []

    def on_settled(self, listener: SettledListener) -> None:
        """Have *listener* called with a name and an error or None when an adopted one has ended."""
        self._listeners.append(listener)

    # -- at the end of a cell ----------------------------------------------------------------

    def found_in(self, names: Iterable[str]) -> dict[str, Any]:
        """Names among *names* that hold a coroutine to be dealt with; notes those in containers."""
        mapping = self._manager.namespace
        found = {}
        for name in names:
            value = mapping.get(name)
            if is_coroutine(value):
                if is_untouched(value):
                    found[name] = value
            elif issubclass(type(value), _CONTAINERS):
                self._record(value, name)
        return found

    def _record(self, container: object, name: str) -> None:
        for path, coroutine in coroutines_within(container, name):
            self.recorded[path] = coroutine
            self.ownership.note_coroutine(coroutine, path)

    def take(
        self,
        found: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None,
        context: Context | None = None,
    ) -> tuple[str, ...]:
        """Deal with *found* according to the policy; the names that are adopted.

        Without a *loop* they are kept, to be adopted once there is one.
        """
        if self.policy == "close":
            for coroutine in found.values():
                coroutine.close()
            return ()
        if self.policy == "hold" or loop is None:
            self.pending.update(found)
            for name, coroutine in found.items():
                self.ownership.note_coroutine(coroutine, name)
            return ()
        tasks: dict[int, asyncio.Task[Any]] = {}
        for name, coroutine in found.items():
            task = tasks.get(id(coroutine)) or self.adopt(name, coroutine, loop, context)
            tasks[id(coroutine)] = task
            self._manager.rebind(name, coroutine, task)
            self.pending[name] = task
        return tuple(sorted(found))

    def adopt(
        self,
        name: str,
        coroutine: Coroutine[Any, Any, Any],
        loop: asyncio.AbstractEventLoop,
        context: Context | None = None,
    ) -> asyncio.Task[Any]:
        """Make *coroutine* a task of *loop*, out of reach of the host's task factory."""
        task: asyncio.Task[Any] = asyncio.Task(
            own(coroutine), loop=loop, name=f"{self._manager.name}: {name}", context=context
        )
        self.ownership.note_task(task, coroutine, name)
        end_with(task, coroutine, functools.partial(self._settled, name))
        return task

    def adopt_held(self, loop: asyncio.AbstractEventLoop, context: Context | None = None) -> None:
        """Adopt what was kept for want of a loop."""
        if self.policy == "adopt":
            waiting = {name: it for name, it in self.pending.items() if is_coroutine(it)}
            self.take({n: it for n, it in waiting.items() if is_untouched(it)}, loop, context)

    def forget_unheld(self) -> None:
        """Drop finished tasks that have succeeded and that no name holds, or may hold again."""
        mapping = self._manager.namespace
        for name, task in list(self.pending.items()):
            unheld = mapping.get(name) is not task and has_succeeded(task)
            if unheld and not self._manager.may_restore(name, task):
                self.pending.pop(name, None)  # another thread may be at it too

    def close_unheld(self, values: Mapping[str, Any]) -> None:
        """Close those coroutines in *values*, by what were their names, that are left to nobody.

        They never started, no name holds them any more, and no earlier cell has left them behind.
        In containers they are found as far as :meth:`found_in` finds them.
        """
        found = [
            (value, coroutine)
            for name, value in values.items()
            for coroutine in _coroutines_of(value, name)
            if is_untouched(coroutine)
        ]
        if not found:
            return
        recorded = [reference() for reference in self.recorded.valuerefs()]
        held = (*self._manager.namespace.copy().values(), *self.pending.values(), *recorded)
        kept = {id(it) for it in held}
        for value, coroutine in found:
            if kept.isdisjoint((id(value), id(coroutine))):
                coroutine.close()

    def _settled(self, name: str, task: asyncio.Task[Any]) -> None:
        """An adopted coroutine has ended: say so, once; forget it when no name holds it."""
        self.ownership.task_ended(task)
        self.forget_unheld()
        if not self._listeners:
            return  # asking for the error would count as somebody's having been told
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        for listener in self._listeners:
            listener(name, error)

    # -- on demand ---------------------------------------------------------------------------

    async def settle(self, timeout: float | None) -> SettledCoroutines:
        """Wait for what is adopted; give names their results. On the home loop."""
        tasks = {n: it for n, it in self.pending.items() if isinstance(it, asyncio.Task)}
        own_task = asyncio.current_task()
        waited = {task for task in tasks.values() if task is not own_task}
        if waited:
            await wait(waited, timeout=timeout)
        settled = SettledCoroutines()
        for name, task in tasks.items():
            if not task.done():
                settled.unfinished += (name,)
            else:
                self._collect(settled, name, task)
        return settled

    def _collect(self, settled: SettledCoroutines, name: str, task: asyncio.Task[Any]) -> None:
        """Move a finished task from the pending ones into *settled*."""
        if self.pending.get(name) is task:
            del self.pending[name]
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            settled.errors[name] = error
            return
        settled[name] = task.result()
        self._manager.rebind(name, task, settled[name])

    async def clean_up(self, timeout: float) -> tuple[str, ...]:
        """Cancel adopted tasks, close what was kept or recorded; names of what would not end."""
        tasks = {n: it for n, it in self.pending.items() if isinstance(it, asyncio.Task)}
        for coroutine in [*self.pending.values(), *self.recorded.values()]:
            if is_coroutine(coroutine) and is_untouched(coroutine):
                coroutine.close()
        for task in tasks.values():
            task.cancel("the namespace cleans up")
        running = {task for task in tasks.values() if not task.done()}
        if running:
            await wait(running, timeout=timeout)
        self.pending = {name: task for name, task in tasks.items() if not task.done()}
        self.recorded.clear()
        return tuple(sorted(self.pending))
