"""Cells that crash, eat all memory, or hang where nothing can interrupt them; and a program that
goes on.

Run it:  python examples/crash.py

Each cell runs in a process of its own, a worker. What goes wrong there ends in an error with a
cause, and a new worker takes its place.
"""

from __future__ import annotations

import asyncio

from isthmus import RemoteError, WorkerDied, WorkerLimits, open_session

SEGFAULT = """
import ctypes
print("reading where nothing is")
ctypes.string_at(0)
"""

EATS_MEMORY = """
def hoard():
    kept = []
    while True:
        kept.append(bytearray(10_000_000))

hoard()
"""

HANGS_IN_C = """
print("counting, in C, which heeds no signal")
sum(range(10**15))
"""

LIMITS = WorkerLimits(memory_bytes=1 << 30)


async def main() -> None:
    """Show each of them."""
    async with open_session(worker=True, limits=LIMITS, grace_seconds=0.5) as session:
        print("a cell that segfaults:")
        try:
            await session.run(SEGFAULT)
        except WorkerDied as death:
            print(f"    {death.signal}; its last words: {death.output.strip()!r}")

        await session.restart()
        print("a cell that eats all memory it may have:")
        try:
            await session.execute(EATS_MEMORY)
        except RemoteError as error:
            print(f"    {error.type}; the worker lives, and has {await session.execute('2 + 2')}")

        print("a cell that hangs in C, and has 0.2 s:")
        result = await session.run(HANGS_IN_C, timeout=0.2)
        print(f"    {result.status}; {type(result.error).__name__}: {result.stdout.strip()!r}")

        await session.restart()
        print("and the program goes on:")
        print(f"    {await session.execute('sum(range(10))')}")


if __name__ == "__main__":
    asyncio.run(main())
