"""The block of code in which the contract names its classes, word for word."""

from __future__ import annotations

import ast
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from isthmus import AsyncExecutor, AsyncNamespaceManager, MemoryTransport
from support import on_one_loop

BLOCK = '''\
namespace = AsyncNamespaceManager()
executor = AsyncExecutor(namespace, transport, "test")

await executor.execute("x = 42")
assert await executor.execute_in_thread("y = x * 2; y") == 84
assert await executor.execute_sync_in_async("z = x + y; z") == 126

await executor.execute("""
async def fetch_data():
    await asyncio.sleep(0.1)
    return 'data'
""")                                             # asyncio comes from the prelude
assert await executor.execute("result = await fetch_data(); result") == 'data'

await executor.execute("""
async def slow_op():
    await asyncio.sleep(1)
    return 'done'

task = slow_op()  # Not awaited
""")
assert 'task' in namespace._pending_coroutines
results = await namespace.await_pending_coroutines()
assert results['task'] == 'done'
'''

HEAD = BLOCK[: BLOCK.index("await executor")]
NUMBERS = BLOCK[
    BLOCK.index('await executor.execute("x') : BLOCK.index('await executor.execute("""')
]
FUNCTIONS = BLOCK[BLOCK.index('await executor.execute("""\nasync def f') :]
COROUTINES = BLOCK[BLOCK.index('await executor.execute("""\nasync def s') :]
FUNCTIONS = FUNCTIONS[: -len(COROUTINES)]
PARTS = {"numbers": NUMBERS, "functions": FUNCTIONS, "coroutines": COROUTINES}


async def run_host_code(code: str, names: dict[str, Any]) -> None:
    """Run *code*, whose top level awaits, in the calling task."""
    compiled = compile(code, "contract", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    done = eval(compiled, names)
    if inspect.iscoroutine(done):
        await done


@asynccontextmanager
async def host(transport: MemoryTransport) -> AsyncIterator[dict[str, Any]]:
    """What the block takes for granted; what it has made is closed."""
    names: dict[str, Any] = {
        "AsyncNamespaceManager": AsyncNamespaceManager,
        "AsyncExecutor": AsyncExecutor,
        "transport": transport,
    }
    await run_host_code(HEAD, names)
    try:
        yield names
    finally:
        await names["namespace"].cleanup_coroutines()
        names["namespace"].close()


@pytest.mark.requirement("8-word-for-word")
def test_the_parts_make_up_the_block() -> None:
    assert HEAD + NUMBERS + FUNCTIONS + COROUTINES == BLOCK
    assert all(PARTS.values())


@pytest.mark.requirement("8-word-for-word")
async def test_the_block_holds_word_for_word(transport: MemoryTransport) -> None:
    async with host(transport) as names:
        await run_host_code(BLOCK.removeprefix(HEAD), names)


@pytest.mark.requirement("8-word-for-word")
async def test_the_block_holds_as_it_stands(transport: MemoryTransport) -> None:
    async with host(transport) as names:
        names["namespace"].close()  # the block makes its own
        await run_host_code(BLOCK, names)


@on_one_loop
@pytest.mark.requirement("8-word-for-word")
@pytest.mark.parametrize("part", PARTS)
async def test_each_part_holds_on_a_fresh_namespace(part: str, transport: MemoryTransport) -> None:
    async with host(transport) as names:
        await run_host_code(PARTS[part], names)


@on_one_loop
@pytest.mark.requirement("8-word-for-word")
@pytest.mark.parametrize("order", [("coroutines", "functions", "numbers"), tuple(PARTS) * 2])
async def test_the_parts_hold_in_any_order_and_again_on_a_shared_namespace(
    order: tuple[str, ...], transport: MemoryTransport
) -> None:
    async with host(transport) as names:
        for part in order:
            await run_host_code(PARTS[part], names)
