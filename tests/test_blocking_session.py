"""A session for code without an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from isthmus import (
    BlockingSession,
    CellCancelled,
    CellResult,
    DeadlockError,
    MemoryTransport,
    Session,
    ThreadAwareLoop,
)
from support import CONTEXTS, WAIT_SECONDS, in_threads, wait_until

requirement = pytest.mark.requirement

Make = Callable[..., BlockingSession]


@pytest.fixture
def make_blocking() -> Iterator[Make]:
    """Makes sessions that are closed, and clean, when the test has ended."""
    made: list[BlockingSession] = []

    def make(*arguments: Any, **options: Any) -> BlockingSession:
        made.append(BlockingSession(*arguments, **options))
        return made[-1]

    yield make
    for session in made:
        assert session.close().clean


@pytest.fixture
def blocking(make_blocking: Make) -> BlockingSession:
    """A session with nothing out of the ordinary."""
    return make_blocking()


# -- the same interface --------------------------------------------------------------------------


def _members(kind: type) -> dict[str, Any]:
    found = {name: inspect.getattr_static(kind, name) for name in dir(kind)}
    return {name: it for name, it in found.items() if not name.startswith("_")}


@requirement("8-blocking-session")
def test_its_public_members_are_those_of_a_session_with_the_same_signatures() -> None:
    awaited, plain = _members(Session), _members(BlockingSession)
    assert set(plain) == set(awaited)
    for name, member in awaited.items():
        made = plain[name]
        assert type(made) is type(member), name
        if isinstance(member, property):
            assert made.fget.__annotations__ == member.fget.__annotations__, name
            continue
        assert inspect.signature(made) == inspect.signature(member), name
        assert not inspect.iscoroutinefunction(made), name
        assert inspect.getdoc(made), name
        assert made.__qualname__ in (f"BlockingSession.{name}", "BlockingFront.close")
    assert inspect.signature(BlockingSession) == inspect.signature(Session)


@requirement("8-blocking-session")
def test_its_options_are_those_of_a_session(make_blocking: Make) -> None:
    transport = MemoryTransport()
    session = make_blocking("named", transport=transport, context="thread", timeout=5)
    assert session.name == session.session.name == "named"
    assert session.run("1").context == "thread" and len(list(transport)) == 2
    with pytest.raises(TypeError, match="nonsense"):
        BlockingSession(nonsense=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="coroutine policy"):
        BlockingSession(coroutine_policy="wild")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        session.run()  # type: ignore[call-arg]


# -- what it does --------------------------------------------------------------------------------


@requirement("8-blocking-session")
def test_cells_run_in_all_contexts_of_one_namespace(blocking: BlockingSession) -> None:
    blocking.execute("async def double(n):\n    await asyncio.sleep(0)\n    return n * 2")
    for context in CONTEXTS:
        result = blocking.run("print('hi')\nawait double(4)", context=context)  # type: ignore[arg-type]
        assert isinstance(result, CellResult)
        assert (result.value, result.context, result.stdout) == (8, context, "hi\n")
        assert blocking.run_call("double", [2], context=context).value == 4  # type: ignore[arg-type]
    assert blocking.call("double", 5) == 10
    failed = blocking.run("1 / 0")
    assert isinstance(failed.error, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError) as caught:
        blocking.execute("1 / 0")
    assert caught.value.__traceback__ is not None


@requirement("8-blocking-session")
def test_names_are_read_and_changed_at_once(blocking: BlockingSession) -> None:
    value = object()
    blocking.set("x", value)
    assert blocking.get("x") is value is blocking.namespace["x"] is blocking.view["x"]
    blocking.update_namespace({"y": 1})
    blocking.delete("x")
    assert blocking.snapshot() == dict(blocking.view) == {"asyncio": asyncio, "y": 1}
    with pytest.raises(LookupError):
        blocking.get("x")
    # From a cell on the loop's own thread too: there is nothing to wait for.
    blocking.set("blocking", blocking)
    assert blocking.execute("blocking.set('z', 1); blocking.get('z')", context="sync") == 1
    blocking.delete("blocking")


@requirement("8-blocking-session")
def test_coroutines_that_are_left_behind_are_awaited(blocking: BlockingSession) -> None:
    async def work(value: str) -> str:
        await asyncio.sleep(0)
        return value

    blocking.execute("async def work():\n    return 'of a cell'\n\nleft = work()")
    blocking.update_namespace({"given": work("given")})
    blocking.set("set", work("set"))
    wait_until(lambda: set(blocking.pending_coroutines) == {"left", "given", "set"})
    settled = blocking.await_pending_coroutines(WAIT_SECONDS)
    assert settled == {"left": "of a cell", "given": "given", "set": "set"}
    assert blocking.pending_coroutines == {}


@requirement("8-blocking-session")
def test_a_deadline_and_an_interrupt_stop_a_cell(blocking: BlockingSession) -> None:
    for context in CONTEXTS:
        result = blocking.run("await asyncio.sleep(600)", context=context, timeout=0.01)  # type: ignore[arg-type]
        assert result.status == "timeout"
    assert blocking.run("while True: pass", context="thread", timeout=0.01).status == "timeout"
    started = threading.Event()
    blocking.set("started", started)

    def interrupt() -> bool:
        assert started.wait(WAIT_SECONDS)
        return blocking.interrupt()

    code = "started.set()\nawait asyncio.sleep(600)"
    stopped, interrupted = in_threads(lambda: blocking.run(code), interrupt)
    assert (stopped.status, interrupted) == ("cancelled", True)


@requirement("8-blocking-session")
def test_several_threads_use_it_and_their_cells_have_turns(blocking: BlockingSession) -> None:
    blocking.execute("n = 0\nlog = []")

    def work(context: str) -> None:
        for _ in range(20):
            blocking.execute("m = n\nawait asyncio.sleep(0)\nn = m + 1", context=context)

    in_threads(*(functools.partial(work, context) for context in (*CONTEXTS, *CONTEXTS)))
    assert blocking.get("n") == 120


@requirement("8-blocking-session", "3.2-context-variables")
def test_cells_have_the_context_variables_of_where_it_was_made(make_blocking: Make) -> None:
    user = contextvars.ContextVar("user", default="nobody")
    user.set("ada")
    session = make_blocking()
    session.set("user", user)
    assert session.execute("user.get()") == "ada"
    session.execute("user.set('bob')", context="thread")
    assert session.execute("user.get()") == "bob" and user.get() == "ada"


# -- capabilities --------------------------------------------------------------------------------


async def _shout(word: str) -> str:
    await asyncio.sleep(0)
    return word.upper()


def _whisper(word: str) -> str:
    return word.lower()


def check_capabilities(session: BlockingSession) -> None:
    """Call both in each context, from sync and from async code."""
    session.execute("""
def both(word):
    return shout(word), whisper(word)

async def later(word):
    return await shout(word), whisper(word)
""")
    for context in CONTEXTS:
        assert session.execute("both('Ab')", context=context) == ("AB", "ab")
        assert session.execute("await later('Ab')", context=context) == ("AB", "ab")
        assert session.run_call("shout", ["x"], context=context).value == "X"  # type: ignore[arg-type]


@requirement("8-blocking-session")
def test_capabilities_of_a_host_without_a_loop_work_in_all_contexts(make_blocking: Make) -> None:
    session = make_blocking(capabilities={"shout": _shout})
    session.inject_capability("whisper", _whisper)
    check_capabilities(session)
    assert set(session.capabilities) == {"shout", "whisper"}
    session.revoke_capability("shout")
    with pytest.raises(NameError):
        session.execute("shout('x')")


@requirement("8-blocking-session")
async def test_capabilities_do_not_wait_for_a_loop_that_the_call_blocks() -> None:
    """The host's thread may run a loop, as that of a notebook does; a call blocks it."""
    with BlockingSession(capabilities={"shout": _shout}) as session:
        session.inject_capability("whisper", _whisper)
        check_capabilities(session)


@requirement("8-blocking-session")
def test_input_is_the_hosts(make_blocking: Make) -> None:
    session = make_blocking(input=lambda prompt="": f"said {prompt}")
    for context in CONTEXTS:
        assert session.execute("input('why?')", context=context) == "said why?"


# -- calls from the inside -----------------------------------------------------------------------


@requirement("8-blocking-session", "4.5-deadlocks")
@pytest.mark.parametrize("on_loop", ["async", "sync"])
def test_a_call_on_the_thread_of_its_own_loop_is_refused_by_name(
    blocking: BlockingSession, on_loop: str
) -> None:
    blocking.inject_capability("again", lambda: blocking.execute("1"))
    blocking.set("blocking", blocking)
    for code in ("again()", "blocking.run('1')", "blocking.await_pending_coroutines()"):
        with pytest.raises(DeadlockError) as caught:
            blocking.execute(code, context=on_loop)
        for said in ("'session'", "cell", "own event loop", "thread", "await"):
            assert said in str(caught.value)
    assert blocking.execute("await blocking.session.execute('2')", context=on_loop) == 2
    with pytest.raises(DeadlockError, match=r"close\(\)"):
        blocking.execute("blocking.close()", context=on_loop)
    with pytest.raises(DeadlockError, match=r"close\(\)"):
        blocking.execute("blocking.close()", context="thread")
    blocking.delete("blocking")
    assert blocking.execute("1") == 1


@requirement("8-blocking-session", "4.5-deadlocks")
def test_a_callback_of_its_loop_is_refused(blocking: BlockingSession) -> None:
    blocking.set("blocking", blocking)
    blocking.execute("""
def callback():
    try:
        blocking.run('1')
    except RuntimeError as error:
        refused.set_result(str(error))

refused = asyncio.get_running_loop().create_future()
asyncio.get_running_loop().call_soon(callback)
""")
    assert "called by cell 1 on the thread" in blocking.execute("await refused")
    blocking.delete("blocking")


@requirement("8-blocking-session", "3.4-nested")
@pytest.mark.parametrize("way", ["in the cell", "in a thread", "to_thread", "a capability"])
def test_a_cell_in_a_thread_makes_nested_calls(
    blocking: BlockingSession, context: str, way: str
) -> None:
    blocking.set("blocking", blocking)
    blocking.set("inner", context)
    blocking.inject_capability("capability", lambda call: call())
    blocking.execute("""
import threading

async def later(n):
    await asyncio.sleep(0)
    return n

def nested():
    result = blocking.run("await later(1) + 1", context=inner)
    return result.status, result.value, blocking.call("later", 3), result.cell

def in_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]
""")
    code, outer = {
        "in the cell": ("nested()", "thread"),
        "in a thread": ("in_thread(nested)", "thread"),
        "to_thread": ("await asyncio.to_thread(nested)", "async"),
        "a capability": ("capability(nested)", "thread"),
    }[way]
    result = blocking.run(code, context=outer, timeout=WAIT_SECONDS)  # type: ignore[arg-type]
    assert result.error is None
    assert result.value == ("ok", 2, 3, result.cell + 1)
    blocking.delete("blocking")


@requirement("8-blocking-session", "3.4-nested")
def test_a_nested_call_is_cancelled_with_its_cell(blocking: BlockingSession) -> None:
    blocking.set("blocking", blocking)
    nested = "try:\n    await asyncio.sleep(600)\nfinally:\n    ended = True"
    result = blocking.run(
        f"blocking.run({nested!r})\nwent_on = True", context="thread", timeout=0.05
    )
    assert (result.status, result.stopped) == ("timeout", True)
    assert blocking.get("ended") and "went_on" not in blocking.namespace
    blocking.delete("blocking")


@requirement("8-blocking-session")
def test_a_cell_of_one_session_uses_another(make_blocking: Make, first: str, second: str) -> None:
    one, two = make_blocking("one"), make_blocking("two")
    one.set("two", two)
    one.set("second", second)
    code = "two.execute('await asyncio.sleep(0, 7)', context=second)"
    assert one.execute(code, context=first) == 7
    one.delete("two")


@requirement("8-blocking-session")
def test_a_cell_may_have_a_session_of_its_own(blocking: BlockingSession, context: str) -> None:
    code = """
from isthmus import BlockingSession

with BlockingSession("inner") as inner:
    inner.execute("def f():\\n    return run_sync(asyncio.sleep(0, 'inner'))")
    found = [inner.execute("f()", context=it) for it in ("async", "thread", "sync")]
found
"""
    assert blocking.execute(code, context=context) == ["inner"] * 3
    blocking.delete("inner")


# -- its loop ------------------------------------------------------------------------------------


@requirement("8-blocking-session", "3.5-own-loops")
def test_its_loop_is_aware_of_threads(blocking: BlockingSession) -> None:
    assert type(blocking.execute("asyncio.get_running_loop()")) is ThreadAwareLoop
    blocking.execute("""
import threading
event, woken = asyncio.Event(), threading.Event()

async def wait():
    await event.wait()
    woken.set()

task = asyncio.create_task(wait())
""")
    assert blocking.execute("event.set(); woken.wait(5)", context="thread")


@requirement("8-blocking-session")
def test_cells_do_not_end_its_loop(blocking: BlockingSession) -> None:
    blocking.execute("asyncio.get_running_loop().stop()")
    blocking.execute("asyncio.get_running_loop().call_soon(asyncio.get_running_loop().stop)")
    assert blocking.execute("await asyncio.sleep(0, 'on')") == "on"

    async def leave() -> None:
        raise SystemExit(3)

    def start() -> None:
        tasks.append(loop.create_task(leave()))

    tasks: list[asyncio.Task[None]] = []
    loop = blocking.session.manager.loop
    assert loop is not None
    loop.call_soon_threadsafe(start)  # of no cell
    wait_until(lambda: tasks and tasks[0].done())
    assert isinstance(tasks[0].exception(), SystemExit)
    assert blocking.execute("await asyncio.sleep(0, 'on')") == "on"


@requirement("8-blocking-session")
def test_a_cell_that_cancels_all_tasks_does_not_hang_its_caller(blocking: BlockingSession) -> None:
    started = threading.Event()
    blocking.set("started", started)
    code = "started.set()\nawait asyncio.sleep(600)"

    def cancel_all() -> Any:
        assert started.wait(WAIT_SECONDS)
        return blocking.run("for task in asyncio.all_tasks(): task.cancel()", concurrent=True)

    def wait() -> Any:
        try:
            return blocking.run(code).status
        except CellCancelled:
            return "cancelled"

    cancelled, _ = in_threads(wait, lambda: _quietly(cancel_all))
    assert cancelled == "cancelled"
    assert blocking.execute("await asyncio.sleep(0, 'on')") == "on"


def _quietly(function: Callable[[], Any]) -> None:
    try:
        function()
    except CellCancelled:
        return
