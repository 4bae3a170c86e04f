"""A generated cell means the same in all three contexts, down to the column of each error.

Known differences, which no generated cell shows:

- A ``StopIteration`` that ``__anext__`` raises while it is called, before it has returned an
  awaitable: no generated async iterator does so.
- When the loop closes an async generator that was left suspended, what that does is not part of
  the cell: generated ones do not yield where closing them could be seen.
- Tasks that run beside the cell's own code: generated cells wait for each that they start, and do
  nothing meanwhile.
"""

from __future__ import annotations

import ast
import asyncio
import sys
from collections.abc import Iterator

import pytest
from cell_world import ERRORS, outcome
from generated_cells import EXPRESSIONS, ONLY_BELOW, STATEMENTS, cells, write_cell
from hypothesis import given
from hypothesis import strategies as st
from random import Random

pytestmark = [
    # Cells are cut short between making a coroutine and awaiting it, and compare what they please.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


PLANS = st.dictionaries(st.integers(1, 25), st.integers(0, len(ERRORS) - 1), max_size=3)


@pytest.mark.timeout(3600)
@given(source=cells(), plan=PLANS)
def test_a_generated_cell_has_the_same_outcome_in_each_context(
    runner: asyncio.Runner, source: str, plan: dict[int, int]
) -> None:
    expected = runner.run(outcome(source, "async", plan))
    assert "does not end" not in str(expected["error"])
    assert expected["status"] != "timeout"
    assert runner.run(outcome(source, "thread", plan)) == expected
    assert runner.run(outcome(source, "sync", plan)) == expected
