"""Fixtures of every test: contexts, loops, sessions, and a check that nothing stays.

A test that is an ``async def`` runs in an event loop of its own, of the flavour in question. No
plug-in is needed for it: :func:`pytest_pyfunc_call` below is the whole of it.
"""

from __future__ import annotations

import gc
import inspect
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from homes import HERE, HOMES, WORKER, has_both_homes, needed
from isthmus import AnySession, ForkServer, MemoryTransport, open_session
from support import CONTEXTS, PAIRS, Census, LoopWatch, Sequencer, prepare_flavour, run_async

_HERE = Path(__file__).parent
_SESSIONS = pytest.StashKey[list[AnySession]]()
_WATCH = pytest.StashKey[LoopWatch]()


def pytest_configure(config: pytest.Config) -> None:
    """The markers of this suite, and SIGINT as programs know it.

    A shell script starts what it puts into the background with SIGINT ignored, and so would every
    child process that a test starts and interrupts.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers", "requirement(*ids): the test shows that these rows of requirements.py hold"
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave thousands of collected tests out of every later sweep of the collector."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what need not run over workers too."""
    items[:] = needed(items)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Contexts, pairs of them, and the homes of sessions."""
    if "context" in metafunc.fixturenames:
        metafunc.parametrize("context", CONTEXTS)
    if {"first", "second"} <= set(metafunc.fixturenames):
        metafunc.parametrize(("first", "second"), PAIRS, ids=[f"{a}-{b}" for a, b in PAIRS])
    if has_both_homes(metafunc) and metafunc.definition.path.parent == _HERE:
        metafunc.parametrize("home", HOMES, indirect=True)


@pytest.fixture(autouse=True)
def nothing_is_left_behind(flavour: str, home: str) -> Iterator[None]:
    """Check that no thread, process, descriptor, module, source or hook stays after a test."""
    before = Census.take()
    yield
    before.check()


@pytest.fixture
def flavour(request: pytest.FixtureRequest) -> str:
    """The kind of event loop that the test runs in; asyncio's own, unless it is parametrised."""
    return prepare_flavour(getattr(request, "param", "asyncio"))


@pytest.fixture
def sequencer() -> Sequencer:
    """A fresh sequencer."""
    return Sequencer()


@pytest.fixture
def transport() -> MemoryTransport:
    """A fresh transport."""
    return MemoryTransport()


@pytest.fixture
def loop_watch(request: pytest.FixtureRequest) -> Iterator[LoopWatch]:
    """What the loop complains of; a test that asks for it answers for the complaints itself."""
    watch = request.node.stash[_WATCH] = LoopWatch()
    yield watch
    del request.node.stash[_WATCH]  # its node lives as long as the run


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """Where workers come from: a process that has imported what cells of tests do."""
    with ForkServer(["anyio", "sqlite3", "subprocess"]) as server:
        yield server


@pytest.fixture
def home(request: pytest.FixtureRequest) -> str:
    """Where sessions live: in this process, unless it is parametrised."""
    found = getattr(request, "param", HERE)
    if found == WORKER:
        request.getfixturevalue("fork_server")  # it was there before the test, and stays
    return found


@pytest.fixture
def make_session(request: pytest.FixtureRequest, home: str) -> Iterator[Callable[..., AnySession]]:
    """Makes sessions that are closed, in the test's loop, when the test has ended."""
    sessions = request.node.stash.setdefault(_SESSIONS, [])
    where: dict[str, Any] = {}
    if home == WORKER:
        where = {"worker": True, "fork_server": request.getfixturevalue("fork_server")}

    def make(*arguments: Any, **options: Any) -> AnySession:
        sessions.append(open_session(*arguments, **where, **options))
        return sessions[-1]

    yield make
    sessions.clear()  # the test's node, which holds them, lives as long as the run


@pytest.fixture
def session(make_session: Callable[..., AnySession]) -> AnySession:
    """A session with nothing out of the ordinary."""
    return make_session()


async def _close_all(sessions: list[AnySession]) -> None:
    for session in sessions:
        report = await session.close()
        assert report.clean, f"closing {session.name!r} left {report}"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an async test."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    values = pyfuncitem.funcargs
    arguments = {name: values[name] for name in inspect.signature(test).parameters}
    sessions = pyfuncitem.stash.get(_SESSIONS, [])
    watch = pyfuncitem.stash.get(_WATCH, None) or LoopWatch()
    run_async(
        test(**arguments), lambda: _close_all(sessions), values.get("flavour", "asyncio"), watch
    )
    if _WATCH not in pyfuncitem.stash:
        assert not watch.complaints, f"the loop complained: {watch.complaints}"
    return True
