"""``print`` as cells have it: by one write, and otherwise as Python's own."""

from __future__ import annotations

import builtins
import inspect
from typing import Any

import pytest

from isthmus import MemoryTransport, Session, printing
from support import cell
from transports import texts

requirement = pytest.mark.requirement

OBJECTS = """
import sys

class Word(str):
    def __str__(self):
        return Word('its own text')
    def __add__(self, other):
        return 'never'

class Speaking:
    def __str__(self):
        print('asked')
        return 'answer'

class Wrong:
    def __str__(self):
        return 5

class Failing:
    def __str__(self):
        raise OSError('no')
"""

CALLS = [
    "",
    "'a'",
    "5",
    "None",
    "b'x'",
    "'\\udc80'",
    "'a', 'b'",
    "'a', end=''",
    "1, 2, sep='-', end='!'",
    "flush=True",
    "'a', flush=True",
    "'a', file=sys.stderr",
    "'a', file=None",
    "Word('w')",
    "Speaking()",
    "'first', Speaking(), 'last'",
    "'first', Failing()",
    "Failing()",
    "Wrong()",
    "'a', sep=5",
    "'a', unknown=1",
    "value=1",
]


@requirement("6.1-ways-to-write")
@pytest.mark.parametrize("call", CALLS)
async def test_print_does_what_the_builtin_does(session: Session, call: str) -> None:
    await session.execute(OBJECTS)
    mine = await session.run(f"print({call})")
    await session.execute("import builtins\nprint = builtins.print")
    theirs = await session.run(f"print({call})")
    assert (mine.stdout, mine.stderr) == (theirs.stdout, theirs.stderr)
    assert (type(mine.error), str(mine.error)) == (type(theirs.error), str(theirs.error))


@requirement("6.1-ways-to-write")
async def test_a_line_is_one_piece(make_session: Any, context: str) -> None:
    transport = MemoryTransport()
    session: Session = make_session("lines", transport=transport)
    code = """
        import sys, threading
        sys.setswitchinterval(1e-6)
        def speak():
            for _ in range(500): print('word')
        threads = [threading.Thread(target=speak) for _ in range(4)]
        for it in threads: it.start()
        for it in threads: it.join()
        sys.setswitchinterval(0.005)
        """
    result = await session.run(cell(code), context=context)
    assert result.stdout == "word\n" * 2_000 == "".join(texts(transport))


@requirement("6.1-swapped-streams")
async def test_print_goes_where_a_cell_has_sent_its_stream(session: Session, context: str) -> None:
    code = """
        import contextlib, io
        with contextlib.redirect_stdout(io.StringIO()) as file:
            print('a')
        print('b')
        file.getvalue()
        """
    result = await session.run(cell(code), context=context)
    assert (result.value, result.stdout) == ("a\n", "b\n")


@requirement("6.1-output")
async def test_a_function_of_a_cell_that_the_host_calls_prints_for_the_host(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    await session.execute("def speak(): print('hello')")
    session.namespace["speak"]()
    assert capsys.readouterr().out == "hello\n"


@requirement("6.1-ways-to-write")
def test_print_says_of_itself_what_the_builtin_says() -> None:
    assert inspect.signature(printing.print) == inspect.signature(print)
    assert printing.print.__doc__ == print.__doc__
    assert printing.print.__name__ == "print"


@requirement("6.1-ways-to-write")
async def test_what_the_host_has_put_in_the_place_of_print_stays(
    make_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await make_session("plain", hooks=False).execute("print") is print

    def loud(*values: object) -> None:
        """Say nothing."""

    monkeypatch.setattr(builtins, "print", loud)
    assert await make_session("patched").execute("print") is loud


@requirement("2.3-prelude")
async def test_a_capability_in_its_place_gives_it_back(session: Session) -> None:
    before = await session.execute("print")
    with pytest.warns(UserWarning, match="hides the builtin"):
        session.inject_capability("print", lambda *_: "mine")
    assert await session.execute("print('a')") == "mine"
    session.revoke_capability("print")
    assert await session.execute("print") is before is printing.print


@requirement("6.2-interrupt")
async def test_what_print_calls_can_be_interrupted(session: Session) -> None:
    """Also in C, where no frame of the cell's is on top."""
    code = """
        import functools, time
        class Slow:
            __str__ = staticmethod(functools.partial(time.sleep, 60))
        print(Slow())
        """
    result = await session.run(cell(code), context="sync", timeout=0.05)
    assert (result.status, result.stopped) == ("timeout", True)
