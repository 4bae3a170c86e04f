"""The host reads, binds and deletes names, and looks at them all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from isthmus import (
    AnySession,
    MemoryTransport,
    NamespaceUpdated,
    ReservedNameError,
    SessionClosedError,
    UnknownNameError,
)
from support import WAIT_SECONDS, LoopThread

requirement = pytest.mark.requirement


@requirement("8-names")
async def test_the_host_gets_sets_and_deletes_what_cells_see(
    session: AnySession, context: str
) -> None:
    value = ("a value", 1)
    await session.set("given", value)
    assert await session.execute("given", context=context) == value
    await session.execute("made = [given]", context=context)
    assert await session.get("made") == [value]
    await session.delete("made")
    assert await session.execute("'made' in globals()", context=context) is False


@requirement("8-names")
async def test_what_is_set_and_got_is_the_object_itself(session: AnySession) -> None:
    value = object()
    await session.set("given", value)
    assert await session.get("given") is await session.execute("given") is value


@requirement("8-names")
async def test_a_name_that_is_not_bound_is_refused(session: AnySession) -> None:
    await session.execute("temperature = 20")
    for refused in (session.get("temprature"), session.delete("temprature")):
        with pytest.raises(UnknownNameError, match="did you mean 'temperature'") as caught:
            await refused
        assert caught.value.name == "temprature"
    with pytest.raises(UnknownNameError, match="bind it first"):
        await session.get("qqqqqq")


@requirement("8-names")
async def test_capabilities_and_builtins_are_no_names_of_the_namespace(session: AnySession) -> None:
    session.inject_capability("tool", len)
    with pytest.raises(UnknownNameError, match="'tool' is a capability"):
        await session.get("tool")
    with pytest.raises(UnknownNameError, match="'print' is a name of the prelude"):
        await session.delete("print")
    await session.set("tool", 1)
    assert await session.execute("tool") == 1
    await session.delete("tool")
    assert await session.execute("tool([1, 2])") == 2


@requirement("8-names")
async def test_names_of_the_runtime_are_refused(session: AnySession) -> None:
    name_at_first = await session.execute("__name__")
    for name in ("__builtins__", "__name__", "__spec__"):
        with pytest.raises(ReservedNameError):
            await session.set(name, 1)
        with pytest.raises(ReservedNameError):
            await session.delete(name)
    with pytest.raises(ReservedNameError):
        await session.set("not a name", 1)
    assert await session.execute("__name__") == name_at_first


@requirement("8-names", "5.2-adoption")
async def test_a_coroutine_that_is_set_is_adopted_and_stays_pending_when_its_name_goes(
    session: AnySession,
) -> None:
    go = asyncio.Event()

    async def work() -> str:
        await go.wait()
        return "done"

    await session.set("job", work())
    task = await session.get("job")
    assert isinstance(task, asyncio.Task) and session.pending_coroutines == {"job": task}
    await session.delete("job")
    assert session.pending_coroutines == {"job": task}
    go.set()
    assert await session.await_pending_coroutines() == {"job": "done"}
    assert "job" not in session.view and session.pending_coroutines == {}


@requirement("8-names", "5.2-adoption")
async def test_a_finished_task_is_forgotten_with_its_name(session: AnySession) -> None:
    async def work() -> str:
        return "done"

    await session.set("job", work())
    assert await (await session.get("job")) == "done"
    assert set(session.pending_coroutines) == {"job"}
    await session.delete("job")
    assert session.pending_coroutines == {}


@requirement("8-names")
async def test_the_register_of_async_functions_follows(session: AnySession) -> None:
    async def fetch() -> None: ...

    await session.set("fetch", fetch)
    assert session.manager.async_functions == {"fetch": fetch}
    await session.delete("fetch")
    assert session.manager._async_functions == {}


@requirement("8-names")
async def test_names_are_reached_from_other_threads_and_loops(session: AnySession) -> None:
    await session.execute("x = 1")
    with LoopThread() as other:
        assert await other.wait(session.get("x")) == 1
        await other.wait(session.set("y", 2))
        await other.wait(session.delete("x"))
    assert await session.execute("(y, 'x' in globals())") == (2, False)


@requirement("8-names", "events")
async def test_the_transport_hears_of_names(
    make_session: Callable[..., AnySession], transport: MemoryTransport
) -> None:
    session = make_session("named", transport=transport)
    await session.set("x", 1)
    await session.delete("x")
    assert transport.of_type(NamespaceUpdated) == [
        NamespaceUpdated("named", 0, ("x",), "host"),
        NamespaceUpdated("named", 0, (), "host", ("x",)),
    ]


@requirement("8-names")
async def test_a_deleted_value_may_come_back_in_its_del(session: AnySession) -> None:
    class Returning:
        def __del__(self) -> None:
            thread = threading.Thread(target=try_lock)
            thread.start()
            thread.join(WAIT_SECONDS)
            session.update_namespace({"came_back": True})

    def try_lock() -> None:
        free.append(session.manager.lock.acquire(timeout=0.1))
        if free[-1]:
            session.manager.lock.release()

    free: list[bool] = []
    await session.set("returning", Returning())
    await session.delete("returning")
    assert (free, await session.get("came_back")) == ([True], True)


@requirement("8-names", "bad-after-close")
async def test_a_closed_session_refuses(session: AnySession) -> None:
    await session.execute("x = 1")
    await session.close()
    for refused in (session.get("x"), session.set("x", 2), session.delete("x")):
        with pytest.raises(SessionClosedError):
            await refused


@requirement("8-names")
async def test_the_view_can_be_read_after_close(session: AnySession) -> None:
    await session.execute("x = 1")
    view = session.view
    await session.close()
    assert view["x"] == 1


@requirement("8-names")
async def test_the_view_is_live_while_a_thread_binds_and_deletes(session: AnySession) -> None:
    view = session.view
    await session.execute("steady = 1\nstop = False")
    code = """
n = 0
while not stop:
    n += 1
    globals()[f"v{n % 500}"] = n
    globals().pop(f"v{(n * 7) % 500}", None)
"""
    churning = asyncio.ensure_future(session.run(code, context="thread"))
    for _ in range(300):
        assert "steady" in list(view) and view["steady"] == 1
        assert ("steady", 1) in view.items() and len(list(view.values())) > 0
        assert len(view) >= 1 and "steady" in repr(view) and view.get("nothing") is None
        await asyncio.sleep(0)
    await session.set("stop", True)
    assert (await churning).status == "ok"
