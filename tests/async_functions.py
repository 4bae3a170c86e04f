"""Async functions of all kinds, which add one: what a capability can be made of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any


async def add(number: int, step: int = 1) -> int:
    """Add *step* to *number*."""
    await asyncio.sleep(0)
    return number + step


class Adder:
    """Adds."""

    async def __call__(self, number: int) -> int:
        """Add one, later."""
        return await add(number)

    async def method(self, number: int) -> int:
        """Add one in a method."""
        return await add(number)


def returns_coroutine(number: int) -> Awaitable[int]:
    """No coroutine function, yet async."""
    return add(number)


def returns_future(number: int) -> Awaitable[int]:
    """Give an awaitable that is no coroutine."""
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.set_result(number + 1)
    return future


class Later:
    """An awaitable of a class of its own."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __await__(self) -> Any:
        """Step a coroutine."""
        return add(self.number).__await__()
