"""A plain dict, and rules of a line or two, against the real namespace, over random operations."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from isthmus import ReservedNameError, Session

NAMES = st.sampled_from(["a", "b", "c", "tool"])
VALUES = st.integers(-3, 3)
CONTEXTS = st.sampled_from(["async", "thread", "sync", "auto"])
AWAITED = st.sampled_from(["{}", "await asyncio.sleep(0, {})"])


class NamespaceMachine(RuleBasedStateMachine):
    """`self.names` is the model: what a snapshot must give."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.session = Session("model")
        self.names: dict[str, Any] = {"asyncio": asyncio}
        self.tools: dict[str, int] = {}
        self.owns_underscore = False
        self.numbers = itertools.count(1)
        self.mapping = self.session.namespace

    def teardown(self) -> None:
        self.runner.run(self.session.close())
        self.runner.close()

    def run(self, source: str, context: Any) -> Any:
        return self.runner.run(self.session.run(source, context=context, timeout=10))

    def remember(self, value: object) -> None:
        """The last three values that are not None, unless a cell has bound `_`."""
        if value is None or self.owns_underscore:
            return
        for newer, older in (("__", "___"), ("_", "__")):
            if newer in self.names:
                self.names[older] = self.names[newer]
        self.names["_"] = value

    # -- cells ---------------------------------------------------------------------------------

    @rule(name=NAMES, value=VALUES, form=AWAITED, context=CONTEXTS)
    def a_cell_binds(self, name: str, value: int, form: str, context: str) -> None:
        result = self.run(f"{name} = {form.format(value)}", context)
        assert (result.status, result.bound, result.value) == ("ok", (name,), None)
        self.names[name] = value

    @rule(name=NAMES, value=VALUES, form=AWAITED, context=CONTEXTS)
    def a_cell_gives_a_value(self, name: str, value: int, form: str, context: str) -> None:
        # A number of its own: a value is told from one that a cell bound by identity.
        value = 1_000 * next(self.numbers) + value
        result = self.run(f"({name} := {form.format(value)})", context)
        assert result.value == value
        self.names[name] = value
        self.remember(value)

    @rule(context=CONTEXTS)
    def a_cell_gives_none(self, context: str) -> None:
        assert self.run("None", context).value is None

    @rule(context=CONTEXTS)
    def a_cell_reads_the_last_value(self, context: str) -> None:
        result = self.run("_", context)
        if "_" in self.names:
            assert result.value == self.names["_"]
            if not self.owns_underscore:
                self.remember(self.names["_"])
        else:
            assert isinstance(result.error, NameError)

    @rule(value=VALUES, context=CONTEXTS)
    def a_cell_binds_the_underscore(self, value: int, context: str) -> None:
        value = -1_000 * next(self.numbers) + value
        assert self.run(f"_ = {value}", context).status == "ok"
        self.names["_"] = value
        self.owns_underscore = True

    @rule(name=NAMES, context=CONTEXTS)
    def a_cell_deletes(self, name: str, context: str) -> None:
        result = self.run(f"del {name}", context)
        if name in self.names:
            assert (result.status, result.deleted) == ("ok", (name,))
            del self.names[name]
        else:
            assert isinstance(result.error, NameError)

    @rule(name=NAMES, value=VALUES, context=CONTEXTS)
    def a_function_of_a_cell_binds(self, name: str, value: int, context: str) -> None:
        source = f"def bind():\n    global {name}\n    {name} = {value}\nbind()\ndel bind"
        assert self.run(source, context).status == "ok"
        self.names[name] = value

    @rule(name=NAMES, value=VALUES, context=CONTEXTS)
    def a_cell_fails_half_way(self, name: str, value: int, context: str) -> None:
        result = self.run(f"{name} = {value}\n1 / 0\n{name} = None", context)
        assert isinstance(result.error, ZeroDivisionError)
        self.names[name] = value

    @rule(name=NAMES, context=CONTEXTS)
    def a_cell_adds_to_a_name(self, name: str, context: str) -> None:
        result = self.run(f"{name} += 1", context)
        if name in self.names:
            self.names[name] += 1
        else:
            assert isinstance(result.error, TypeError if name in self.tools else NameError)

    @rule(name=NAMES, context=CONTEXTS)
    def a_cell_reads(self, name: str, context: str) -> None:
        result = self.run(f"result = {name}\ndel result", context)
        assert (result.error is None) == (name in self.names or name in self.tools)

    @rule(context=CONTEXTS)
    def a_cell_calls_the_capability(self, context: str) -> None:
        result = self.run("called = tool()", context)
        if "tool" in self.names:
            assert isinstance(result.error, TypeError)
        elif "tool" in self.tools:
            assert result.error is None
            self.names["called"] = self.tools["tool"]
        else:
            assert isinstance(result.error, NameError)

    @rule(text=st.sampled_from(["a = (", "a = 1; return", "b = '"]), context=CONTEXTS)
    def a_cell_that_is_no_python_changes_nothing(self, text: str, context: str) -> None:
        assert isinstance(self.run(text, context).error, SyntaxError)

    @rule(context=CONTEXTS)
    def a_cell_deletes_what_belongs_to_the_runtime(self, context: str) -> None:
        assert self.run("del __name__, __builtins__", context).status == "ok"
        assert self.run("len(__name__) > 0 or None", context).value is True
        self.remember(True)

    # -- the host ------------------------------------------------------------------------------

    @rule(updates=st.dictionaries(NAMES, VALUES))
    def the_host_updates(self, updates: dict[str, int]) -> None:
        self.session.update_namespace(updates)
        self.names.update(updates)

    @rule(updates=st.dictionaries(NAMES, VALUES), wrong=st.sampled_from(["__name__", "if", "1x"]))
    def the_host_updates_a_name_that_is_refused(self, updates: dict[str, int], wrong: str) -> None:
        with pytest.raises(ReservedNameError):
            self.session.update_namespace({**updates, wrong: 1})

    @precondition(lambda self: "tool" not in self.tools)
    @rule(value=VALUES)
    def the_host_adds_a_capability(self, value: int) -> None:
        self.session.manager.inject_capability("tool", lambda: value)
        self.tools["tool"] = value

    @precondition(lambda self: "tool" in self.tools)
    @rule()
    def the_host_revokes_a_capability(self) -> None:
        self.session.manager.revoke_capability("tool")
        del self.tools["tool"]

    @rule()
    def a_snapshot_is_a_copy(self) -> None:
        self.session.snapshot().clear()
        self.session.snapshot()["a"] = "changed"

    # -- what always holds ---------------------------------------------------------------------

    @initialize()
    def there_is_nothing_but_asyncio(self) -> None:
        assert self.session.snapshot() == {"asyncio": asyncio}

    @invariant()
    def the_snapshot_is_the_model(self) -> None:
        assert self.session.snapshot() == self.names

    @invariant()
    def the_mapping_is_the_same_object_and_has_the_names(self) -> None:
        assert self.session.namespace is self.mapping
        assert all(self.mapping[name] == value for name, value in self.names.items())


TestNamespaceMachine = NamespaceMachine.TestCase
TestNamespaceMachine.settings = settings(
    max_examples=max(settings().max_examples // 4, 1), stateful_step_count=30
)
