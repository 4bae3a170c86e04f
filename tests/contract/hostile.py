"""What becomes of cells that do what no guest should, and of those after them.

Knows no test: programs of their own import it.
"""

from __future__ import annotations

from isthmus import AnySession

ORDER = ("async", "sync", "thread")
"""In which contexts a cell is run, one after another."""

GOING_ON = "n = 40\nawait sleep(0)\ndef two(): return 2\nn + two()"


async def outcomes(session: AnySession, code: str) -> list[str]:
    """How *code* has ended in each context; all works as ever after each."""
    await session.execute("from asyncio import sleep")
    said = []
    for context in ORDER:
        result = await session.run(code, context=context, timeout=15)
        error = result.error
        kind = getattr(error, "type", type(error).__name__).rpartition(".")[2]  # of a RemoteError
        said.append(f"{context} {result.status} {kind} {result.stdout!r}")
        for after in ORDER:
            going_on = await session.run(GOING_ON, context=after, timeout=15)
            assert going_on.value == 42, (said, going_on)
    report = await session.close()
    assert report.clean, report
    return said
