"""A test of the contract runs on every flavour of event loop, unless it says otherwise itself.

One with several cases runs each of them on asyncio's own loop and on one of the other flavours, in
turn: so each flavour meets each test, and each case two flavours, at half the time that all pairs
take. `ISTHMUS_ALL_LOOPS=1 pytest tests/contract` runs all pairs.

Over sessions in workers it runs on asyncio's own loop alone: that of their cells is the worker's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from homes import HERE, HOMES, WORKER, has_both_homes
from support import FLAVOURS, prepare_flavour

_HERE = Path(__file__).parent
_OTHERS = len(FLAVOURS) - 1
_FLAVOURS_AND_HOMES = [
    *(
        pytest.param(*flavour.values, HERE, marks=flavour.marks, id=flavour.values[0])
        for flavour in (pytest.param(it) if isinstance(it, str) else it for it in FLAVOURS)
    ),
    pytest.param("asyncio", WORKER, id=WORKER),
]


@pytest.fixture(autouse=True)
def flavour(request: pytest.FixtureRequest) -> str:
    """The kind of event loop that the test runs in."""
    return prepare_flavour(getattr(request, "param", "asyncio"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every flavour, and the homes that the test's sessions can have."""
    marks = metafunc.definition.iter_markers("parametrize")
    flavours = next((it.args[1] for it in marks if it.args[0] == "flavour"), None)
    if not has_both_homes(metafunc):
        if flavours is None:
            metafunc.parametrize("flavour", FLAVOURS, indirect=True)
    elif flavours is None:
        metafunc.parametrize(("flavour", "home"), _FLAVOURS_AND_HOMES, indirect=True)
    elif "asyncio" in flavours:
        metafunc.parametrize("home", HOMES, indirect=True)


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
        callspec = getattr(item, "callspec")  # noqa: B009 (pytest does not declare it)
        if callspec.params.get("home") == WORKER:
            continue
        indices = dict(callspec.indices)
        indices.pop("home", None)
        loop = indices.pop("flavour", 0)  # the first, where a test has none
        numbers = cases.setdefault((str(item.path), item.originalname), {})
        number = numbers.setdefault(tuple(sorted(indices.items())), len(numbers))
        turn = number + number // _OTHERS  # as in a Latin square, where there are two parameters
        if loop and indices and loop - 1 != turn % _OTHERS:
            yield item
