"""Real notebooks, and one with the idioms of asyncio, give in every context what they gave before.

Besides those in ``tests/data`` all are tried that lie in the folder ``ISTHMUS_NOTEBOOKS``, or else
in ``shared/notebooks`` beside the checkout.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest

from isthmus.cli.notebook import read_notebook

DATA = Path(__file__).parent.parent / "data"
KEPT = [*sorted((DATA / "notebooks").glob("*.ipynb")), DATA / "asyncio_idioms.ipynb"]
ELSEWHERE = Path(
    os.environ.get("ISTHMUS_NOTEBOOKS", Path(__file__).parents[3] / "shared" / "notebooks")
)
MORE = [it for it in sorted(ELSEWHERE.glob("*.ipynb")) if it.name not in {k.name for k in KEPT}]
VOLATILE = tomllib.loads((DATA / "volatile_cells.toml").read_text())


def volatile_cells(name):
    """The entries for a notebook that hold on this Python, by cell."""
    entries = VOLATILE.get(name, [])
    return {it["cell"]: it for it in entries if sys.version_info >= tuple(it.get("since", ()))}


def outcomes(done):
    """Output and value of each cell, by number, from the lines of ``--json``."""
    cells = {}
    for event in map(json.loads, done.stdout.splitlines()):
        cell = cells.setdefault(event["cell"], {"stdout": "", "value": None, "error": None})
        if event["type"] == "Output" and event["stream"] == "stdout":
            cell["stdout"] += event["text"]
        elif event["type"] == "CellFinished":
            cell |= {key: event[key] for key in ("value", "error", "traceback")}
    return cells


def same_value(ours, saved):
    """Whether a ``repr`` and what IPython saved show the same value.

    IPython does not save the repr: its pretty printer breaks lines, shows a class by its name and,
    in the years of these notebooks, sorts the keys of dicts and the items of sets. So both are
    compared as Python expressions in which order does not count inside braces; text that is no
    expression is compared without its white space.
    """
    if ours is None or saved is None:
        return ours is saved
    left, right = (re.sub(r"<class '([\w.]+)'>", r"\1", text) for text in (ours, saved))
    if "".join(left.split()) == "".join(right.split()):
        return True
    try:
        return _shape(left) == _shape(right)
    except SyntaxError:
        return False


def _shape(text):
    """The syntax tree of an expression, with what stands in braces sorted."""
    tree = ast.parse(text.strip(), mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            pairs = sorted(zip(node.keys, node.values, strict=True), key=lambda it: ast.dump(it[0]))
            node.keys, node.values = [list(column) for column in zip(*pairs, strict=True)] or [
                [],
                [],
            ]
        elif isinstance(node, ast.Set):
            node.elts.sort(key=ast.dump)
    return ast.dump(tree)


def differences(path, done):
    """What came out otherwise than it was saved, cell by cell, but for the volatile ones."""
    volatile, found = volatile_cells(path.name), outcomes(done)
    for entry in read_notebook(path.read_bytes()):
        number = entry.cell.number
        excuse = volatile.get(number, {})
        cell = found.get(number, {"stdout": None, "value": None, "error": "never ran"})
        if cell["error"] != excuse.get("error"):
            yield f"cell {number} raised: {cell.get('traceback') or cell['error']}"
        if excuse.get("what") != "stdout" and cell["stdout"] != entry.saved_stdout:
            yield f"cell {number} printed {cell['stdout']!r}, not {entry.saved_stdout!r}"
        if excuse.get("what") != "value" and not same_value(cell["value"], entry.saved_value):
            yield f"cell {number} gave {cell['value']!r}, not {entry.saved_value!r}"


@pytest.mark.parametrize("path", [*KEPT, *MORE], ids=lambda path: path.name)
def test_a_notebook_gives_what_was_saved(run, context, path):
    done = run("--json", "--keep-going", "--context", context, path)
    assert list(differences(path, done)) == []
    assert done.returncode == any("error" in it for it in volatile_cells(path.name).values())
    assert done.stderr == ""


@pytest.mark.skipif(not MORE, reason="no more notebooks beside the checkout")
def test_more_notebooks_are_tried_where_there_are_some():
    assert {path.suffix for path in MORE} == {".ipynb"}


def test_every_volatile_cell_has_a_reason_and_is_there():
    for name, entries in VOLATILE.items():
        cells = read_notebook((DATA / "notebooks" / name).read_bytes())
        for entry in entries:
            assert entry["reason"]
            assert entry["what"] in ("stdout", "value", "error")
            assert entry["cell"] in {it.cell.number for it in cells}


@pytest.mark.parametrize(
    ("ours", "saved", "equal"),
    [
        ("[1, 2]", "[1,\n 2]", True),
        ("{'b': f(2), 'a': 1}", "{'a': 1, 'b': f(2)}", True),
        ("{3, 1}", "{1, 3}", True),
        (
            "defaultdict(<class 'float'>, {'b': 1, 'a': 2})",
            "defaultdict(float, {'a': 2, 'b': 1})",
            True,
        ),
        ("{}", "{ }", True),
        ("[2, 1]", "[1, 2]", False),
        ("{'a': 1}", "{'a': 2}", False),
        ("a <b>", "a <c>", False),
        (None, "None", False),
        (None, None, True),
    ],
)
def test_values_are_compared_by_what_they_show(ours, saved, equal):
    assert same_value(ours, saved) is equal
