"""Cells that are atomic against their own failure: what is put back, and what is not."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from either_home import Flag, until
from isthmus import (
    AnySession,
    CellFinished,
    CellResult,
    MemoryTransport,
    NamespaceSynchronizer,
    WorkerSession,
)
from isthmus.sticky import sticky_interrupts
from support import cell

requirement = pytest.mark.requirement

FAILS = cell("""
    kept.append('in place')
    replaced = 'by the cell'
    del gone
    new = 1
    globals()['hidden'] = 1
    raise {}
    """)


async def users_names(session: AnySession) -> dict[str, Any]:
    """The names that the test and its cells have bound."""
    return {name: it for name, it in (await session.snapshot()).items() if name != "asyncio"}


class Gates:
    """Events that cells and the test wait for; each lets one of them pass."""

    def __init__(self, session: AnySession) -> None:
        self._events: dict[str, asyncio.Event] = {}
        session.inject_capability("open_gate", self.open)
        session.inject_capability("pass_gate", self.reach)

    async def open(self, name: str) -> None:
        """Let the next one pass."""
        self._events.setdefault(name, asyncio.Event()).set()

    async def reach(self, name: str) -> None:
        """Wait for the gate to be opened."""
        async with asyncio.timeout(5):
            await self._events.setdefault(name, asyncio.Event()).wait()
        del self._events[name]


async def start(
    session: AnySession, code: str, context: str, **options: Any
) -> asyncio.Future[CellResult]:
    """Run *code* up to where it says ``started()``; no deadline passes before that."""
    started = Flag(session, "started")
    await session.run("pass", context=context)  # there is a thread, or a task, from here on
    running = asyncio.ensure_future(session.run(code, context=context, atomic=True, **options))
    if context == "thread" and not isinstance(session, WorkerSession):
        await asyncio.sleep(0)
        assert started.wait()  # the loop stands still meanwhile
    await started.seen()
    return running


# -- its own work --------------------------------------------------------------------------------


@requirement("2.5-atomic")
async def test_a_cell_that_fails_leaves_every_name_as_it_was(
    session: AnySession, context: str
) -> None:
    session.update_namespace({"kept": [], "replaced": object(), "gone": object()})
    before = await session.snapshot()
    for error in (ValueError, SystemExit, GeneratorExit, KeyboardInterrupt):
        result = await session.run(FAILS.format(error.__name__), context=context, atomic=True)
        assert result.status == "error" and type(result.error) is error
        after = await session.snapshot()
        assert after.keys() == before.keys() and all(after[name] is before[name] for name in before)
    assert after["kept"] == ["in place"] * 4


@requirement("2.5-atomic", "results", "events")
async def test_the_result_and_the_event_say_what_was_put_back(
    make_session: Callable[..., AnySession], transport: MemoryTransport, context: str
) -> None:
    session = make_session(transport=transport)
    session.update_namespace({"kept": [], "replaced": 0, "gone": 0})
    failed = await session.run(FAILS.format("ValueError"), context=context, atomic=True)
    (finished,) = transport.of_type(CellFinished)
    for told in (failed, finished):
        assert told.rolled_back == ("gone", "hidden", "new", "replaced")
        assert (told.bound, told.deleted, told.exact, told.adopted) == ((), (), True, ())
    fine = await session.run("x = 1; 'value'", context=context, atomic=True)
    assert (fine.bound, fine.rolled_back, fine.value) == (("x",), (), "value")
    plain = await session.run("y = 1; del x; 1 / 0", context=context)
    assert (plain.bound, plain.deleted, plain.rolled_back) == (("y",), ("x",), ())


@requirement("2.5-atomic")
@pytest.mark.parametrize("way", ["caller", "timeout", "interrupt"])
async def test_a_cell_that_is_stopped_while_it_waits_is_rolled_back(
    session: AnySession, context: str, way: str
) -> None:
    session.update_namespace({"x": 0})
    code = "x = 1\ny = 1\nstarted()\nawait asyncio.sleep(60)"
    timeout = 0.02 if way == "timeout" else None
    running = await start(session, code, context, timeout=timeout)
    if way == "caller":
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    else:
        assert way == "timeout" or session.interrupt()
        result = await running
        told = {"timeout": ("timeout",), "interrupt": ("cancelled", "interrupted")}  # at the flag
        assert result.status in told[way]
        assert result.rolled_back == ("x", "y")
    assert await session.get("x") == 0 and "y" not in await session.snapshot()


@requirement("2.5-atomic")
async def test_a_cell_that_is_interrupted_while_it_computes_is_rolled_back(
    session: AnySession, context: str
) -> None:
    session.update_namespace({"x": 0})
    code = "x = 1\nstarted()\nwhile True: x += 1"
    result = await (await start(session, code, context, timeout=0.05))
    assert (result.status, result.rolled_back) == ("timeout", ("x",))
    assert await session.get("x") == 0


@requirement("2.5-atomic")
async def test_a_call_that_fails_is_rolled_back(session: AnySession, context: str) -> None:
    await session.execute("""
total = 0
def add(n):
    global total, last
    total += n
    last = n
    1 / (n - 13)
""")
    options: dict[str, Any] = {"context": context, "atomic": True}
    assert (await session.run_call("add", [12], **options)).status == "ok"
    result = await session.run_call("add", [13], **options)
    assert (result.status, result.rolled_back) == ("error", ("last", "total"))
    assert (await session.get("total"), await session.get("last")) == (12, 12)


@requirement("2.5-atomic", "2.4-results")
async def test_the_last_values_stay_those_of_the_cells_before(
    session: AnySession, context: str
) -> None:
    for value in (1, 2, 3):
        await session.execute(str(value), context=context)
    await session.run("_ = __ = ___ = 'mine'; 1 / 0", context=context, atomic=True)
    assert [await session.get(name) for name in ("_", "__", "___")] == [3, 2, 1]
    await session.execute("4", context=context)
    assert [await session.get(name) for name in ("_", "__", "___")] == [4, 3, 2]


@requirement("2.5-atomic", "bad-module-names")
async def test_what_makes_the_mapping_a_modules_is_put_back_as_ever(
    session: AnySession, context: str
) -> None:
    name = await session.execute("__name__", context=context)
    code = "note: int = 1\n__builtins__ = None\ndel __name__\nraise OSError"
    result = await session.run(code, context=context, atomic=True)
    assert result.status == "error"
    found = "[it for it in ('note', '__annotations__') if it in globals()]"
    assert await session.execute(found, context=context) == []
    assert await session.execute("len(__name__)", context=context) == len(name)
    await session.run("__name__ = 'other'; raise OSError", context=context, atomic=True)
    assert await session.get("__name__") == name


@requirement("2.5-atomic")
async def test_a_cell_that_succeeds_lets_go_of_what_it_has_replaced(
    session: AnySession, context: str
) -> None:
    await session.execute("class Thing: pass\nthing = Thing()")
    seen = weakref.ref(await session.get("thing"))
    await session.run("thing = 1", context=context, atomic=True)
    gc.collect()
    assert seen() is None and not session.manager.rollbacks.copies


# -- coroutines and functions ----------------------------------------------------------------------


@requirement("2.5-atomic-coroutines")
async def test_coroutines_that_a_failed_cell_has_bound_are_closed(
    session: AnySession, context: str
) -> None:
    await session.execute("async def work(): return 'done'\nasync def job(): return 1")
    made: list[Any] = []
    session.inject_capability("note", made.append)
    synchronizer = NamespaceSynchronizer(session.manager)
    session.inject_capability("synchronize", lambda: synchronizer.sync_after_execution("async"))
    code = """
work, job = 'no function any more', work()
synchronize()
await job
async def work(): return 'never'
job = work()
many = {'of them': [work(), work()]}
note(job); made = [*many['of them']]; note(made[0]); note(made[1])
1 / 0
"""
    await session.run(code, context=context, atomic=True)
    assert [coroutine.cr_frame for coroutine in made] == [None] * 3  # closed, so without a warning
    assert await session.pending_coroutines == {} and not session.manager.ledger.recorded
    functions = session.manager._async_functions
    assert sorted(functions) == ["job", "work"] and functions["work"] is await session.get("work")
    assert await session.call("work") == "done"


@requirement("2.5-atomic-coroutines")
async def test_a_coroutine_that_somebody_holds_is_not_closed(
    make_session: Callable[..., AnySession], context: str
) -> None:
    session = make_session(coroutine_policy="hold")
    tasks: list[Any] = []
    session.inject_capability("note", tasks.append)
    session.inject_capability("left", lambda: session.pending_coroutines["unbound"])
    await session.execute("async def work(): return 'done'\nheld, many = work(), [work()]")
    await session.execute("unbound = work()")
    await session.execute("del unbound")
    code = cell("""
        alias, others, second, third = held, many, many[0], left()
        await asyncio.sleep(0)
        owned = work()
        note(asyncio.create_task(owned))
        1 / 0
        """)
    await session.run(code, context=context, atomic=True)
    assert await session.execute("await held, await many[0]", context=context) == ("done",) * 2
    assert [await session.pending_coroutines["unbound"], await tasks[0]] == ["done"] * 2


@requirement("2.5-atomic-coroutines", "5.3-settle")
async def test_what_an_earlier_cell_left_behind_is_settled_as_if_the_cell_had_not_been(
    session: AnySession, context: str
) -> None:
    gates = Gates(session)
    await session.execute("async def work(n): return n")
    for settled_meanwhile in (True, False):
        await session.execute("early, late = work(1), work(2)")
        code = "early = late = 'mine'\nopen_gate('bound')\npass_gate('settled')\n1 / 0"
        running = asyncio.ensure_future(session.run(code, context=context, atomic=True))
        await gates.reach("bound")
        tasks = list(session.pending_coroutines.values())
        await asyncio.wait(tasks)
        if settled_meanwhile:
            assert await session.await_pending_coroutines() == {"early": 1, "late": 2}
        await gates.open("settled")
        await running
        if not settled_meanwhile:
            assert [await session.get("early"), await session.get("late")] == tasks
            assert await session.await_pending_coroutines() == {"early": 1, "late": 2}
        assert (await session.get("early"), await session.get("late")) == (1, 2)


# -- others --------------------------------------------------------------------------------------


@requirement("2.5-atomic-others")
async def test_what_the_host_writes_meanwhile_stays(session: AnySession, context: str) -> None:
    gates = Gates(session)
    session.update_namespace(dict.fromkeys(("before", "after", "dropped", "own"), "old"))
    code = cell("""
        before = own = 'mine'
        open_gate('first')
        pass_gate('second')
        after = dropped = new = 'mine'
        1 / 0
        """)
    running = asyncio.ensure_future(session.run(code, context=context, atomic=True))
    await gates.reach("first")
    session.update_namespace({"before": "host's", "after": "host's", "new": "host's"})
    await session.set("other", "host's")
    await session.delete("dropped")
    await gates.open("second")
    result = await running
    assert result.rolled_back == ("after", "dropped", "new", "own")
    expected = dict.fromkeys(("before", "after", "new", "other"), "host's")
    assert await users_names(session) == {**expected, "own": "old"}


@requirement("2.5-atomic-others", "3.4-nested")
async def test_a_nested_cell_is_another_cell(session: AnySession, first: str, second: str) -> None:
    session.inject_capability("nested", functools.partial(session.execute, context=second))
    session.update_namespace({"x": "old", "y": "old", "own": "old"})
    code = cell("""
        own = x = 'mine'
        await nested("x = 'nested'; y = 'nested'; 'value'")
        y = 'mine'
        1 / 0
        """)
    result = await session.run(code, context=first, atomic=True)
    assert result.rolled_back == ("own", "y")
    names = await users_names(session)
    assert (names["own"], names["x"], names["y"], names["_"]) == (
        "old",
        "nested",
        "nested",
        "value",
    )


@requirement("2.5-atomic-others", "3.4-nested")
async def test_a_nested_cell_is_rolled_back_to_what_its_parent_had(
    session: AnySession, first: str, second: str
) -> None:
    async def nested() -> tuple[str, ...]:
        inner = "x = 'nested'; y = 1; 1 / 0"
        return (await session.run(inner, context=second, atomic=True)).rolled_back

    session.inject_capability("nested", nested)
    session.update_namespace({"x": "old"})
    code = "x = 'outer'\ny = 0\ninner = await nested()\nseen = (x, y, inner)\nx = 'last'"
    await session.execute(code, context=first)
    assert await session.get("seen") == ("outer", 0, ("x", "y"))
    failed = await session.run(code + "\n1 / 0", context=first, atomic=True)
    assert failed.rolled_back == ("inner", "seen") and await session.get("x") == "last"


@requirement("2.5-atomic-others", "3.4-nested")
async def test_a_parent_that_goes_on_beside_a_nested_cell_is_another_cell(
    session: AnySession, context: str
) -> None:
    async def nested(code: str) -> tuple[str, ...]:
        return (await session.run(code, atomic=True)).rolled_back

    Gates(session)
    session.inject_capability("nested", nested)
    session.update_namespace({"x": "old", "own": "old"})
    inner = "own = x = 'nested'\nopen_gate('bound')\npass_gate('written')\n1 / 0"
    code = cell(f"""
        inner = asyncio.ensure_future(nested.aio({inner!r}))
        await pass_gate('bound')
        x = 'outer'
        await open_gate('written')
        await inner
        """)
    assert await session.execute(code, context=context) == ("own",)
    assert (await session.get("own"), await session.get("x")) == ("old", "outer")


@requirement("2.5-atomic-others", "3.4-concurrent")
async def test_what_concurrent_cells_write_stays_whether_they_have_ended_or_not(
    session: AnySession, context: str
) -> None:
    gates = Gates(session)
    names = ("own", "ended", "runs", "unbound")
    session.update_namespace(dict.fromkeys(names, "old"))
    code = "own = ended = runs = 'mine'\nopen_gate('bound')\npass_gate('written')\n1 / 0"
    running = asyncio.ensure_future(session.run(code, context=context, atomic=True))
    await gates.reach("bound")
    await session.run("ended = 'other'; del unbound; 1 / 0", context=context, concurrent=True)
    other = "runs = 'other'\nopen_gate('other')\npass_gate('rolled back')"
    beside = asyncio.ensure_future(session.run(other, context=context, concurrent=True))
    await gates.reach("other")
    await gates.open("written")
    assert (await running).rolled_back == ("own",)
    assert await users_names(session) == {"own": "old", "ended": "other", "runs": "other"}
    await gates.open("rolled back")
    await beside


@requirement("2.5-atomic-others", "3.4-concurrent")
@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
async def test_two_that_fail_beside_each_other_leave_nothing_of_either(
    session: AnySession, context: str, order: tuple[str, str]
) -> None:
    gates = Gates(session)
    session.update_namespace({"shared": "old", "own": "old"})
    code = (
        "shared = own = {0!r}\n{0}_only = 1\nopen_gate('{0} bound')\npass_gate('{0} ends')\n1 / 0"
    )
    running: dict[str, asyncio.Future[Any]] = {}
    for name in ("one", "two"):
        running[name] = asyncio.ensure_future(
            session.run(code.format(name), context=context, concurrent=True, atomic=True)
        )
        await gates.reach(f"{name} bound")
    for name in order:
        await gates.open(f"{name} ends")
        await running[name]
    assert await users_names(session) == {"shared": "old", "own": "old"}
    assert not session.manager.rollbacks.copies


# -- given up ------------------------------------------------------------------------------------


def stubborn(context: str) -> str:
    """A cell that no cancellation and no interrupt ends, before ``first`` and ``last`` are set."""
    wait = "{0}.wait(5)" if context == "thread" else "await asyncio.sleep(0.001)"
    stay = f"while not {{0}}.is_set():\n  try: {wait}\n  except BaseException: pass\n"
    return (
        "x = 'mine'\nstarted()\n"
        + stay.format("first")
        + "passed = True\n"
        + stay.format("last")
        + "x = y = 'later'"
    )


@pytest.fixture
def nobody_insists(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cell is interrupted at each line: as before Python 3.12, or if others have all tools."""
    monkeypatch.setattr(sticky_interrupts, "hold", lambda *_: False)


@contextmanager
def gates_for(session: AnySession) -> Iterator[tuple[threading.Event, threading.Event]]:
    """What a stubborn cell waits for; both are open in the end."""
    gates = threading.Event(), threading.Event()
    session.update_namespace({"first": gates[0], "last": gates[1], "x": "old", "passed": False})
    try:
        yield gates
    finally:
        for gate in gates:
            gate.set()


@pytest.mark.usefixtures("nobody_insists")
@requirement("2.5-atomic-given-up")
async def test_a_cell_that_is_given_up_is_rolled_back_at_once_and_what_it_writes_later_is_its_own(
    make_session: Callable[..., AnySession], transport: MemoryTransport, context: str
) -> None:
    session = make_session(transport=transport)
    with gates_for(session):
        result = await (await start(session, stubborn(context), context, timeout=0.02))
        assert (result.status, result.stopped, await session.get("x")) == ("timeout", False, "old")
        assert (result.rolled_back, result.bound, result.exact) == (("x",), (), False)
        assert transport.of_type(CellFinished)[-1].rolled_back == ("x",)
        assert not session.manager.rollbacks.copies
    await until(session, "'y' in globals()")
    assert await session.get("x") == await session.get("y") == "later"


@pytest.mark.usefixtures("nobody_insists")
@requirement("2.5-atomic-given-up", "2.5-atomic-others")
async def test_a_cell_that_still_runs_keeps_its_names_but_for_those_that_the_failing_one_binds(
    session: AnySession, context: str
) -> None:
    with gates_for(session):
        stuck = await start(session, stubborn(context), context, timeout=0.02)
        assert not (await stuck).stopped
        code = "x = 'again'\nfirst.set()\nwhile not passed: await asyncio.sleep(0)\n1 / 0"
        again = await session.run(code, atomic=True)
        assert again.rolled_back == ("x",)
        assert (await session.get("x"), await session.get("passed")) == ("old", True)
    await until(session, "'y' in globals()")
