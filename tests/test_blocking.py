"""The blocking form means what the async form means, down to the column of each error."""

from __future__ import annotations

import ast
import asyncio
import builtins
from collections.abc import Awaitable
from types import CodeType
from typing import Any

import pytest

from isthmus.blocking import blocking_names, lower

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
        raised = (type(error), str(error), places(error), [repr(link) for link in chain])
    bound = {name: repr(namespace[name]) for name in namespace if name not in before}
    return {
        "raised": raised,
        "bound": {k: v for k, v in bound.items() if " at 0x" not in v},
        "names": sorted(bound),
        "log": [repr(x) for x in namespace["log"]],
    }


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


@pytest.mark.parametrize("source", snippets(RAISING))
def test_both_forms_have_the_same_outcome(source: str) -> None:
    assert outcome(source, blocking=True) == outcome(source, blocking=False)
