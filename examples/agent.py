"""An agent: a model that answers in Markdown, and whose code runs in one Isthmus session.

Run it:  python examples/agent.py

The replies come from a file, so that you need no model and see the same every time; put a call of
yours in place of ``scripted_model``. The rest is real: an HTTP service (``agent_service.py``) and a
SQLite database, which the model's code reaches through the capabilities ``fetch`` and ``query``.
These are async functions on this program's event loop. The model awaits them where it writes async
code, and just calls them where it writes sync code, on the loop's thread or in another one.
"""

import asyncio
import json
import re
import sqlite3
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from textwrap import indent
from typing import Any, cast
from urllib.parse import quote

from agent_service import weather_service

from isthmus import Approve, Budget, CapabilityCall, CellResult, Context, Journal, Session

TASK = "Which city had the widest range of temperatures? Keep all readings in the database."
HOW_TO_ANSWER = """\
Answer with blocks of Python. They run in order, until one fails, and share one namespace:
"```python" on the event loop, with await; "```python thread" in a thread; "```python sync" as sync
code on the loop's thread. Your code may call these, where it is sync without await:"""
CELL_SECONDS = 2.0  # a hundred times what a cell of this task needs
MAX_REPLIES = 20
OBSERVED_CHARACTERS = 4000  # of one cell; a model is paid by the word

Model = Callable[[list[str]], Awaitable[str]]
"""Gives the next reply, from all messages so far."""

# -- what the model's code may call ----------------------------------------------------------------


class Weather:
    """A client of the service. Its semaphore belongs to this program's loop, as each call does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connections = asyncio.Semaphore(2)

    async def fetch(self, path: str) -> Any:
        """What the weather service answers to GET *path*."""
        async with self._connections:
            status, body = await self._get(quote(path))
        if status != 200:
            raise LookupError(f"GET {path} has status {status}: {body.decode()}")
        return json.loads(body)

    async def _get(self, path: str) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        with closing(writer):  # also when the cell that waits is stopped
            fields = f"Host: 127.0.0.1:{self._port}\r\nConnection: close"
            writer.write(f"GET {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        await writer.wait_closed()
        return int(head.split()[1]), body


class Store:
    """A SQLite database in a thread of its own, to which its connection is bound."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "store")
        self._database = self._thread.submit(sqlite3.connect, ":memory:").result()

    async def query(self, sql: str, /, *parameters: object) -> list[tuple[Any, ...]]:
        """The rows that one statement of SQLite gives, with *parameters* for its "?"."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._execute, sql, parameters)

    def _execute(self, sql: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._database:  # a transaction
            return self._database.execute(sql, parameters).fetchall()

    def close(self) -> None:
        """Close the connection in its thread, and end that."""
        self._thread.submit(self._database.close).result()
        self._thread.shutdown()


def approve(call: CapabilityCall) -> bool:
    """Whether a call may be made. An async function could ask a person."""
    statement = str(*call.args[:1]).upper()
    return call.name != "query" or statement.startswith(("CREATE", "INSERT", "SELECT"))


# -- what the model is told ------------------------------------------------------------------------


def instructions(session: Session) -> str:
    """The first message: the task, and what the model's code may call."""
    tools = (indent(tool.describe(), "  ") for tool in session.capabilities.values())
    return "\n".join([TASK, "", HOW_TO_ANSWER, *tools])


def observation(result: CellResult) -> str:
    """How a cell went."""
    text = result.stdout + result.stderr
    if result.status == "timeout":
        text += f"It did not end within {CELL_SECONDS} s and "
        text += "was stopped." if result.stopped else "cannot be stopped."
    elif result.error is not None:
        text += traceback_for_model(result.error)
    elif result.value is not None:
        text += f"=> {result.value_repr}"
    if len(text) > OBSERVED_CHARACTERS:
        text = text[:OBSERVED_CHARACTERS] + " … (cut)"
    return f"[cell {result.cell}, {result.context}: {result.status}]\n{text}".strip()


def traceback_for_model(error: BaseException) -> str:
    """The traceback without the frames of this program, which the model cannot change."""
    told = traceback.TracebackException.from_exception(error)
    frames = [frame for frame in told.stack if frame.filename.startswith("<agent cell")]
    told.stack = traceback.StackSummary.from_list(frames)
    return "".join(told.format(chain=False))


# -- the loop --------------------------------------------------------------------------------------

CELL = re.compile(r"^```python(?: +(async|thread|sync))? *\n(.*?)^```", re.MULTILINE | re.DOTALL)


def cells_in(reply: str) -> list[tuple[Context, str]]:
    """The Python blocks of a reply, and where to run each: "```python thread" says where."""
    return [(cast(Context, context or "async"), code) for context, code in CELL.findall(reply)]


async def observe(session: Session, cells: list[tuple[Context, str]]) -> str:
    """Run cells up to the first that fails, since what follows counts on it; say how they went."""
    observations = []
    for context, code in cells:
        result = await session.run(code, context=context, timeout=CELL_SECONDS)
        observations.append(observation(result))
        if result.status != "ok":
            break
    return "\n\n".join(observations)


async def run_agent(session: Session, model: Model, answered: asyncio.Future[str]) -> str:
    """Go round until code of the model has given *answered* its result, or a reply has no code."""
    messages = [instructions(session)]
    show("task", messages[0])
    for number in range(1, MAX_REPLIES + 1):
        reply = await model(messages)
        show(f"reply {number}", reply)
        cells = cells_in(reply)
        if not cells:  # so a model whose budget is spent can answer too
            return reply
        messages += [reply, await observe(session, cells)]
        show(f"observation {number}", messages[-1])
        if answered.done():
            return answered.result()
    raise RuntimeError(f"no answer in {MAX_REPLIES} replies")


# -- the program -----------------------------------------------------------------------------------


def scripted_model(script: Path) -> Model:
    """A model that had made up its mind before: its replies stand in a file, between ``---``."""
    replies = iter(script.read_text().split("\n---\n"))

    async def reply(messages: list[str]) -> str:
        return next(replies).strip()

    return reply


def show(title: str, text: str) -> None:
    """Print a part of the transcript."""
    print(f"---- {title} ".ljust(100, "-"), text, "", sep="\n")


def calls_in(journal: Journal, budget: Budget) -> str:
    """How often cells of each context called each capability."""
    calls = Counter((it.name, it.outcome, f"in {it.context} cells") for it in journal.entries)
    lines = [f"{' '.join(call)}: {count}" for call, count in sorted(calls.items())]
    return "\n".join([*lines, f"{budget.used_calls} of {budget.calls} calls were used"])


async def main() -> None:
    """Start the service, open the database and the session, and let the model work."""
    answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def finish(answer: str) -> None:
        """Give the answer to the task, and end."""
        answered.set_result(answer)

    journal, budget = Journal(), Budget(calls=50)
    async with weather_service() as port:
        with closing(Store()) as store:
            async with Session(
                "agent",
                capabilities=[Weather(port).fetch, store.query, finish],
                interceptors=[journal, budget, Approve(approve)],
            ) as session:
                model = scripted_model(Path(__file__).with_name("agent_replies.md"))
                show("answer", await run_agent(session, model, answered))
    show("calls of capabilities", calls_in(journal, budget))


if __name__ == "__main__":
    asyncio.run(main())
