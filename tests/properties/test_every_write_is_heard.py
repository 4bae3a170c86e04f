"""Any writes to the two streams, from any tasks and threads: nothing is lost, doubled or moved."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus import MemoryTransport, Output, QueueTransport, Session
from isthmus.events import StreamName
from isthmus.live_output import LiveOutput, Ticker
from isthmus.output import STREAMS
from isthmus.transport import Emitter

requirement = pytest.mark.requirement

streams = st.sampled_from(STREAMS)
text = st.text(st.sampled_from("ab é€𝄞\n\r\t\ud800"), max_size=8) | st.sampled_from(
    ["x" * 2_000, "\n"]
)
data = st.binary(max_size=6) | st.text("é€𝄞", max_size=3).flatmap(
    lambda it: st.integers(0, len(it.encode())).map(lambda cut: it.encode()[:cut])
)
FLUSH = None
step = st.tuples(streams, text | data | st.just(FLUSH))


def expected(steps: Iterable[tuple[str, Any]], stream: str) -> str:
    """What a reader of *stream* sees: text as it is, bytes between texts decoded together."""
    mine = [it for where, it in steps if where == stream and it is not FLUSH]
    groups = itertools.groupby(mine, key=lambda it: isinstance(it, bytes))
    return "".join(
        b"".join(group).decode("utf-8", "replace") if is_bytes else "".join(group)
        for is_bytes, group in groups
    )


@requirement("6.1-ways-to-write", "6.1-bytes", "6.1-batches", "6.1-bounded")
@settings(max_examples=settings.default.max_examples // 2)
@given(st.lists(step, max_size=50), st.integers(0, 40))
def test_events_and_result_hold_what_was_written(
    steps: list[tuple[StreamName, Any]], limit: int
) -> None:
    async def main() -> None:
        transport = MemoryTransport()
        ticker = Ticker(asyncio.get_running_loop())
        output = LiveOutput(Emitter(transport), "s", 1, ticker, limit)
        for stream, what in steps:
            if what is FLUSH:
                output.flush()
            else:
                output.write_to(stream, what)
        output.finish()
        for stream in STREAMS:
            whole = expected(steps, stream)
            sent = "".join(it.text for it in transport.of_type(Output) if it.stream == stream)
            assert sent == whole
            over = len(whole) - limit
            note = f"\n[{over} more characters not kept]\n" if over > 0 else ""
            assert output.text(stream) == whole[:limit] + note

    asyncio.run(main())


CELL = """
import asyncio, sys, threading

def write(mark, step):
    stream, kind, count = step
    if kind == "flush":
        getattr(sys, stream).flush()
        return
    for _ in range(count):
        said[mark, stream] = number = said.get((mark, stream), 0) + 1
        word = f"{mark}{number} "
        if kind == "bytes":
            getattr(sys, stream).buffer.write(word.encode())
        elif kind == "partial":
            getattr(sys, stream).write(word + "\\r")
        else:
            print(word, file=getattr(sys, stream))

async def task(mark, steps):
    for step in steps:
        write(mark, step)
        await asyncio.sleep(0)

def thread(mark, steps):
    for step in steps:
        write(mark, step)

said = {}
threads = [
    threading.Thread(target=thread, args=(f"t{i}:", steps)) for i, steps in enumerate(of_threads)
]
for it in threads:
    it.start()
await asyncio.gather(*(task(f"a{i}:", steps) for i, steps in enumerate(of_tasks)))
for it in threads:
    await asyncio.to_thread(it.join)
"""

writes = st.tuples(
    streams,
    st.sampled_from(["line", "line", "bytes", "partial", "flush"]),
    st.sampled_from([1, 2, 60]),
)
writers = st.lists(st.lists(writes, max_size=6), min_size=1, max_size=3)


@requirement("6.1-output", "6.1-batches", "6.1-queue")
@settings(max_examples=settings.default.max_examples // 5)  # each is a session with its threads
@given(writers, writers, st.sampled_from(["async", "thread"]))
def test_each_writer_is_heard_in_its_order(
    of_tasks: list[Any], of_threads: list[Any], context: Any
) -> None:
    async def main() -> None:
        transport = QueueTransport(limit=10_000_000)
        async with Session("writers", transport=transport) as session:
            session.update_namespace({"of_tasks": of_tasks, "of_threads": of_threads})
            result = await session.run(CELL, context=context)
            said = session.namespace["said"]
        assert result.error is None
        transport.close()
        events = [event async for event in transport if isinstance(event, Output)]
        for stream in STREAMS:
            sent = "".join(event.text for event in events if event.stream == stream)
            assert sent == getattr(result, stream)
            words = sent.split()
            marks = {word.partition(":")[0] + ":" for word in words}
            for mark in marks:
                mine = [word for word in words if word.startswith(mark)]
                assert mine == [f"{mark}{n + 1}" for n in range(said[mark, stream])]
            assert len(words) == sum(n for (_, where), n in said.items() if where == stream)

    asyncio.run(main())
