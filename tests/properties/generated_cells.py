"""Generated cells: every statement and expression of Python, built as ``ast`` and laid out as text.

One builder per node class, in two registers; what a builder returns has the node in it. Nearly
every expression has an integer value, so that a cell runs far before anything is raised that
nobody planned. What raises is mostly ``boom``, whose n-th call of a cell explodes.

Cells end: loops are bounded, each function has a name of its own and calls only earlier ones, and
no value can grow faster than by a constant.
"""

from __future__ import annotations

import ast
import functools
import io
import itertools
import sys
import tokenize
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")

ONLY_BELOW = {
    ast.Return: "'return' outside function",
    ast.Yield: "'yield' outside function",
    ast.YieldFrom: "'yield from' outside function",
    ast.Nonlocal: "nonlocal declaration not allowed at module level",
    ast.Break: "'break' outside loop",
    ast.Continue: "'continue' not properly in loop",
    ast.Starred: "an argument, an element or a target: no expression of its own",
    ast.Slice: "a subscript: no expression of its own",
    ast.FormattedValue: "a part of an f-string",
}
"""Nodes that the top level of a cell cannot have, and why: they come in functions, loops and
expressions that can."""

if sys.version_info >= (3, 14):
    ONLY_BELOW[ast.Interpolation] = "a part of a template string"


@dataclass(frozen=True)
class Scope:
    """Where a node is to stand."""

    kind: str = "cell"  # cell, def, async, class, lambda
    can_await: bool = True
    can_yield: bool = False
    can_return: bool = False
    can_walrus: bool = True
    in_loop: bool = False
    guarded: bool = False  # in a try or with statement of this function
    generator: str = ""  # of this function: "", sync or async
    loops: int = 0  # around this place, functions counted
    blocks: int = 0
    iteration_names: tuple[str, ...] = ()
    functions: tuple[tuple[str, str], ...] = ()  # name and kind

    @property
    def readable(self) -> tuple[str, ...]:
        local = ("u", "v") if self.kind in ("def", "async", "lambda") else ()
        return (*local, *self.iteration_names, "a", "b", "c")

    @property
    def writable(self) -> tuple[str, ...]:
        return ("u", "v", "w") if self.kind in ("def", "async") else ("a", "b", "c", "d")

    @property
    def is_function(self) -> bool:
        return self.kind in ("def", "async")


Builder = Callable[["Author", Scope], Any]


@dataclass(frozen=True)
class Entry:
    build: Builder
    possible: Callable[[Scope], bool]
    weight: int


EXPRESSIONS: dict[type[ast.expr], Entry] = {}
STATEMENTS: dict[type[ast.stmt], Entry] = {}


def anywhere(_: Scope) -> bool:
    return True


def builds(
    *nodes: type[Any], possible: Callable[[Scope], bool] = anywhere, weight: int = 1
) -> Callable[[Builder], Builder]:
    """Register a builder of an expression that has *nodes* in it, or of such statements."""

    def register(build: Builder) -> Builder:
        for node in nodes:
            book: dict[Any, Entry] = STATEMENTS if issubclass(node, ast.stmt) else EXPRESSIONS
            assert node not in book
            book[node] = Entry(build, possible, weight)
        return build

    return register


@functools.cache
def _weighted_entries(which: type[Any]) -> list[Entry]:
    book: dict[Any, Entry] = STATEMENTS if which is ast.stmt else EXPRESSIONS
    entries = [entry for entry in book.values() for _ in range(entry.weight)]
    # Seven steps are to lead through all of them.
    return entries + entries[:1] * (len(entries) % 7 == 0)


def load(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


def store(name: str) -> ast.Name:
    return ast.Name(name, ast.Store())


def call(function: str | ast.expr, *arguments: ast.expr, **keywords: ast.expr) -> ast.Call:
    called = load(function) if isinstance(function, str) else function
    return ast.Call(called, list(arguments), [ast.keyword(k, v) for k, v in keywords.items()])


def small(value: ast.expr) -> ast.expr:
    """An expression for *value* modulo 4."""
    return ast.BinOp(value, ast.Mod(), ast.Constant(4))


DEEPEST = 4
"""How deep expressions go, and blocks; what is deeper is a leaf."""


@dataclass
class Author:
    """Writes one cell, each choice made by one of *choices*: zero, the simplest, when they end.

    One draw of bytes is a hundred times as fast as a draw for each choice, and shrinks well.
    """

    choices: Iterator[int]
    depth: int = 0
    lazy_annotations: bool = False
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    # -- choices -------------------------------------------------------------------------------

    def integer(self, lowest: int, highest: int) -> int:
        return lowest + next(self.choices, 0) % (highest - lowest + 1)

    def pick(self, choices: list[T] | tuple[T, ...]) -> T:
        return choices[self.integer(0, len(choices) - 1)]

    def chance(self, one_in: int) -> bool:
        return self.integer(0, one_in - 1) == one_in - 1

    def new(self, stem: str) -> str:
        return f"{stem}{next(self.numbers)}"

    def _build(self, which: type[Any], scope: Scope) -> Any:
        entries = _weighted_entries(which)
        index = self.integer(0, len(entries) - 1)
        while not entries[index].possible(scope):
            index = (index + 7) % len(entries)  # not the next, which is more of the same
        build = entries[index].build
        self.depth += 1
        built = build(self, scope)
        self.depth -= 1
        return built

    # -- pieces --------------------------------------------------------------------------------

    def number(self, scope: Scope) -> ast.expr:
        """An expression with an integer value; rarely with another one."""
        if self.integer(0, DEEPEST - 1) < self.depth:
            return self.leaf(scope)
        if self.chance(60):
            return self.misfit()
        return self._build(ast.expr, scope)

    def leaf(self, scope: Scope) -> ast.expr:
        number = self.integer(0, 3)
        names = scope.readable
        index = self.integer(0, len(names) + 1)
        if index < len(names):
            return load(names[index])
        return ast.Constant(number) if index == len(names) else call("boom", ast.Constant(1))

    def misfit(self) -> ast.expr:
        """What is no integer, nor anything that `+` can make longer."""
        texts = (
            "None",
            "...",
            "1.5",
            "2j",
            "lambda: 1",
            "{1: 2}",
            "{1}",
            "duck",
            "missing",
            "boom",
        )
        return ast.parse(self.pick(texts), mode="eval").body

    def items(self, scope: Scope) -> ast.expr:
        """A finite iterable."""
        generators = [name for name, kind in scope.functions if kind == "sync generator"]
        match self.integer(0, 6):
            case 0 | 1:
                return ast.List([self.number(scope), self.number(scope)], ast.Load())
            case 2:
                return call("range", small(self.number(scope)))
            case 3:
                return call("count", small(self.number(scope)))
            case 4:
                return load("p")
            case 5 if generators:
                return call(self.pick(generators), self.number(scope))
            case _:
                return self.number(scope) if self.chance(6) else load("q")

    def async_items(self, scope: Scope) -> ast.expr:
        """A finite async iterable."""
        generators = [name for name, kind in scope.functions if kind == "async generator"]
        if generators and self.chance(2):
            return call(self.pick(generators), self.number(scope))
        if self.chance(8):
            return self.pick([load("p"), call("Strange"), ast.Await(load("duck"))])
        source = self.pick(["acount", "Steps"])
        if self.chance(4):
            return ast.Await(call("aboom", call(source, small(self.number(scope)))))
        return call(source, small(self.number(scope)))

    def comprehension(
        self, scope: Scope, asynchronous: bool
    ) -> tuple[list[ast.comprehension], Scope]:
        """The `for` clauses of a comprehension, and the scope of its element."""
        inner = replace(scope, can_yield=False, functions=scope.functions)
        if scope.kind == "class":
            inner = replace(inner, can_walrus=False)
        clauses = []
        for count in range(2 if self.chance(3) else 1):
            where = replace(inner if count else scope, can_walrus=False, can_yield=False)
            is_async = asynchronous and self.chance(2)
            source = self.async_items(where) if is_async else self.items(where)
            name = f"i{len(inner.iteration_names)}"
            inner = replace(inner, iteration_names=(*inner.iteration_names, name))
            tests = [self.number(inner)] if self.chance(3) else []
            clauses.append(ast.comprehension(store(name), source, tests, int(is_async)))
        return clauses, inner

    # -- statements ----------------------------------------------------------------------------

    def statements(self, scope: Scope) -> tuple[list[ast.stmt], Scope]:
        """One statement or a few that belong together, and the scope for what follows."""
        if scope.blocks > DEEPEST:
            return [ast.Assign([store(self.pick(scope.writable))], self.leaf(scope))], scope
        built = self._in_statement(scope)
        for statement in built:
            if kind := getattr(statement, "kind", ""):
                functions = (*scope.functions, (statement.name, kind))
                scope = replace(scope, functions=functions)
        return built, scope

    def _in_statement(self, scope: Scope) -> list[ast.stmt]:
        depth, self.depth = self.depth, -1
        built: list[ast.stmt] = self._build(ast.stmt, scope)
        self.depth = depth
        return built

    def block(self, scope: Scope, most: int = 3) -> list[ast.stmt]:
        built: list[ast.stmt] = []
        scope = replace(scope, blocks=scope.blocks + 1)
        for _ in range(self.integer(1, most)):
            more, scope = self.statements(scope)
            built += more
        return built

    def function_scope(self, scope: Scope, kind: str, generator: str = "") -> Scope:
        return Scope(
            kind=kind,
            can_await=kind == "async",
            can_yield=bool(generator),
            can_return=True,
            generator=generator,
            loops=scope.loops,
            blocks=scope.blocks,
            functions=scope.functions,
        )

    def annotation(self, scope: Scope) -> ast.expr:
        if self.chance(3):
            return load("int")
        lazy = self.lazy_annotations or sys.version_info >= (3, 14)
        if lazy:
            scope = replace(scope, can_await=False, can_walrus=False)
        return self.number(replace(scope, can_yield=False, can_walrus=False))


# -- expressions -----------------------------------------------------------------------------------


@builds(ast.Constant)
def constant(g: Author, s: Scope) -> ast.expr:
    texts = ("1", "2", "True", "len('text')", "len(b'bytes')", "int(2.5)", "int(abs(3j))")
    return ast.parse(g.pick(texts), mode="eval").body


@builds(ast.Name, weight=2)
def name(g: Author, s: Scope) -> ast.expr:
    return g.leaf(s)


@builds(ast.BoolOp)
def bool_op(g: Author, s: Scope) -> ast.expr:
    return ast.BoolOp(g.pick([ast.And(), ast.Or()]), [g.number(s), g.number(s)])


@builds(ast.NamedExpr, possible=lambda s: s.can_walrus)
def named_expr(g: Author, s: Scope) -> ast.expr:
    names = s.writable if s.kind != "lambda" else ("w",)
    return ast.NamedExpr(store(g.pick(names)), g.number(s))


@builds(ast.BinOp, weight=3)
def bin_op(g: Author, s: Scope) -> ast.expr:
    left = g.number(s)
    match operator := g.pick(ast.operator.__subclasses__())():
        case ast.MatMult():
            return ast.BinOp(load("duck"), operator, left)
        case ast.Div():
            return call("int", ast.BinOp(left, operator, g.number(s)))
        case ast.Pow() | ast.LShift():
            return ast.BinOp(small(left), operator, small(g.number(s)))
        case ast.RShift():
            return ast.BinOp(left, operator, small(g.number(s)))
        case ast.Mult():
            return ast.BinOp(small(left), operator, small(g.number(s)))
    return ast.BinOp(left, operator, g.number(s))


@builds(ast.UnaryOp)
def unary_op(g: Author, s: Scope) -> ast.expr:
    return ast.UnaryOp(g.pick(ast.unaryop.__subclasses__())(), g.number(s))


@builds(ast.Lambda)
def lambda_(g: Author, s: Scope) -> ast.expr:
    default = g.number(s)
    arguments = ast.arguments(
        posonlyargs=[], args=[ast.arg("u"), ast.arg("v")], kwonlyargs=[], kw_defaults=[],
        defaults=[default],
    )  # fmt: skip
    inner = Scope("lambda", can_await=False, loops=s.loops, blocks=s.blocks, functions=s.functions)
    function = ast.Lambda(arguments, g.number(inner))
    if g.chance(3):  # called from C
        ordered = call("sorted", g.items(s), key=function)
        return call("len", ordered)
    return call(function, g.number(s))


@builds(ast.IfExp)
def if_exp(g: Author, s: Scope) -> ast.expr:
    return ast.IfExp(g.number(s), g.number(s), g.number(s))


@builds(ast.Dict)
def dict_(g: Author, s: Scope) -> ast.expr:
    keys: list[ast.expr | None] = [ast.Constant(1), g.number(s)]
    values = [g.number(s), g.number(s)]
    if g.chance(3):
        keys.append(None)
        values.append(ast.Dict([g.number(s)], [g.number(s)]))
    return ast.Subscript(ast.Dict(keys, values), ast.Constant(1), ast.Load())


@builds(ast.Set)
def set_(g: Author, s: Scope) -> ast.expr:
    return call("len", ast.Set([g.number(s), g.number(s)]))


@builds(ast.ListComp)
def list_comp(g: Author, s: Scope) -> ast.expr:
    clauses, inner = g.comprehension(s, s.can_await)
    return call("sum", ast.ListComp(g.number(inner), clauses))


@builds(ast.SetComp)
def set_comp(g: Author, s: Scope) -> ast.expr:
    clauses, inner = g.comprehension(s, s.can_await)
    return call("len", ast.SetComp(g.number(inner), clauses))


@builds(ast.DictComp)
def dict_comp(g: Author, s: Scope) -> ast.expr:
    clauses, inner = g.comprehension(s, s.can_await)
    return call("len", ast.DictComp(g.number(inner), g.number(inner), clauses))


@builds(ast.GeneratorExp)
def generator_exp(g: Author, s: Scope) -> ast.expr:
    if s.can_await and g.chance(2):
        clauses, inner = g.comprehension(s, True)
        made = ast.GeneratorExp(g.number(inner), clauses)
        if _is_async(made):
            clause = ast.comprehension(store("k"), made, [], 1)
            return call("sum", ast.ListComp(load("k"), [clause]))
        return call("sum", made)
    first = g.items(replace(s, can_walrus=False, can_yield=False))
    name = f"i{len(s.iteration_names)}"
    inner = replace(
        s, can_await=False, can_yield=False, can_walrus=s.can_walrus and s.kind != "class",
        iteration_names=(*s.iteration_names, name),
    )  # fmt: skip
    tests = [g.number(inner)] if g.chance(3) else []
    clauses = [ast.comprehension(store(name), first, tests, 0)]
    return call(g.pick(["sum", "max"]), ast.GeneratorExp(g.number(inner), clauses))


def _is_async(made: ast.GeneratorExp) -> bool:
    """Whether the generator is an async one: not so for an `await` in its first iterable."""
    nodes: list[ast.AST] = [made.elt, *made.generators[0].ifs, *made.generators[1:]]
    if any(clause.is_async for clause in made.generators):
        return True
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Await) or (isinstance(node, ast.comprehension) and node.is_async):
            return True
        if isinstance(node, ast.Lambda):
            nodes += node.args.defaults
        elif isinstance(node, ast.GeneratorExp):
            nodes.append(node.generators[0].iter)
        else:
            nodes += ast.iter_child_nodes(node)
    return False


@builds(ast.Await, possible=lambda s: s.can_await, weight=4)
def await_(g: Author, s: Scope) -> ast.expr:  # noqa: PLR0911 (one case a line)
    asyncronous = [name for name, kind in s.functions if kind == "async"]
    match g.integer(0, 9):
        case 0 | 1 | 2:
            return ast.Await(call("aboom", g.number(s)))
        case 3:
            return ast.Await(call("Awaitable", g.number(s)))
        case 4:
            gathered = call(
                _asyncio("gather"), call("atask", g.number(s)), call("atask", g.leaf(s))
            )
            return call("sum", ast.Await(gathered))
        case 5:
            return ast.Await(call(_asyncio("sleep"), ast.Constant(0), g.number(s)))
        case 6:
            waited = call(_asyncio("wait_for"), call("atask", g.number(s)), ast.Constant(5))
            made = call(_asyncio("create_task"), call("atask", g.number(s)))
            return ast.Await(g.pick([waited, made]))
        case 7:
            return ast.Await(g.number(s)) if g.chance(3) else ast.Await(call("aboom", g.leaf(s)))
        case _ if asyncronous:
            return ast.Await(call(g.pick(asyncronous), g.number(s)))
        case _:
            return ast.Await(call("aboom", g.number(s)))


def _asyncio(name: str) -> ast.expr:
    return ast.Attribute(load("asyncio"), name, ast.Load())


def _may_yield(s: Scope) -> bool:
    # When an async generator that nobody finishes is closed is the loop's business, so what it
    # would do then (in a `finally`, an `except`, an `__exit__`) is not to be seen.
    return s.can_yield and not (s.generator == "async" and s.guarded)


@builds(ast.Yield, possible=_may_yield, weight=4)
def yield_(g: Author, s: Scope) -> ast.expr:
    given = ast.Yield(g.number(s))
    return ast.BoolOp(ast.Or(), [given, g.number(s)])


@builds(ast.YieldFrom, possible=lambda s: s.can_yield and s.generator == "sync", weight=3)
def yield_from(g: Author, s: Scope) -> ast.expr:
    return ast.BoolOp(ast.Or(), [ast.YieldFrom(g.items(s)), g.number(s)])


@builds(ast.Compare)
def compare(g: Author, s: Scope) -> ast.expr:
    def operator() -> tuple[ast.cmpop, ast.expr]:
        made = g.pick(ast.cmpop.__subclasses__())()
        return made, g.items(s) if isinstance(made, ast.In | ast.NotIn) else g.number(s)

    first = operator()
    if isinstance(first[0], ast.In | ast.NotIn) or not g.chance(3):
        return ast.Compare(g.number(s), [first[0]], [first[1]])
    second = g.pick([ast.Lt(), ast.Eq()])
    return ast.Compare(g.number(s), [first[0], second], [first[1], g.number(s)])


@builds(ast.Call, weight=8)
def call_(g: Author, s: Scope) -> ast.expr:  # noqa: PLR0911 (one case a line)
    plain = [name for name, kind in s.functions if kind == "def"]
    asynchronous = [name for name, kind in s.functions if kind == "async"]
    match g.integer(0, 9):
        case 0 | 1 | 2:
            return call("boom", g.number(s))
        case 3:
            return call("keywords", g.number(s), x=g.number(s), y=g.number(s))
        case 4:
            spread = ast.Dict([ast.Constant("x")], [g.number(s)])
            return ast.Call(load("keywords"), [g.number(s)], [ast.keyword(None, spread)])
        case 5:
            return call("run_sync", call("aboom", g.number(s)))
        case 6:
            return call(ast.Attribute(load("duck"), "method", ast.Load()), g.number(s))
        case 7 if asynchronous:
            return call("run_sync", call(g.pick(asynchronous), g.number(s)))
        case 8 | 9 | 7 if plain:
            return call(g.pick(plain), g.number(s))
        case _:
            return call(g.pick(["boom", "abs", "len"]), g.number(s))


@builds(ast.JoinedStr, ast.FormattedValue)
def joined_str(g: Author, s: Scope) -> ast.expr:
    # Nested f-strings and strings cannot be written before 3.12, so what is inside is short.
    shorter = replace(s, can_walrus=False)
    value = g.pick([g.leaf(s), call("boom", g.leaf(s))])
    if shorter.can_await and g.chance(2):
        value = ast.Await(call("aboom", value))
    spec = ast.JoinedStr([ast.Constant(">"), ast.FormattedValue(ast.Constant(5), -1, None)])
    conversion = g.pick([-1, ord("r"), ord("s"), ord("a")])
    part = ast.FormattedValue(value, conversion, spec if g.chance(2) else None)
    return call("len", ast.JoinedStr([ast.Constant("text "), part]))


@builds(ast.Attribute)
def attribute(g: Author, s: Scope) -> ast.expr:
    if g.chance(3):
        return ast.Attribute(ast.parse("(1).real", mode="eval").body, "numerator", ast.Load())
    owner = call("boom", load("duck")) if g.chance(2) else load("duck")
    name = g.pick(["size", "size", "bombed", "missing"])
    return ast.Attribute(owner, name, ast.Load())


@builds(ast.Subscript)
def subscript(g: Author, s: Scope) -> ast.expr:
    return ast.Subscript(g.items(s), g.pick([ast.Constant(0), small(g.number(s))]), ast.Load())


@builds(ast.Slice)
def slice_(g: Author, s: Scope) -> ast.expr:
    bounds = ast.Slice(g.number(s), g.number(s), g.leaf(s) if g.chance(3) else None)
    return call("sum", ast.Subscript(load(g.pick(["p", "q"])), bounds, ast.Load()))


@builds(ast.Starred)
def starred(g: Author, s: Scope) -> ast.expr:
    spread = ast.Starred(g.items(s), ast.Load())
    if g.chance(2):
        return call("sum", ast.Tuple([spread, g.number(s)], ast.Load()))
    return call("max", ast.Constant(0), ast.Constant(1), spread)


@builds(ast.List)
def list_(g: Author, s: Scope) -> ast.expr:
    return ast.Subscript(ast.List([g.number(s), g.number(s)], ast.Load()), g.leaf(s), ast.Load())


@builds(ast.Tuple)
def tuple_(g: Author, s: Scope) -> ast.expr:
    return call("sum", ast.Tuple([g.number(s), g.number(s)], ast.Load()))


if sys.version_info >= (3, 14):

    @builds(ast.TemplateStr, ast.Interpolation)
    def template_str(g: Author, s: Scope) -> ast.expr:
        source = g.pick(["t'{boom(1)} text'", "t'{a!r:>5}'", "t'{missing}'"])
        if s.can_await:
            source = g.pick([source, "t'{await aboom(2)}'"])
        template = ast.parse(source, mode="eval").body
        return call("len", ast.Attribute(template, "interpolations", ast.Load()))


# -- statements ------------------------------------------------------------------------------------


@builds(ast.Expr, weight=5)
def expr(g: Author, s: Scope) -> list[ast.stmt]:
    if g.chance(3):
        return [ast.Expr(g.number(s))]
    printed = call("print", g.number(s), g.number(s))
    if g.chance(5):
        printed = call("print", g.number(s), file=ast.Attribute(load("sys"), "stderr", ast.Load()))
    return [ast.Expr(printed)]


@builds(ast.Assign, weight=5)
def assign(g: Author, s: Scope) -> list[ast.stmt]:
    match g.integer(0, 8):
        case 0:
            names = [store(n) for n in g.pick([("a", "b"), ("d", "c"), ("a", "a")])]
            if s.is_function:
                names = [store("u"), store("w")]
            pair = ast.Tuple([g.number(s), g.number(s)], ast.Load())
            return [ast.Assign([ast.Tuple(names, ast.Store())], pair)]
        case 1:
            rest = ast.Starred(store(g.new("rest")), ast.Store())
            return [ast.Assign([ast.List([store("w"), rest], ast.Store())], g.items(s))]
        case 2:
            place = ast.Subscript(load("p"), small(g.number(s)), ast.Store())
            return [ast.Assign([place], g.number(s))]
        case 3:
            return [ast.Assign([ast.Attribute(load("duck"), "size", ast.Store())], g.number(s))]
        case 4 if s.kind == "cell":  # a value of any kind, which no other statement touches
            return [ast.Assign([store(g.new("kept"))], _any_value(g, s))]
    targets: list[ast.expr] = [store(g.pick(s.writable)) for _ in range(2 if g.chance(5) else 1)]
    return [ast.Assign(targets, g.number(s))]


def _any_value(g: Author, s: Scope) -> ast.expr:
    if g.chance(3):
        return g.pick(
            [g.items(s), call("Base"), call("atask", g.number(s)), call("Steps", g.leaf(s))]
        )
    texts = ("'text'", "b'bytes'", "(1, 2.5)", "{1: {2}}", "lambda x, *y: 0", "asyncio", "...")
    texts += ("ValueError(1)", "(i for i in p)", "acount(3)", "Base", "None", "{1, 2}", "atask(1)")
    return ast.parse(g.pick(texts), mode="eval").body


@builds(ast.AugAssign, weight=2)
def aug_assign(g: Author, s: Scope) -> list[ast.stmt]:
    operator = g.pick(ast.operator.__subclasses__())()
    value = g.number(s)
    if isinstance(operator, ast.Pow | ast.LShift | ast.Mult):
        value = ast.Constant(1)
    elif isinstance(operator, ast.RShift):
        value = small(value)
    places: list[ast.expr] = [store("a" if not s.is_function else "u")]
    places += [ast.Attribute(load("duck"), "size", ast.Store())]
    places += [ast.Subscript(load("p"), small(g.number(s)), ast.Store())]
    return [ast.AugAssign(g.pick(places), operator, value)]


@builds(ast.AnnAssign, weight=2)
def ann_assign(g: Author, s: Scope) -> list[ast.stmt]:
    lazy = s.is_function  # nothing evaluates the annotation of a local name
    annotation = load("int") if lazy else g.annotation(s)
    value = g.number(s) if g.chance(2) else None
    if g.chance(4):
        target: ast.expr = ast.Attribute(call("boom", load("duck")), "size", ast.Store())
        return [ast.AnnAssign(target, annotation, value, 0)]
    return [ast.AnnAssign(store(g.pick(s.writable)), annotation, value, 1)]


@builds(ast.Delete)
def delete(g: Author, s: Scope) -> list[ast.stmt]:
    targets: list[ast.expr] = [ast.Name(s.writable[-1], ast.Del())]
    targets += [ast.Subscript(load("p"), small(g.number(s)), ast.Del())]
    targets += [ast.Attribute(load("duck"), "size", ast.Del())]
    chosen = [g.pick(targets)]
    if g.chance(5):
        chosen = targets
    return [ast.Delete(chosen)]


@builds(ast.Pass)
def pass_(g: Author, s: Scope) -> list[ast.stmt]:
    return [ast.Pass()]


@builds(ast.If, weight=2)
def if_(g: Author, s: Scope) -> list[ast.stmt]:
    orelse = g.block(s, 2) if g.chance(2) else []
    return [ast.If(g.number(s), g.block(s, 2), orelse)]


def _in_loop(s: Scope) -> Scope:
    return replace(s, in_loop=True, loops=s.loops + 1)


def _not_too_deep(s: Scope) -> bool:
    return s.loops < 3


def _target(g: Author, s: Scope) -> ast.expr:
    if g.chance(6):
        return ast.Attribute(load("duck"), "size", ast.Store())
    if g.chance(10):
        return ast.Tuple([store("x"), store("y")], ast.Store())
    return store(g.pick(s.writable))


@builds(ast.For, possible=_not_too_deep, weight=2)
def for_(g: Author, s: Scope) -> list[ast.stmt]:
    orelse = g.block(s, 2) if g.chance(3) else []
    return [ast.For(_target(g, s), g.items(s), g.block(_in_loop(s), 2), orelse)]


@builds(ast.AsyncFor, possible=lambda s: s.can_await and _not_too_deep(s), weight=4)
def async_for(g: Author, s: Scope) -> list[ast.stmt]:
    orelse = g.block(s, 2) if g.chance(3) else []
    return [ast.AsyncFor(_target(g, s), g.async_items(s), g.block(_in_loop(s), 2), orelse)]


@builds(ast.While, possible=_not_too_deep)
def while_(g: Author, s: Scope) -> list[ast.stmt]:
    left = g.new("left")
    step = ast.BinOp(load(left), ast.Sub(), ast.Constant(1))
    goes_on = ast.Compare(ast.NamedExpr(store(left), step), [ast.Gt()], [ast.Constant(0)])
    test = ast.BoolOp(ast.And(), [goes_on, g.number(s)])
    orelse = g.block(s, 2) if g.chance(3) else []
    start = ast.Assign([store(left)], ast.Constant(g.integer(1, 3)))
    return [start, ast.While(test, g.block(_in_loop(s), 2), orelse)]


@builds(ast.Break, possible=lambda s: s.in_loop)
def break_(g: Author, s: Scope) -> list[ast.stmt]:
    return [ast.If(g.number(s), [ast.Break()], [])] if g.chance(2) else [ast.Break()]


@builds(ast.Continue, possible=lambda s: s.in_loop)
def continue_(g: Author, s: Scope) -> list[ast.stmt]:
    return [ast.If(g.number(s), [ast.Continue()], [])] if g.chance(2) else [ast.Continue()]


@builds(ast.Return, possible=lambda s: s.can_return)
def return_(g: Author, s: Scope) -> list[ast.stmt]:
    given = None if s.generator == "async" else g.number(s)
    return [ast.If(g.number(s), [ast.Return(given)], [])] if g.chance(2) else [ast.Return(given)]


@builds(ast.With, weight=2)
def with_(g: Author, s: Scope) -> list[ast.stmt]:
    return [ast.With(*_managed(g, s, "Manager"))]


@builds(ast.AsyncWith, possible=lambda s: s.can_await, weight=4)
def async_with(g: Author, s: Scope) -> list[ast.stmt]:
    match g.integer(0, 7):
        case 0:
            # Whatever else stood in it would race with the task.
            task = call(
                ast.Attribute(load("tg"), "create_task", ast.Load()), call("atask", g.number(s))
            )
            item = ast.withitem(call(_asyncio("TaskGroup")), store("tg"))
            return [ast.AsyncWith([item], [ast.Expr(task)])]
        case 1:
            limit = ast.withitem(call(_asyncio("timeout"), ast.Constant(20)), store("limit"))
            return [ast.AsyncWith([limit], g.block(replace(s, guarded=True), 2))]
        case 2:
            lock = ast.withitem(call(_asyncio("Lock")), None)
            return [ast.AsyncWith([lock], g.block(replace(s, guarded=True), 2))]
        case 3 if g.chance(3):
            wrong = ast.withitem(g.pick([g.number(s), call("Strange"), call("Manager", g.leaf(s))]))
            return [ast.AsyncWith([wrong], [ast.Pass()])]
    return [ast.AsyncWith(*_managed(g, s, "AsyncManager"))]


def _managed(g: Author, s: Scope, kind: str) -> tuple[list[ast.withitem], list[ast.stmt]]:
    items = []
    for _ in range(2 if g.chance(3) else 1):
        swallow = {"swallow": ast.Constant(True)} if g.chance(3) else {}
        target = _target(g, s) if g.chance(2) else None
        items.append(ast.withitem(call(kind, g.number(s), **swallow), target))
    return items, g.block(replace(s, guarded=True), 2)


ERRORS = ("ValueError", "KeyError", "TypeError", "ZeroDivisionError", "StopIteration", "Exception")


@builds(ast.Raise)
def raise_(g: Author, s: Scope) -> list[ast.stmt]:
    kind = g.pick([*ERRORS, "StopAsyncIteration", "LookupError"])
    error: ast.expr = call(kind, g.number(s))
    if g.chance(6):
        error = g.pick([load(kind), g.number(s)])
    if g.chance(6):
        several = ast.List([error, call("KeyError", g.leaf(s))], ast.Load())
        error = call("ExceptionGroup", ast.Constant("several"), several)
    cause = g.pick([call("OSError", g.number(s)), ast.Constant(None)]) if g.chance(4) else None
    made = ast.Raise() if g.chance(6) else ast.Raise(error, cause)
    return [ast.If(g.number(s), [made], [])] if g.chance(2) else [made]


@builds(ast.Try, weight=4)
def try_(g: Author, s: Scope) -> list[ast.stmt]:
    body = g.block(replace(s, guarded=True), 3)
    handlers = [_handler(g, replace(s, guarded=True)) for _ in range(g.integer(0, 2))]
    if g.chance(4):
        handlers.append(ast.ExceptHandler(None, None, g.block(replace(s, guarded=True), 2)))
    orelse = g.block(replace(s, guarded=True), 2) if handlers and g.chance(4) else []
    last = g.block(s, 2) if not handlers or g.chance(3) else []
    return [ast.Try(body, handlers, orelse, last)]


@builds(ast.TryStar, weight=2)
def try_star(g: Author, s: Scope) -> list[ast.stmt]:
    inner = replace(s, guarded=True)
    body = g.block(inner, 3)
    if g.chance(2):
        several = "ExceptionGroup('g', [ValueError(1), KeyError(2), OSError(3)])"
        body.append(ast.Raise(ast.parse(several, mode="eval").body))
    stuck = replace(inner, in_loop=False, can_return=False)
    handlers = [_handler(g, stuck) for _ in range(g.integer(1, 2))]
    return [ast.TryStar(body, handlers, [], g.block(s, 1) if g.chance(4) else [])]


def _handler(g: Author, s: Scope) -> ast.ExceptHandler:
    kind: ast.expr = load(g.pick(ERRORS))
    if g.chance(3):
        pair = [call("boom", load(g.pick(ERRORS))), load("LookupError")]
        kind = ast.Tuple(pair, ast.Load())
    body = g.block(s, 2)
    name = None
    if g.chance(2):
        name = g.new("error")
        shown = call("print", call("type", load(name)))
        body.insert(0, ast.Expr(shown))
    if g.chance(4):
        body.append(ast.Raise())
    return ast.ExceptHandler(kind, name, body)


@builds(ast.Assert)
def assert_(g: Author, s: Scope) -> list[ast.stmt]:
    return [ast.Assert(g.number(s), g.number(s) if g.chance(2) else None)]


@builds(ast.Import)
def import_(g: Author, s: Scope) -> list[ast.stmt]:
    texts = ("import math", "import os.path as path", "import json.decoder, math as m2")
    return ast.parse(g.pick([*texts, "import missing_module"])).body


@builds(ast.ImportFrom)
def import_from(g: Author, s: Scope) -> list[ast.stmt]:
    texts = ["from math import pi, floor as f0", "from math import missing", "from . import a"]
    if s.kind == "cell":
        texts.append("from keyword import *")
    return ast.parse(g.pick(texts)).body


@builds(ast.Global)
def global_(g: Author, s: Scope) -> list[ast.stmt]:
    name = g.new("declared")
    return [ast.Global([name]), ast.Assign([store(name)], g.number(s))]


@builds(ast.Nonlocal, possible=lambda s: s.is_function and not s.generator, weight=2)
def nonlocal_(g: Author, s: Scope) -> list[ast.stmt]:
    name = g.new("inner")
    inner = replace(g.function_scope(s, "def"), functions=s.functions)
    body = [ast.Nonlocal(["u"]), ast.Assign([store("u")], g.number(inner)), *g.block(inner, 1)]
    function = ast.FunctionDef(name, _arguments(ast.arg("v"), g.leaf(s)), body, [], None)
    return [function, ast.Expr(call(name))]


def _arguments(*pairs: Any) -> ast.arguments:
    names, defaults = list(pairs[::2]), list(pairs[1::2])
    return ast.arguments(
        posonlyargs=[], args=names, kwonlyargs=[], kw_defaults=[], defaults=defaults
    )


def _type_params(g: Author) -> dict[str, Any]:
    if sys.version_info < (3, 12):
        return {}
    if not g.chance(4):
        return {"type_params": []}
    chosen = g.pick(["[T]", "[T: int]", "[*Ts]", "[**P]", "[T: (int, str), *Ts, **P]"])
    if sys.version_info >= (3, 13) and g.chance(3):
        chosen = g.pick(["[T = int]", "[*Ts = *tuple[int]]", "[**P = [int]]"])
    return {"type_params": ast.parse(f"type X{chosen} = int").body[0].type_params}


def _definition(g: Author, s: Scope, kind: str, generator: str) -> ast.stmt:
    params = _type_params(g)
    here = replace(s, can_yield=False)
    quiet = replace(here, can_await=False, can_walrus=False) if params.get("type_params") else here
    annotation = g.annotation(quiet) if g.chance(4) else None
    arguments = _arguments(ast.arg("u", annotation), g.number(here), ast.arg("v"), g.leaf(here))
    if g.chance(4):
        arguments.vararg = ast.arg("rest")
        arguments.kwonlyargs, arguments.kw_defaults = [ast.arg("only")], [g.number(here)]
        arguments.kwarg = ast.arg("others")
    decorators: list[ast.expr] = [call("decorate", g.number(here))] if g.chance(4) else []
    inner = g.function_scope(s, kind, generator)
    body = g.block(inner, 3)
    if generator:
        body.insert(0, ast.Expr(ast.Yield(g.number(replace(inner, can_yield=False)))))
    else:
        body.append(ast.Return(g.number(inner)))
    if g.chance(5):
        body.insert(0, ast.Expr(ast.Constant("What it does.")))
    returns = g.annotation(quiet) if g.chance(5) else None
    node = ast.AsyncFunctionDef if kind == "async" else ast.FunctionDef
    made = node(g.new("f"), arguments, body, decorators, returns, **params)
    made.kind = f"{generator} generator" if generator else kind
    return made


def _may_define(s: Scope) -> bool:
    return s.loops < 2


@builds(ast.FunctionDef, possible=_may_define, weight=3)
def function_def(g: Author, s: Scope) -> list[ast.stmt]:
    return [_definition(g, s, "def", "sync" if g.chance(3) else "")]


@builds(ast.AsyncFunctionDef, possible=_may_define, weight=3)
def async_function_def(g: Author, s: Scope) -> list[ast.stmt]:
    return [_definition(g, s, "async", "async" if g.chance(3) else "")]


@builds(ast.ClassDef, possible=_may_define, weight=2)
def class_def(g: Author, s: Scope) -> list[ast.stmt]:
    params = _type_params(g)
    here = replace(s, can_yield=False)
    quiet = replace(here, can_await=False, can_walrus=False) if params.get("type_params") else here
    bases: list[ast.expr] = [g.pick([load("Base"), call("boom", load("Base"))])]
    if quiet.can_await and g.chance(3):
        bases = [ast.Await(call("aboom", load("Base")))]
    keywords = [ast.keyword("flag", g.number(quiet))] if g.chance(3) else []
    decorators: list[ast.expr] = [call("decorate", g.number(here))] if g.chance(4) else []
    inner = Scope("class", can_await=False, loops=s.loops, blocks=s.blocks, functions=s.functions)
    body = g.block(inner, 3)
    name = g.new("Class")
    return [ast.ClassDef(name, bases, keywords, body, decorators, **params)]


@builds(ast.Match, weight=3)
def match_(g: Author, s: Scope) -> list[ast.stmt]:
    subjects = [g.number(s), ast.List([g.number(s), g.number(s)], ast.Load())]
    subjects.append(ast.Dict([ast.Constant("k")], [g.number(s)]))
    subjects.append(call("Point", g.number(s), g.number(s)))
    cases = []
    for _ in range(g.integer(1, 3)):
        guard = g.number(s) if g.chance(3) else None
        cases.append(ast.match_case(_pattern(g, g.integer(0, 7)), guard, g.block(s, 2)))
    if g.chance(2):
        cases.append(ast.match_case(ast.MatchAs(), None, g.block(s, 1)))
    return [ast.Match(g.pick(subjects), cases)]


def _pattern(g: Author, which: int) -> ast.pattern:  # noqa: PLR0911 (one case a line)
    """A refutable pattern; what it captures has names that nothing else uses."""
    one = ast.MatchValue(ast.Constant(1))
    match which:
        case 0:
            return one
        case 1:
            return ast.MatchSingleton(g.pick([None, True, False]))
        case 2:
            rest = ast.MatchStar(g.new("more") if g.chance(2) else None)
            return ast.MatchSequence([_pattern(g, g.integer(0, 1)), rest])
        case 3:
            captured = ast.MatchAs(None, g.new("value"))
            return ast.MatchMapping([ast.Constant("k")], [captured], g.new("others"))
        case 4:
            named = ast.MatchAs(one, g.new("x"))
            return ast.MatchClass(load("Point"), [named], ["y"], [ast.MatchAs(None, g.new("y"))])
        case 5:
            value = ast.MatchValue(
                ast.Attribute(load("duck"), g.pick(["size", "bombed"]), ast.Load())
            )
            return ast.MatchOr([one, value, ast.MatchSingleton(None)])
        case 6:
            return ast.MatchSequence([ast.MatchAs(None, g.new("left")), ast.MatchAs()])
        case _:
            return ast.MatchClass(load("int"), [ast.MatchAs(None, g.new("number"))], [], [])


if sys.version_info >= (3, 12):

    @builds(ast.TypeAlias)
    def type_alias(g: Author, s: Scope) -> list[ast.stmt]:
        name = g.new("Alias")
        value = g.pick(["int", "list[T]", "missing"])
        return ast.parse(f"type {name}[T] = {value}").body


# -- text ------------------------------------------------------------------------------------------


def text_of(statements: list[ast.stmt], g: Author) -> str:
    """Write *statements* down, here and there with lines broken or joined."""
    source, ends_simple = "", False
    for statement in statements:
        text = ast.unparse(ast.fix_missing_locations(statement))
        simple = not hasattr(statement, "body") and not isinstance(statement, ast.Match)
        if source and simple and ends_simple and g.chance(6):
            source = f"{source[:-1]}; {text}\n"
        else:
            source += text + "\n"
        ends_simple = simple
    return _broken(source, [g.integer(0, 255) for _ in range(g.integer(0, 4))])


def _broken(source: str, where: list[int]) -> str:
    """Break lines of *source* inside of brackets."""
    if not where:
        return source
    places, depth, literal = [], 0, 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        literal += (kind in ("FSTRING_START", "TSTRING_START")) - (
            kind in ("FSTRING_END", "TSTRING_END")
        )
        if token.type == tokenize.OP and not literal:
            depth += (token.string in "([{") - (token.string in ")]}")
        if depth and not literal:
            places.append(token.end)
    lines = source.splitlines(keepends=True)
    chosen = {places[number % len(places)] for number in where} if places else set()
    for row, column in sorted(chosen, reverse=True):
        line = lines[row - 1]
        lines[row - 1] = f"{line[:column]}\n{' ' * (column % 7)}{line[column:].lstrip(' ')}"
    return "".join(lines)


def compiles(source: str) -> bool:
    """Whether *source* is legal where top-level `await` is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(source, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        except SyntaxError:
            return False
    return True


def write_cell(choices: bytes) -> str | None:
    """The source of one cell; None where it is no Python after all."""
    author = Author(iter(choices))
    author.lazy_annotations = author.chance(10)
    statements = author.block(Scope(), 6)
    if author.chance(3):
        statements.append(ast.Expr(author.number(Scope())))
    if author.lazy_annotations:
        statements[:0] = ast.parse("from __future__ import annotations").body
    try:
        source = text_of(statements, author)
    except ValueError:  # 3.11 cannot write every f-string down
        return None
    return source if compiles(source) else None


def cells() -> st.SearchStrategy[str]:
    """Sources of cells that compile."""
    choices = st.binary(min_size=500, max_size=1_000)
    return choices.map(write_cell).filter(lambda source: source is not None)
