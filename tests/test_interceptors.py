"""The chain around every call of a capability."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from either_home import error_name, message_of
from isthmus import (
    AnySession,
    Approve,
    Budget,
    BudgetExceeded,
    CapabilityCall,
    CapabilityRefused,
    CapabilityTimeout,
    Journal,
    JournalEntry,
    Timeout,
)
from support import LoopThread

requirement = pytest.mark.requirement


async def add(number: int, *, step: int = 1) -> int:
    await asyncio.sleep(0)
    return number + step


def double(number: int) -> int:
    return number * 2


def recorder(log: list[str], name: str) -> Any:
    async def interceptor(call: CapabilityCall, proceed: Any) -> Any:
        log.append(f"{name} before {call.name}")
        await asyncio.sleep(0)
        result = await proceed()
        log.append(f"{name} after {result}")
        return result

    return interceptor


@pytest.fixture(params=["own loop", "other loop"])
def host(request: pytest.FixtureRequest) -> Any:
    """The loop to register on: None, or one in another thread."""
    if request.param == "own loop":
        yield None
    else:
        with LoopThread() as thread:
            yield thread.loop


async def test_the_first_one_is_outermost_and_the_sessions_come_first(
    make_session: Any, context: Any, host: Any
) -> None:
    log: list[str] = []
    session = make_session(interceptors=[recorder(log, "a"), recorder(log, "b")])
    session.inject_capability("add", add, on_loop=host, interceptors=[recorder(log, "c")])
    expected = ["a before add", "b before add", "c before add"]
    expected += ["c after 2", "b after 2", "a after 2"]
    for code in ("add(1)", "await add(1)", "await add.aio(1)", "add.now(1)"):
        log.clear()
        assert await session.execute(code, context=context) == 2
        assert log == expected, code


async def test_a_sync_capability_keeps_its_colour(
    session: AnySession, context: Any, host: Any
) -> None:
    log: list[str] = []
    session.inject_capability("double", double, on_loop=host, interceptors=[recorder(log, "a")])
    await session.execute("async def f(): return double(2)")
    for code in ("double(2)", "await f()", "x = double(2); await asyncio.sleep(0); x"):
        assert await session.execute(code, context=context) == 4
    result = await session.run("await double(2)", context=context)
    assert error_name(result.error) == "TypeError"
    assert log.count("a before double") == log.count("a after 4") == 4


async def test_the_call_says_who_calls(session: AnySession, context: Any) -> None:
    calls: list[CapabilityCall] = []

    async def note(call: CapabilityCall, proceed: Any) -> Any:
        calls.append(call)
        return await proceed()

    session.inject_capability("add", add, interceptors=[note])
    result = await session.run("add(1, step=2)", context=context)
    assert (result.value, len(calls)) == (3, 1)
    seen = ("add", (1,), {"step": 2}, "session", result.cell, context, "sync")
    fields = ("name", "args", "kwargs", "session", "cell", "context", "colour")
    assert tuple(getattr(calls[0], field) for field in fields) == seen
    result = await session.run("async def f(): return await add(1)\nawait f()", context=context)
    assert (calls[1].cell, calls[1].context, calls[1].colour) == (result.cell, context, "async")
    with pytest.raises(AttributeError):
        calls[0].name = "other"  # type: ignore[misc]


async def test_arguments_can_be_changed_and_calls_repeated(
    session: AnySession, context: Any
) -> None:
    attempts: list[int] = []

    async def flaky(number: int) -> int:
        attempts.append(number)
        if len(attempts) % 3:
            raise LookupError("again")
        return number

    async def retry(call: CapabilityCall, proceed: Any) -> Any:
        for _ in range(2):
            try:
                return await proceed()
            except LookupError:
                continue
        return await proceed(call.with_arguments(call.args[0] + 100))

    session.inject_capability("flaky", flaky, interceptors=[retry])
    assert await session.execute("flaky(1)", context=context) == 101
    assert attempts == [1, 1, 101]


@pytest.mark.parametrize("is_async", [False, True])
async def test_approve(session: AnySession, context: Any, is_async: bool) -> None:
    asked: list[Any] = []

    def allow(call: CapabilityCall) -> Any:
        asked.append(call.args)
        return call.args[0] < 10 or None

    async def allow_later(call: CapabilityCall) -> Any:
        await asyncio.sleep(0)
        return allow(call)

    approve = Approve(allow_later if is_async else allow)
    session.inject_capability("add", add, interceptors=[approve])
    assert await session.execute("await add(1), add.now(2)", context=context) == (2, 3)
    for code in ("add(10)", "await add(10)"):
        result = await session.run(code, context=context)
        assert type(result.error) is CapabilityRefused
        assert "add()" in str(result.error)
    assert asked[-1] == (10,)


async def test_what_the_host_raises_instead_of_an_answer_arrives(session: AnySession) -> None:
    def broken(call: CapabilityCall) -> bool:
        raise OSError("the terminal is gone")

    session.inject_capability("add", add, interceptors=[Approve(broken)])
    assert error_name((await session.run("add(1)")).error) == "OSError"


async def test_a_budget_of_calls_is_shared(session: AnySession, context: Any) -> None:
    budget = Budget(calls=3)
    session.inject_capability("add", add, interceptors=[budget])
    session.inject_capability("double", double, interceptors=[budget])
    assert await session.execute("add(1), double(2), add(3)", context=context) == (2, 4, 4)
    result = await session.run("double(1)", context=context)
    assert type(result.error) is BudgetExceeded
    assert str(result.error) == "double(): the budget of 3 calls is spent"
    assert budget.used_calls == 3


async def test_a_budget_of_seconds_cuts_a_call_short(session: AnySession, context: Any) -> None:
    budget = Budget(seconds=0.01)
    session.inject_capability("forever", asyncio.Event().wait, interceptors=[budget])
    for _ in range(2):  # the second is not even made
        result = await session.run("forever()", context=context)
        assert type(result.error) is BudgetExceeded
    assert budget.used_calls == 1
    assert budget.used_seconds >= 0.01
    assert await session.execute("await asyncio.sleep(0); 1", context=context) == 1


async def test_a_timeout_of_its_own_is_told_from_ours(session: AnySession) -> None:
    async def own() -> None:
        raise TimeoutError("its own")

    for interceptor in (Timeout(5), Budget(seconds=5)):
        session.inject_capability("own", own, interceptors=[interceptor])
        result = await session.run("own()")
        assert error_name(result.error) == "TimeoutError"
        assert message_of(result.error) == "its own"


async def test_timeout(session: AnySession, context: Any, host: Any) -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    session.inject_capability("forever", forever, on_loop=host, interceptors=[Timeout(0.01)])
    for code in ("forever()", "await forever()"):
        result = await session.run(code, context=context)
        assert type(result.error) is CapabilityTimeout
        assert str(result.error) == "forever() took longer than 0.01 s and was cancelled"
        assert result.status == "error"


async def test_approve_refuses_with_the_reason_that_it_is_given(session: AnySession) -> None:
    session.inject_capability("add", add, interceptors=[Approve(lambda call: "not today")])
    with pytest.raises(CapabilityRefused, match=r"^add\(\) was refused: not today$"):
        await session.execute("add(1)")


async def test_journal(session: AnySession, context: Any) -> None:
    told: list[JournalEntry] = []
    journal = Journal(limit=3, on_entry=told.append)

    async def fail(what: str) -> None:
        raise LookupError(what)

    class Broken:
        def __repr__(self) -> str:
            raise ValueError

    session.update_namespace({"broken": Broken()})
    session.inject_capability("add", add, interceptors=[journal])
    session.inject_capability("fail", fail, interceptors=[journal])
    session.inject_capability("wait", asyncio.Event().wait, interceptors=[journal])
    session.inject_capability("double", lambda it: it, interceptors=[journal])
    await session.execute("add(1, step=2)", context=context)
    await session.run("await fail('x' * 1000)", context=context)
    await session.run("wait()", context=context, timeout=0.01)
    number = (await session.run("double(broken); None", context=context)).cell
    assert [entry.name for entry in journal.entries] == ["fail", "wait", "double"]
    assert [entry.outcome for entry in told] == ["returned", "raised", "cancelled", "returned"]
    assert (told[0].arguments, told[0].result) == ("1, step=2", "3")
    assert len(told[1].arguments) < 300
    assert told[1].result.startswith("LookupError('xxx")
    assert "Broken" in told[3].arguments
    last = told[3]
    assert (last.session, last.cell, last.context) == ("session", number, context)
    assert last.duration >= 0
    assert last.wall_time > 1e9


@requirement("6.2-timeout-values")
@pytest.mark.parametrize(
    ("make", "refusal"),
    [
        (lambda: Timeout(-1), ValueError),
        (lambda: Timeout(float("nan")), ValueError),
        (lambda: Timeout("1"), TypeError),
        (lambda: Budget(seconds=-1), ValueError),
        (lambda: Budget(seconds=True), TypeError),
        (lambda: Budget(-1), ValueError),
        (lambda: Budget("1"), TypeError),
        (lambda: Budget(1.5), TypeError),
        (lambda: Budget(True), TypeError),
    ],
)
def test_bounds_that_are_none_are_refused(
    make: Callable[[], object], refusal: type[Exception]
) -> None:
    with pytest.raises(refusal, match=r"seconds|calls"):
        make()
