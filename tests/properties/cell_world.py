"""What generated cells find in their namespace, and what can be said of how one ended.

Values and errors are described by their shape: what two sessions have in common that ran the same
cell, so no identities, addresses and file names.
"""

from __future__ import annotations

import asyncio
import re
import sys
import types
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

from isthmus import CellResult, Session

ENDLESS_CALLS = 5_000
"""Calls of ``boom`` in one cell after which it must be in a loop without end."""

ERRORS: tuple[Callable[[], BaseException], ...] = (
    lambda: ValueError("boom"),
    lambda: KeyError("boom"),
    lambda: ZeroDivisionError("boom"),
    lambda: ExceptionGroup("boom", [ValueError(1), KeyError(2)]),
    lambda: StopIteration("boom"),
    lambda: StopAsyncIteration("boom"),
    lambda: TimeoutError("boom"),
    lambda: asyncio.CancelledError("boom"),
    lambda: GeneratorExit("boom"),
    lambda: KeyboardInterrupt("boom"),
    lambda: SystemExit("boom"),
)


class Fuse:
    """Counts calls, and raises at those that were chosen.

    Arguments:
        plan: Which calls raise, from 1, and what: an index of ``ERRORS``.
    """

    def __init__(self, plan: dict[int, int]) -> None:
        self.plan = plan
        self.calls = 0

    def boom(self, value: Any) -> Any:
        self.calls += 1
        if self.calls > ENDLESS_CALLS:
            raise BaseException("this cell does not end")
        if self.calls in self.plan:
            raise ERRORS[self.plan[self.calls]]()
        return value

    async def aboom(self, value: Any) -> Any:
        self.boom(value)
        if self.calls % 2:
            await asyncio.sleep(0)
        return value

    async def atask(self, value: Any) -> Any:
        """To become a task: raises only what a task may end with without ending its loop."""
        try:
            self.boom(value)
        except BaseException as error:
            raise error if isinstance(error, Exception) else ValueError("boom") from None
        await asyncio.sleep(0)
        return value


def world(fuse: Fuse) -> dict[str, Any]:
    """What a generated cell starts with. Its names are those that the generator uses."""
    boom, aboom = fuse.boom, fuse.aboom

    class Awaitable:
        def __init__(self, value: Any) -> None:
            self.value = value

        def __await__(self) -> Generator[Any, Any, Any]:
            yield from asyncio.sleep(0).__await__()
            return boom(self.value)

    class Base:
        def __init_subclass__(cls, flag: Any = None) -> None:
            boom(flag)

    class Point:
        __match_args__ = ("x", "y")

        def __init__(self, x: Any, y: Any) -> None:
            self.x, self.y = x, y

    class Duck:
        size = 3

        @property
        def bombed(self) -> Any:
            return boom(2)

        def method(self, value: Any) -> Any:
            return boom(value)

        def __matmul__(self, other: Any) -> Any:
            return boom(other)

        def __await__(self) -> Any:
            raise TypeError("a duck")

    class Manager:
        def __init__(self, value: Any, swallow: bool = False) -> None:
            self.value, self.swallow = value, swallow

        def __enter__(self) -> Any:
            print("enter", self.value)
            return boom(self.value)

        def __exit__(self, kind: Any, error: Any, traceback: Any) -> Any:
            print("exit", self.value, kind)
            return boom(self.swallow)

    class AsyncManager(Manager):
        async def __aenter__(self) -> Any:
            print("enter", self.value)
            return await aboom(self.value)

        async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> Any:
            print("exit", self.value, kind)
            return await aboom(self.swallow)

    class Steps:
        def __init__(self, count: int) -> None:
            self.left = range(count).__iter__()

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Any:
            for step in self.left:
                return await aboom(step)
            raise StopAsyncIteration

    class Strange:
        """Almost an async iterator and an async context manager."""

        def __aiter__(self) -> Any:
            return self

        def __anext__(self) -> Any:
            return 5

        def __aenter__(self) -> Any:
            return 5

        async def __aexit__(self, *_: object) -> None:
            return None

    async def acount(count: int) -> AsyncIterator[int]:
        for i in range(count):
            await asyncio.sleep(0)
            yield boom(i)

    def count(count: int) -> Iterator[int]:
        for i in range(count):
            yield boom(i)

    def decorate(_: Any) -> Callable[[Any], Any]:
        return boom(lambda decorated: decorated)

    def keywords(value: Any, *, x: int = 0, y: int = 0) -> Any:
        return boom(value + x + y)

    duck = Duck()
    duck.size = 3
    given = (Awaitable, Base, Point, Manager, AsyncManager, Steps, Strange)
    functions = (boom, aboom, fuse.atask, acount, count, decorate, keywords)
    named = {it.__name__: it for it in (*given, *functions)}
    return named | {"a": 1, "b": 2, "c": 0, "p": [1, 0, 2], "q": (2, 1), "duck": duck, "sys": sys}


# -- shapes ----------------------------------------------------------------------------------------


def without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def shape(value: Any, depth: int = 0) -> Any:  # noqa: PLR0911 (one case a line)
    """What of *value* two sessions have in common."""
    kind = type(value).__name__
    if depth > 5:
        return (kind, "...")
    below = depth + 1
    match value:
        case list() | tuple():
            return (kind, [shape(item, below) for item in value])
        case set() | frozenset():
            return (kind, sorted(repr(shape(item, below)) for item in value))
        case dict():
            return (kind, [(shape(k, below), shape(v, below)) for k, v in value.items()])
        case types.FunctionType():
            code, defaults = value.__code__, (value.__defaults__, value.__kwdefaults__)
            where = (code.co_firstlineno, code.co_varnames, code.co_flags, value.__qualname__)
            return (kind, where, shape(defaults, below), shape(value.__annotations__, below))
        case type():
            own = {k: v for k, v in vars(value).items() if k not in ("__dict__", "__weakref__")}
            bases = [base.__qualname__ for base in value.__mro__]
            inside = shape(own, below) if "cell" in str(own.get("__module__")) else None
            return (kind, value.__qualname__, bases, inside)
        case types.ModuleType():
            return (kind, value.__name__)
        case types.CoroutineType() | asyncio.Task() | types.GeneratorType():
            return (kind, getattr(value, "__qualname__", ""))
        case BaseException():
            return (kind, shape(value.args, below))
    named = getattr(value, "__qualname__", None) or without_addresses(repr(value))
    ours = type(value).__module__ in (__name__, "isthmus_generated_cell")
    return (kind, named, shape(vars(value), below) if ours else None)


Place = tuple[str, int | None, int | None, int | None, int | None]


def places(error: BaseException, filename: str) -> list[Place]:
    """Function, lines and columns of each frame of the cell in the traceback."""
    found = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if code.co_filename == filename:
            positions = list(code.co_positions())
            found.append((code.co_name, *positions[step.tb_lasti // 2]))
        step = step.tb_next
    return found


def error_shape(error: BaseException | None, filename: str) -> Any:
    """Type, message and places of *error* and of what it contains, and the type of its cause."""
    if error is None:
        return None
    group = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return {
        "type": type(error).__name__,
        "message": without_addresses(str(error)),
        "places": places(error, filename),
        "inside": [error_shape(it, filename) for it in group],
        "cause": type(error.__cause__).__name__,
    }


async def outcome(source: str, context: Any, plan: dict[int, int]) -> dict[str, Any]:
    """Run *source* as the first cell of a new session; all that can be seen of it from outside."""
    fuse = Fuse(plan)
    async with Session("generated_cell") as session:
        session.update_namespace(world(fuse))
        result: CellResult = await session.run(source, context=context, timeout=30)
        calls = fuse.calls  # before tasks that are left behind go on
        names = session.snapshot()
        return {
            "status": result.status,
            "error": error_shape(result.error, result.filename),
            "value": shape(result.value),
            "names": {n: shape(names[n]) for n in sorted(names) if n != "__warningregistry__"},
            "stdout": without_addresses(result.stdout),
            "stderr": without_addresses(result.stderr),
            "bound": (result.bound, result.deleted, result.exact, result.adopted),
            "calls": calls,
        }
