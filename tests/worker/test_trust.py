"""Pickles of the worker: loaded where the host has asked, and refused where it trusts no worker."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from test_hostile_peers import RUN, SLEEP, FakeWorkers, send

from isthmus import (
    ForkServer,
    MemoryTransport,
    RemoteError,
    RemoteRepr,
    UntrustedValueError,
    WorkerSession,
)
from isthmus.wire import callbacks, replies
from isthmus.wire.parts import Failure, Value

requirement = pytest.mark.requirement


class Evil:
    """Leaves a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        """Make the file."""
        return Path.touch, (self._path,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that a pickle makes which was loaded."""
    return tmp_path / "mark"


def was_made(mark: Path) -> bool:
    """Whether the pickle was loaded."""
    return mark.exists()


def evil(mark: Path) -> Value:
    """A malicious pickle."""
    return Value("pickle", pickle.dumps(Evil(mark)), type_name="builtins.Evil")


@requirement("7.4-trust")
async def test_a_worker_that_is_not_trusted_sends_what_is_plain_and_shows_the_rest() -> None:
    told: list[Any] = []

    def tell(it: Any) -> str:
        told.append(it)
        return "told"

    with ForkServer() as server:
        async with WorkerSession(trusted=False, capabilities=[tell], fork_server=server) as session:
            assert await session.execute("{'a': (1, b'x')}") == {"a": (1, b"x")}
            shown = await session.execute("from decimal import Decimal; d = Decimal('1.5'); d")
            assert isinstance(shown, RemoteRepr)
            assert (repr(shown), shown.problem) == (
                "Decimal('1.5')",
                "the receiver takes no pickles",
            )
            assert isinstance(await session.get("d"), RemoteRepr)
            assert isinstance((await session.snapshot())["d"], RemoteRepr)
            assert await session.execute("tell([1])") == "told"
            with pytest.raises(UntrustedValueError, match="takes no pickles"):
                await session.execute("tell(d)")
            assert told == [[1]]
            await session.set("given", Path("a"))  # the host is trusted by its worker
            assert await session.execute("str(given)") == "a"


@requirement("7.4-trust")
async def test_a_pickle_that_comes_all_the_same_is_not_loaded(tmp_path: Path, mark: Path) -> None:
    folder = tmp_path / "workers"
    folder.mkdir()
    fake = FakeWorkers(folder)
    outcome = replies.Outcome(2, cell=1, value=evil(mark))
    for trusted in (False, True):
        python = fake(RUN + send(outcome) + SLEEP)
        session = WorkerSession(python=python, trusted=trusted, grace_seconds=0.1)
        if trusted:
            await session.run("1")
        else:
            with pytest.raises(UntrustedValueError, match="not trusted"):
                await session.run("1")
        assert was_made(mark) == trusted  # it is loaded where it may be
        await session.close(0.1)


@requirement("7.4-trust")
async def test_what_the_host_has_not_asked_for_is_never_loaded(
    tmp_path: Path, mark: Path, transport: MemoryTransport
) -> None:
    folder = tmp_path / "workers"
    folder.mkdir()
    failure = Failure("builtins.ValueError", "no", exception=evil(mark))
    messages = (
        callbacks.CallCapability(1, "unknown", evil(mark)),
        callbacks.CallCapability(2, "known", evil(mark)),
        replies.Outcome(2, cell=1, status="error", error=failure),
    )
    python = FakeWorkers(folder)(RUN + send(*messages) + SLEEP)
    session = WorkerSession(
        python=python,
        transport=transport,
        trusted=False,
        capabilities={"known": lambda it: None},
        grace_seconds=0.1,
    )
    result = await session.run("1")
    assert isinstance(result.error, RemoteError)
    await session.close(0.1)
    assert not was_made(mark)
