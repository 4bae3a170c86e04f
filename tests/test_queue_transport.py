"""The queue between a session and a host that reads."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from isthmus import AnySession, CellStarted, Display, Event, Output, QueueTransport
from support import LoopThread

requirement = pytest.mark.requirement


def text(number: int) -> Output:
    return Output("s", number, "stdout", "x")


async def read_all(transport: QueueTransport) -> list[Event]:
    return [event async for event in transport]


@requirement("6.1-queue")
async def test_events_are_read_in_order_to_the_end() -> None:
    transport = QueueTransport()
    reading = asyncio.create_task(read_all(transport))
    await asyncio.sleep(0)
    for number in range(3):
        transport.send(text(number))
    await asyncio.sleep(0)
    transport.send(text(3))
    transport.close()
    transport.close()
    transport.send(text(4))  # too late
    assert await asyncio.wait_for(reading, 5) == [text(number) for number in range(4)]
    assert await read_all(transport) == []


@requirement("6.1-queue")
async def test_what_is_there_is_read_without_waiting() -> None:
    transport = QueueTransport()
    transport.send(text(1))
    assert len(transport) == 1
    step = transport.__anext__()
    with pytest.raises(StopIteration) as ended:
        step.send(None)
    assert ended.value.value == text(1)
    assert len(transport) == 0


@requirement("6.1-queue")
async def test_a_reader_that_is_cancelled_takes_nothing() -> None:
    transport = QueueTransport()
    reading = asyncio.create_task(anext(transport))
    await asyncio.sleep(0)
    transport.send(text(1))  # wakes it, and it is cancelled before it runs
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await anext(transport) == text(1)


@requirement("6.1-queue")
async def test_several_readers_share_the_events() -> None:
    transport = QueueTransport()
    readers = [asyncio.create_task(read_all(transport)) for _ in range(3)]
    await asyncio.sleep(0)
    for number in range(30):
        transport.send(text(number))
        if number % 7 == 0:
            await asyncio.sleep(0)
    transport.close()
    read = [event for events in await asyncio.gather(*readers) for event in events]
    assert sorted(event.cell for event in read) == list(range(30))


@requirement("6.1-queue")
def test_a_thread_reads_what_other_threads_send() -> None:
    transport = QueueTransport()
    read: list[Event] = []
    reader = threading.Thread(target=lambda: read.extend(transport))
    reader.start()
    senders = [
        threading.Thread(target=lambda n=n: [transport.send(text(n)) for _ in range(100)])
        for n in range(3)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(5)
    transport.close()
    reader.join(5)
    assert sorted(event.cell for event in read) == [0] * 100 + [1] * 100 + [2] * 100


@requirement("6.1-queue")
def test_a_full_queue_has_room_once_it_is_read() -> None:
    transport = QueueTransport(limit=2)
    transport.send(CellStarted("s", 1, "sync", "", ""))
    transport.send(text(1))
    assert transport.wait_writable(0)
    transport.send(Display("s", 1, {"image/png": b"12", "application/json": []}))
    assert not transport.wait_writable(0)
    assert not transport.wait_writable(0.001)
    waited: list[bool] = []
    waiter = threading.Thread(target=lambda: waited.append(transport.wait_writable(5)))
    waiter.start()
    events = iter(transport)
    for _ in range(3):
        assert waited == []
        next(events)
    waiter.join(5)
    assert waited == [True]


@requirement("6.1-queue")
def test_closing_lets_go_of_whoever_waits_for_room() -> None:
    transport = QueueTransport(limit=1)
    transport.send(text(1))
    waited: list[bool] = []
    waiter = threading.Thread(target=lambda: waited.append(transport.wait_writable(5)))
    waiter.start()
    transport.close()
    waiter.join(5)
    assert waited == [True]


@requirement("6.1-queue")
def test_a_reader_whose_loop_has_ended_is_no_trouble() -> None:
    transport = QueueTransport()

    async def begin() -> Any:
        reading = asyncio.ensure_future(anext(transport))
        await asyncio.sleep(0)
        reading.cancel()
        return asyncio.get_running_loop()

    asyncio.run(begin())
    transport.send(text(1))
    assert next(iter(transport)) == text(1)


@requirement("6.1-queue", "3-other-loop")
async def test_a_host_reads_in_another_loop_while_cells_run(
    make_session: Any, context: str
) -> None:
    transport = QueueTransport(limit=50)
    session: AnySession = make_session("read", transport=transport)
    with LoopThread() as other:
        reading = other.submit(read_all(transport))
        result = await session.run("for i in range(3): print(i)", context=context)
        await session.close()
        transport.close()
        events = await asyncio.wait_for(asyncio.wrap_future(reading), 5)
    assert result.stdout == "0\n1\n2\n"
    assert "".join(event.text for event in events if isinstance(event, Output)) == result.stdout
    kinds = [type(event).__name__ for event in events]
    assert (kinds[0], kinds[-2:]) == ("CellStarted", ["CellFinished", "SessionClosed"])
