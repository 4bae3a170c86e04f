"""The text of one cell: how it is put together, and how much of it is kept."""

from __future__ import annotations

import sys
import threading

import pytest

from isthmus import MimeBundle
from isthmus.output import BIG_CHARS, PIECES, CellOutput, plain_text

requirement = pytest.mark.requirement


@requirement("6.1-output")
def test_what_is_written_to_each_stream_is_kept_apart() -> None:
    output = CellOutput()
    output.write_to("stdout", "a")
    output.write_to("stderr", "e\n")
    output.write_to("stdout", "b\nc")
    output.write_to("stdout", "")
    output.flush()
    assert output.text("stdout") == "ab\nc"
    output.write_to("stdout", "d")
    output.finish()
    assert (output.text("stdout"), output.text("stderr")) == ("ab\ncd", "e\n")
    assert output.displays == ()


@requirement("6.1-bounded")
@pytest.mark.parametrize("sizes", [[5, 5], [10], [11], [3, 20, 3], [0, 30]])
def test_what_is_kept_is_bounded_exactly(sizes: list[int]) -> None:
    output = CellOutput(limit=10)
    for size in sizes:
        output.write_to("stdout", "x" * size)
        output.finish()
    total = sum(sizes)
    text = output.text("stdout")
    assert text[:10] == "x" * min(total, 10)
    assert (f"{total - 10} more" in text) == (total > 10)


@requirement("6.1-bounded")
@pytest.mark.parametrize("text", ["", "x", "x" * (BIG_CHARS + 1)])
def test_what_is_gathered_is_bounded(text: str) -> None:
    output = CellOutput(limit=10)
    for _ in range(PIECES * 3):
        output.write_to("stdout", text)
        assert len(output.pieces) <= PIECES + 1
    assert len(output.text("stdout")) <= 10 + len("\n[999999999 more characters not kept]\n")


@requirement("6.1-bounded")
def test_displays_have_a_bound_too() -> None:
    output = CellOutput(limit=10)
    for data in (b"12345678", b"123", b"12"):
        output.display(MimeBundle({"image/png": data}))
    assert [it.text for it in output.displays] == [
        "<image/png>",
        "[image/png: 3 characters not kept]",
        "<image/png>",
    ]


@requirement("6.1-bounded")
def test_after_the_result_nothing_is_kept() -> None:
    output = CellOutput()
    output.write_to("stdout", "before")
    assert output.text("stdout") == "before"
    output.forget()
    output.write_to("stdout", "late")
    output.display(MimeBundle({}))
    assert (output.text("stdout"), output.displays) == ("", ())


@requirement("6.1-bytes")
def test_bytes_are_decoded_as_they_come_and_in_order_with_text() -> None:
    output = CellOutput()
    for piece in ("a", "é".encode()[:1], "é".encode()[1:], "b", b"\xff", b"\xe2\x82"):
        output.write_to("stdout", piece)
        output.flush()
    output.write_to("stderr", "other streams do not matter")
    output.write_to("stdout", b"\xac")
    assert output.text("stdout") == "aéb\ufffd€"
    output.write_to("stdout", b"\xe2")
    output.write_to("stdout", "text ends what has begun")
    output.write_to("stdout", b"\xe2\x82")
    output.finish()
    assert output.text("stdout") == "aéb\ufffd€\ufffdtext ends what has begun\ufffd"


@requirement("6.1-output")
def test_text_of_a_subclass_is_taken_for_what_it_is() -> None:
    class Loud(str):
        def __str__(self) -> str:
            return "shouting"

    plain = plain_text(Loud("quiet"))
    assert (plain, type(plain)) == ("quiet", str)
    for wrong in (5, None, ["x"], b"x"):
        with pytest.raises(TypeError, match="must be str"):
            plain_text(wrong)


@requirement("6.1-output")
def test_threads_of_one_cell_lose_nothing_and_keep_their_order() -> None:
    output = CellOutput()
    interval = sys.getswitchinterval()

    def write(number: int) -> None:
        for it in range(2_000):
            output.write_to("stdout" if it % 3 else "stderr", f"{number}:{it}\n")
            if it % 50 == 0:
                output.text("stdout")  # collects, in the middle of the others' writes

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
    finally:
        sys.setswitchinterval(interval)
    for number in range(4):
        for stream, wanted in (("stdout", lambda it: it % 3), ("stderr", lambda it: not it % 3)):
            lines = output.text(stream).split()  # type: ignore[arg-type]
            mine = [line for line in lines if line.startswith(f"{number}:")]
            assert mine == [f"{number}:{it}" for it in range(2_000) if wanted(it)]
