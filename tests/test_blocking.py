"""The blocking form means what the async form means, down to the column of each error."""

from __future__ import annotations
import __future__

import ast
import asyncio
import builtins
import re
import sys
from collections.abc import Awaitable
from types import CodeType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.blocking import ACM, AITER, AWAIT, blocking_names, lower

FILENAME = "<blocking test>"

PRELUDE = """
import types

class Pause:
    def __await__(self):
        return (yield "paused")

async def give(value=1):
    await Pause()
    return value

async def fail(error=None):
    await Pause()
    raise error or ValueError("failed")

async def count(n=3, error=None):
    for i in range(n):
        await Pause()
        yield i
    if error:
        raise error

class Manager:
    def __init__(self, enter=None, leave=None, swallow=False):
        self.enter, self.leave, self.swallow = enter, leave, swallow
        self.log = log
    async def __aenter__(self):
        await Pause()
        log.append("enter")
        if self.enter:
            raise self.enter
        return self
    async def __aexit__(self, kind, error, traceback):
        await Pause()
        log.append(("leave", kind, str(error)))
        if self.leave:
            raise self.leave
        return self.swallow

class Steps:
    def __init__(self, *steps): self.steps = list(steps)
    def __aiter__(self): return self
    def __anext__(self): return self.steps.pop(0)()

class Duck: pass

def make(**methods):
    given = {name: (lambda value: lambda *a: value)(v) for name, v in methods.items()}
    return type("Made", (), given)()

def throw(error): raise error
log = []
"""


def drive(awaitable: Awaitable[Any]) -> Any:
    """Wait for *awaitable* as a loop would that has nothing else to do."""
    steps = awaitable.__await__()
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        return stop.value


def fresh_namespace() -> dict[str, Any]:
    names = {**vars(builtins), **blocking_names(drive)}
    namespace: dict[str, Any] = {"__builtins__": names, "__name__": "blocking_test"}
    exec(compile(PRELUDE, "<prelude>", "exec"), namespace)
    return namespace


def compile_form(source: str, blocking: bool) -> CodeType:
    tree = ast.parse(source)
    if blocking:
        lower(tree)
    flag = 0 if blocking else ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return compile(tree, FILENAME, "exec", flag, dont_inherit=True)


Place = tuple[str, int | None, int | None, int | None, int | None]


def places(error: BaseException) -> list[Place]:
    """Where each frame of the cell stood when *error* went through it."""
    found = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if code.co_filename == FILENAME:
            positions = list(code.co_positions())
            found.append((code.co_name, *positions[step.tb_lasti // 2]))
        step = step.tb_next
    return found


def outcome(source: str, blocking: bool) -> dict[str, Any]:
    """Run *source* in one form; tell what it raised, where, what it bound and what it logged."""
    namespace = fresh_namespace()
    before = set(namespace)
    raised: Any = None
    try:
        result = eval(compile_form(source, blocking), namespace)
        if asyncio.iscoroutine(result):
            assert not blocking
            drive(result)
    except BaseException as error:
        chain = [error.__cause__, error.__context__]
        raised = (type(error), shown(str(error)), places(error), shown(chain))
    bound = {name: shown(namespace[name]) for name in namespace if name not in before}
    return {"raised": raised, "bound": bound, "log": shown(namespace["log"])}


def shown(value: object) -> str:
    """Give the ``repr`` without addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


RAISING = """
await fail()
x = 1; y = await   fail()
(1 +
   await
     fail(
       KeyError(3)))
await 5
await None
x = await (1, 2)
await give
await make(__await__=5)
c = give(); await c; await c
[await c for c in [give(), fail()]]
[await 3]
x = {await a for a in
   [give(), 7]}
x = {1: await fail()}
f"{await fail()!r:>{await give()}}"
print(await give(), 1 / 0, await give())
await give(1 / 0)
throw(await give(ValueError(3)))
(await give()).missing
(await give())[3]
(await give())(3)
await give() + ""
"" + await give()
not_defined + await give()
await (await give())
await (await fail())
async for i in 5: pass
async for i in [1]: pass
async for i in make(__aiter__=5): pass
async for i in make(__aiter__=None): pass
async for i in make(__aiter__=make(__anext__=4)): pass
async for i in throw(ValueError(1)): pass
async for i in Steps(give, fail): pass
async for i in Steps(give, lambda: throw(ValueError(2))): pass
async for i in Steps(give, lambda: 7): pass
async for i in count(): 1 / 0
async for i in count(2):
    x = i
    if i:
        raise ValueError(i)
async for i in count(2, ValueError(9)): pass
async for i in count(2): pass
else: 1 / 0
async for i, j in count(2): pass
async for Duck().x[3] in count(2): pass
async for i in count(2): await fail()
async for i in count(2):
    async for j in count(2, KeyError(2)):
        pass
async for i in await fail(): pass
async for i in await give(3): pass
async for i in (
     await give(count(2, ValueError(1)))): pass
async with 5: pass
async with Duck(): pass
async with make(__aenter__=5): pass
async with make(__aexit__=5): pass
async with make(__aenter__=5, __aexit__=6): pass
async with make(__aenter__=give(), __aexit__=6): pass
async with make(__aenter__=give(), __aexit__=6): 1 / 0
async with Manager(enter=ValueError(3)): pass
async with Manager(leave=ValueError(3)): pass
async with Manager(leave=ValueError(3)) as m: 1 / 0
async with Manager() as m: 1 / 0
async with Manager(swallow=True) as m: 1 / 0
async with Manager(swallow=make(__bool__=5)) as m: 1 / 0
async with Manager(swallow=make(__bool__=5)) as m: pass
async with Manager(swallow=True) as m, Manager() as n: 1 / 0
async with Manager() as m, Manager(enter=ValueError(3)) as n: pass
async with Manager() as m, Manager(leave=ValueError(3)) as n: pass
async with (Manager() as m,
     Manager(leave=ValueError(3)) as n):
    x = 3
async with (Manager(leave=KeyError(1)) as m,
     Manager(leave=ValueError(3)) as n):
    x = 3
    1 / 0
async with throw(ValueError(3)): pass
async with await fail() as m: pass
async with await give(Manager()) as m: await fail()
async with Manager() as (a, b): pass
async with Manager() as Duck().x[2]: pass
x = [i async for i in count(2, ValueError(3))]
x = [1 / 0 async for i in count(2)]
x = [i async for i in 5]
x = [i async for i in
   Steps(give, lambda: 5)]
x = {i async for i in count(2, ValueError(3))}
x = {i: 1 / i async for i in count(2)}
x = {i: i async for i in count(2) if 1 / i}
x = [[j async for j in count(2, ValueError(i))] for i in range(3)]
x = [[j for j in range(1 // i)] async for i in count(3)]
x = [j for i in range(2) async for j in count(2, ValueError(3))]
x = [j async for i in count(3) for j in 5]
x = [i async for i in await fail()]
x = [await fail() for i in range(3)]
x = [await give(1 / 0) async for i in count(3)]
x = [i for i in await give(3)]
x = [i for i in range(3) if await fail()]
x = list(i for i in await fail())
x = list(i async for i in count(3))
x = [y async for y in (i async for i in count(3, ValueError(2)))]
x = [y async for y in (await fail() for i in range(3))]
@throw(await give(ValueError(3)))
def f(): pass
@(await fail())
class A: pass
def f(a=await fail()): pass
def f(*, a=await fail()): pass
f = lambda a=await fail(): a
class A(await give(5)): pass
class A(metaclass=await fail()): pass
def f(a: await fail()) -> int: pass
def f(*a: await give(), **k: await give()) -> await fail(): pass
x: await fail() = 3
x: int = await fail()
assert not await give(), await fail()
assert not await give(), await give("text")
raise await give(ValueError(3))
raise ValueError(1) from await give(KeyError(2))
del (await give({}))["x"]
(await give(Duck())).x += 1
x = await give(); x += await give("a")
try:
    await fail()
finally:
    1 / 0
try:
    await fail()
except ValueError:
    await fail(KeyError(1))
try:
    await fail(ExceptionGroup("g", [ValueError(1), KeyError(2)]))
except* ValueError:
    await fail(TypeError(3))
while await give(True):
    await fail()
if await fail(): pass
with await give(open): pass
with await fail(): pass
for i in await give(5): pass
match await give(5):
    case 5 if await fail(): pass
match await fail():
    case _: pass
print(*await give(5))
print(**await give(5))
print(x := await give(5), x / 0)
await throw(ValueError(1))
raise StopAsyncIteration(await give())
async for i in count(2): raise StopAsyncIteration
x = await give(3) if await give(False) else await fail()
x = await give(False) or await fail()
x = 1 < await give(2) < await fail()
x = (await give([1,2]))[await give(0):await fail()]
x, y = await give((1,2,3))
[*await give(5)]
import os; os.environ[await give(5)]
global x; x = await fail()
await asyncio_missing.sleep(1)
"""


def snippets(text: str) -> list[str]:
    """Split *text* before each line that begins a statement of its own."""
    found: list[str] = []
    decorated = False
    for line in text.strip("\n").splitlines(keepends=True):
        if decorated or line.startswith((" ", "else", "finally", "except")):
            found[-1] += line
        else:
            found.append(line)
        decorated = line.startswith("@")
    return found


UNTOUCHED = """
async def f(): return [await g() async for i in h()]
def f(): return (i async for i in g())
f = lambda: [await g() for i in h]
class A:
    async def f(self): await g()
x = (await give(i) async for i in count(2))
x = ([await give(j) async for j in count(i)] for i in range(2))
"""


@pytest.mark.parametrize("source", snippets(UNTOUCHED))
def test_scopes_of_their_own_are_left_alone(source: str) -> None:
    tree = ast.parse(source)
    lower(tree)
    outermost = {ast.dump(node) for node in ast.walk(ast.parse(source))}
    hidden = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id.startswith("<")]
    assert not hidden
    assert ast.dump(tree) in outermost


def test_the_outermost_iterable_of_a_generator_expression_is_lowered() -> None:
    namespace = fresh_namespace()
    exec(compile_form("x = list(i + 1 for i in await give([1, 2]))", True), namespace)
    assert namespace["x"] == [2, 3]


def test_a_definition_evaluates_its_parts_in_the_cell() -> None:
    source = """
@(await give(lambda f: f))
def f(a=await give(1), *, b: await give(int) = await give(2)) -> await give(str): return a, b
@(await give(lambda f: f))
class A(await give(dict), metaclass=await give(type)): x = 1
g = lambda a=await give(3): a
"""
    namespace = fresh_namespace()
    exec(compile_form(source, True), namespace)
    assert namespace["f"]() == (1, 2)
    assert namespace["f"].__annotations__ == {"b": int, "return": str}
    assert issubclass(namespace["A"], dict)
    assert namespace["g"]() == 3


def test_no_annotation_is_touched_where_it_is_kept_as_text() -> None:
    tree = ast.parse("def f(a: [i async for i in x]): pass\nb: [i async for i in x] = await c")
    lower(tree, __future__.annotations.compiler_flag)
    text = ast.unparse(tree)
    assert text.count("async for") == 2
    assert "await" in text and "= await" not in text


@pytest.mark.skipif(sys.version_info < (3, 12), reason="syntax of 3.12")
def test_definitions_with_type_parameters_are_lowered_outside_their_scope() -> None:
    source = "@(await give(lambda f: f))\ndef f[T](a: T = await give(1)) -> T: return a"
    namespace = fresh_namespace()
    exec(compile_form(source, True), namespace)
    assert namespace["f"]() == 1
    exec(compile_form("type X = list[int]", True), namespace)


def test_a_tree_deeper_than_the_stack_is_lowered() -> None:
    tree = ast.parse("await x")
    statement = tree.body[0]
    assert isinstance(statement, ast.Expr)
    for _ in range(50_000):
        statement.value = ast.UnaryOp(ast.USub(), statement.value)
    lower(tree)
    node: ast.expr = statement.value
    while isinstance(node, ast.UnaryOp):
        below, node.operand = node.operand, ast.Constant(0)  # taken apart: deletion recurses
        node = below
    assert isinstance(node, ast.Call)


def test_a_coroutine_that_somebody_else_awaits_is_refused_as_by_await() -> None:
    namespace = fresh_namespace()
    coroutine = namespace["give"]()
    coroutine.send(None)
    with pytest.raises(RuntimeError, match="coroutine is being awaited already"):
        blocking_names(drive)[AWAIT](coroutine)
    coroutine.close()


def test_only_coroutines_reach_the_one_who_waits() -> None:
    seen: list[str] = []

    def run_sync(awaitable: Awaitable[Any]) -> Any:
        seen.append(type(awaitable).__name__)
        return drive(awaitable)

    namespace = fresh_namespace()
    names = blocking_names(run_sync)
    assert sorted(names) == sorted([AWAIT, AITER, ACM])
    names[AWAIT](namespace["Pause"]())
    assert names[AWAIT](namespace["give"](5)) == 5
    assert list(names[AITER](namespace["count"](2))) == [0, 1]
    with names[ACM](namespace["Manager"]()):
        pass
    assert set(seen) == {"coroutine"}


def test_a_stop_iteration_from_anext_does_not_end_the_loop_in_silence() -> None:
    names = blocking_names(drive)
    steps = fresh_namespace()
    exec("source = Steps(give, lambda: throw(StopIteration(3)))", steps)
    with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
        list(names[AITER](steps["source"]))


def test_special_methods_are_looked_up_on_the_type_and_may_be_descriptors() -> None:
    source = """
class Meta:
    def __getattr__(self, name): raise ZeroDivisionError(name)
    @staticmethod
    async def __aenter__(): log.append("in")
    @classmethod
    async def __aexit__(cls, *a): log.append(cls.__name__)
async with Meta() as x: pass
"""
    assert outcome(source, True) == outcome(source, False)


# Generated cells: every async construct in every other, raising at random points.

VALUES = st.sampled_from(
    ["await give()", "1", "await fail()", "(1 / 0)", "await give(await give(2))", "await 3"]
)
ITERABLES = st.sampled_from(
    ["count(2)", "count(1, ValueError(1))", "await give(count(2))", "5", "Steps(give, fail)"]
)
MANAGERS = st.sampled_from(
    (
        *("Manager()", "Manager(swallow=True)", "Manager(leave=KeyError(1))"),
        *("await give(Manager())", "Manager(enter=ValueError(2))", "5"),
    )
)
EXPRESSIONS = st.recursive(
    VALUES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: f"({p[0]} + {p[1]})"),
        st.tuples(inner, ITERABLES).map(lambda p: f"[{p[0]} async for i in {p[1]}]"),
        st.tuples(inner, inner).map(lambda p: f"{{{p[0]} for i in [{p[1]}]}}"),
        inner.map(lambda e: f"[i for i in range(2) if {e}]"),
        inner.map(lambda e: f"list(i for i in [{e}])"),
        inner.map(lambda e: f"(x := {e})"),
        inner.map(lambda e: f"f'{{ {e} }}'"),
        inner.map(lambda e: f"({e} if {e} else 2)"),
    ),
    max_leaves=4,
)


def block(*statements: str) -> str:
    return "".join("    " + line + "\n" for s in statements for line in s.rstrip().split("\n"))


STATEMENTS = st.recursive(
    st.one_of(
        EXPRESSIONS.map(lambda e: f"y = {e}\n"), EXPRESSIONS.map(lambda e: f"log.append({e})\n")
    ),
    lambda inner: st.one_of(
        st.tuples(ITERABLES, inner).map(lambda p: f"async for a in {p[0]}:\n{block(p[1])}"),
        st.tuples(MANAGERS, inner).map(lambda p: f"async with {p[0]} as b:\n{block(p[1])}"),
        st.tuples(inner, inner).map(
            lambda p: f"try:\n{block(p[0])}except ValueError as e:\n{block(p[1])}"
        ),
        st.tuples(inner, inner).map(lambda p: f"try:\n{block(p[0])}finally:\n{block(p[1])}"),
        st.tuples(EXPRESSIONS, inner).map(lambda p: f"if {p[0]}:\n{block(p[1])}"),
        st.tuples(inner, inner).map("".join),
    ),
    max_leaves=4,
)


@settings(deadline=None, max_examples=300)
@given(STATEMENTS)
def test_generated_cells_have_the_same_outcome_in_both_forms(source: str) -> None:
    assert outcome(source, blocking=True) == outcome(source, blocking=False)


@pytest.mark.parametrize("source", snippets(RAISING))
def test_both_forms_have_the_same_outcome(source: str) -> None:
    assert outcome(source, blocking=True) == outcome(source, blocking=False)
