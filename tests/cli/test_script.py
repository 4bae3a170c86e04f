from __future__ import annotations

import pytest

from isthmus.cli.script import read_script


def cells(text):
    return [(cell.title, cell.context, cell.source) for cell in read_script(text).cells]


def test_a_script_without_markers_is_one_cell():
    assert cells("x = 1\nx\n") == [("", None, "x = 1\nx\n")]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "# %%\n", "# %% A\n# %% B\n"])
def test_a_script_without_code_has_no_cells(text):
    assert cells(text) == []


@pytest.mark.parametrize(
    ("marker", "title", "wanted"),
    [
        ("# %%", "", None),
        ("#%%", "", None),
        ("# %% Fetch the pages", "Fetch the pages", None),
        ("# %% [thread]", "", "thread"),
        ("# %% [sync]", "", "sync"),
        ("# %%[async]", "", "async"),
        ("# %% [auto] x", "x", "auto"),
        ("# %% [Thread] Fetch the pages", "Fetch the pages", "thread"),
        ("# %% Fetch the pages [thread]", "Fetch the pages", "thread"),
        ("# %% Fetch [all] the pages", "Fetch [all] the pages", None),
        ("# %% [draft] Fetch", "[draft] Fetch", None),
        ('# %% Fetch [thread] tags=["a", "b"] key="value"', "Fetch", "thread"),
        ("# %% Solve x=1", "Solve x=1", None),
        ("# %%%% A cell below another", "A cell below another", None),
    ],
)
def test_a_marker_gives_title_and_context(marker, title, wanted):
    assert cells(f"{marker}\nx = 1\n") == [(title, wanted, f"{marker}\nx = 1\n")]


def test_text_before_the_first_marker_is_a_cell_when_it_holds_code():
    assert [title for title, _, _ in cells("import os\n# %% A\nx = 1\n")] == ["", "A"]
    assert [title for title, _, _ in cells("# a comment\n# %% A\nx = 1\n")] == ["A"]


def test_a_lone_docstring_before_the_first_marker_is_no_cell():
    script = read_script('#!/usr/bin/env python\n"""About this."""\n\n# %% A\nx = 1\n')
    assert script.docstring == "About this."
    assert [cell.title for cell in script.cells] == ["A"]


def test_a_string_that_is_all_there_is_is_a_cell():
    assert cells('"""value"""') == [("", None, '"""value"""')]


@pytest.mark.parametrize("tag", ["markdown", "md", "raw", "MARKDOWN"])
def test_text_cells_are_left_out(tag):
    text = f"# %% [{tag}]\n# Some *text*\n# %% A\nx = 1\n# %% Notes [{tag}]\nnot python\n"
    assert [title for title, _, _ in cells(text)] == ["A"]


def test_a_magic_that_was_commented_out_is_no_marker():
    assert len(cells("x = 1\n# %%time\ny = 2\n# %matplotlib inline\n")) == 1


def test_a_marker_inside_a_string_is_no_marker():
    text = 'text = """\n# %% not a cell\n"""\n# %% A\nx = 1\n'
    assert [title for title, _, _ in cells(text)] == ["", "A"]


def test_a_marker_that_is_indented_is_no_marker():
    assert len(cells("if True:\n    # %% inside\n    pass\n")) == 1


def test_a_cell_that_is_no_python_does_not_take_the_next_one_with_it():
    text = '# %% A\nx = (1,\n# %% B\ny = """\n# %% C\nz\n'
    assert [title for title, _, _ in cells(text)] == ["A", "B", "C"]
    text = "# %% A\nx = 'unfinished\n# %% B\ny = 2\n"
    assert [title for title, _, _ in cells(text)] == ["A", "B"]


def test_padding_puts_a_cell_on_its_own_lines_of_the_file():
    text = "import os\n\n# %% A\nx = 1\n\n# %% B\ny = 2\n"
    for cell in read_script(text).cells:
        padded = cell.padded_source.splitlines()
        assert padded[-1] == text.splitlines()[len(padded) - 1]
    assert [cell.number for cell in read_script(text).cells] == [1, 2, 3]


def test_lines_end_as_python_says():
    assert [
        cell.first_line for cell in read_script("x = 1\r\n# %%\r\ny\f = '\u2028'\r\n").cells
    ] == [
        1,
        2,
    ]
