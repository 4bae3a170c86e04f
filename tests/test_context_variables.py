"""Context variables that cross: one context made like another."""

from __future__ import annotations

import contextvars
from contextvars import ContextVar, copy_context

from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.context_variables import ContextMirror

VARIABLES = [ContextVar[int](f"v{number}") for number in range(4)]


def values(context: contextvars.Context) -> dict[ContextVar[int], int]:
    """The values of the variables of this file."""
    return {var: context[var] for var in VARIABLES if var in context}


def test_values_are_copied_and_private_ones_are_not() -> None:
    mirror = ContextMirror(frozenset({VARIABLES[1]}))
    source, target = contextvars.Context(), contextvars.Context()
    source.run(VARIABLES[0].set, 1)
    source.run(VARIABLES[1].set, 2)
    target.run(mirror.reflect, source)
    assert values(target) == {VARIABLES[0]: 1}


def test_what_came_by_a_crossing_is_unset_by_one() -> None:
    mirror = ContextMirror(frozenset())
    source, target = contextvars.Context(), contextvars.Context()
    token = source.run(VARIABLES[0].set, 1)
    target.run(mirror.reflect, source)
    source.run(VARIABLES[0].reset, token)
    target.run(mirror.reflect, source)
    assert values(target) == {}


def test_values_are_compared_by_identity() -> None:
    class Wicked:
        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

        __hash__ = None  # type: ignore[assignment]

    var: ContextVar[object] = ContextVar("wicked")
    mirror = ContextMirror(frozenset())
    source, target = contextvars.Context(), contextvars.Context()
    for _ in range(2):
        value = Wicked()
        source.run(var.set, value)
        target.run(mirror.reflect, source)
        assert target[var] is value


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.none() | st.integers()), max_size=30)
)
def test_two_sides_agree_after_every_crossing(
    steps: list[tuple[bool, int, int | None]],
) -> None:
    here, there = contextvars.Context(), contextvars.Context()
    mirrors = {id(here): ContextMirror(frozenset()), id(there): ContextMirror(frozenset())}
    for forth, number, value in steps:
        running, waiting = (here, there) if forth else (there, here)
        if value is not None:
            running.run(VARIABLES[number].set, value)
        snapshot = running.run(copy_context)
        waiting.run(mirrors[id(waiting)].reflect, snapshot)
        assert values(waiting) == values(running)
