"""The view of a session's names."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

import pytest

from isthmus import NamespaceView, Session

requirement = pytest.mark.requirement


@requirement("8-names")
async def test_it_shows_the_names_of_a_snapshot(session: Session) -> None:
    await session.execute("'a docstring'\nx, y = 1, 2\nz: int = 3")
    view = session.view
    assert isinstance(view, NamespaceView | Mapping) and not isinstance(view, MutableMapping)
    assert view == session.snapshot() and dict(view) == dict(view.items())
    assert len(view) == len(list(view)) == len(session.snapshot())
    assert list(view.keys()) == list(session.snapshot())
    items, values = view.items(), view.values()
    await session.delete("x")
    assert "x" not in view and ("x", 1) in items and 1 in values  # of one moment
    for name in ("__builtins__", "__name__", "__file__", "__doc__", "__annotations__"):
        assert name in session.namespace and name not in view
        with pytest.raises(KeyError):
            view[name]
    with pytest.raises(KeyError):
        view["nothing"]


@requirement("8-names")
async def test_it_is_live_and_read_only(session: Session) -> None:
    view = session.view
    before = list(view)
    for name in view:
        await session.set(f"{name}_too", name)  # iteration goes over a copy
    assert list(view) == [*before, *(f"{name}_too" for name in before)]
    with pytest.raises(TypeError):
        view["x"] = 1  # type: ignore[index]
    with pytest.raises(TypeError):
        del view["x"]  # type: ignore[attr-defined]


@requirement("8-names")
def test_its_repr_tells_the_names_and_asks_no_value() -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise AssertionError

    mapping: dict[str, object] = {"__builtins__": {}, "x": Hostile(), "y": 1}
    assert repr(NamespaceView("demo", mapping)) == "<names of 'demo': x, y>"
    assert repr(NamespaceView("demo", {})) == "<names of 'demo': none>"
    many = NamespaceView("demo", dict.fromkeys(f"n{number}" for number in range(23)))
    assert repr(many).endswith("n19 and 3 more>")
