"""The ledger of coroutines that cells leave behind, by itself."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from isthmus import AsyncNamespaceManager, LoopError, NamespaceManager, SettledCoroutines
from isthmus.ledger import (
    SEARCH_OBJECTS,
    CoroutineLedger,
    coroutines_within,
    is_coroutine,
    is_untouched,
)

requirement = pytest.mark.requirement


async def work(result: object = None) -> object:
    await asyncio.sleep(0)
    return result


@pytest.fixture
def manager() -> Iterator[NamespaceManager]:
    made = NamespaceManager("ledger")
    yield made
    made.close()


@requirement("5.2-adoption")
async def test_what_is_untouched_is_a_coroutine_that_nobody_has_begun() -> None:
    fresh, begun, in_task = work(), work(), work()
    begun.send(None)
    assert is_coroutine(fresh)
    assert is_untouched(fresh)
    assert not is_untouched(begun)
    begun.close()
    assert not is_untouched(begun)
    task = asyncio.ensure_future(in_task)
    await task
    assert not is_untouched(in_task)
    fresh.close()


@pytest.mark.parametrize("value", [None, 5, work, asyncio.sleep, (i for i in "x"), object()])
def test_other_things_are_no_coroutines(value: object) -> None:
    assert not is_coroutine(value)


@requirement("5.2-containers")
def test_containers_are_searched_to_a_bounded_depth_and_number() -> None:
    made = [work() for _ in range(4)]
    value = {"a": made[0], "b": [made[1], (made[2],)], "deep": [[[made[3]]]]}
    assert dict(coroutines_within(value, "v")) == {
        "v['a']": made[0],
        "v['b'][0]": made[1],
        "v['b'][1][0]": made[2],
    }
    endless: list[Any] = []
    endless.append(endless)
    assert list(coroutines_within(endless, "v")) == []
    many = [*([None] * SEARCH_OBJECTS), made[0]]
    assert list(coroutines_within(many, "v")) == []
    for coroutine in made:
        coroutine.close()


@requirement("5.2-adoption")
async def test_all_names_of_a_coroutine_are_rebound_to_one_task(manager: NamespaceManager) -> None:
    ledger = CoroutineLedger(manager)
    coroutine = work(5)
    manager.update_namespace({"a": coroutine, "b": coroutine, "c": 1})
    names = ledger.take(ledger.found_in("abc"), asyncio.get_running_loop())
    assert names == ("a", "b")
    assert manager.namespace["a"] is manager.namespace["b"]
    assert await manager.namespace["a"] == 5
    assert dict(await ledger.settle(None)) == {"a": 5, "b": 5}


@requirement("5.2-adoption")
async def test_a_name_that_was_rebound_meanwhile_is_left_alone(manager: NamespaceManager) -> None:
    ledger = CoroutineLedger(manager)
    manager.update_namespace({"a": work()})
    found = ledger.found_in("a")
    manager.update_namespace({"a": "mine"})
    ledger.take(found, asyncio.get_running_loop())
    await ledger.settle(None)
    assert manager.namespace["a"] == "mine"


@requirement("5.2-late-loop")
async def test_what_was_kept_is_adopted_later(manager: NamespaceManager) -> None:
    ledger = CoroutineLedger(manager)
    manager.update_namespace({"a": work(1)})
    assert ledger.take(ledger.found_in("a"), None) == ()
    assert inspect.iscoroutine(ledger.pending["a"])
    ledger.adopt_held(asyncio.get_running_loop())
    assert isinstance(manager.namespace["a"], asyncio.Task)
    assert dict(await ledger.settle(None)) == {"a": 1}


@requirement("5.3-failures")
async def test_listeners_hear_once_of_each_end(manager: NamespaceManager) -> None:
    heard: list[tuple[str, str]] = []
    ledger = CoroutineLedger(manager)
    ledger.on_settled(lambda name, error: heard.append((name, type(error).__name__)))

    async def fail() -> None:
        raise KeyError

    manager.update_namespace({"a": work(), "b": fail(), "c": work()})
    ledger.take(ledger.found_in("abc"), asyncio.get_running_loop())
    manager.namespace["c"].cancel()
    settled = await ledger.settle(None)
    await asyncio.sleep(0)
    assert sorted(heard) == [("a", "NoneType"), ("b", "KeyError"), ("c", "CancelledError")]
    assert set(settled.errors) == {"b", "c"}


@requirement("5.3-failures")
def test_settled_coroutines_raise_what_failed_in_one_group() -> None:
    settled = SettledCoroutines()
    settled.raise_errors()
    settled.errors = {"a": ValueError("x"), "b": KeyError("y")}
    with pytest.raises(ExceptionGroup) as caught:
        settled.raise_errors()
    assert [type(it) for it in caught.value.exceptions] == [ValueError, KeyError]


@requirement("5-cleanup")
async def test_the_task_that_settles_does_not_wait_for_itself(manager: NamespaceManager) -> None:
    ledger = CoroutineLedger(manager)

    async def settle() -> object:
        return (await ledger.settle(None)).unfinished

    manager.update_namespace({"a": settle()})
    ledger.take(ledger.found_in("a"), asyncio.get_running_loop())
    assert await asyncio.wait_for(manager.namespace["a"], 5) == ("a",)
    await ledger.settle(None)


@pytest.mark.requirement("5.3-settle")
def test_a_wait_from_another_loop_is_refused_while_the_home_loop_stands_still() -> None:
    namespace, home_loop = AsyncNamespaceManager(), asyncio.new_event_loop()
    namespace.set_event_loop(home_loop)

    async def ask() -> None:
        with pytest.raises(LoopError, match="does not run"):
            await asyncio.wait_for(namespace.await_pending_coroutines(), 5)

    asyncio.run(ask())
    namespace.close()
    home_loop.close()
