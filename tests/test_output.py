"""Streams that go to the cell that wrote, and their comings and goings."""

# ruff: noqa: E501 (a cell in one string reads better than one that is wrapped)

from __future__ import annotations

import io
import sys
import threading
from typing import Any

import pytest

from isthmus import Session
from isthmus.output import CellOutput, OutputHooks, RoutedStream

requirement = pytest.mark.requirement


@requirement("6.1-output")
def test_complete_lines_are_passed_on_and_the_rest_waits() -> None:
    sent: list[tuple[str, str]] = []
    output = CellOutput(lambda stream, text: sent.append((stream, text)))
    output.write("stdout", "a")
    output.write("stderr", "e\n")
    output.write("stdout", "b\nc")
    output.write("stdout", "")
    assert sent == [("stderr", "e\n"), ("stdout", "ab\nc")]
    output.write("stdout", "d")
    output.flush_all()
    assert sent[-1] == ("stdout", "d")
    output.flush_all()
    assert len(sent) == 3
    assert output.text("stdout") == "ab\ncd"


@requirement("6.1-output")
@pytest.mark.parametrize("sizes", [[5, 5], [10], [11], [3, 20, 3], [0, 30]])
def test_what_is_kept_is_bounded_exactly(sizes: list[int]) -> None:
    output = CellOutput(None, limit=10)
    for size in sizes:
        output.write("stdout", "x" * size)
    total = sum(sizes)
    text = output.text("stdout")
    assert text[:10] == "x" * min(total, 10)
    assert (f"{total - 10} more" in text) == (total > 10)


@requirement("6.1-output")
def test_threads_of_one_cell_lose_nothing() -> None:
    sent: list[str] = []
    output = CellOutput(lambda _stream, text: sent.append(text))

    def write(number: int) -> None:
        for it in range(200):
            output.write("stdout", f"{number}:{it}\n")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    output.flush_all()
    expected = sorted(f"{n}:{i}" for n in range(4) for i in range(200))
    assert sorted("".join(sent).split()) == expected
    assert sorted(output.text("stdout").split()) == expected


@requirement("6.5-hooks")
def test_streams_go_in_with_the_first_and_out_with_the_last() -> None:
    hooks, before = OutputHooks(), (sys.stdout, sys.stderr)
    hooks.install()
    hooks.install()
    assert isinstance(sys.stdout, RoutedStream)
    hooks.remove()
    assert isinstance(sys.stdout, RoutedStream)
    hooks.remove()
    assert (sys.stdout, sys.stderr) == before


@requirement("6.5-hooks")
def test_a_stream_that_somebody_has_put_there_since_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks, mine = OutputHooks(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    hooks.install()
    monkeypatch.setattr(sys, "stdout", mine)
    hooks.remove()
    assert sys.stdout is mine


@requirement("6.5-hooks")
def test_a_process_without_streams_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = RoutedStream("stdout", None)
    assert stream.write("x") == 0
    stream.flush()
    assert not stream.isatty()
    assert stream.encoding == "utf-8"
    with pytest.raises(io.UnsupportedOperation):
        stream.fileno()


@requirement("6.5-hooks")
def test_a_stream_passes_on_what_the_original_can(capfd: pytest.CaptureFixture[str]) -> None:
    stream = RoutedStream("stdout", sys.__stdout__)
    assert stream.encoding == sys.__stdout__.encoding  # type: ignore[union-attr]
    assert stream.buffer is sys.__stdout__.buffer  # type: ignore[union-attr]
    assert stream.writable()


@requirement("6.5-hooks")
def test_a_half_made_stream_has_no_attributes_instead_of_recursing() -> None:
    with pytest.raises(AttributeError):
        RoutedStream.__new__(RoutedStream).buffer


@requirement("6.1-output")
async def test_a_cell_that_writes_something_else_than_text_gets_the_usual_error(
    session: Session, context: str
) -> None:
    result = await session.run("import sys; sys.stdout.write(5)", context=context)
    assert isinstance(result.error, TypeError)
    assert "must be str" in str(result.error)
    assert (await session.run("sys.stdout.isatty()", context=context)).value is False


@requirement("6.1-output")
async def test_a_cell_that_redirects_and_closes_harms_nobody(
    session: Session, context: str
) -> None:
    code = (
        "import contextlib, io, sys\nwith contextlib.redirect_stdout(io.StringIO()) as f:\n    print('inside')\n"
        "print('outside')\nf.getvalue()"
    )
    result = await session.run(code, context=context)
    assert (result.value, result.stdout) == ("inside\n", "outside\n")
    await session.run("sys.stdout.close()", context=context)
    assert (await session.run("print('on')", context=context)).stdout == "on\n"


@requirement("6.5-hooks")
async def test_sessions_share_the_hooks_whatever_the_order_of_their_ends(make_session: Any) -> None:
    before = sys.stdout
    one, two = make_session("one"), make_session("two")
    await one.execute("1")
    await two.execute("1")
    await one.close()
    assert (await two.run("print('two')")).stdout == "two\n"
    await two.close()
    assert sys.stdout is before
