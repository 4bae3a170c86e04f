"""Attributes replaced for a while."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable
from typing import Any

import pytest

from isthmus.patches import Patch, own_attribute
from support import on_every_loop


class Base:
    def inherited(self) -> str:
        return "inherited"


class Thing(Base):
    def method(self) -> str:
        return "method"


def replaced() -> str:
    return "replaced"


def own() -> str:
    return "own"


def _module() -> types.ModuleType:
    module = types.ModuleType("made_here")
    module.own = own  # type: ignore[attr-defined]
    return module


def _thing() -> Thing:
    thing = Thing()
    thing.own = own  # type: ignore[attr-defined]
    return thing


def _class() -> type:
    return type("Made", (Thing,), {"own": staticmethod(own)})


@pytest.mark.parametrize("make", [_module, _thing, _class])
@pytest.mark.parametrize("name", ["own", "method", "inherited", "new"])
def test_what_was_there_is_put_back(make: Callable[[], Any], name: str) -> None:
    target = make()
    before = dict(vars(target))
    patch = Patch(target, {name: replaced})
    assert getattr(target, name) is replaced
    patch.undo()
    assert dict(vars(target)) == before


@pytest.mark.parametrize("make", [_module, _thing, _class])
def test_what_somebody_else_has_put_there_since_stays(make: Callable[[], Any]) -> None:
    target = make()
    patch = Patch(target, {"own": replaced})
    target.own = own
    patch.undo()
    assert target.own is own


@on_every_loop
async def test_a_loop_has_no_methods_of_its_own_unless_they_are_given_to_it(flavour: str) -> None:
    loop = asyncio.get_running_loop()
    assert own_attribute(loop, "call_at") is None
    loop.call_at = replaced  # type: ignore[method-assign, assignment]
    assert own_attribute(loop, "call_at") is replaced
    del loop.call_at
    assert own_attribute(loop, "call_at") is None
