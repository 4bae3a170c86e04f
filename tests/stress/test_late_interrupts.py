"""10,000 cells that end at about the moment they are interrupted. None of it hits anything else."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator

import pytest

from isthmus import CellInterrupted, CellResult, Session, interrupts
from support import CONTEXTS, LoopThread, LoopWatch, cell

requirement = pytest.mark.requirement

CELLS = 10_000
PARTS = 4
PART_CELLS = CELLS // (2 * PARTS)
"""Of each part, on a loop in the main thread and on one in another; a test has ten seconds."""

KINDS = (
    cell("""
        x = 0
        while x < 200: x += 1
    """),
    cell("""
        for x in range(8): await asyncio.sleep(0)
    """),
    cell("""
        async def f():
            return [it * it for it in range(100)]

        await asyncio.create_task(f())
    """),
    "for x in range(20): await f()",
    "time.sleep(0.0002)",
)

ENDINGS = {"ok", "interrupted", "cancelled", "timeout"}

SWITCH_SECONDS = 0.0002
"""How often threads take turns, so that a moment is hit that is short."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have interrupts strike at once, what computes on a loop too, though it is soon over.

    One that strikes in a finaliser is lost there, and the next may strike in what is told of it: a
    hook of Python code, as pytest's is.
    """
    monkeypatch.setattr(sys, "unraisablehook", deque[object](maxlen=1).append)
    monkeypatch.setattr(interrupts, "LOOP_SECONDS", 0.0)
    monkeypatch.setattr(interrupts, "RETRY_SECONDS", 0.0)
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    yield
    sys.setswitchinterval(before)


class Pest:
    """A thread that interrupts whatever cell it is given, a random moment later."""

    def __init__(self, session: Session, seed: int) -> None:
        self.session = session
        self.cell = 0
        self.random = random.Random(seed)
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self._main)

    def _main(self) -> None:
        last = 0
        while not self.stopped.wait(self.random.uniform(0, 0.0006)):
            number = self.cell
            if number != last:
                last = number
                self.session.interrupt(number)

    def __enter__(self) -> Pest:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self._thread.join()


def is_as_it_should_be(result: CellResult) -> bool:
    """Whether *result* is that of a cell that ran to its end, or was stopped."""
    stopped = isinstance(result.error, asyncio.CancelledError | CellInterrupted)
    return result.status in ENDINGS and stopped is (result.status != "ok")


async def pester(seed: int, cells: int) -> Counter[str]:
    """Run *cells* cells, half of them bystanders; how the interrupted ones ended."""
    chosen, endings = random.Random(seed), Counter[str]()
    async with Session() as session:
        await session.execute("import time\nasync def f(): pass")
        with Pest(session, seed) as pest:
            for turn in range(cells // 2):
                context = CONTEXTS[turn % len(CONTEXTS)]
                timeout = chosen.choice((None, None, chosen.uniform(0, 0.001)))
                pest.cell = 2 * turn + 2
                code = chosen.choice(KINDS)
                result = await session.run(code, context=context, timeout=timeout)
                assert result.cell == pest.cell
                assert is_as_it_should_be(result), (result, code)
                endings[result.status] += 1
                after = await session.run("await asyncio.sleep(0, 'on')", context=context)
                assert after.value == "on", (after, code, result)
    return endings


@requirement("6.2-interrupt")
@pytest.mark.filterwarnings("ignore:coroutine 'f' was never awaited")  # interrupted just before
@pytest.mark.parametrize("place", ["main thread", "other thread"])
@pytest.mark.parametrize("part", range(PARTS))
async def test_interrupts_at_the_end_of_ten_thousand_cells_hit_nothing_else(
    quick: None, place: str, part: int, loop_watch: LoopWatch
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    if place == "main thread":
        endings = await pester(seed, PART_CELLS)
    else:
        with LoopThread() as other:
            endings = await asyncio.wrap_future(other.submit(pester(seed, PART_CELLS)))
    print(endings)
    assert set(endings) == ENDINGS, endings
    # A cell that is stopped before it awaits its task leaves that, to be interrupted for itself.
    assert all(isinstance(it["exception"], CellInterrupted) for it in loop_watch.complaints)
