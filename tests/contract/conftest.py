"""A test of the contract runs on every flavour of event loop, unless it says otherwise itself.

One with several cases runs each of them on asyncio's own loop and on one of the other flavours, in
turn: so each flavour meets each test, and each case two flavours, at half the time that all pairs
take. `ISTHMUS_ALL_LOOPS=1 pytest tests/contract` runs all pairs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import FLAVOURS, prepare_flavour

_HERE = Path(__file__).parent
_OTHERS = len(FLAVOURS) - 1


@pytest.fixture(autouse=True, params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    """The kind of event loop that the test runs in."""
    return prepare_flavour(request.param)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not its turn."""
    if os.environ.get("ISTHMUS_ALL_LOOPS"):
        return
    spared = set(_out_of_turn(items))
    config.hook.pytest_deselected(items=list(spared))
    items[:] = [item for item in items if item not in spared]


def _out_of_turn(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    cases: dict[tuple[str, object], dict[object, int]] = {}
    for item in items:
        if _HERE not in item.path.parents or not isinstance(item, pytest.Function):
            continue
        indices = dict(getattr(item, "callspec").indices)  # noqa: B009 (pytest does not declare it)
        loop = indices.pop("flavour", 0)  # the first, where a test has none
        numbers = cases.setdefault((str(item.path), item.originalname), {})
        number = numbers.setdefault(tuple(sorted(indices.items())), len(numbers))
        turn = number + number // _OTHERS  # as in a Latin square, where there are two parameters
        if loop and indices and loop - 1 != turn % _OTHERS:
            yield item
