"""Every code block of the README and of docs/ runs, and prints what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DEADLINE_SECONDS = 50
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block, and the text block right behind it, if there is one."""

    place: str
    language: str
    code: str
    output: str | None


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    found = [(match.group(1), match.group(2), match.start()) for match in FENCE.finditer(text)]
    blocks = []
    for index, (language, code, start) in enumerate(found):
        following = found[index + 1] if index + 1 < len(found) else ("", "", 0)
        output = following[1] if following[0] == "text" else None
        line = text.count("\n", 0, start) + 1
        blocks.append(Block(f"{page.name}:{line}", language, code, output))
    return blocks


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
PROGRAMS = [block for block in BLOCKS if block.language == "python"]


@pytest.mark.parametrize("block", PROGRAMS, ids=[block.place for block in PROGRAMS])
def test_a_program_in_the_documentation_prints_what_the_page_says(block: Block) -> None:
    assert block.output is not None, f"{block.place}: say what it prints"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.code],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert (done.stdout, done.stderr) == (block.output, "")


def test_the_commands_of_the_readme_are_those_that_are_tested() -> None:
    commands = [block.code.strip() for block in BLOCKS if block.language == "sh"]
    assert commands == [
        "pip install '.[cli]' && isthmus run examples/tour.py",
        "pip install '.[test]' && pytest",
    ]
    ci = (ROOT / ".ci" / "run").read_text()
    assert "install --quiet --disable-pip-version-check '.[test]'" in ci and "pytest" in ci


def test_every_block_has_a_language_that_is_checked() -> None:
    assert {block.language for block in BLOCKS} <= {"python", "text", "sh"}


def test_the_tests_that_the_pages_name_exist() -> None:
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for page in PAGES:
        for name in re.findall(r"`(test_\w+)`", page.read_text()):
            assert f"def {name}(" in tests, f"{page.name}: {name}"


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]*)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
