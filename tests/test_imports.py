"""The package's structure: floors, public names, docstrings, boundaries."""

from __future__ import annotations

import ast
import asyncio
import builtins
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import isthmus
from support import run_in_child

requirement = pytest.mark.requirement

PACKAGE = Path(isthmus.__file__).parent

FLOORS: tuple[tuple[str, ...], ...] = (
    (
        "errors",
        "answers",
        "bindings",
        "context_variables",
        "durations",
        "frames",
        "holders",
        "hooks",
        "rollback",
    ),
    (
        "blocking",
        "collector",
        "deadlocks",
        "mailbox",
        "namespace",
        "patches",
        "sources",
        "steppers",
    ),
    ("strikes", "tracebacks", "watchdog"),
    ("prompt_future",),
    ("mime",),
    ("events",),
    ("cells", "jobs", "namespace_view", "queue_transport", "run_scope", "wire"),
    ("tally", "values"),
    ("name_descriptions", "remote_failures"),
    ("colours", "displays", "failures", "output", "portal", "transport"),
    ("stacks", "thread_aware_loop"),
    ("loop_watch", "sticky"),
    ("home_task", "interrupts", "live_output", "shared_loop", "streams", "task_factory"),
    (
        "cell_thread",
        "delegates",
        "generator_hooks",
        "held_output",
        "interceptors",
        "ownership",
        "printing",
    ),
    ("census", "failure_hooks", "ledger", "visitors"),
    ("home", "thread_hooks"),
    ("adapters", "background_loop", "loop_calls", "runners", "winding_down"),
    ("capabilities", "runner_hooks"),
    ("hook_set",),
    ("async_namespace",),
    ("cell_run", "ending", "namespace_sync", "session_report"),
    ("call_run",),
    ("context_bridge",),
    ("executor",),
    ("session",),
    ("blocking_front", "worker"),
    ("blocking_session", "blocking_worker_session"),
    ("sessions",),
    ("__init__",),
    ("cli",),
    ("__main__",),
)
"""From the bottom. A module imports modules of lower floors only, and none of its own floor."""

BOUNDARIES: dict[str, frozenset[str]] = {
    "cell_run": frozenset({"CellRun.evaluate"}),
    "ending": frozenset({"_closes"}),
    "mime": frozenset({"_Making._call", "_Making._put", "_method", "has_methods", "rich_bundle"}),
    "portal": frozenset({"Runner.run", "drive_portal", "outcome_in_portal"}),
    "run_scope": frozenset({"RunScope.wait"}),
    "session_report": frozenset({"_size"}),
    "streams": frozenset({"StandardStream.flush_diversion"}),
    "thread_aware_loop": frozenset({"_make"}),
    "tracebacks": frozenset({"format_error", "safe_repr", "safe_str"}),
    "thread_hooks": frozenset({"_prepared.run"}),
    "transport": frozenset({"Emitter.has_room", "Emitter.send"}),
    "values": frozenset({"PackedValue._unpickle", "pack"}),
    "worker": frozenset(
        {
            "HostCalls._answer",
            "Link._deliver",
            "Link._readable",
            "Service._do",
            "Service._finish",
            "Service._see_to",
            "_converted",
            "_preloaded",
            "_problem_of",
            "_raised",
            "_steps",
            "main",
        }
    ),
    "visitors": frozenset({"Visitor._outcome", "Visitor._wait"}),
}
"""Functions in which ``except Exception`` or ``except BaseException`` may stand."""


def _modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path


def _floor(module: str) -> int:
    return next((number for number, names in enumerate(FLOORS) if module in names), len(FLOORS))


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] == "isthmus"
        ):
            parts = node.module.split(".")
            if len(parts) > 1:
                yield parts[1]
            else:
                for alias in node.names:
                    is_module = (PACKAGE / f"{alias.name}.py").exists()
                    yield alias.name if is_module else "__init__"
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "a relative import"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "isthmus":
                    yield [*alias.name.split("."), "__init__"][1]


@requirement("9-floors")
def test_each_module_has_a_floor() -> None:
    found = {module for module, _ in _modules()}
    listed = [name for names in FLOORS for name in names]
    assert sorted(found) == sorted(listed)


@requirement("9-floors")
def test_imports_go_strictly_down() -> None:
    upward = [
        f"{module} imports {imported}"
        for module, path in _modules()
        for imported in _imported(path)
        if module != imported and _floor(imported) >= _floor(module)
    ]
    assert upward == []


@requirement("9-floors")
def test_front_ends_import_public_names_only() -> None:
    private = [
        f"{path.name} imports {imported}"
        for module, path in _modules()
        if module == "cli"
        for imported in _imported(path)
        if imported not in ("__init__", "cli")
    ]
    assert private == []


@requirement("9-floors")
def test_importing_the_package_needs_no_extra() -> None:
    program = """
        import sys
        import isthmus
        extras = {"click", "rich", "typer", "anyio", "uvloop", "hypothesis", "pytest"}
        print(sorted(extras & set(sys.modules)))
        """
    ended = run_in_child(program)
    assert (ended.status, ended.stdout.strip()) == (0, "[]"), ended


@requirement("9-public-names")
def test_all_is_sorted_and_complete() -> None:
    names = isthmus.__all__
    assert list(names) == sorted(names)
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    imported -= {"TYPE_CHECKING", "import_module"}
    assert imported == set(names)
    assert all(hasattr(isthmus, name) for name in names)
    assert set(names) <= set(dir(isthmus))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        isthmus.nothing  # type: ignore[attr-defined]


@requirement("9-public-names")
def test_type_checkers_and_python_find_each_public_name_in_the_same_module() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    told = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("isthmus.")
        for alias in node.names
    }
    assert told == isthmus._MODULES


@requirement("9-public-names")
def test_importing_the_package_imports_nothing_else_of_it() -> None:
    program = """
        import sys
        import isthmus
        print([it for it in sys.modules if it.startswith("isthmus.")], "asyncio" in sys.modules)
        from isthmus import SessionClosedError
        print([it for it in sys.modules if it.startswith("isthmus.")])
        """
    ended = run_in_child(program)
    assert ended.stdout == "[] False\n['isthmus.errors']\n", ended


@requirement("9-public-names")
def test_the_package_only_re_exports() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    kinds = {type(node).__name__ for node in tree.body}
    assert kinds == {"Expr", "ImportFrom", "Assign", "If"}
    made = {it.name for it in ast.walk(tree) if isinstance(it, ast.FunctionDef | ast.ClassDef)}
    assert made == {"__getattr__", "__dir__"}


def _public() -> Iterator[tuple[str, object]]:
    """Public names and public members of public classes."""
    for name in isthmus.__all__:
        value = getattr(isthmus, name)
        if inspect.isclass(value):
            yield name, value
            for member, it in vars(value).items():
                if not member.startswith("_") and (callable(it) or isinstance(it, property)):
                    yield f"{name}.{member}", it
        elif callable(value) and not hasattr(value, "__args__"):
            yield name, value


@requirement("9-public-names")
def test_every_public_name_has_a_docstring() -> None:
    without = [name for name, it in _public() if not (inspect.getdoc(it) or "").strip()]
    assert without == []


@requirement("9-public-names")
def test_every_module_says_what_it_owns() -> None:
    without = [
        str(path)
        for _, path in _modules()
        if not (ast.get_docstring(ast.parse(path.read_text())) or "").strip()
    ]
    assert without == []


def _raised(doc: str) -> Iterator[str]:
    """The names that stand in a ``Raises:`` section."""
    inside, indent = False, 0
    for line in doc.splitlines():
        depth = len(line) - len(line.lstrip())
        if line.strip() == "Raises:":
            inside, indent = True, depth
        elif inside and line.strip() and depth <= indent:
            inside = False
        elif inside and depth == indent + 4 and (match := re.match(r"\s*([\w.]+):", line)):
            yield match.group(1)


def _dotted(path: Path) -> str:
    parts = ("isthmus", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


@requirement("9-public-names")
def test_errors_of_raises_sections_can_be_imported() -> None:
    missing, found = [], 0
    for module, path in _modules():
        if module == "__main__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            for name in _raised(ast.get_docstring(node) or ""):
                found += 1
                scopes = [builtins, isthmus, importlib.import_module(_dotted(path))]
                short = name.removeprefix("asyncio.")
                if not any(hasattr(it, name) for it in scopes) and not hasattr(asyncio, short):
                    missing.append(f"{module}: {name}")
    assert found > 20
    assert missing == []


@requirement("6.4-errors")
def test_the_tree_of_errors_is_the_one_that_is_drawn() -> None:
    from isthmus import errors

    doc = errors.__doc__ or ""
    classes = [
        it
        for it in vars(errors).values()
        if inspect.isclass(it) and it.__module__ == errors.__name__
    ]
    for kind in classes:
        (line,) = [
            it
            for it in doc.splitlines()
            if re.search(rf"\b{kind.__name__}\b {{2,}}|─ {kind.__name__}$|^ *{kind.__name__}$", it)
        ]
        assert kind.__name__ in line
        assert kind.__name__ in isthmus.__all__, f"{kind.__name__} cannot be imported from isthmus"
    for kind in classes:
        if issubclass(kind, Exception):
            assert issubclass(kind, errors.IsthmusError)
    assert not issubclass(errors.CellInterrupted, Exception)


def _broad_handlers() -> Iterator[tuple[str, str]]:
    for module, path in _modules():
        yield from ((module, name) for name in _handlers_in(ast.parse(path.read_text()), ""))


def _handlers_in(node: ast.AST, where: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ExceptHandler):
            text = "" if child.type is None else ast.unparse(child.type)
            if child.type is None or re.search(r"\b(Base)?Exception\b", text):
                yield where
        named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        inner = f"{where}.{child.name}".strip(".") if named else where  # type: ignore[attr-defined]
        yield from _handlers_in(child, inner)


@requirement("9-boundaries")
def test_broad_handlers_stand_only_at_named_boundaries() -> None:
    found = {(m, f) for m, f in _broad_handlers() if m != "cli"}
    listed = {
        (module, function) for module, functions in BOUNDARIES.items() for function in functions
    }
    assert sorted(found - listed) == []
    assert sorted(listed - found) == [], "these boundaries are gone: take them out of the list"
