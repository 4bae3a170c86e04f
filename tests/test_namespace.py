"""The namespace without a loop: the mapping, its module, lock, prelude and history."""

from __future__ import annotations

import builtins
import gc
import sys
import threading
import types
import weakref
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus import NamespaceManager, ReservedNameError

requirement = pytest.mark.requirement


def test_it_works_without_an_event_loop() -> None:
    manager = NamespaceManager("plain")
    exec("x = len([1])", manager.namespace)
    assert manager.snapshot()["x"] == 1
    manager.close()
    manager.close()


def test_the_modules_name_is_made_from_the_sessions_name() -> None:
    one, two = NamespaceManager("my session!"), NamespaceManager("my session!")
    assert one.module_name == "isthmus_my_session_"
    assert two.module_name == "isthmus_my_session__2"
    assert sys.modules[two.module_name].__dict__ is two.namespace
    one.close()
    two.close()
    assert one.module_name not in sys.modules


def test_closing_leaves_another_module_of_the_same_name_in_place() -> None:
    manager = NamespaceManager("replaced")
    other = sys.modules[manager.module_name] = types.ModuleType("other")
    manager.close()
    assert sys.modules.pop(manager.module_name) is other


def test_a_dropped_namespace_takes_its_module_along() -> None:
    manager = NamespaceManager("dropped")
    name, seen = manager.module_name, weakref.ref(manager)
    del manager
    gc.collect()
    assert seen() is None
    assert name not in sys.modules


def test_two_threads_that_ask_for_one_name_get_two_modules() -> None:
    made: list[NamespaceManager] = []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait(5)
        made.append(NamespaceManager("contended"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert len({manager.module_name for manager in made}) == 8
    for manager in made:
        manager.close()


@requirement("2.5-update")
@pytest.mark.parametrize(
    "name", ["", "1a", "a b", "class", "__builtins__", "__name__", "__spec__", 5, None]
)
def test_names_that_cannot_be_bound_are_refused_by_name(name: object) -> None:
    manager = NamespaceManager()
    with pytest.raises(ReservedNameError) as caught:
        manager.update_namespace({"good": 1, name: 2})  # type: ignore[dict-item]
    assert repr(name) in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert "good" not in manager.namespace
    manager.close()


@requirement("2.5-update")
def test_the_lock_is_reentrant_and_no_listener_is_called_inside_it() -> None:
    manager = NamespaceManager()
    free: list[bool] = []

    def listener(bound: tuple[str, ...], deleted: tuple[str, ...], source: str) -> None:
        def try_lock() -> None:
            free.append(manager.lock.acquire(timeout=1))
            if free[-1]:
                manager.lock.release()

        thread = threading.Thread(target=try_lock)
        thread.start()
        thread.join(5)

    manager.on_update(listener)
    manager.update_namespace({"a": 1})
    with manager.lock, manager.lock:
        pass
    assert free == [True]
    manager.close()


@requirement("2.5-update", "2.5-snapshot")
@pytest.mark.parametrize("operation", ["update", "snapshot", "rebind"])
def test_whoever_holds_the_lock_keeps_the_others_out(operation: str) -> None:
    manager = NamespaceManager()
    manager.update_namespace({"a": 1})
    work: dict[str, Callable[[], object]] = {
        "update": lambda: manager.update_namespace({"a": 2, "b": 2}),
        "snapshot": manager.snapshot,
        "rebind": lambda: manager.rebind("a", 1, 2),
    }
    done = threading.Event()

    def other() -> None:
        work[operation]()
        done.set()

    thread = threading.Thread(target=other)
    with manager.lock:
        thread.start()
        assert not done.wait(0.1)  # it cannot get through, however long
        assert "b" not in manager.namespace
    assert done.wait(5)
    thread.join(5)
    manager.close()


@requirement("2.3-prelude")
def test_capabilities_are_checked() -> None:
    manager = NamespaceManager()
    with pytest.raises(TypeError, match="must be callable"):
        manager.inject_capability("tool", 5)  # type: ignore[arg-type]
    with pytest.raises(ReservedNameError):
        manager.inject_capability("not a name", print)
    with pytest.raises(KeyError, match="tool"):
        manager.revoke_capability("tool")
    with pytest.raises(KeyError):
        manager.revoke_capability("len")
    assert manager.namespace["__builtins__"]["len"] is builtins.len
    manager.close()


@requirement("2.3-prelude")
def test_the_builtins_module_itself_is_not_touched() -> None:
    manager = NamespaceManager()
    manager.inject_capability("my_tool", print)
    assert not hasattr(builtins, "my_tool")
    exec("assert my_tool", manager.namespace)
    manager.close()


_NAMES = st.sampled_from(["a", "b", "c", "_"])
_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("update"), st.dictionaries(_NAMES, st.integers(), max_size=3)),
        st.tuples(st.just("delete"), _NAMES),
        st.tuples(st.just("inject"), _NAMES.filter(lambda it: it != "_")),
        st.tuples(st.just("revoke"), _NAMES),
    ),
    max_size=30,
)


@requirement("2.1-one-mapping", "2.3-prelude")
@settings(deadline=None, max_examples=100)
@given(_OPERATIONS)
def test_the_namespace_behaves_like_two_layers_of_dicts(
    operations: list[tuple[str, object]],
) -> None:
    manager = NamespaceManager("model")
    names: dict[str, object] = {}
    prelude: dict[str, object] = {}
    for kind, argument in operations:
        if kind == "update":
            assert isinstance(argument, dict)
            manager.update_namespace(argument)
            names.update(argument)
            continue
        assert isinstance(argument, str)
        if kind == "delete":
            assert (manager.namespace.pop(argument, None) is None) == (
                names.pop(argument, None) is None
            )
        elif kind == "inject":
            tool = prelude[argument] = lambda: None
            manager.inject_capability(argument, tool)
        elif argument in prelude:
            manager.revoke_capability(argument)
            del prelude[argument]
    for name in "abc":
        expected = names.get(name, prelude.get(name))
        try:
            assert eval(name, manager.namespace) is expected
        except NameError:
            assert name not in names
            assert name not in prelude
    assert {k: v for k, v in manager.snapshot().items() if k != "asyncio"} == names
    manager.close()
