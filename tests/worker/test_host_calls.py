"""Calls of the host's functions, as a worker's messages ask for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from isthmus.delegates import DelegateTask
from isthmus.values import PackedValue, pack
from isthmus.wire import callbacks, replies
from isthmus.wire.frames import Buffer, Received
from isthmus.worker.callbacks import HostFunctions
from isthmus.worker.host_calls import HostCalls
from support import eventually

requirement = pytest.mark.requirement


class Worker:
    """Asks, and keeps the answers."""

    def __init__(self, **functions: Any) -> None:
        self.answers: list[Any] = []
        given = HostFunctions("demo", (), trusted=False)
        for name, fn in functions.items():
            given.add(name, fn)
        self.calls = HostCalls(given, self)

    def send(self, message: Any, buffers: Sequence[Buffer] = ()) -> None:
        """Take an answer."""
        self.answers.append(message)

    def ask(self, message: Any) -> None:
        """Send a message."""
        self.calls.take(Received(message, []))

    async def answer_to(self, message: Any) -> Any:
        """The answer to *message*."""
        before = len(self.answers)
        self.ask(message)
        await eventually(lambda: len(self.answers) > before)
        return self.answers[-1]


def value_of(answer: Any) -> Any:
    return PackedValue(answer.value).load(trusted=False)


@requirement("7.4-capabilities")
async def test_a_call_that_is_cancelled_before_it_begins_is_answered() -> None:
    async def tool() -> None:
        await asyncio.Event().wait()

    worker = Worker(tool=tool)
    worker.ask(callbacks.CallCapability(1, name="tool"))
    worker.ask(callbacks.Cancel(1))
    worker.ask(callbacks.Cancel(7))  # which has its answer
    await eventually(lambda: worker.answers)
    (answer,) = worker.answers
    assert isinstance(answer, replies.Failed)
    assert answer.error.type_name == "asyncio.exceptions.CancelledError"
    assert not worker.calls._tasks


@requirement("7.4-capabilities")
async def test_steps_are_taken_in_the_order_in_which_they_are_sent() -> None:
    async def echo() -> AsyncIterator[Any]:
        """Say what was sent, some turns of the loop later."""
        sent = None
        while True:
            await asyncio.sleep(0)
            sent = yield sent

    worker = Worker(echo=echo)
    handed = await worker.answer_to(callbacks.CallCapability(1, name="echo"))
    assert (handed.iterates, handed.manages, handed.is_iterator) == ("async", "", True)
    worker.ask(callbacks.Step(2, handed.object, "next"))
    for number in range(3, 10):
        packed = pack(number, [], trusted=False)
        worker.ask(callbacks.Step(number, handed.object, "send", packed))
    await eventually(lambda: len(worker.answers) == 9)
    assert [value_of(it) for it in worker.answers[1:]] == [None, *range(3, 10)]
    worker.ask(callbacks.Release(handed.object))
    await _settled()


@requirement("7.4-capabilities")
async def test_what_fails_when_nobody_waits_is_told_to_the_loop(loop_watch: Any) -> None:
    async def stubborn() -> AsyncIterator[int]:
        """Fail when it is closed."""
        try:
            yield 1
        finally:
            raise ValueError("while closing")

    worker = Worker(stubborn=stubborn)
    handed = await worker.answer_to(callbacks.CallCapability(1, name="stubborn"))
    await worker.answer_to(callbacks.Step(2, handed.object, "next"))
    worker.ask(callbacks.Release(handed.object))
    await eventually(lambda: loop_watch.complaints)
    assert "while closing" in str(loop_watch.complaints)
    await _settled()


@requirement("7.4-capabilities")
async def test_the_end_of_a_worker_ends_what_it_has_used_innermost_first() -> None:
    log: list[str] = []

    class Block:
        """Says how it is left."""

        def __init__(self, name: str) -> None:
            self.name = name

        async def __aenter__(self) -> Block | str:
            """The outer one gives another one."""
            return Block("inner") if self.name == "outer" else "entered"

        async def __aexit__(self, *error: Any) -> None:
            log.append(f"{self.name}: {error[1]!r}")

    worker = Worker(block=lambda: Block("outer"))
    outer = await worker.answer_to(callbacks.CallCapability(1, name="block"))
    assert (outer.iterates, outer.manages) == ("", "async")
    inner = await worker.answer_to(callbacks.Step(2, outer.object, "enter"))
    assert value_of(await worker.answer_to(callbacks.Step(3, inner.object, "enter"))) == "entered"
    worker.calls.end(RuntimeError("gone"))
    await eventually(lambda: len(log) == 2)
    assert log == ["inner: RuntimeError('gone')", "outer: RuntimeError('gone')"]
    await _settled()


async def _settled() -> None:
    """Until the tasks of objects have ended."""
    await eventually(lambda: not any(isinstance(it, DelegateTask) for it in asyncio.all_tasks()))
