from __future__ import annotations

import re
from pathlib import Path

TOUR = Path(__file__).parents[2] / "examples" / "tour.py"


def test_the_tour_goes_as_it_says(run):
    done = run(TOUR)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told = [line for line in done.stdout.splitlines() if not line.startswith(("---", "==="))]
    assert re.fullmatch(r"serving on port \d+", told[0])
    assert told[1:] == [
        "=> ['You asked for /from-a-thread']",
        "4 visits so far; the server is up",
        "=> [3, 5, 3, 6]",
        "=> ['/a', '/loop', '/isthmus']",
        "=> 4",
        "=> (5, 28)",
        "9 visits in all",
    ]
    assert "11 cells: 11 ok" in done.stdout


def test_the_tour_runs_under_every_warning(run):
    done = run(TOUR, PYTHONWARNINGS="error", PYTHONDEVMODE="1")
    assert (done.returncode, done.stderr) == (0, "")
