from __future__ import annotations

import pytest

from isthmus.cli.magics import Magic, find_magics


@pytest.mark.parametrize(
    "line",
    [
        *("%matplotlib inline", "%time f()", "%%timeit", "%cd ..", "%pip install x"),
        *("!ls -l", "!!ls", "! ls", "?f", "f?", "f??", "os.path?"),
        *("files = !ls", "took = %time f()", "a, b = !ls"),
    ],
)
def test_a_magic_is_found_with_its_line(line):
    magics = find_magics(f"x = 1\n\n{line}\ny = 2\n" if line[:2] != "%%" else line)
    assert [magic.text for magic in magics] == [line]
    assert magics[0].line == (3 if line[:2] != "%%" else 1)


def test_magics_in_a_block_and_more_than_one_are_found():
    assert find_magics("for i in range(3):\n    !echo {i}\n%time 1\n") == [
        Magic(2, "!echo {i}"),
        Magic(3, "%time 1"),
    ]


def test_a_cell_magic_makes_all_of_the_cell_something_else():
    assert find_magics("\n%%bash\nls ?x\n!x\n") == [Magic(2, "%%bash")]


@pytest.mark.parametrize(
    "source",
    [
        "x = (7\n     %b)",
        "total = \\\n  7 \\\n  %b",
        "text = '''\n%matplotlib inline\n!ls\n'''",
        "x = a % b",
        "x = a != b",
        "await f()",
        "async with a:\n    pass",
        "# %matplotlib inline",
        "print('what?')",
        "",
    ],
)
def test_python_is_left_alone(source):
    assert find_magics(source) == []


@pytest.mark.parametrize(
    "source", ["x = (7\n     %b", "def f(:\n    x = (7\n   %b)", "print 'what?'", "\0", "x = = 1"]
)
def test_python_with_an_error_of_its_own_is_left_to_the_compiler(source):
    assert find_magics(source) == []


def test_a_magic_is_found_beside_an_error_behind_it():
    assert find_magics("%matplotlib inline\nx = = 1\n") == [Magic(1, "%matplotlib inline")]


@pytest.mark.parametrize(
    ("text", "advice"),
    [("%%bash", "remove this line"), ("!ls", "subprocess"), ("f?", "help()"), ("%cd", "remove it")],
)
def test_each_magic_comes_with_advice(text, advice):
    assert advice in Magic(1, text).advice
