"""What tests ask of a session, whichever home it has. Owns how to ask so that both can answer.

Nothing of this process is handed to a cell: what the two have to tell each other goes by
capabilities, names, and cells that run beside the others.
"""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from isthmus import AnySession, CellResult, RemoteError
from support import WAIT_SECONDS, cell, eventually


async def names(session: AnySession) -> dict[str, Any]:
    """The user's names, with their values or what has come of these."""
    found = session.snapshot()
    return await found if inspect.isawaitable(found) else found


async def beside(session: AnySession, code: str) -> Any:
    """The value of *code*, run beside the cells that run."""
    return await session.execute(code, concurrent=True)


async def until(session: AnySession, expression: str) -> None:
    """Wait until *expression* holds in the session."""
    await eventually(lambda: beside(session, expression), lambda: expression)


def error_name(error: BaseException | None) -> str | None:
    """The name of the class of what a cell has raised, in its own process."""
    if isinstance(error, RemoteError):
        return error.type.rpartition(".")[2]
    return None if error is None else type(error).__name__


@contextmanager
def raises_there(
    kind: type[BaseException], match: str | None = None
) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """Expect an exception of a cell: itself, or the description of one of its class."""
    with pytest.raises((kind, RemoteError), match=match) as caught:
        yield caught
    assert isinstance(caught.value, kind) or error_name(caught.value) == kind.__name__


def message_of(error: BaseException | None) -> str:
    """The text of what a cell has raised."""
    return error.message if isinstance(error, RemoteError) else str(error)


def frames_of(result: CellResult) -> list[str]:
    """The names of the functions in the traceback of a cell's error, outermost first."""
    return re.findall(r'File "[^"]*", line \d+, in (.+)', result.traceback or "")


_LISTEN = cell("""
    complaints, listened_to = [], asyncio.get_running_loop()
    former_handler = listened_to.get_exception_handler()
    listened_to.set_exception_handler(lambda _, context: complaints.append(context))
    """)


@asynccontextmanager
async def listening(session: AnySession) -> AsyncIterator[None]:
    """Have in the session's ``complaints`` what its loop complains of, and nowhere else."""
    await session.execute(_LISTEN)
    yield
    await session.execute("listened_to.set_exception_handler(former_handler)")


class Flag:
    """Something that cells put up by calling it, and the host sees.

    A cell may then still be at the call: one in a worker waits for the answer.

    Arguments:
        session: Whose cells may call it.
        name: As what.
    """

    def __init__(self, session: AnySession, name: str) -> None:
        self._name = name
        self._up = threading.Event()
        session.inject_capability(name, self._up.set)

    @property
    def is_up(self) -> bool:
        """Whether a cell has put it up."""
        return self._up.is_set()

    async def seen(self) -> None:
        """Wait until a cell has put it up."""
        await eventually(lambda: self.is_up, lambda: f"{self._name}()")

    def wait(self, seconds: float = WAIT_SECONDS) -> bool:
        """The same for a thread; whether it came in time."""
        return self._up.wait(seconds)

    def down(self) -> None:
        """Take it down again."""
        self._up.clear()
