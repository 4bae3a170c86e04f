"""What happens at the boundary of a cell. Owns the synchroniser: adoption, the register of async
functions, clean-up of finished tasks, validation.

Refuses to know: how cells run, events.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from isthmus.async_namespace import AsyncNamespaceManager, running_loop
from isthmus.events import Context
from isthmus.ledger import has_succeeded, is_coroutine, is_untouched
from isthmus.portal import crossing_here, run_sync

_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None), ModuleType})
"""Types whose values are neither coroutines nor functions nor hold any: most of what cells bind."""

_log = logging.getLogger("isthmus.namespace")


@dataclass(slots=True)
class ValidationReport:
    """What is left lying about in a namespace.

    Attributes:
        unawaited: Names, and places in containers, that hold a coroutine nobody has awaited.
        cancelled: Names that hold a cancelled task.
        failed: Names that hold a failed task, with its error.
    """

    unawaited: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()
    failed: dict[str, BaseException] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether there is nothing to report."""
        return not (self.unawaited or self.cancelled or self.failed)


class NamespaceSynchronizer:
    """Brings a namespace in order at the end of a cell.

    Arguments:
        namespace_manager: The namespace.
        unwrap_tasks: Replace finished tasks that cells have made with ``create_task`` by their
            results too. Without it only adopted coroutines are ever replaced.

    Threads: the cell's own, or the loop's.
    """

    def __init__(
        self, namespace_manager: AsyncNamespaceManager, *, unwrap_tasks: bool = False
    ) -> None:
        self.manager = namespace_manager
        self.unwrap_tasks = unwrap_tasks

    def sync_after_execution(
        self, context: Context, names: Iterable[str] | None = None, value: Any = None
    ) -> tuple[str, ...]:
        """Adopt what a cell has left behind, and note its async functions.

        Arguments:
            context: Where the cell ran, for the debug log.
            names: Names that it can have bound; None looks at all there are.
            value: The cell's value, which counts as bound to ``_``.

        Returns:
            Names whose coroutines became tasks.
        """
        manager = self.manager
        if names is not None and "_" in names:
            manager.keep_underscore()
        if value is not None:
            manager.remember(value)
        if manager.ledger.pending:
            manager.ledger.forget_unheld()
        looked_at = self._worth_a_look(names, value)
        if not looked_at:
            return ()
        _log.debug("after a cell of %r in %s: looking at %s", manager.name, context, looked_at)
        manager.note_functions(looked_at)
        found = manager.ledger.found_in(looked_at)
        if self.unwrap_tasks:
            self._unwrap(looked_at)
        if not found:
            return ()
        if crossing_here() is not None:  # in a thread: tasks are made on the loop, so wait for it
            return run_sync(self._take(found))
        return manager.ledger.take(found, running_loop(), contextvars.copy_context())

    def _worth_a_look(self, names: Iterable[str] | None, value: Any) -> list[str]:
        """Those of *names* that do not hold a plain value, or that held an async function."""
        mapping, functions = self.manager.namespace, self.manager._async_functions
        found = []
        for name in list(mapping) if names is None else names:
            if type(mapping.get(name)) not in _PLAIN or name in functions:
                found.append(name)
        if type(value) not in _PLAIN and self.manager.history:
            found.append("_")
        return found

    async def _take(self, found: dict[str, Any]) -> tuple[str, ...]:
        loop = asyncio.get_running_loop()
        return self.manager.ledger.take(found, loop, contextvars.copy_context())

    def _unwrap(self, names: Iterable[str]) -> None:
        """Bind names that hold a task which has succeeded to its result."""
        mapping = self.manager.namespace
        for name in names:
            task = mapping.get(name)
            if has_succeeded(task):
                self.manager.rebind(name, task, task.result())

    def validate(self) -> ValidationReport:
        """Look for coroutines that nobody awaits and for tasks that were cancelled or have failed.

        Warns:
            RuntimeWarning: Once for each coroutine that nobody awaits.

        Its cost grows with the namespace: call it on demand, not after each cell.
        """
        report = ValidationReport()
        held = {**self.manager.ledger.recorded, **self.manager.snapshot()}
        for name, value in held.items():
            if is_coroutine(value) and is_untouched(value):
                report.unawaited += (name,)
                warnings.warn(f"coroutine {name!r} was never awaited", RuntimeWarning, stacklevel=2)
            elif isinstance(value, asyncio.Task) and value.done():
                self._judge(report, name, value)
        return report

    def _judge(self, report: ValidationReport, name: str, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            report.cancelled += (name,)
        elif (error := task.exception()) is not None:
            report.failed[name] = error

    async def clean_up(self) -> tuple[str, ...]:
        """Cancel and close what cells have left behind; names of what would not end."""
        return await self.manager.cleanup_coroutines()
