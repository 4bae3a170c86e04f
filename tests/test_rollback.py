"""Atomic cells against models, and where a roll-back meets locks, deadlines and ``__del__``."""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import weakref
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus import Session
from isthmus.rollback import Rollbacks
from support import CONTEXTS, WAIT_SECONDS, cell, eventually

requirement = pytest.mark.requirement


# -- what is put back ------------------------------------------------------------------------------


@requirement("2.5-atomic")
async def test_objects_are_compared_by_identity_alone(session: Session, context: str) -> None:
    class Touchy:
        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

        __hash__ = None  # type: ignore[assignment]

    before = {"nan": math.nan, "touchy": Touchy(), "other": Touchy(), "number": 10**6, "same": []}
    session.update_namespace({**before, "Touchy": Touchy})
    code = "nan = float('nan'); other = Touchy(); number = int('1000000'); same = same; 1 / 0"
    result = await session.run(code, context=context, atomic=True)
    assert result.rolled_back == ("nan", "number", "other")
    assert all(session.namespace[name] is value for name, value in before.items())


@requirement("2.5-atomic-others")
async def test_what_isthmus_cannot_see_counts_as_the_cells_own(session: Session) -> None:
    session.update_namespace({"session": session, "x": "old", "y": "old"})
    code = cell("""
        await session.run("globals()['x'] = 'nested'")
        session.namespace['y'] = 'host'
        1 / 0
        """)
    result = await session.run(code, atomic=True)
    assert result.rolled_back == ("x", "y")


@requirement("2.5-atomic-given-up")
async def test_a_session_that_closes_rolls_back_what_it_gives_up() -> None:
    session = Session("closing")
    session.update_namespace({"x": "old", "go": threading.Event(), "started": threading.Event()})
    code = "x = 'mine'\nstarted.set()\ngo.wait(5)"
    running = asyncio.ensure_future(session.run(code, context="thread", atomic=True))
    await asyncio.to_thread(session.namespace["started"].wait, WAIT_SECONDS)
    report = await session.close(timeout=0.02)
    result = await running
    assert report.cells == (1,)
    assert (result.status, result.rolled_back) == ("cancelled", ("x",))
    assert session.namespace["x"] == "old"
    session.namespace["go"].set()


# -- locks -----------------------------------------------------------------------------------------


@requirement("2.5-atomic-lock", "2.5-snapshot")
async def test_whoever_holds_the_lock_keeps_a_roll_back_out(session: Session) -> None:
    names = dict.fromkeys(("a", "b"), "old")
    reached, go = threading.Event(), threading.Event()
    session.update_namespace({**names, "reached": reached, "go": go})
    code = "a = b = 'mine'\nreached.set()\ngo.wait(5)\n1 / 0"
    running = asyncio.ensure_future(session.run(code, context="thread", atomic=True))
    await asyncio.to_thread(reached.wait, WAIT_SECONDS)
    with session.manager.lock:
        go.set()
        await asyncio.wait({running}, timeout=0.1)  # it cannot get through, however long
        assert [session.snapshot()[name] for name in names] == ["mine", "mine"]
    assert (await running).rolled_back == ("a", "b")


@requirement("2.5-atomic-lock")
@pytest.mark.parametrize(
    "code",
    [
        "probe = make_probe(); 1 / 0",
        "probe = make_probe(); replace_by_host(); 1 / 0",
        "probe = 1",
        "probe = 1; replace_by_host(); 1 / 0",
        "del probe; 1 / 0",
    ],
)
async def test_no_object_is_dropped_while_the_lock_is_held(session: Session, code: str) -> None:
    class Probe:
        def __del__(self) -> None:
            thread = threading.Thread(target=try_lock)
            thread.start()
            thread.join(WAIT_SECONDS)

    def try_lock() -> None:
        free.append(session.manager.lock.acquire(timeout=0.5))
        if free[-1]:
            session.manager.lock.release()

    free: list[bool] = []
    session.update_namespace({"make_probe": Probe, "probe": Probe()})
    session.inject_capability("replace_by_host", lambda: session.update_namespace({"probe": 2}))
    await session.run(code, atomic=True)
    await session.set("probe", None)
    assert free and all(free)


@requirement("2.5-update", "2.4-results")
async def test_what_leaves_the_history_is_dropped_outside_the_lock(session: Session) -> None:
    class Probe:
        def __del__(self) -> None:
            thread = threading.Thread(target=try_lock)
            thread.start()
            thread.join(WAIT_SECONDS)

    def try_lock() -> None:
        free.append(session.manager.lock.acquire(timeout=0.5))
        if free[-1]:
            session.manager.lock.release()

    free: list[bool] = []
    session.inject_capability("make_probe", Probe)
    for code in ("make_probe()", "1", "2", "3"):
        await session.execute(code)
    assert free == [True]


def give_up_on_what_runs(session: Session) -> None:
    """Do what a deadline does in the end."""
    home = session.manager.current_home
    assert home is not None
    (job,) = home.jobs()
    home.abandon(job)


class ContendedLock:
    """A namespace's lock that, once armed, is wanted by the loop's thread and another one at once.

    Whoever leaves it first goes on when the other one has left it too.

    Arguments:
        loop_first: Who of the two gets it first.
    """

    def __init__(self, *, loop_first: bool) -> None:
        self.wanted = {True: threading.Event(), False: threading.Event()}  # by the loop; by others
        self._left = {True: threading.Event(), False: threading.Event()}
        self._lock = threading.RLock()
        self._loop_first = loop_first
        self.armed = False

    def __enter__(self) -> None:
        on_loop = threading.current_thread() is threading.main_thread()
        if self.armed:
            self.wanted[on_loop].set()
            assert self.wanted[not on_loop].wait(WAIT_SECONDS)
            if on_loop is not self._loop_first:
                assert self._left[not on_loop].wait(WAIT_SECONDS)
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._lock.release()
        if self.armed:
            on_loop = threading.current_thread() is threading.main_thread()
            self._left[on_loop].set()
            assert self._left[not on_loop].wait(WAIT_SECONDS)


@requirement("2.5-atomic-given-up")
@pytest.mark.parametrize("loop_first", [True, False])
@pytest.mark.parametrize("code", ["x = 'mine'; arm()", "x = 'mine'; arm(); 1 / 0"])
async def test_a_cell_that_ends_as_it_is_given_up_has_one_outcome(
    session: Session, code: str, loop_first: bool
) -> None:
    lock = ContendedLock(loop_first=loop_first)
    session.update_namespace({"x": "old", "arm": lambda: setattr(lock, "armed", True)})
    session.manager._lock = lock  # type: ignore[assignment]
    running = asyncio.ensure_future(session.run(code, context="thread", atomic=True))
    await eventually(lock.wanted[False].is_set)
    give_up_on_what_runs(session)
    result = await running
    assert not result.stopped and not session.manager.rollbacks.copies
    if code.endswith("arm()") and not loop_first:
        assert (result.status, result.bound, result.rolled_back) == ("ok", ("x",), ())
        assert session.namespace["x"] == "mine"
    else:
        assert result.status != "ok" and (result.bound, result.rolled_back) == ((), ("x",))
        assert session.namespace["x"] == "old"


@requirement("2.5-atomic-given-up", "bad-module-names")
async def test_a_nested_cell_cannot_have_the_roll_back_break_the_module(session: Session) -> None:
    started, gate = threading.Event(), threading.Event()
    session.update_namespace({"session": session, "started": started, "gate": gate})
    code = 'run_sync(session.run("del __name__; __builtins__ = None"))\nstarted.set()\ngate.wait(5)'
    running = asyncio.ensure_future(session.run(code, context="thread", atomic=True))
    await eventually(started.is_set)
    give_up_on_what_runs(session)
    assert not (await running).stopped
    assert await session.execute("len(__name__)") == len(session.manager.module_name)
    gate.set()


@requirement("2.5-atomic-others", "3.4-order")
async def test_thread_cells_before_and_behind_an_atomic_one_do_not_run_beside_it(
    session: Session,
) -> None:
    class Probe:
        def __del__(self) -> None:
            rolled_back.set()

    rolled_back = threading.Event()
    session.inject_capability("make_probe", Probe)
    await session.run("pass", context="thread")
    codes = ("x = 'before'", "x = 'mine'; probe = make_probe(); 1 / 0", "x = 'behind'")
    running = [
        asyncio.ensure_future(session.run(code, context="thread", atomic="1 / 0" in code))
        for code in codes
    ]
    await asyncio.sleep(0)
    assert rolled_back.wait(WAIT_SECONDS)  # the loop stands still: it has not heard of any end
    _, atomic, _ = [await it for it in running]
    assert atomic.rolled_back == ("probe", "x") and session.namespace["x"] == "behind"


@requirement("2.5-atomic-lock")
def test_what_a_roll_back_lets_go_is_given_to_its_caller() -> None:
    mapping: dict[str, Any] = {"claimed": set(), "noted": set()}
    rollbacks, atomic = Rollbacks(mapping), Beside(frozenset(), atomic=True)
    seen = [weakref.ref(value) for value in mapping.values()]
    rollbacks.begin(atomic)
    mapping.update(claimed=1, noted=1)
    dropped = rollbacks.note(["noted"])
    undone = rollbacks.roll_back(atomic, [Beside(frozenset({"claimed"}), atomic=False)])
    assert None not in [reference() for reference in seen] and undone is not None
    assert undone.held == {}
    del dropped, undone
    assert [reference() for reference in seen] == [None, None]


# -- against models --------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d")

_name, _value = st.sampled_from(NAMES), st.integers(0, 99)
_numbers = itertools.count()


@dataclass
class Cell:
    """A random cell: what it does one after the other, and how it ends."""

    context: str
    atomic: bool
    fails: bool
    steps: list[tuple[Any, ...]]
    number: int = field(default_factory=lambda: next(_numbers))

    @property
    def names(self) -> set[str]:
        """Names in its own code."""
        return {step[1] for step in self.steps if step[0] in ("bind", "delete")}


def _cells(steps: st.SearchStrategy[list[tuple[Any, ...]]]) -> st.SearchStrategy[Cell]:
    return st.builds(Cell, st.sampled_from(CONTEXTS), st.booleans(), st.booleans(), steps)


_simple = st.one_of(
    st.tuples(st.just("bind"), _name, _value),
    st.tuples(st.just("delete"), _name),
    st.tuples(st.just("host binds"), _name, _value),
    st.tuples(st.just("host deletes"), _name),
)
_inner = _cells(st.lists(_simple, max_size=5))
_middle = _cells(st.lists(_simple | st.tuples(st.just("runs"), _inner), max_size=6))
_outer = _cells(st.lists(_simple | st.tuples(st.just("runs"), _middle), max_size=6))


def source(it: Cell, cells: dict[int, Cell]) -> str:
    """The code of *it*; *cells* is where code finds the cells that it runs."""
    lines = []
    for what, *arguments in it.steps:
        if what == "bind":
            lines.append("{} = {}".format(*arguments))
        elif what == "delete":
            lines.append(f"{arguments[0]} = None; del {arguments[0]}")
        elif what == "runs":
            cells[arguments[0].number] = arguments[0]
            lines.append(f"await run({arguments[0].number})")
        else:
            lines.append(f"host({what!r}, *{arguments!r})")
    return "\n".join([*lines, "1 / 0" if it.fails else "pass"])


class NestedModel:
    """A log of who has written what; the namespace is what a replay of it gives.

    A roll-back strikes a cell out of the log. When a cell ends otherwise, what the names in its
    code hold is written once more on its behalf.
    """

    def __init__(self) -> None:
        self.log: list[tuple[int, str, int | None]] = []

    def names(self) -> dict[str, int]:
        """The namespace."""
        held = {name: value for _, name, value in self.log}
        return {name: value for name, value in held.items() if value is not None}

    def run(self, it: Cell) -> None:
        """Have *it* run."""
        for what, *arguments in it.steps:
            if what == "runs":
                self.run(arguments[0])
            else:
                writer = -1 if what.startswith("host") else it.number
                value = arguments[1] if what.endswith(("bind", "binds")) else None
                self.log.append((writer, arguments[0], value))
        if it.atomic and it.fails:
            self.log = [entry for entry in self.log if entry[0] != it.number]
        else:
            names = self.names()
            self.log += [(it.number, name, names.get(name)) for name in it.names]


async def _compare(cells: list[Cell]) -> None:
    known: dict[int, Cell] = {}
    model = NestedModel()
    async with Session("model") as session:

        def host(what: str, name: str, *value: int) -> None:
            if what == "host deletes":
                session.update_namespace({name: None})
                session.manager.delete(name)
            else:
                session.update_namespace({name: value[0]})

        async def run(number: int) -> None:
            it = known[number]
            await session.run(source(it, known), context=it.context, atomic=it.atomic)  # type: ignore[arg-type]

        session.inject_capability("host", host)
        session.inject_capability("run", run)
        for it in cells:
            known[it.number] = it
            await run(it.number)
            model.run(it)
            held = {name: session.namespace[name] for name in NAMES if name in session.namespace}
            assert held == model.names()
            assert not session.manager.rollbacks.copies


@requirement("2.5-atomic", "2.5-atomic-others")
@settings(deadline=None, max_examples=60)
@given(st.lists(_outer, max_size=4))
def test_cells_that_fail_behave_like_a_log_that_they_are_struck_out_of(cells: list[Cell]) -> None:
    asyncio.run(_compare(cells))


@dataclass(eq=False)
class Beside:
    """A cell that runs beside others."""

    names: frozenset[str]
    atomic: bool
    abandoned: bool = False
    rolled_back: tuple[str, ...] | None = None


@dataclass(eq=False)
class Entry:
    """One write, and on behalf of which cells it is there; an empty set is the host's."""

    cells: set[Beside]
    name: str
    value: int | None


class ConcurrentModel:
    """The same log for cells that overlap.

    What a failed cell has written to names that cells beside it can write as well is left, on their
    behalf; it goes when they are rolled back too.
    """

    def __init__(self) -> None:
        self.log: list[Entry] = []
        self.running: list[Beside] = []

    def names(self) -> dict[str, int]:
        """The namespace."""
        held = {entry.name: entry.value for entry in self.log}
        return {name: value for name, value in held.items() if value is not None}

    def leave(self, it: Beside) -> None:
        """*it* has ended, and its work stays."""
        self.running.remove(it)
        names = self.names()
        self.log += [Entry(set(), name, names.get(name)) for name in it.names]

    def roll_back(self, it: Beside) -> None:
        """*it* has failed."""
        self.running.remove(it)
        for entry in [entry for entry in self.log if it in entry.cells]:
            entry.cells.discard(it)
            entry.cells.update(other for other in self.running if entry.name in other.names)
            if not entry.cells:
                self.log.remove(entry)


_beside = st.builds(Beside, st.frozensets(_name, min_size=1, max_size=3), st.booleans())
_events = st.one_of(
    st.tuples(st.just("start"), _beside),
    st.tuples(st.just("write"), st.integers(0, 3), st.integers(0, 3), st.none() | _value),
    st.tuples(st.just("host"), _name, st.none() | _value),
    st.tuples(st.just("end"), st.integers(0, 3), st.booleans()),
)


def _write(mapping: dict[str, Any], name: str, value: int | None) -> None:
    if value is None:
        mapping.pop(name, None)
    else:
        mapping[name] = value


def _end(rollbacks: Rollbacks, model: ConcurrentModel, it: Beside, *, fails: bool) -> None:
    if it.atomic and fails:
        model.roll_back(it)
        assert rollbacks.roll_back(it, model.running) is not None
        assert rollbacks.roll_back(it, model.running) is None
    else:
        rollbacks.leave(it)
        model.leave(it)


@requirement("2.5-atomic-others")
@settings(deadline=None, max_examples=150)
@given(st.lists(_events, max_size=25))
def test_cells_that_overlap_behave_like_a_log_too(events: list[tuple[Any, ...]]) -> None:
    mapping: dict[str, Any] = {}
    rollbacks, model = Rollbacks(mapping), ConcurrentModel()
    for what, *arguments in events:
        if what == "host":
            _write(mapping, *arguments)
            rollbacks.note(arguments[:1])
            model.log.append(Entry(set(), *arguments))
        elif what == "start" and len(model.running) < 4:
            it = Beside(arguments[0].names, arguments[0].atomic)
            model.running.append(it)
            if it.atomic:
                rollbacks.begin(it)
        elif what != "start" and arguments[0] < len(model.running):
            it = model.running[arguments[0]]
            if what == "end":
                _end(rollbacks, model, it, fails=arguments[1])
            else:
                name = sorted(it.names)[arguments[1] % len(it.names)]
                _write(mapping, name, arguments[2])
                model.log.append(Entry({it}, name, arguments[2]))
        assert mapping == model.names()
