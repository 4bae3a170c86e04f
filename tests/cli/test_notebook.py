from __future__ import annotations

import json

import pytest

from isthmus.cli.notebook import NotebookError, read_notebook


def notebook(*sources, **metadata):
    cells = [{"cell_type": "code", "source": it, "outputs": []} for it in sources]
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}


def read(data):
    return read_notebook(json.dumps(data).encode(), "n.ipynb")


def test_sources_are_strings_or_lists_of_lines():
    cells = [entry.cell for entry in read(notebook("x = 1", ["y = 2\n", "y"]))]
    assert [(cell.number, cell.source) for cell in cells] == [(1, "x = 1"), (2, "y = 2\ny")]


def test_cells_are_numbered_as_jupyter_numbers_what_runs():
    data = notebook("x = 1", "", "# only a comment", "y = 2")
    data["cells"].insert(1, {"cell_type": "markdown", "source": "text"})
    assert [entry.cell.filename for entry in read(data)] == ["n.ipynb[1]", "n.ipynb[2]"]


def test_saved_outputs_are_there_to_compare():
    data = notebook("print(1); 2")
    data["cells"][0]["outputs"] = [
        {"output_type": "stream", "name": "stdout", "text": ["1", "\n"]},
        {"output_type": "stream", "name": "stderr", "text": "warning"},
        {"output_type": "execute_result", "data": {"text/plain": ["2"]}, "metadata": {}},
    ]
    (entry,) = read(data)
    assert (entry.saved_stdout, entry.saved_value) == ("1\n", "2")


def test_a_cell_that_gave_nothing_has_nothing_saved():
    (entry,) = read(notebook("x = 1"))
    assert (entry.saved_stdout, entry.saved_value) == ("", None)


def test_a_byte_order_mark_is_no_error():
    assert read_notebook(b"\xef\xbb\xbf" + json.dumps(notebook("x")).encode())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "invalid JSON"),
        (b"{", "invalid JSON"),
        (b"\xff\xfe", "invalid JSON"),
        (b'"\xff"', "JSON|notebook"),
        (b"[" * 100_000, "JSON|notebook"),
        (b"[]", "not a notebook"),
        (b"{}", "not a notebook.*nbformat"),
        (b'{"nbformat": "4"}', "not a notebook.*nbformat"),
        (b'{"nbformat": 4}', "not a notebook.*cells"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code"}]}', "not a notebook.*source"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": 3}]}', "not a notebook"),
        (b'{"nbformat": 3, "worksheets": []}', "nbformat 3.*convert"),
        (b'{"nbformat": 5}', "nbformat 5"),
    ],
)
def test_what_is_no_notebook_is_refused_with_the_reason(data, message):
    with pytest.raises(NotebookError, match=message):
        read_notebook(data)


@pytest.mark.parametrize(
    "metadata",
    [{"language_info": {"name": "julia"}}, {"kernelspec": {"language": "julia", "name": "x"}}],
)
def test_other_languages_are_refused(metadata):
    with pytest.raises(NotebookError, match="julia"):
        read(notebook("x", **metadata))


@pytest.mark.parametrize(
    "metadata", [{}, {"kernelspec": {}}, {"language_info": {"name": "python"}}]
)
def test_python_is_what_a_notebook_is_in(metadata):
    assert read(notebook("x", **metadata))
