"""What a worker holds back can be read by its host, once, and in its place."""

from __future__ import annotations

import asyncio
import os

import pytest

from isthmus import MemoryTransport, Output, OutputDropped, WorkerDied
from isthmus.live_output import WINDOW_SECONDS
from isthmus.worker.slate import BYTES, HostSlate, Pen, Slate
from support import CONTEXTS, WAIT_SECONDS, NewWorker, eventually

requirement = pytest.mark.requirement


class _Both:
    """Both sides of one slate, and what was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, str]] = []
        self.host = HostSlate("demo", lambda it: self.told.append((it.cell, it.text)))
        self.path = self.host.make()
        self.slate = Slate(self.path, lambda _: self.host.watch())
        self.host.unlink()

    def pen(self, cell: int) -> Pen:
        """For a cell, which can have it."""
        pen = self.slate.claim(cell, 0)
        assert pen is not None
        return pen

    def send(self, cell: int, text: str, stream: str = "stdout") -> None:
        """As a worker does."""
        self.slate.wipe(cell)
        self.host.pass_on(Output("demo", cell, stream, text))  # type: ignore[arg-type]

    async def look(self) -> None:
        """Wait until the host has looked."""
        await asyncio.sleep(1.5 * WINDOW_SECONDS)


@requirement("7.2-one-thread")
async def test_what_is_held_back_is_told_once_and_in_order() -> None:
    both = _Both()
    assert not os.path.exists(both.path)  # noqa: ASYNC240 (in memory)
    pen = both.pen(1)
    pen(b"one\n")
    await both.look()
    pen(b"tw")
    await both.look()
    pen(b"o\n")
    await both.look()
    pen(b"three\n")
    assert both.told == [(1, "one\n"), (1, "two\n")]
    both.send(1, "one\ntwo\nthree\nfour")
    both.send(1, "four\n")
    assert both.told[2:] == [(1, "three\nfour"), (1, "four\n")]
    both.host.end()


@requirement("7.2-one-thread")
async def test_what_is_sent_in_pieces_is_told_once() -> None:
    both = _Both()
    both.pen(3)(b"123\n456\n")
    await both.look()
    both.send(3, "12")
    both.send(3, "error\n", "stderr")
    both.send(3, "3\n45")
    both.send(3, "6\n789\n")
    assert both.told == [(3, "123\n456\n"), (3, "error\n"), (3, "789\n")]
    both.host.end()


@requirement("7.2-one-thread")
async def test_nothing_is_read_while_what_was_there_before_is_on_its_way() -> None:
    told: list[str] = []
    host = HostSlate("demo", lambda it: told.append(it.text))
    begun: list[int] = []
    slate = Slate(host.make(), begun.append)
    pen = slate.claim(1, 4)
    assert pen is not None
    pen(b"one\n")
    host.watch()
    del pen
    assert slate.wipe(1) == "one\n"  # and its message is on its way
    pen = slate.claim(1, 4)
    assert pen is not None
    pen(b"two\n")
    await asyncio.sleep(1.5 * WINDOW_SECONDS)
    assert told == []
    host.pass_on(Output("demo", 1, "stdout", "one\n"))
    host.watch()
    await asyncio.sleep(1.5 * WINDOW_SECONDS)
    assert told == ["one\n", "two\n"]
    assert begun == [1, 1]
    host.end()


@requirement("7.2-one-thread")
async def test_what_does_not_fit_is_refused() -> None:
    both = _Both()
    assert both.slate.claim(1, BYTES) is None
    pen = both.pen(1)
    pen("ä\0\n".encode())
    assert both.slate.claim(2, 0) is None, "it is another cell's"
    assert both.slate.wipe(2) == ""
    with pytest.raises(ValueError, match="out of range"):
        pen(b"x" * BYTES)
    await both.look()
    assert both.told == [(1, "ä\0\n")]
    pen(b"x" * (BYTES - 16))  # up to the last byte
    assert both.slate.wipe(1) == "ä\0\n" + "x" * (BYTES - 16)
    both.host.end()
    both.host.end()


@requirement("7.2-one-thread")
async def test_who_still_has_the_pen_of_a_cell_writes_nothing_for_another_one() -> None:
    both = _Both()
    pen = both.pen(1)
    pen(b"one\n")
    assert both.slate.wipe(1) == "one\n"
    assert both.slate.claim(2, 0) is None, "a thread is about to write"
    with pytest.raises(ValueError, match="out of range"):
        pen(b"late\n")
    del pen
    both.pen(2)(b"two\n")
    assert both.slate.wipe(2) == "two\n"
    both.host.end()


@requirement("7.5-death")
async def test_the_end_of_a_line_is_not_waited_for_when_the_worker_has_died() -> None:
    both = _Both()
    both.pen(1)(b"one\nand")
    await both.look()
    assert both.told == [(1, "one\n")]
    both.host.end()
    assert both.told == [(1, "one\n"), (1, "and")]


@requirement("7.2-one-thread")
async def test_where_there_is_no_memory_to_share_nothing_is_held(
    monkeypatch: pytest.MonkeyPatch, transport: MemoryTransport, new_worker: NewWorker
) -> None:
    monkeypatch.setattr("isthmus.worker.slate._FOLDER", "/nowhere")
    async with new_worker(transport=transport) as session:
        result = await session.run("for n in range(200): print(n)")
    assert result.stdout == "".join(f"{n}\n" for n in range(200))
    assert len(transport.of_type(Output)) == 200


@requirement("7.5-death")
async def test_what_is_held_back_when_the_worker_dies_is_told(
    transport: MemoryTransport, new_worker: NewWorker
) -> None:
    source = "import os\nfor n in range(300): print('line', n)\nos.kill(os.getpid(), 9)"
    async with new_worker(transport=transport) as session:
        for context in CONTEXTS:
            with pytest.raises(WorkerDied) as died:
                await session.run(source, context=context)
            assert died.value.output.endswith("line 298\nline 299\n")
            await session.restart()
    text = "".join(it.text for it in transport.of_type(Output))
    assert text == "".join(f"line {n}\n" for n in range(300)) * 3


@requirement("7.2-one-thread")
async def test_many_lines_come_whole_in_order_and_in_few_events(
    transport: MemoryTransport, new_worker: NewWorker
) -> None:
    source = """for n in range(20_000):
    print("ein Zeile für", n)
    if n % 5_000 == 0:
        import sys
        print("error", n, file=sys.stderr)
        display(n)"""
    expected = "".join(f"ein Zeile für {n}\n" for n in range(20_000))
    errors = "".join(f"error {n}\n" for n in range(0, 20_000, 5_000))
    async with new_worker(transport=transport) as session:
        for context in CONTEXTS:
            result = await session.run(source, context=context)
            assert (result.stdout, result.stderr) == (expected, errors)
            assert len(result.displays) == 4
    assert not transport.of_type(OutputDropped)
    assert len(transport.of_type(Output)) < 3 * 500


@requirement("7.2-one-thread")
async def test_two_cells_that_print_at_once_keep_their_lines_apart(new_worker: NewWorker) -> None:
    source = "for n in range(3_000): print({0!r}, n)"
    async with new_worker() as session:
        results = await asyncio.gather(
            *(session.run(source.format(it), context="thread", concurrent=True) for it in "ab"),
            session.run(source.format("c")),
        )
    for name, result in zip("abc", results, strict=True):
        assert result.stdout == "".join(f"{name} {n}\n" for n in range(3_000))


@requirement("6.1-batches", "7.2-one-thread")
async def test_threads_of_one_cell_lose_nothing_and_keep_their_order(
    new_worker: NewWorker,
) -> None:
    source = """import sys, threading
sys.setswitchinterval(1e-5)
def speak(name):
    for n in range(1_500):
        end = "\\udc80" if n % 50 == 1 else "x" * 3_000 if n % 50 == 2 else ""
        (sys.stderr if n % 50 == 3 else sys.stdout).write(f"{name}:{n}:{end}\\n")
threads = [threading.Thread(target=speak, args=(name,)) for name in "abc"]
for it in threads: it.start()
speak("d")
for it in threads: it.join()
sys.setswitchinterval(0.005)"""
    async with new_worker() as session:
        result = await session.run(source, context="thread")
    for name in "abcd":
        for text, wanted in (
            (result.stdout, lambda n: n % 50 != 3),
            (result.stderr, lambda n: n % 50 == 3),
        ):
            numbers = [int(it.split(":")[1]) for it in text.splitlines() if it.startswith(name)]
            assert numbers == [n for n in range(1_500) if wanted(n)]
    assert result.stdout.count("x") == 4 * 30 * 3_000
    assert result.stdout.count("\udc80") == 4 * 30


@requirement("7.2-one-thread")
async def test_a_lone_line_is_shown_while_its_cell_goes_on(
    transport: MemoryTransport, new_worker: NewWorker
) -> None:
    source = "for n in range(50): print(n)\nprint('lone')\nawait stop()"
    seen = asyncio.Event()

    async def stop() -> None:
        await seen.wait()

    async with new_worker(transport=transport, capabilities=[stop]) as session:
        running = asyncio.ensure_future(session.run(source))
        await eventually(lambda: "lone" in "".join(it.text for it in transport.of_type(Output)))
        seen.set()
        await asyncio.wait_for(running, WAIT_SECONDS)


@requirement("7.3-descriptors")
async def test_a_child_of_a_cell_leaves_the_slate_alone(new_worker: NewWorker) -> None:
    source = """import os
for n in range(100): print(n)
pid = os.fork()
if pid == 0:
    for n in range(100): print("child")
    os._exit(0)
_ = os.waitpid(pid, 0)
print("end")"""
    async with new_worker() as session:
        text = (await session.run(source)).stdout
    # What the child writes comes by a pipe, in two pieces for each line: others may be in between.
    assert text.count("child") == 100
    assert text.replace("child", "").split() == [*map(str, range(100)), "end"]
    assert not [it for it in os.listdir("/dev/shm") if it.startswith(f"isthmus-{os.getpid()}-")]
