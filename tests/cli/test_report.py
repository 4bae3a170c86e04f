from __future__ import annotations

import pytest

from isthmus import CellResult, CoroutineSettled, Display, Output
from isthmus.cli.report import Tally, as_text, in_words, outcome, settled_badly


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "<1 ms"), (0.0123, "12 ms"), (0.9999, "1.0 s"), (3.44, "3.4 s"), (125.2, "2 min 5 s")],
)
def test_durations_are_for_people(seconds, words):
    assert in_words(seconds) == words


def test_a_tally_counts_what_has_not_run():
    assert Tally(1, succeeded=1).sentence() == "1 cell: 1 ok, in <1 ms"
    assert Tally(5, 2, 1, 2.0).sentence() == "5 cells: 2 ok, 1 failed, 2 not run, in 2.0 s"
    assert Tally(0).sentence().startswith("0 cells: nothing to run")


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (CellResult(1, "sync"), "ok"),
        (CellResult(1, "sync", status="error", error=KeyError(1)), "failed: KeyError"),
        (CellResult(1, "sync", status="error", error=SystemExit(3)), "exit: 3"),
        (CellResult(1, "sync", status="timeout", error=TimeoutError()), "timed out"),
        (
            CellResult(1, "sync", status="cancelled", error=KeyError(), stopped=False),
            "cancelled; its code is still running",
        ),
    ],
)
def test_an_outcome_is_said_in_a_few_words(result, words):
    assert outcome(result) == words


def test_a_coroutine_that_was_cancelled_has_not_failed():
    assert settled_badly(CoroutineSettled("s", 0, "x", "CancelledError: ")) is None
    assert settled_badly(CoroutineSettled("s", 0, "x")) is None
    assert "'x' has failed: KeyError: 1" in (
        settled_badly(CoroutineSettled("s", 0, "x", "KeyError: 1")) or ""
    )


def test_a_display_is_shown_as_its_text():
    shown = as_text(Display("s", 1, {"text/html": "<b>", "text/plain": "bold"}))
    assert shown == Output("s", 1, "stdout", "bold\n")
    shown = as_text(Display("s", 1, {"image/png": b"", "text/html": ""}))
    assert shown == Output("s", 1, "stdout", "<image/png, text/html>\n")
    assert as_text(shown) is shown


def test_what_a_script_displays_is_among_what_it_prints(run, script):
    source = "print('a')\nclass T:\n    def __repr__(self): return 'b'\ndisplay(T())\nprint('c')\n"
    done = run("--quiet", script(source))
    assert (done.stdout, done.stderr) == ("a\nb\nc\n", "")
