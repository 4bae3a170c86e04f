"""A run whose cells live in a process of their own. Owns what differs from one in this process.

Refuses to know: what the cells look like on a screen, what the command line looks like.
"""

from __future__ import annotations

import asyncio
import builtins
import threading
import time
from typing import Any

from isthmus import CellFinished, CellResult, Context, MainProgram, WorkerDied, WorkerSession
from isthmus.cli.run import FAILURE, ProgramRun
from isthmus.cli.script import ScriptCell


class WorkerRun(ProgramRun):
    """One program on its way through a worker.

    A worker that dies fails its cell. Where the run goes on behind a failure, it does so in another
    worker, whose namespace is empty.
    """

    def _open(self) -> WorkerSession:
        path = self._program.path
        return WorkerSession(
            self._session_name,
            transport=self._report,
            context=self._options.context,
            timeout=self._options.timeout,
            file=None if path is None else str(path),
            input=self._ask,
            program=MainProgram(
                (self._program.name, *self._options.arguments),
                "" if path is None else str(path.resolve().parent),
                self._program.docstring,
            ),
        )

    async def _result(self, session: Any, cell: ScriptCell) -> CellResult:
        began = time.monotonic()
        try:
            return await super()._result(session, cell)
        except WorkerDied as death:
            seconds, name = time.monotonic() - began, type(death).__name__
            finished = CellFinished(
                session.name, cell.number, "error", seconds, error=name, message=str(death)
            )
            self._report.send(finished)
            self._report.notice(str(death))
            context: Context = cell.context if cell.context in ("thread", "sync") else "async"
            result = CellResult(cell.number, context, status="error", error=death, duration=seconds)
        if self._options.keep_going and self.stopped_with is None:
            await session.restart()
            self._report.notice("the cells that follow find an empty namespace")
        return result

    async def _settle(self, session: Any) -> int:
        try:
            return await super()._settle(session)
        except WorkerDied as death:
            self._report.notice(str(death))
            return FAILURE

    async def _ask(self, *prompt: object) -> str:
        """Have the user type a line, while the loop goes on. Python cannot end the wait for one."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()

        def read() -> None:
            try:
                line = builtins.input(*prompt)
            except (EOFError, OSError, ValueError) as error:
                _tell(loop, answer.set_exception, answer, error)
            else:
                _tell(loop, answer.set_result, answer, line)

        threading.Thread(target=read, name="isthmus input", daemon=True).start()
        self.stuck = True  # until the line is there
        line = await answer
        self.stuck = False
        return line


def _tell(
    loop: asyncio.AbstractEventLoop, say: Any, answer: asyncio.Future[str], value: object
) -> None:
    """Call *say* on the loop, if anybody still waits."""

    def tell() -> None:
        if not answer.done():
            say(value)

    loop.call_soon_threadsafe(tell)
