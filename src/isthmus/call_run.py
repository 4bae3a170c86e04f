"""One call of a function by the host: a cell without source. Owns the call and its evaluation.

Refuses to know: where it runs, events, transports.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from isthmus.async_namespace import AsyncNamespaceManager
from isthmus.cell_run import CellRun
from isthmus.cells import CompiledCell
from isthmus.errors import UnknownNameError
from isthmus.events import Context
from isthmus.portal import run_sync
from isthmus.stacks import passes_on


@passes_on
def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return function(*args, **kwargs)


@dataclass(frozen=True, slots=True)
class Call:
    """Which function to call, with what.

    Attributes:
        name: What it is bound to, in the namespace or the prelude.
    """

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """What events show as the source: the arguments' ``repr`` would be code of theirs."""
        return f"{self.name}({'...' if self.args or self.kwargs else ''})"


class CallRun(CellRun):
    """A call on its way to an outcome: a job as a cell is, whose code is one call.

    The function is looked up when its turn comes, as a cell would look it up; an awaitable that it
    returns is awaited. Nothing is bound, so the value goes to nobody but the caller: it does not
    become ``_``, and a coroutine in it is not adopted.
    """

    value_is_bound = False

    def __init__(
        self, manager: AsyncNamespaceManager, call: Call, number: int, context: Context
    ) -> None:
        cell = CompiledCell.empty(call.source, manager.sources.cell_file(number))
        cell.calls = True
        cell.awaits = names_async_function(manager, call.name)
        super().__init__(manager, cell, number, context)
        self._call: Call | None = call

    def _run_code(self) -> Any:
        call, self._call = self._call, None  # tasks that it starts keep the run, not the arguments
        assert call is not None
        function = self.manager.resolve(call.name)
        if not callable(function):
            kind = type(function).__name__
            raise TypeError(f"{call.name!r} is bound to an object of type {kind}: not callable")
        value = _call(function, call.args, call.kwargs)
        return run_sync(value) if inspect.isawaitable(value) else value


def names_async_function(manager: AsyncNamespaceManager, name: str) -> bool:
    """Whether *name* is bound to an async function now; a call of it is like a cell that awaits.

    A call that is asked for before its function is defined counts as one of a sync function, which
    may return an awaitable too.
    """
    try:
        return inspect.iscoroutinefunction(manager.resolve(name))
    except UnknownNameError:
        return False
