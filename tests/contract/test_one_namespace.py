"""One mapping, a real module, a prelude below it, and the values of cells."""

# ruff: noqa: E501 (a cell in one string reads better than one that is wrapped)

from __future__ import annotations

import ast
import asyncio
import pickle
import re
import sys
import threading
from collections.abc import Callable

import pytest

from either_home import error_name, raises_there
from isthmus import AnySession, ReservedNameError
from support import (
    CONTEXTS,
    Sequencer,
    assert_as_expected,
    cell,
    on_one_loop,
    on_other_loops,
)

requirement = pytest.mark.requirement


# -- one mapping ---------------------------------------------------------------------------------


@requirement("2.1-one-mapping")
async def test_what_one_context_binds_another_one_reads(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute("x = 20; x += 1", context=first)
    assert await session.execute("y = x * 2; y", context=second) == 42
    assert await session.execute("x + y", context=first) == 63


@requirement("2.1-one-mapping")
async def test_the_mapping_keeps_its_identity(session: AnySession, context: str) -> None:
    mapping = session.namespace
    assert await session.execute("globals()", context=context) is mapping
    assert await session.execute("locals()", context=context) is mapping
    assert session.namespace is mapping


@requirement("2.1-one-mapping")
async def test_functions_of_one_cell_see_each_other_and_later_names(
    session: AnySession, context: str
) -> None:
    code = """
        def even(n): return n == 0 or odd(n - 1)
        def odd(n): return n != 0 and even(n - 1)
        class Shape:
            sides = [even(n) for n in range(3)]
            def name(self): return later
        later = 'set after the class'
        even(10), Shape.sides, Shape().name()
        """
    expected = (True, [True, False, True], "set after the class")
    assert await session.execute(cell(code), context=context) == expected


@requirement("2.1-one-mapping")
async def test_a_comprehension_at_the_top_level_sees_the_names_of_its_cell(
    session: AnySession, context: str
) -> None:
    assert await session.execute("n = 3\n[i * n for i in range(n)]", context=context) == [0, 3, 6]


@requirement("2.1-one-mapping")
async def test_a_write_is_visible_to_another_context_in_the_middle_of_a_cell(
    session: AnySession, sequencer: Sequencer, first: str, second: str
) -> None:
    session.inject_capability("reach", sequencer.reach)
    code = [
        "mine = 1\nawait reach(0)\nawait reach(3)\n(mine, theirs)",
        "await reach(1)\ntheirs = mine + 1\nawait reach(2)\n(mine, theirs)",
    ]
    results = await asyncio.gather(
        session.execute(code[0], context=first, concurrent=True),
        session.execute(code[1], context=second, concurrent=True),
    )
    assert results == [(1, 2), (1, 2)]


@requirement("2.1-one-mapping")
async def test_a_function_keeps_its_globals_over_contexts(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute(
        "def count():\n    global n\n    n += 1\n    return n\nn = 0", context=first
    )
    assert await session.execute("count(), count()", context=second) == (1, 2)
    assert await session.get("n") == 2


@requirement("2.1-one-mapping")
async def test_what_is_deleted_is_gone_in_every_context(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute("x = 1", context=first)
    await session.execute("del x", context=second)
    with raises_there(NameError, match="'x'"):
        await session.execute("x", context=first)


# -- a real module -------------------------------------------------------------------------------


@requirement("2.2-real-module")
async def test_the_mapping_is_that_of_a_module_in_sys_modules(
    session: AnySession, context: str
) -> None:
    name = await session.execute("__name__", context=context)
    assert vars(sys.modules[name]) is session.namespace
    assert await session.execute(
        "import sys; sys.modules[__name__].__dict__ is globals()", context=context
    )


@requirement("2.2-real-module")
async def test_an_instance_of_a_class_of_a_cell_survives_pickling(
    session: AnySession, first: str, second: str
) -> None:
    code = """
        class Point:
            def __init__(self, x): self.x = x
            def __eq__(self, other): return type(other) is Point and other.x == self.x
        class Outer:
            class Inner: pass
        """
    await session.execute(cell(code), context=first)
    assert await session.execute(
        "import pickle; pickle.loads(pickle.dumps(Point(3))) == Point(3)", context=second
    )
    assert await session.execute(
        "type(pickle.loads(pickle.dumps(Outer.Inner()))) is Outer.Inner", context=second
    )


@requirement("2.2-real-module")
async def test_the_host_pickles_an_instance_of_a_class_of_a_cell(
    session: AnySession, context: str
) -> None:
    await session.execute("class Point:\n    def __init__(self, x): self.x = x", context=context)
    point = session.namespace["Point"](4)
    assert pickle.loads(pickle.dumps(point)).x == 4


@requirement("2.2-real-module")
async def test_dataclasses_and_type_hints_resolve_names_of_the_namespace(
    session: AnySession, first: str, second: str
) -> None:
    code = """
        from __future__ import annotations
        import dataclasses, typing
        @dataclasses.dataclass
        class Node:
            parent: Node | None = None
            names: typing.ClassVar[list[str]] = []
        def visit(node: Node, deep: Later) -> list[Node]: ...
        """
    await session.execute(cell(code), context=first)
    await session.execute("class Later: pass", context=second)
    found = """
        hints = typing.get_type_hints(visit)
        assert hints['node'] is Node and hints['deep'] is Later
        assert hints['return'].__args__ == (Node,)
        [it.name for it in dataclasses.fields(Node)]
        """
    assert await session.execute(cell(found), context=first) == ["parent"]
    assert await session.execute("typing.get_type_hints(Node)['parent']", context=second)


@requirement("2.2-real-module")
async def test_the_source_of_functions_and_classes_is_found(
    session: AnySession, context: str
) -> None:
    first = "x = 1\nclass Same:\n    number = 1\n    def f(self):\n        return 1\ndef one():\n    return 1"
    second = "\n\nclass Same:\n    number = 2\nclass Other:\n    pass"

    async def source_of(name: str) -> str:
        return await session.execute(f"inspect.getsource({name})", context=context)

    await session.execute(f"import inspect\n{first}\nOld = Same", context=context)
    assert await source_of("one") == "def one():\n    return 1\n"
    assert (await source_of("Old")).startswith("class Same:\n    number = 1")
    await session.execute(second, context=context)
    assert await source_of("Same") == "class Same:\n    number = 2\n"
    assert await source_of("Other") == "class Other:\n    pass\n"
    assert "return 1" in await source_of("Old.f")


@requirement("2.2-real-module")
async def test_sessions_live_side_by_side_under_one_name(
    make_session: Callable[..., AnySession], context: str
) -> None:
    one, two = make_session("twin"), make_session("twin")
    await one.execute("x = 1", context=context)
    await two.execute("x = 2", context=context)
    assert (await one.get("x"), await two.get("x")) == (1, 2)
    names = {await one.get("__name__"), await two.get("__name__")}
    assert len(names) == 2
    assert all(name in sys.modules for name in names)


@requirement("2.2-real-module")
async def test_a_main_session_is_main_while_it_is_open(
    make_session: Callable[..., AnySession], context: str
) -> None:
    before = sys.modules["__main__"]
    session = make_session(main=True)
    code = """
        import pickle, sys
        class Thing: pass
        assert __name__ == '__main__' and sys.modules['__main__'].Thing is Thing
        type(pickle.loads(pickle.dumps(Thing()))) is Thing, Thing.__module__
        """
    assert await session.execute(cell(code), context=context) == (True, "__main__")
    await session.close()
    assert sys.modules["__main__"] is before


@requirement("2.2-real-module")
async def test_asyncio_is_bound_from_the_start(session: AnySession, context: str) -> None:
    code = "_asyncio = asyncio\nimport sys\n_asyncio is sys.modules['asyncio']"
    assert await session.execute(code, context=context)


# -- the prelude ---------------------------------------------------------------------------------


@requirement("2.3-prelude")
async def test_a_cell_may_shadow_a_capability_and_del_brings_it_back(
    session: AnySession, first: str, second: str
) -> None:
    session.inject_capability("search", lambda: "the host's")
    assert await session.execute("search()", context=first) == "the host's"
    await session.execute("search = lambda: 'mine'", context=first)
    assert await session.execute("search()", context=second) == "mine"
    await session.execute("del search", context=second)
    assert await session.execute("search()", context=first) == "the host's"


@requirement("2.3-prelude")
async def test_capabilities_do_not_clutter_the_namespace(session: AnySession, context: str) -> None:
    session.inject_capability("search", lambda: 1)
    await session.execute("x = search()", context=context)
    assert not {"search", "run_sync"} & set(await session.snapshot())
    assert {"asyncio", "x"} == set(await session.snapshot())


@requirement("2.3-prelude")
async def test_revoking_acts_at_once_in_functions_already_defined(
    session: AnySession, context: str
) -> None:
    session.inject_capability("search", lambda: 1)
    await session.execute("def use(): return search()\nuse()", context=context)
    session.revoke_capability("search")
    with raises_there(NameError, match="search"):
        await session.execute("use()", context=context)
    session.inject_capability("search", lambda: 2)
    assert await session.execute("use()", context=context) == 2


@requirement("2.3-prelude")
async def test_revoking_in_the_middle_of_a_cell_acts_on_its_next_call(
    session: AnySession, context: str
) -> None:
    session.inject_capability("search", lambda: 1)
    session.inject_capability("revoke", session.revoke_capability)
    with raises_there(NameError, match="search"):
        await session.execute("search()\nrevoke('search')\nsearch()", context=context)


@requirement("2.3-prelude")
async def test_a_capability_that_hides_a_builtin_warns_and_gives_it_back(
    session: AnySession, context: str
) -> None:
    with pytest.warns(UserWarning, match="'len' hides the builtin"):
        session.inject_capability("len", lambda it: -1)
    assert await session.execute("len([])", context=context) == -1
    session.revoke_capability("len")
    assert await session.execute("len([])", context=context) == 0


@requirement("2.3-prelude")
async def test_run_sync_is_in_the_prelude_of_every_context(
    session: AnySession, context: str
) -> None:
    code = "async def f():\n    await asyncio.sleep(0)\n    return 7\ndef g(): return run_sync(f())\ng()"
    assert await session.execute(code, context=context) == 7


@requirement("2.3-prelude")
@pytest.mark.parametrize("name", ["run_sync", "input"])
async def test_the_prelude_has_the_runtimes_own_names(
    session: AnySession, context: str, name: str
) -> None:
    assert await session.execute(f"callable({name})", context=context)


@requirement("2.3-prelude")
async def test_later_changes_of_the_builtins_module_are_not_seen(
    session: AnySession, context: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import builtins

    monkeypatch.setattr(builtins, "added_later", 1, raising=False)
    with raises_there(NameError):
        await session.execute("added_later", context=context)


# -- values --------------------------------------------------------------------------------------


@requirement("2.4-results")
async def test_the_value_is_that_of_the_last_expression_which_runs_once(
    session: AnySession, context: str
) -> None:
    session.update_namespace({"calls": []})
    assert await session.execute("calls.append(1)\ncalls.append(2) or calls", context=context) == [
        1,
        2,
    ]
    assert await session.execute("x = 1", context=context) is None
    assert await session.execute("if True:\n    5", context=context) is None
    assert await session.execute("await asyncio.sleep(0, 'slept')", context=context) == "slept"


@requirement("2.4-results")
async def test_the_last_three_values_are_kept_over_contexts(
    session: AnySession, first: str, second: str
) -> None:
    for number, context in enumerate((first, second, first, second)):
        await session.execute(f"{number} + 10", context=context)
    assert await session.execute("(_, __, ___)", context=first) == (13, 12, 11)


@requirement("2.4-results")
async def test_a_value_of_none_does_not_move_the_history(session: AnySession, context: str) -> None:
    await session.execute("1 + 1", context=context)
    await session.execute("None", context=context)
    await session.execute("x = 3", context=context)
    assert await session.execute("_", context=context) == 2


@requirement("2.4-results")
async def test_a_cell_that_binds_underscore_keeps_it(session: AnySession, context: str) -> None:
    await session.execute("1", context=context)
    await session.execute("_ = 'mine'; 2", context=context)
    assert await session.execute("_", context=context) == "mine"
    await session.execute("for _ in range(3): pass", context=context)
    await session.execute("99", context=context)
    assert await session.execute("_", context=context) == 2
    await session.execute("del _", context=context)
    await session.execute("5", context=context)
    assert await session.get("_") == 5


@requirement("2.4-results")
async def test_dunder_result_is_the_value_of_a_cell_without_last_expression(
    session: AnySession, context: str
) -> None:
    assert await session.execute("__result__ = 8", context=context) == 8
    assert await session.execute("x = 1", context=context) is None
    assert await session.execute("__result__ = 9\n3", context=context) == 3


@requirement("2.4-results")
async def test_history_can_be_switched_off(
    make_session: Callable[..., AnySession], context: str
) -> None:
    session = make_session(history=False)
    assert await session.execute("object()", context=context) is not None
    assert not {"_", "__", "___"} & set(await session.snapshot())


@requirement("2.4-results")
async def test_history_pins_three_values_at_most(session: AnySession, context: str) -> None:
    import gc
    import weakref

    await session.execute("class Big: pass", context=context)
    big = await session.execute("Big()", context=context)
    seen = weakref.ref(big)
    del big
    for number in range(3):
        assert seen() is not None
        await session.execute(f"{number}", context=context)
    gc.collect()
    assert seen() is None


@requirement("2.4-future-flags")
async def test_future_flags_persist_over_cells_and_contexts(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute("def before(x: undefined_name_in_a_string): ..." if False else "pass")
    with raises_there(NameError):
        await session.execute("def f(x: Missing): ...", context=second)
    await session.execute("from __future__ import annotations", context=first)
    await session.execute("def f(x: Missing): ...", context=second)
    assert await session.execute("f.__annotations__") == {"x": "Missing"}


# -- what is atomic ------------------------------------------------------------------------------


class Trap:
    """A value whose ``__del__`` calls back into the session."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action

    def __del__(self) -> None:
        self.action()


@requirement("2.5-update")
async def test_an_update_with_one_bad_name_binds_nothing(session: AnySession) -> None:
    for bad in ("__builtins__", "__name__", "not a name", "class", ""):
        with pytest.raises(ReservedNameError, match=repr(bad)):
            session.update_namespace({"good": 1, bad: 2, "later": 3})
        assert "good" not in await session.snapshot()
        assert "later" not in await session.snapshot()


@requirement("2.5-update")
async def test_a_replaced_value_may_come_back_in_its_destructor(session: AnySession) -> None:
    seen = []
    session.update_namespace({"a": Trap(lambda: seen.append(session.snapshot()["b"])), "b": 1})
    session.update_namespace({"a": None, "b": 2})
    assert seen == [2], "the destructor must see the whole update"


@requirement("2.5-update")
async def test_updates_and_snapshots_from_other_threads_do_not_tear(session: AnySession) -> None:
    stop, torn, written = threading.Event(), [], []
    between = {f"between_{number}": number for number in range(40)}

    def write(start: int) -> None:
        for number in range(start, start + 500):
            pair = {"left": number, **between, "right": number}
            session.update_namespace(pair)
        written.append(start)

    def read() -> None:
        while not stop.is_set():
            copy = session.snapshot()
            if copy.get("left") != copy.get("right"):
                torn.append(copy)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=write, args=(n * 1000,)) for n in range(3)]
        reader = threading.Thread(target=read)
        for thread in [reader, *threads]:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join, 5)
        stop.set()
        reader.join(5)
    finally:
        sys.setswitchinterval(interval)
    assert len(written) == 3
    assert not torn


@requirement("2.5-snapshot")
async def test_a_snapshot_is_a_shallow_copy_of_the_users_names(
    session: AnySession, context: str
) -> None:
    await session.execute("items = [1]; __version__ = '1'", context=context)
    copy = await session.snapshot()
    assert copy["items"] is await session.get("items")
    copy["other"] = 1
    assert "other" not in await session.snapshot()
    assert copy["__version__"] == "1"
    assert not {"__builtins__", "__name__", "__file__", "__spec__"} & set(copy)


@requirement("2.5-single-names")
async def test_a_host_thread_reads_and_binds_single_names_while_a_cell_runs(
    session: AnySession, sequencer: Sequencer, context: str
) -> None:
    session.update_namespace({"sequencer": sequencer})

    def host() -> None:
        sequencer.point(1)
        session.update_namespace({"given": session.namespace["asked"] + 1})
        sequencer.point(2)

    thread = threading.Thread(target=host)
    thread.start()
    code = "asked = 1\nawait sequencer.reach(0)\nawait sequencer.reach(3)\ngiven"
    assert await session.execute(code, context=context) == 2
    thread.join(5)


@requirement("2.5-cells")
async def test_ordered_cells_never_overlap_so_that_increments_are_not_lost(
    session: AnySession,
) -> None:
    await session.execute("n = 0")
    code = "m = n\nawait asyncio.sleep(0)\nn = m + 1"
    await asyncio.gather(
        *[session.execute(code, context=CONTEXTS[number % 3]) for number in range(60)]
    )
    assert await session.get("n") == 60


@requirement("2.5-cells")
async def test_concurrent_cells_can_lose_an_update(session: AnySession, context: str) -> None:
    await session.execute("n = 0; both = asyncio.Barrier(2)")
    code = "m = n\nawait both.wait()\nn = m + 1"
    await asyncio.gather(
        session.execute(code, context=context, concurrent=True),
        session.execute(code, context=context, concurrent=True),
    )
    assert await session.get("n") == 1


# -- one language --------------------------------------------------------------------------------

LANGUAGE = {
    "await": ("await asyncio.sleep(0, 5)", 5),
    "await in an expression": ("1 + (await asyncio.sleep(0, 5)) * 2", 11),
    "await in a call": ("max(await asyncio.sleep(0, 1), await asyncio.sleep(0, 2))", 2),
    "await in an f-string": ("f'{await asyncio.sleep(0, 5):>3}'", "  5"),
    "await in a comparison": (
        "(await asyncio.sleep(0, 1)) < 2 < (await asyncio.sleep(0, 3))",
        True,
    ),
    "await in a branch": ("x = 0\nif await asyncio.sleep(0, True):\n    x = 1\nx", 1),
    "await in a loop": (
        "t = 0\nwhile t < 3:\n    t += await asyncio.sleep(0, 1)\nelse:\n    t += 10\nt",
        13,
    ),
    "await in try": (
        "try:\n    await asyncio.sleep(0)\n    1 / 0\n"
        "except ZeroDivisionError:\n    r = await asyncio.sleep(0, 'caught')\n"
        "finally:\n    r += await asyncio.sleep(0, '!')\nr",
        "caught!",
    ),
    "walrus": ("[y := await asyncio.sleep(0, 4), y * 2]", [4, 8]),
    "async for": ("got = []\nasync for i in ticks(3):\n    got.append(i)\ngot", [0, 1, 2]),
    "async for with else": (
        "got = []\nasync for i in ticks(3):\n    if i == 5: break\nelse:\n    got.append('else')\ngot",
        ["else"],
    ),
    "async for with break": (
        "async for i in ticks(10):\n    if i == 2: break\ni",
        2,
    ),
    "async with": (
        "async with Gate('a') as g:\n    seen = g\n(seen, log)",
        ("a", ["in a", "out a"]),
    ),
    "two async with": (
        "log.clear()\nasync with Gate('a') as a, Gate('b') as b:\n    log.append(a + b)\nlist(log)",
        ["in a", "in b", "ab", "out b", "out a"],
    ),
    "async list comprehension": ("[i async for i in ticks(3)]", [0, 1, 2]),
    "async set comprehension": ("{i async for i in ticks(3) if i}", {1, 2}),
    "async dict comprehension": (
        "{i: await asyncio.sleep(0, -i) async for i in ticks(2)}",
        {0: 0, 1: -1},
    ),
    "await in a comprehension": ("[await asyncio.sleep(0, i) for i in range(3)]", [0, 1, 2]),
    "nested comprehension": ("[[j async for j in ticks(i)] for i in range(3)]", [[], [0], [0, 1]]),
    "match": ("match await asyncio.sleep(0, [1, 2]):\n    case [a, b]: r = a + b\nr", 3),
    "assert with await": ("assert await asyncio.sleep(0, True)\n'passed'", "passed"),
    "del after await": ("q = await asyncio.sleep(0, 1)\ndel q\n'q' in globals()", False),
    "gather": ("await asyncio.gather(*(asyncio.sleep(0, i) for i in range(3)))", [0, 1, 2]),
}

LANGUAGE_SETUP = """
log = []
async def ticks(n):
    for i in range(n):
        await asyncio.sleep(0)
        yield i
class Gate:
    def __init__(self, name): self.name = name
    async def __aenter__(self):
        await asyncio.sleep(0)
        log.append('in ' + self.name)
        return self.name
    async def __aexit__(self, *_):
        await asyncio.sleep(0)
        log.append('out ' + self.name)
"""


@on_one_loop
@requirement("3.1-one-language")
@pytest.mark.parametrize("form", LANGUAGE)
async def test_top_level_async_code_means_the_same_in_every_context(
    session: AnySession, context: str, form: str
) -> None:
    code, expected = LANGUAGE[form]
    await session.execute(LANGUAGE_SETUP, context=context)
    assert await session.execute(code, context=context) == expected


@on_other_loops
@requirement("3.1-one-language")
async def test_top_level_async_code_means_the_same_on_every_loop(
    session: AnySession, context: str
) -> None:
    found = {}
    for form, (code, _) in LANGUAGE.items():
        await session.execute(LANGUAGE_SETUP, context=context)
        result = await session.run(code, context=context)
        found[form] = result.value, result.error
    assert_as_expected(found, {form: (value, None) for form, (_, value) in LANGUAGE.items()})


@requirement("3.1-one-language")
def test_every_statement_and_expression_that_is_async_has_a_form() -> None:
    kinds = set()
    for code, _ in LANGUAGE.values():
        for node in ast.walk(ast.parse(code)):
            kinds.add(type(node).__name__)
            kinds.update(["async comprehension"] if getattr(node, "is_async", 0) else [])
    assert {"Await", "AsyncFor", "AsyncWith", "async comprehension"} <= kinds


@requirement("3.1-one-language")
async def test_errors_point_at_the_same_line_and_column_in_every_context(
    session: AnySession,
) -> None:
    async def place(context: str) -> str | None:
        code = "x = 1\ny = (x +\n     await asyncio.sleep(0, 'text'))"
        result = await session.run(code, context=context, filename="the cell")
        assert error_name(result.error) == "TypeError"
        return result.traceback

    places = {context: await place(context) for context in CONTEXTS}
    assert len(set(places.values())) == 1, places
    assert re.search(r"line 2, in <module>\n    y = \(x \+\n {9}[~^]", places["async"] or "")


@requirement("3.1-nested-bodies-untouched")
async def test_nested_async_functions_stay_what_they_are(session: AnySession, context: str) -> None:
    code = """
        import inspect
        async def f(): return await asyncio.sleep(0, 1)
        async def g():
            yield 1
        kinds = inspect.iscoroutinefunction(f), inspect.isasyncgenfunction(g)
        c = f(); kinds += (inspect.iscoroutine(c),); c.close(); del c
        kinds
        """
    assert await session.execute(cell(code), context=context) == (True, True, True)


@requirement("4.2-async-functions")
async def test_async_functions_are_called_from_every_context(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute(
        "async def double(x):\n    await asyncio.sleep(0)\n    return 2 * x", context=first
    )
    assert await session.execute("await double(4)", context=second) == 8
    assert await session.execute("run_sync(double(5))", context=second) == 10


@requirement("4.2-async-functions")
async def test_the_register_of_async_functions_follows_the_namespace(
    session: AnySession, context: str
) -> None:
    await session.execute("async def f(): ...\nasync def g(): ...\ndef h(): ...", context=context)
    assert set(session.manager.async_functions) == {"f", "g"}
    assert session.manager._async_functions["f"] is session.namespace["f"]
    await session.execute("f = 1; del g", context=context)
    assert session.manager.async_functions == {}
