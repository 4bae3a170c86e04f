from __future__ import annotations

import io
import os

import pytest

from isthmus.cli.program import UnusableInputError, load


def load_file(path, data):
    path.write_bytes(data)
    return load(str(path), io.BytesIO())


def test_a_script_carries_its_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text('"""Doc."""\n# %%\nx = 1\n')
    monkeypatch.chdir(tmp_path)
    program = load("a.py", io.BytesIO())
    assert (program.name, program.path, program.docstring) == ("a.py", tmp_path / "a.py", "Doc.")
    assert [cell.filename for cell in program.cells] == [str(tmp_path / "a.py")]


def test_standard_input_has_no_path():
    program = load("-", io.BytesIO(b"x = 1"))
    assert (program.name, program.path) == ("-", None)
    assert [cell.filename for cell in program.cells] == ["<stdin>"]


@pytest.mark.parametrize(
    "data",
    ["x = 'ü'".encode(), "\ufeffx = 'ü'".encode(), "# coding: latin-1\nx = 'ü'".encode("latin-1")],
)
def test_scripts_are_decoded_as_python_decodes_them(tmp_path, data):
    assert "x = 'ü'" in load_file(tmp_path / "a.py", data).cells[0].source


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.py", b"x = '\xff'", "no text.*encoding"),
        ("a.py", b"# coding: no-such-encoding\n", "no text.*no-such-encoding"),
        ("a.py", b"x = 1\ny = '\0'\n", "line 2 holds a null byte"),
        ("a.ipynb", b"{]", "a.ipynb: invalid JSON"),
        ("a.ipynb", b'{"nbformat": 3}', "nbformat 3"),
    ],
)
def test_data_that_is_no_program_is_refused(tmp_path, name, data, message):
    with pytest.raises(UnusableInputError, match=message):
        load_file(tmp_path / name, data)


def test_what_cannot_be_read_is_refused(tmp_path):
    for name, message in (("missing.py", "no such file"), (".", "directory"), ("a\0b", "cannot")):
        with pytest.raises(UnusableInputError, match=message):
            load(f"{tmp_path}/{name}", io.BytesIO())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all files")
def test_a_file_without_permission_is_refused(tmp_path):
    (tmp_path / "a.py").touch(mode=0)
    with pytest.raises(UnusableInputError, match="Permission denied"):
        load(str(tmp_path / "a.py"), io.BytesIO())


def test_magics_are_searched_in_notebooks_only(tmp_path):
    source = b"%matplotlib inline"
    notebook = b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": "x\\n%s"}]}' % source
    assert load_file(tmp_path / "a.py", source).magics() == []
    (line,) = load_file(tmp_path / "a.ipynb", notebook).magics()
    assert "cell 1, line 2: '%matplotlib inline'" in line
