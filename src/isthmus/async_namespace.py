"""A namespace that is bound to an event loop. Owns the binding; puts the namespace, the ledger of
coroutines and the home of its cells together.

Refuses to know: how a cell is compiled into a job, events.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import itertools
import os
import types
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, cast

from isthmus.blocking import AWAIT, blocking_names
from isthmus.capabilities import Capability, mark_of, no_input
from isthmus.cells import CellCompiler
from isthmus.census import sweep
from isthmus.displays import display
from isthmus.durations import checked_seconds
from isthmus.errors import ForkedProcessError, LoopError, SessionClosedError
from isthmus.failures import FailureReports, Kind
from isthmus.generator_hooks import generator_hooks
from isthmus.holders import Canary
from isthmus.home import Home, call_if_alive
from isthmus.hook_set import install_hooks
from isthmus.interceptors import Interceptor, checked_chain
from isthmus.ledger import CoroutineLedger, CoroutinePolicy, SettledCoroutines
from isthmus.loop_calls import call_on_loop, spawn
from isthmus.namespace import NamespaceManager
from isthmus.ownership import Ownership
from isthmus.portal import run_sync
from isthmus.printing import print as print_line
from isthmus.rollback import Undone
from isthmus.sources import SourceBook

CLEAN_UP_SECONDS = 1.0
"""How long a cancelled task may take to end before it is reported; from the air."""


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread, or None."""
    return asyncio._get_running_loop()


def runtime_names() -> dict[str, Callable[..., Any]]:
    """The runtime's own functions below each namespace, by the names that cells have for them."""
    return {
        "run_sync": run_sync,
        "spawn": spawn,
        "call_on_loop": call_on_loop,
        "display": display,
        "input": no_input,
        **blocking_names(run_sync),
    }


class AsyncNamespaceManager(NamespaceManager):
    """One live namespace for cells in all contexts, and the coroutines that they leave behind.

    It can be made without an event loop; it binds itself to the loop in which it is first used.

    Arguments:
        name: The session's name.
        main: Let the module be ``__main__``.
        file: The module's ``__file__``, where its cells come from a file.
        history: Keep ``_``, ``__`` and ``___``.
        coroutine_policy: What becomes of a coroutine that a cell leaves under a name: ``"adopt"``
            makes it a task, ``"hold"`` only records it, ``"close"`` closes it.
        hooks: Replace ``sys.stdout``, ``sys.stderr`` and ``asyncio.run``, and wrap the loop's task
            factory, while the namespace has a home. Without them output is not captured, tasks that
            cells start cannot use ``run_sync``, and ``asyncio.run`` in a cell is Python's own.

    Threads: any, where a method does not say otherwise.
    """

    def __init__(
        self,
        name: str = "session",
        *,
        main: bool = False,
        file: str | None = None,
        history: bool = True,
        coroutine_policy: CoroutinePolicy = "adopt",
        hooks: bool = True,
    ) -> None:
        super().__init__(name, main=main, history=history)
        book = name if main else self.module_name.removeprefix("isthmus_")
        self.sources = SourceBook(book, file)
        self.compiler = CellCompiler(self.sources)
        self.reports = FailureReports(name)
        self.ownership = Ownership(self.namespace, self.sources, self.reports)
        self.ledger = CoroutineLedger(self, coroutine_policy, self.ownership)
        self.closed = False
        self.binds_invisibly = False
        self._cell_numbers = itertools.count(1)
        self._process = os.getpid()
        self._async_functions: dict[str, Callable[..., Any]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._home: Home | None = None
        self._hooks = hooks
        self._remove_hooks: weakref.finalize[..., Any] | None = None
        self._context = contextvars.copy_context()
        self._context_at_first = self._context.copy()
        self.namespace.setdefault("__file__", self.sources.module_file)
        self._at_first = dict(self.namespace)
        self.interceptors: tuple[Interceptor, ...] = ()
        self.add_prelude(runtime_names())
        if hooks and isinstance(self._prelude["print"], types.BuiltinFunctionType):
            self.replace_builtin("print", print_line)

    @property
    def canary(self) -> Canary:
        """What tells whether anybody still holds the namespace, once this object is gone."""
        return weakref.ref(self._prelude[AWAIT])

    # -- the loop ----------------------------------------------------------------------------

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The home loop, or None before the first use."""
        return self._loop

    def set_event_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Bind the namespace to *loop*, and adopt there what was left behind without one.

        Raises:
            LoopError: *loop* is closed, or the namespace is bound to another loop that is open and
                has run cells. The binding is as it was.

        Threads: any, as long as no cell runs.
        """
        if loop.is_closed():
            raise LoopError(f"{loop!r} is closed; give a loop that is open")
        bound = self._loop
        if bound is not None and bound is not loop and self._home is not None:
            if not bound.is_closed() and not self._home.closed:
                raise LoopError(f"namespace {self.name!r} lives on {bound!r}; close it first")
            self._forget_home()
        self._loop = loop
        if self.ledger.pending:
            self._adopt_in(loop)

    @property
    def current_home(self) -> Home | None:
        """The home of the cells, if there is one yet."""
        return self._home

    def home_of(self, loop: asyncio.AbstractEventLoop) -> Home | None:
        """The home, for code that runs in *loop*; None when the home loop is another one.

        Raises:
            SessionClosedError: The namespace is closed.
        """
        home = self._home
        if home is None or home.loop is not loop or home.closed:
            if self._loop is not None and self._loop is not loop and not self._loop.is_closed():
                return None
            home = self.home()
        if self._hooks:
            generator_hooks.renew()
        return home

    def home(self) -> Home:
        """The home of the cells, made at its first use.

        Raises:
            LoopError: No event loop is bound, and none runs here.
            SessionClosedError: The namespace is closed.

        Threads: the loop's.
        """
        if self.closed:
            raise SessionClosedError(f"namespace {self.name!r} is closed; make a new one")
        home = self._home
        if home is not None and not home.closed and not home.loop.is_closed():
            return home
        return self._new_home()

    def _new_home(self) -> Home:
        loop = self._loop
        if loop is None or loop.is_closed() or self._home is not None:
            loop = running_loop()
            if loop is None:
                raise LoopError(
                    f"namespace {self.name!r} has no event loop: use it in one, or set_event_loop()"
                )
            self.set_event_loop(loop)
        self._forget_home()
        released = weakref.WeakMethod(self._release_hooks)
        self._home = Home(
            loop,
            name=self.name,
            ownership=self.ownership,
            context=self._context,
            on_shutdown=lambda: call_if_alive(released),
        )
        self._install_hooks(loop)
        self.ledger.adopt_held(loop, self._context.copy())
        return self._home

    def _forget_home(self, why: str = "its event loop has ended") -> None:
        """Drop a home, keeping its context variables."""
        if self._home is not None:
            self._home.close(why)
            self._context = self._home.context.copy()
            self._home = None
        self._release_hooks()

    def _install_hooks(self, loop: asyncio.AbstractEventLoop) -> None:
        """Install what the process and the loop share, to be removed however this object ends."""
        remove = install_hooks(loop, id(self.namespace), self.ownership, all_of_them=self._hooks)
        self._remove_hooks = weakref.finalize(self, remove)

    def _release_hooks(self) -> None:
        """Remove the hooks, once."""
        if self._remove_hooks is not None:
            self._remove_hooks()

    def _adopt_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Adopt what is held: now on the loop's own thread, soon from another one."""
        context = self._context.copy()
        if running_loop() is loop or not loop.is_running():
            self.ledger.adopt_held(loop, context)
        else:
            loop.call_soon_threadsafe(self.ledger.adopt_held, loop, context)

    # -- names -------------------------------------------------------------------------------

    def next_cell_number(self) -> int:
        """The next cell's number, from 1."""
        return next(self._cell_numbers)

    def update_namespace(self, updates: Mapping[str, Any], source_context: str = "unknown") -> None:
        """Bind every name in *updates*; bare coroutines among the values are adopted.

        Adoption happens at once on the loop's thread, soon after from another thread, and once
        there is a loop when there is none yet. For the rest see the base class.
        """
        super().update_namespace(updates, source_context)
        self.note_functions(updates)
        found = self.ledger.found_in(updates)
        if found:
            self._take_found(found)

    def delete(self, name: str, source_context: str = "unknown") -> None:
        """Take *name* out of the namespace, as ``del`` in a cell does.

        A coroutine that was adopted under it stays pending until it has ended. For the rest see the
        base class.
        """
        super().delete(name, source_context)
        self.note_functions((name,))
        self.ledger.forget_unheld()

    def forget_undone(self, undone: Undone) -> None:
        """Keep the registers of functions and coroutines true after a roll-back."""
        self.note_functions(undone.held)
        self.ledger.close_unheld(undone.held)
        self.ledger.forget_unheld()

    def _take_found(self, found: dict[str, Any]) -> None:
        loop = self._loop or running_loop()
        if loop is None or loop.is_closed() or running_loop() is loop:
            open_loop = None if loop is None or loop.is_closed() else loop
            self.ledger.take(found, open_loop, self._context.copy())
        else:
            loop.call_soon_threadsafe(self.ledger.take, found, loop, self._context.copy())

    def note_functions(self, names: Iterable[str]) -> None:
        """Keep the register of async functions true for *names*, which have just changed."""
        register = self._async_functions
        for name in names:
            value = self.namespace.get(name)
            plain = issubclass(type(value), types.FunctionType | types.MethodType)
            if plain and inspect.iscoroutinefunction(value):
                register[name] = value
            elif name in register:
                register.pop(name, None)

    @property
    def async_functions(self) -> dict[str, Callable[..., Any]]:
        """The async functions bound in the namespace, by name: the functions themselves. A copy."""
        mapping = self.namespace
        return {n: fn for n, fn in list(self._async_functions.items()) if mapping.get(n) is fn}

    # -- capabilities ------------------------------------------------------------------------

    @property
    def capabilities(self) -> Mapping[str, Capability]:
        """What the host has injected, by name. A live, read-only view."""
        return cast(Mapping[str, Capability], super().capabilities)

    def inject_capability(
        self,
        name: str,
        fn: Callable[..., Any],
        *,
        on_loop: asyncio.AbstractEventLoop | None = None,
        interceptors: Iterable[Interceptor] = (),
    ) -> None:
        """Let cells of every context call *fn*, sync or async, as *name*.

        It goes below the namespace: cells may shadow it, ``del`` uncovers it, functions already
        defined see it. A capability that has this name is replaced, and revoked. See
        :class:`~isthmus.capabilities.Capability` for what cells get.

        Arguments:
            name: What cells call it.
            fn: Anything that can be called, async or not.
            on_loop: The loop on which *fn* has to run; None for the one that runs here, if any.
            interceptors: What each call passes, within what all calls of the session pass.

        Raises:
            ReservedNameError: *name* is not an identifier, or belongs to the runtime. Nothing was
                bound.
            TypeError: *fn* is not callable. Nothing was bound.

        Warns:
            UserWarning: *name* hides a builtin.

        Threads: any. Atomic: per name.
        """
        given = fn.__wrapped__ if isinstance(fn, Capability) else fn
        made: Callable[..., Any] = given
        if callable(given):  # else the base class refuses it
            chain = (*self.interceptors, *checked_chain(interceptors))
            loop = on_loop if on_loop is not None else mark_of(given).on_loop
            made = Capability(name, given, loop, chain, host=self)
        replaced = self._capabilities.get(name)
        super().inject_capability(name, made)
        if isinstance(replaced, Capability):
            replaced.revoke()

    def revoke_capability(self, name: str) -> None:
        """Take the capability *name* from the cells, at once.

        What it hid is back, else the name is no longer there. Calls in flight end as if nothing had
        happened; a reference that a cell keeps raises :class:`CapabilityRevoked`.

        Raises:
            KeyError: No capability of this name.

        Threads: any. Atomic: per name.
        """
        revoked = self._capabilities.get(name)
        super().revoke_capability(name)
        if isinstance(revoked, Capability):
            revoked.revoke()

    # -- coroutines --------------------------------------------------------------------------

    @property
    def _pending_coroutines(self) -> dict[str, Any]:
        return self.ledger.pending

    @property
    def pending_coroutines(self) -> dict[str, Any]:
        """Coroutines left behind, by name: tasks where they are adopted. A copy."""
        return dict(self.ledger.pending)

    async def await_pending_coroutines(self, timeout: float | None = None) -> SettledCoroutines:
        """Wait for the adopted coroutines; a name still bound to its task gets the result.

        Arguments:
            timeout: Seconds to wait at most; None waits as long as it takes.

        Returns:
            Results by name. What failed is in ``.errors`` and stays bound to its finished task;
            what did not end in time is in ``.unfinished`` and stays pending.

        Threads: any loop. Cancel: the coroutines go on; nothing is rebound.
        """
        work = self.ledger.settle(checked_seconds(timeout, "timeout"))
        settled: SettledCoroutines = await self._on_home_loop(work)
        return settled

    async def cleanup_coroutines(self, timeout: float = CLEAN_UP_SECONDS) -> tuple[str, ...]:
        """Cancel adopted coroutines and close those that never started.

        Arguments:
            timeout: Seconds that the cancelled ones may take to end.

        Returns:
            Names of those that would not end; they stay pending.

        Threads: any loop.
        """
        stubborn: tuple[str, ...] = await self._on_home_loop(self.ledger.clean_up(timeout))
        return stubborn

    async def _on_home_loop(self, work: Any) -> Any:
        """Await *work* on the home loop, whichever loop asks."""
        here = running_loop()
        if self._loop is None or self._loop is here or self._loop.is_closed():
            if here is not None and self._home is None and not self.closed:
                self.set_event_loop(here)
            return await work
        return await self.run_on_home_loop(work)

    async def run_on_home_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Await *work* on the home loop, for code of another loop.

        Raises:
            LoopError: The home loop does not run. *work* is closed.
            ForkedProcessError: It runs in the parent process. *work* is closed.

        Cancel: cancels *work*.
        """
        loop = self._loop
        if os.getpid() != self._process:
            work.close()
            raise ForkedProcessError(
                f"namespace {self.name!r} lives in the process that this one was forked from"
            )
        if loop is None or not loop.is_running():
            work.close()
            raise LoopError(f"the loop of namespace {self.name!r} does not run: {loop!r}")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))

    # -- the ledger --------------------------------------------------------------------------

    def census(self) -> dict[Kind, int]:
        """How much of each kind there is. See :meth:`Session.census`."""
        found = sweep(self.ownership)
        for it in (*found.coroutines, *found.generators):
            self.ownership.note_found(it)
        threads = [it for it in self.ownership.of_kind("thread") if it.is_alive()]
        return {
            "coroutine": len(found.coroutines),
            "task": len(found.tasks),
            "async generator": len(found.generators),
            "thread": len(threads),
        }

    # -- the end -----------------------------------------------------------------------------

    def leave_home(self) -> set[asyncio.Future[Any]]:
        """Let the jobs to come have a new task, thread and context variables, as at first.

        Returns:
            What ends with the old task and thread.

        Threads: the loop's, or any when the loop does not run.
        """
        context = self._context_at_first.copy()
        home = self._home
        if home is None or home.closed or not home.loop.is_running():
            self._forget_home("the session was reset")
            self._context = context
            return set()
        return home.start_over(context)

    def clear(self) -> None:
        """Bring the namespace back to what it was at first, with its sources and flags."""
        self._drop_pending()
        self.ledger.pending = {}
        self._async_functions.clear()
        self.binds_invisibly = False
        super().clear()
        self.compiler.clear()
        self.compiler.flags = 0
        self.sources.close()

    def _drop_pending(self) -> None:
        """Close what was left behind and never became a task."""
        for coroutine in list(self.ledger.pending.values()):
            if not isinstance(coroutine, asyncio.Task):
                coroutine.close()

    def end_home(self) -> None:
        """Refuse what comes and end the home: the first half of :meth:`close`. Idempotent."""
        self.closed = True
        if self._home is not None:
            self._home.close(f"session {self.name!r} is closed")

    def close(self) -> None:
        """End the home, drop the sources and the module. Idempotent; does not wait.

        Threads: the loop's, or any when the loop does not run.
        """
        self.end_home()
        self._drop_pending()
        self._forget_home()
        self.sources.close()
        super().close()
