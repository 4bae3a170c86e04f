"""A generated cell means the same in all three contexts, down to the column of each error.

Known differences, which no generated cell shows:

- A ``StopIteration`` raised while ``__anext__`` or ``__await__`` is called, before there is
  anything to await: nothing that generated cells await does so.
- The ``__context__`` of an error that comes from another task: what was handled there, or here.
- When the loop closes an async generator that was left suspended, what that does is not part of
  the cell: generated ones do not yield where closing them could be seen.
- On 3.11 an async comprehension is a coroutine of its own, which StopIteration does not leave as
  it is; in its blocking form, and on later versions, it is part of the cell.
- Tasks that run beside the cell's own code: generated cells wait for each that they start, and do
  nothing meanwhile.
"""

from __future__ import annotations

import ast
import asyncio
import sys
from collections.abc import Iterator
from random import Random

import pytest
from cell_world import ERRORS, outcome
from generated_cells import EXPRESSIONS, ONLY_BELOW, STATEMENTS, cells, compiles, write_cell
from hypothesis import assume, example, given
from hypothesis import strategies as st

pytestmark = [
    # Cells are cut short between making a coroutine and awaiting it, and compare what they please.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        made.get_loop()  # now, before anybody counts descriptors
        yield made


def may_stop_in_async_comprehension(source: str, plan: dict[int, int]) -> bool:
    stops = "StopIteration" in source or any(
        type(ERRORS[i]()) is StopIteration for i in plan.values()
    )
    comprehensions = (ast.ListComp, ast.SetComp, ast.DictComp)
    return stops and any(
        isinstance(part, ast.Await) or getattr(part, "is_async", 0)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, comprehensions)
        for part in ast.walk(node)
    )


STOP = next(i for i, make in enumerate(ERRORS) if type(make()) is StopIteration)
EXIT = next(i for i, make in enumerate(ERRORS) if type(make()) is GeneratorExit)
PLANS = st.dictionaries(st.integers(1, 25), st.integers(0, len(ERRORS) - 1), max_size=3)


@pytest.mark.timeout(3600)
@given(source=cells(), plan=PLANS)
@example("raise StopIteration(2)\nawait aboom(1)", {})
@example("await aboom(1)\nboom(1)", {2: STOP})
@example("await aboom(1)\nboom(1)\npass", {2: STOP})
@example("async for a in acount(3):\n    print(a)", {2: EXIT})
@example("await asyncio.gather(*(atask(i) for i in range(20)))", {1: 0})
@example("async with AsyncManager(1):\n    print(await aboom(2))", {})
@example("async for a in acount(3): break", {})
@example("p = [1, 2]\nx = [i async for i in Strange()]", {})
def test_a_generated_cell_has_the_same_outcome_in_each_context(
    runner: asyncio.Runner, source: str, plan: dict[int, int]
) -> None:
    assume(sys.version_info >= (3, 12) or not may_stop_in_async_comprehension(source, plan))
    expected = runner.run(outcome(source, "async", plan))
    assert "does not end" not in str(expected["error"])
    assert expected["status"] != "timeout"
    assert runner.run(outcome(source, "thread", plan)) == expected
    assert runner.run(outcome(source, "sync", plan)) == expected


# -- what the generator draws ----------------------------------------------------------------------


def concrete(base: type[ast.AST]) -> set[type[ast.AST]]:
    """The node classes of this interpreter directly below *base*: `Constant`, not what is left of
    `Num` and `Str` below it."""
    return set(base.__subclasses__())


BASES = [
    *(ast.stmt, ast.expr, ast.pattern, ast.excepthandler, ast.operator, ast.unaryop, ast.cmpop),
    *(ast.boolop, *([ast.type_param] if sys.version_info >= (3, 12) else [])),
]

WRITTEN = 350


@pytest.fixture(scope="module")
def drawn_cells() -> list[str]:
    random = Random(1)
    written = [write_cell(random.randbytes(random.randint(300, 1_000))) for _ in range(WRITTEN)]
    return [source for source in written if source is not None]


def test_every_statement_and_expression_of_this_interpreter_has_a_builder() -> None:
    assert set(STATEMENTS) == concrete(ast.stmt)
    assert set(EXPRESSIONS) == concrete(ast.expr)


def test_every_node_of_this_interpreter_is_drawn(drawn_cells: list[str]) -> None:
    drawn: set[object] = set()
    for source in drawn_cells:
        for node in ast.walk(ast.parse(source)):
            drawn.add(type(node))
            if isinstance(node, ast.comprehension):
                drawn.add(("comprehension", node.is_async))
    wanted: set[object] = {("comprehension", 0), ("comprehension", 1)}.union(*map(concrete, BASES))
    wanted |= {ast.Load, ast.Store, ast.Del}  # other contexts are remnants of Python 2
    assert wanted - drawn == set()


def outermost(source: str) -> Iterator[type[ast.AST]]:
    """The node classes that stand at the top level of a cell: in no function, class or loop, as a
    statement or as the whole of an expression statement."""
    for statement in ast.parse(source).body:
        yield type(statement)
        if isinstance(statement, ast.Expr):
            yield type(statement.value)


def test_async_syntax_is_drawn_at_the_top_level_of_cells(drawn_cells: list[str]) -> None:
    drawn = {node for source in drawn_cells for node in outermost(source)}
    assert {ast.AsyncFor, ast.AsyncWith, ast.AsyncFunctionDef, ast.Await} <= drawn


def test_what_is_only_drawn_below_the_top_level_cannot_stand_there(
    drawn_cells: list[str],
) -> None:
    texts = {
        ast.Return: "return 1",
        ast.Yield: "(yield 1)",
        ast.YieldFrom: "(yield from [])",
        ast.Nonlocal: "nonlocal a",
        ast.Break: "break",
        ast.Continue: "continue",
        ast.Starred: "*a",
        ast.Slice: "1:2",
        ast.FormattedValue: "{a!r}",
    }
    assert not any(compiles(text) for text in texts.values())
    assert set(texts) <= set(ONLY_BELOW)
    drawn = {node for source in drawn_cells for node in outermost(source)}
    assert drawn & set(ONLY_BELOW) == set()


def test_most_cells_that_are_drawn_compile(drawn_cells: list[str]) -> None:
    assert len(drawn_cells) > 0.95 * WRITTEN
