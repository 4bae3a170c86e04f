"""Peers that are no good: children that do not keep to the protocol, hosts that stop or end."""

from __future__ import annotations

import asyncio
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from isthmus import (
    WorkerDied,
    WorkerSession,
    WorkerStartError,
)
from isthmus.errors import PeerError, WorkerError
from isthmus.wire import callbacks, handshake, replies, requests
from isthmus.wire.codec import Encoder
from isthmus.wire.limits import Limits
from isthmus.wire.parts import Value
from isthmus.worker.connection import HostConnection
from support import WAIT_SECONDS, run_in_child, wait_until

requirement = pytest.mark.requirement

BOUND = 2.0
"""Seconds until who waits has heard: a hundred times what it takes."""

PRELUDE = """
import ctypes, os, signal, socket, sys, time
wire = socket.socket(fileno=int(sys.argv[3]))
def take():
    "The message that the host sends next."
    head = wire.recv(8, socket.MSG_WAITALL)
    return wire.recv(int.from_bytes(head[4:], "big"), socket.MSG_WAITALL)
"""


def frame(message: Any) -> bytes:
    """The frame of *message*."""
    return Encoder().encode(message)


def send(*messages: Any) -> str:
    """The source that sends *messages*, or bytes that are none."""
    data = b"".join(it if isinstance(it, bytes) else frame(it) for it in messages)
    return f"wire.sendall({data!r})\n"


TOO_LARGE = b"\xc1\0\0\0\xff\0\0\0"
"""The head of a frame."""

HELLO = "take()\n"
"""What every child does first."""

GREET = HELLO + send(handshake.Welcome(1))
"""It has agreed on the version."""

OPEN = GREET + "take()\n" + send(replies.Done(1))
"""It has opened the session."""

RUN = OPEN + "take()\n"
"""It has read the first request, which is for a cell."""


class FakeWorkers:
    """Makes children that do what a test says in place of a worker."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, body: str) -> str:
        """The path of an interpreter that does *body*, whatever it is to run."""
        path = self._folder / f"worker{len(list(self._folder.iterdir()))}"
        path.write_text(f"#!{sys.executable} -IS\n{PRELUDE}\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)


@pytest.fixture
def fake(tmp_path: Path) -> FakeWorkers:
    """Fake workers."""
    return FakeWorkers(tmp_path)


# -- the handshake ---------------------------------------------------------------------------------

ENDS = {
    "os.kill(os.getpid(), signal.SIGKILL)": "SIGKILL",
    "ctypes.string_at(0)": "SIGSEGV",
    "os._exit(7)": "exit code 7",
    "sys.exit('no such luck')": "(?s)exit code 1.*no such luck",
    "x = [0] * (1 << 60)": "(?s)exit code 1.*MemoryError",
}


@requirement("7.5-faults")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("before", ["", HELLO, GREET])
async def test_a_worker_that_ends_in_the_handshake_could_not_be_started(
    before: str, end: str, fake: FakeWorkers
) -> None:
    session = WorkerSession(python=fake(before + end))
    with pytest.raises(WorkerStartError, match=ENDS[end]):
        await asyncio.wait_for(session.start(), BOUND)
    assert session.pid is None


SLEEP = "\ntime.sleep(60)"

HANDSHAKES = {
    "another version": (HELLO + send(handshake.Welcome(99)), "host speaks"),
    "two welcomes": (GREET + send(handshake.Welcome(1)), "has sent Welcome"),
    "an answer to nothing": (GREET + "take()\n" + send(replies.Done(9)), "unanswered"),
    "an answer before its request": (HELLO + send(handshake.Welcome(1), replies.Done(1)), "ready"),
    "an answer of another kind": (
        GREET + "take()\n" + send(replies.Interrupted(1, True)),
        "does not answer Open",
    ),
    "a message of a host": (HELLO + send(handshake.Hello((1,))), "no message"),
    "a frame that is too large": (GREET + send(TOO_LARGE), "the limit is"),
    "no MessagePack": (GREET + send(b"\xc1\0\0\0\0\0\0\x01\xc1"), "no message"),
    "garbage": (GREET + send(bytes(range(256))), "no frame begins"),
    "takes nothing": (HELLO + send(handshake.Welcome(1, limits=Limits(1, 1))), "more than the 1"),
    "its connection ends": (GREET + "wire.close()", "closed its connection"),
    "half a frame": (
        GREET + "take()\n" + send(frame(replies.Done(1))[:-3]) + "wire.close()",
        "closed its connection",
    ),
    "silence": (GREET, "did not answer"),
}


@requirement("7.5-faults")
@pytest.mark.parametrize("what", HANDSHAKES)
async def test_a_child_that_breaks_off_the_handshake_is_ended(what: str, fake: FakeWorkers) -> None:
    body, reason = HANDSHAKES[what]
    seconds = 0.3 if what == "silence" else 30.0
    session = WorkerSession(python=fake(body + SLEEP), start_timeout=seconds)
    with pytest.raises(WorkerStartError, match=reason):
        await asyncio.wait_for(session.start(), BOUND)
    assert session.pid is None


# -- afterwards ------------------------------------------------------------------------------------


def outcome(cell: int = 1, **fields: Any) -> bytes:
    """The frame of the outcome of a cell that the second request has asked for."""
    return frame(replies.Outcome(2, cell=cell, **fields))


HALF = outcome(stdout="x" * 1000)[:500]
SEND_HALF = send(HALF)

ANSWERS: dict[str, tuple[str, str]] = {
    "of another kind": (send(replies.Done(2)), "does not answer RunCell"),
    "twice": (send(outcome(), outcome()), ""),
    "about another cell": (send(outcome(cell=5)), "says that of 5"),
    "too large": (send(TOO_LARGE), "the limit is"),
    "with a value that is none": (send(outcome(value=Value(data=b"\xc1"))), "no plain value"),
    "with a value that is elsewhere": (send(outcome(value=Value(buffers=(7,)))), "buffer 7 of 0"),
    "in half and garbage": (send(HALF, b"\xff" * 1000), "no message|no frame"),
    "in half and no more": (SEND_HALF + "wire.close()", "closed its connection"),
    "in half and SIGKILL": (SEND_HALF + "os.kill(os.getpid(), 9)", "SIGKILL"),
    "in half and SIGSEGV": (SEND_HALF + "ctypes.string_at(0)", "SIGSEGV"),
    "in half and os._exit": (SEND_HALF + "os._exit(7)", "exit code 7"),
    "in half and sys.exit": (SEND_HALF + "sys.exit(3)", "exit code 3"),
}


@requirement("7.5-faults")
@pytest.mark.parametrize("what", ANSWERS)
async def test_an_answer_that_is_none_is_a_named_error_for_all_who_wait(
    what: str, fake: FakeWorkers
) -> None:
    body, reason = ANSWERS[what]
    session = WorkerSession(python=fake(RUN + body + SLEEP), grace_seconds=0.1)
    await session.start()
    waiting = [
        asyncio.ensure_future(session.run("1")),
        asyncio.ensure_future(session.run("2", timeout=0.8)),
    ]
    answers = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), BOUND)
    first, second = answers
    if reason:
        assert isinstance(first, WorkerError | PeerError)
        with pytest.raises(type(first), match=reason):
            raise first
    # The other one was told of the same death, or its time was over.
    assert isinstance(second, WorkerDied) or isinstance(second.error, WorkerDied)
    await session.close(0.1)
    assert session.pid is None


# -- pipes that are full ---------------------------------------------------------------------------


def be_away(seconds: float) -> None:
    """Read nothing for a while."""
    time.sleep(seconds)


@requirement("7.5-faults")
async def test_nothing_is_lost_where_either_side_does_not_read_for_a_while() -> None:
    async with WorkerSession(output_limit=1 << 25) as session:
        for context in ("async", "thread"):
            source = "for _ in range(100): print('x' * 99_999)"
            running = asyncio.ensure_future(session.run(source, context=context))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            be_away(0.1)
            result = await asyncio.wait_for(running, WAIT_SECONDS)
            assert len(result.stdout) == 10_000_000
        busy = asyncio.ensure_future(session.run("import time; time.sleep(0.1)", context="sync"))
        await asyncio.sleep(0)
        big = ["x" * 1_000_000] * 20
        for number in range(3):
            session.update_namespace({f"n{number}": big})  # the worker's loop reads nothing
        source = "sum(map(len, n0 + n1 + n2))"
        assert await asyncio.wait_for(session.execute(source), WAIT_SECONDS) == 60_000_000
        assert (await busy).status == "ok"


# -- hosts -----------------------------------------------------------------------------------------

STOPPED = """
import asyncio
from isthmus import WorkerSession

async def main():
    async with WorkerSession(grace_seconds=0.1) as session:
        await session.execute("x = 5")
        print("go", flush=True)
        result = await session.run("await asyncio.sleep(30)", timeout=0.2)
        print(result.status, result.stopped)
        running = asyncio.ensure_future(session.run("while True: pass"))
        await asyncio.sleep(0.05)
        session.interrupt()
        print((await running).status)
        print(await session.execute("x"))

asyncio.run(main())
"""


@requirement("7.5-faults")
def test_a_host_that_is_stopped_for_a_while_kills_nobody_for_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    ) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "go\n"
        host.send_signal(signal.SIGSTOP)
        with pytest.raises(subprocess.TimeoutExpired):  # much longer than it gives its worker
            host.wait(0.8)
        host.send_signal(signal.SIGCONT)
        told = host.communicate(timeout=20)[0]
    assert told.split("\n")[:3] == ["timeout True", "interrupted", "5"], told


HOST = """
import asyncio, os, sys
from isthmus import ForkServer, WorkerSession

BUSY = {
    "Python": "print('in'); exec('while True: pass')",
    "C": "print('in'); sum(range(10**12))",  # which holds the interpreter
    "a child": '''
import os, subprocess
print(os.getpid())
kid = subprocess.Popen(["sleep", "60"])
forked = os.fork()
if not forked:
    __import__("time").sleep(60)
print(kid.pid, forked)
await asyncio.sleep(60)
''',
    "no cell": "print('in')",
}

async def main():
    with ForkServer() as server:
        said = asyncio.Queue()
        class Told:
            lines_at_once = 1
            def send(self, event):
                if getattr(event, "stream", "") != "stdout":
                    return
                text = event.text
                print(text.replace("in", "").strip(), flush=True)
                if text.strip() and ("in" in text or " " in text):
                    said.put_nowait(text)
        sessions = []
        for source in BUSY.values():
            session = WorkerSession(fork_server=server, transport=Told())
            await session.start()
            print(session.pid, flush=True)
            sessions.append(session)
            asyncio.ensure_future(session.run(source))
        for _ in BUSY:
            await said.get()
        END

asyncio.run(main())
"""

ENDS_OF_HOSTS = {
    "os.kill(os.getpid(), 9)": -signal.SIGKILL,
    "os._exit(5)": 5,
    "asyncio.get_running_loop().call_soon(sys.exit, 6); await asyncio.sleep(60)": 6,
    "sys.exit(7)": 7,
    "return": 0,
}


def _runs(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie that nobody has asked for yet."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@requirement("7.5-orphans")
@pytest.mark.parametrize("end", ENDS_OF_HOSTS)
def test_however_a_host_ends_its_workers_end_whatever_they_do(end: str) -> None:
    ended = run_in_child(HOST.replace("END", end))
    assert ended.status == ENDS_OF_HOSTS[end], ended
    pids = [int(it) for it in ended.stdout.split()]
    assert len(pids) == 7, ended
    wait_until(lambda: not any(map(_runs, pids)))


@requirement("7.5-death")
async def test_what_a_worker_has_said_before_it_went_is_heard_though_a_write_finds_that_out() -> (
    None
):
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    greeted, lost = loop.create_future(), loop.create_future()
    connection = HostConnection(greeted.set_result, lost.set_result)
    await loop.create_unix_connection(lambda: connection, sock=ours)
    connection.send(handshake.Hello(handshake.VERSIONS))
    theirs.sendall(frame(handshake.Welcome(1)))
    await greeted
    number, answer = connection.ask(lambda number: requests.Open(number, name="demo"), None)
    theirs.sendall(frame(replies.Done(number)))
    theirs.close()
    connection.send(callbacks.Cancel(number))
    assert await answer == replies.Done(number)
    assert await lost is None


@requirement("7.5-death")
def test_a_worker_that_ends_goes_on_listening_until_its_host_has_heard_all() -> None:
    """What the host sends meanwhile must find it: else the host loses what it has not read."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "isthmus.worker", str(theirs.fileno())]
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()]) as worker:
        theirs.close()
        ours.settimeout(WAIT_SECONDS)
        ours.sendall(frame(handshake.Hello(handshake.VERSIONS)))
        heard = ours.recv(1 << 16)
        ours.sendall(frame(requests.Open(1, name="demo")) + frame(requests.Close(2, timeout=1.0)))
        while data := ours.recv(1 << 16):
            heard += data
        assert heard.endswith(frame(replies.Ended(2)))
        ours.sendall(b"late")
        ours.close()
        assert worker.wait(WAIT_SECONDS) == 0
