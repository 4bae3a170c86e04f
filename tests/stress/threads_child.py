"""Cells of all contexts and host threads on one namespace, at a switch interval of 1 µs.

Run by `test_threads.py` in a process of its own: `python threads_child.py SEED [--without-lock]`.
Exits with 1 and says what it saw when an operation is lost or a pair is torn. Without the lock the
host threads go on until they have seen that, or until the deadline.

An operation is one bind or one increment by a cell, one `update_namespace` or one `snapshot`. Each
actor counts its own, in names that nobody else writes; at the end the namespace must have it all.
"""

from __future__ import annotations

import asyncio
import faulthandler
import itertools
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from random import Random
from types import TracebackType
from typing import Any, Literal

from isthmus import Session

OPERATIONS = 100_000

DEADLINE_SECONDS = 100
"""Ten times what it takes on two cores that have nothing else to do."""

CELLS: dict[str, tuple[Literal["async", "thread", "sync"], bool, int]] = {
    "async_": ("async", False, 2_000),
    "thread": ("thread", False, 2_000),
    "sync": ("sync", False, 2_000),
    "beside": ("async", True, 1_000),
    "beside_thread": ("thread", True, 400),
}
"""For each actor that runs cells: their context, whether they are concurrent, how many."""

UPDATES, SNAPSHOTS, HOST_THREADS = 20_000, 12_000, 2
"""Of each host thread of a kind."""

BETWEEN = 12
"""Names that are written between the two of a pair."""

INCREMENTS = 25
"""In a cell that increments."""


class NoLock:
    """Stands where the lock was, and keeps nobody out."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        pass


class Stress:
    """The actors, and what each has done."""

    def __init__(self, session: Session, seed: int, *, until_wrong: bool) -> None:
        self.session = session
        self.seed = seed
        self.until_wrong = until_wrong
        self.done: Counter[str] = Counter()  # each key has one writer
        self.wanted: dict[str, Any] = {}  # a dict of one writer per key as well
        self.wrong: list[str] = []
        self.shared = itertools.count(1)

    def report(self, what: str) -> None:
        self.wrong.append(what)

    # -- actors --------------------------------------------------------------------------------

    async def run_cells(self, actor: str) -> None:
        context, concurrent, count = CELLS[actor]
        random = Random(f"{self.seed} {actor}")
        counter = f"{actor}_count"
        await self.session.execute(f"{counter} = 0", context=context)
        increment = f"for {actor}_i in range({INCREMENTS}): {counter} += 1"
        awaited = f"{counter} += 1; await asyncio.sleep(0); {counter} += 1"
        for number in range(count):
            kind = random.choice(["increment", "increment", "await", "name", "left behind"])
            name = f"{actor}_{number}"
            source, operations, total = {
                "increment": (increment, INCREMENTS, INCREMENTS),
                "await": (awaited, 2, 2),
                "name": (f"{name} = {number}", 1, 0),
                "left behind": (f"{name} = asyncio.sleep(0, {number})", 1, 0),
            }[kind]
            result = await self.session.run(source, context=context, concurrent=concurrent)
            if result.error is not None:
                self.report(f"{actor} cell {number}: {result.error!r}")
            self.done[actor] += operations
            self.wanted[counter] = self.wanted.get(counter, 0) + total
            if not total:
                self.wanted[name] = number

    def rounds(self, count: int) -> Iterator[int]:
        """From 1: so many, or until something is wrong."""
        for number in itertools.count(1):
            if self.wrong or (number > count and not self.until_wrong):
                return
            yield number

    def update(self, number: int) -> None:
        left, right = f"left_{number}", f"right_{number}"
        between = [f"between_{number}_{n}" for n in range(BETWEEN)]
        for value in self.rounds(UPDATES):
            shared = next(self.shared)
            inner = dict.fromkeys(between, value)
            pairs = {left: value, "left": shared, **inner, right: value, "right": shared}
            self.session.update_namespace(pairs)
            self.done[f"update {number}"] += 1
            self.wanted[left] = self.wanted[right] = value

    def look(self, number: int) -> None:
        """Take snapshots: pairs are equal, and what only grows has not shrunk."""
        pairs = [(f"left_{n}", f"right_{n}") for n in range(HOST_THREADS)]
        growing = [name for pair in pairs for name in pair] + [f"{name}_count" for name in CELLS]
        before = dict.fromkeys(growing, 0)
        for _ in self.rounds(SNAPSHOTS):
            seen = self.session.snapshot()
            for left, right in [*pairs, ("left", "right")]:
                if seen.get(left) != seen.get(right):
                    self.report(f"torn: {left} {seen.get(left)}, {right} {seen.get(right)}")
            for name in growing:
                if seen.get(name, 0) < before[name]:
                    self.report(f"lost: {name} went from {before[name]} to {seen.get(name)}")
                before[name] = seen.get(name, 0)
            self.done[f"snapshot {number}"] += 1

    # -- all at once ---------------------------------------------------------------------------

    async def run(self) -> None:
        threads = [
            threading.Thread(target=act, args=(number,))
            for number in range(HOST_THREADS)
            for act in (self.update, self.look)
        ]
        for thread in threads:
            thread.start()
        await asyncio.gather(*map(self.run_cells, CELLS))
        for thread in threads:
            await asyncio.to_thread(thread.join)
        settled = await self.session.await_pending_coroutines()
        if settled.errors or settled.unfinished:
            self.report(f"left behind: {settled.errors} {settled.unfinished}")
        self.compare()

    def compare(self) -> None:
        found = self.session.snapshot()
        for name, value in self.wanted.items():
            if found.get(name) != value:
                self.report(f"lost: {name} is {found.get(name)!r} instead of {value!r}")
        if found["left"] != found["right"]:
            self.report("torn at the end")


async def main(seed: int, without_lock: bool) -> int:
    async with Session("stress") as session:
        if without_lock:
            session.manager._lock = NoLock()  # type: ignore[assignment]
        stress = Stress(session, seed, until_wrong=without_lock)
        await stress.run()
    total = stress.done.total()
    print(f"seed {seed}: {total} operations: {dict(stress.done)}")
    for what in stress.wrong[:10]:
        print(what)
    if not stress.wrong and total < OPERATIONS:
        print(f"too few operations: {total}")
        return 2
    return 1 if stress.wrong else 0


if __name__ == "__main__":
    faulthandler.dump_traceback_later(DEADLINE_SECONDS, exit=True)
    sys.setswitchinterval(1e-6)
    sys.exit(asyncio.run(main(int(sys.argv[1]), "--without-lock" in sys.argv)))
