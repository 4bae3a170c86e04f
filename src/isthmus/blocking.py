"""The blocking form of top-level async syntax. Owns the lowering and what it means at run time.

A cell that runs in a thread, or synchronously on the loop's thread, is not a coroutine: its
top-level ``await``, ``async for``, ``async with`` and async comprehensions become calls of three
hidden names, which wait for an awaitable from sync code:

    await X                  ->  <await>(X)
    async for T in I: ...    ->  for T in <aiter>(I): ...
    async with M as T: ...   ->  with <acm>(M) as T: ...
    [E async for T in I]     ->  [E for T in <aiter>(I)]

No hidden name is an identifier, so no cell can read, bind or shadow one. Every node keeps the
position of what it replaces: a traceback shows the line and column of the async form.

Refuses to know how an awaitable is waited for: ``run_sync`` is an argument of
:func:`blocking_names`. Runs nothing itself.
"""

from __future__ import annotations
import __future__

import ast
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from inspect import isawaitable
from types import CoroutineType, TracebackType
from typing import Any, NoReturn

from isthmus.errors import InternalError

AWAIT = "<await>"
AITER = "<aiter>"
ACM = "<acm>"

RunSync = Callable[[Awaitable[Any]], Any]
"""Waits for an awaitable from sync code; returns its result or raises its exception."""


def lower(tree: ast.Module, flags: int = 0) -> None:
    """Turn the top-level async syntax of *tree* into its blocking form, in place.

    *flags* are the ``__future__`` flags in force. *tree* must be one whose async form compiles:
    where ``await`` is illegal it is not looked for, so that every syntax error is found before.

    What is left alone has a scope of its own: bodies of functions, lambdas and classes, and
    generator expressions but for their outermost iterable.
    """
    eager_annotations = sys.version_info < (3, 14) and not (
        flags & __future__.annotations.compiler_flag
    )
    # A work list and no recursion: an AST may be far deeper than the interpreter's stack.
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        for owner, field in _top_level_fields(node, eager_annotations):
            pending.extend(_lower_field(owner, field))


def _lower_field(owner: ast.AST, field: str) -> Iterator[ast.AST]:
    """Lower what *field* of *owner* holds; give the nodes that are to be looked into."""
    value = getattr(owner, field, None)
    if isinstance(value, ast.AST):
        lowered = _lowered(value)
        setattr(owner, field, lowered)
        yield lowered
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, ast.AST):
                value[index] = lowered = _lowered(item)
                yield lowered


def _lowered(node: ast.AST) -> ast.AST:
    """Return the blocking form of *node* itself; its children are still to be visited."""
    match node:
        case ast.Await(value=value):
            return _call(AWAIT, value, node)
        case ast.AsyncFor(target=target, iter=source, body=body, orelse=orelse):
            loop = ast.For(target, _iterated(source, node), body, orelse)
            return ast.copy_location(loop, node)
        case ast.AsyncWith(items=items, body=body):
            for item in items:
                place = item.context_expr if _PRECISE else node
                item.context_expr = _call(ACM, item.context_expr, place)
            return ast.copy_location(ast.With(items, body), node)
        case ast.ListComp() | ast.SetComp() | ast.DictComp():
            for part in node.generators:
                if part.is_async:
                    part.is_async, part.iter = 0, _iterated(part.iter, node)
    return node


_PRECISE = sys.version_info >= (3, 13)
"""Where an async statement asks for its iterator or manager, a traceback shows that expression;
before 3.13 it shows the whole statement. What an async iterator raises shows the statement in all
versions; the plain `for` of 3.13 would show the expression."""


def _iterated(source: ast.expr, whole: ast.stmt | ast.expr) -> ast.expr:
    """Build the blocking iterable over *source*, for the loop or comprehension *whole*."""
    if not _PRECISE:
        return _call(AITER, source, whole)
    # The steps of a loop have the position of its iterable: a condition that the compiler folds
    # away lends it that of the whole, while the call within keeps its own.
    call = _call(AITER, source, source)
    condition = ast.copy_location(ast.Constant(True), whole)
    never = ast.copy_location(ast.Constant(None), whole)
    return ast.copy_location(ast.IfExp(condition, call, never), whole)


def _call(name: str, argument: ast.expr, place: ast.stmt | ast.expr) -> ast.Call:
    """Build ``name(argument)`` at the position of *place*."""
    function = ast.copy_location(ast.Name(name, ast.Load()), place)
    return ast.copy_location(ast.Call(function, [argument], []), place)


_Field = tuple[ast.AST, str]


def _top_level_fields(node: ast.AST, eager_annotations: bool) -> list[_Field]:
    """List the (owner, field) pairs below *node* that are evaluated in the scope of the cell."""
    fields = [(node, field) for field in node._fields]
    # What a definition with type parameters evaluates has a scope of its own (PEP 695).
    generic = getattr(node, "type_params", None)
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            annotated = eager_annotations and not generic
            fields = [(node, "decorator_list"), *_argument_fields(node.args, annotated)]
            fields += [(node, "returns")] if annotated else []
        case ast.Lambda(args=arguments):
            fields = _argument_fields(arguments, False)
        case ast.ClassDef():
            names = ["decorator_list"] if generic else ["decorator_list", "bases", "keywords"]
            fields = [(node, name) for name in names]
        case ast.GeneratorExp(generators=[outermost, *_]):
            fields = [(outermost, "iter")]
        case ast.AnnAssign() if not eager_annotations:
            fields = [(node, "target"), (node, "value")]
        case _ if type(node).__name__ == "TypeAlias":  # since 3.12; a lazy scope of its own
            fields = []
    return fields


def _argument_fields(arguments: ast.arguments, annotated: bool) -> list[_Field]:
    fields: list[_Field] = [(arguments, "defaults"), (arguments, "kw_defaults")]
    if annotated:
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [extra for extra in (arguments.vararg, arguments.kwarg) if extra]
        fields += [(argument, "annotation") for argument in every]
    return fields


def blocking_names(run_sync: RunSync) -> dict[str, Callable[[Any], Any]]:
    """Give the functions behind the hidden names, to go into a namespace's ``__builtins__``.

    *run_sync* waits for an awaitable from sync code. It is always given a coroutine. The
    functions raise what the async form would raise, in the interpreter's own words.

    Threads: as *run_sync*.
    """

    def wait_for(value: Any) -> Any:
        """Stand for ``await value``."""
        if type(value) is CoroutineType and not value.cr_suspended and not value.cr_running:
            return run_sync(value)
        # All else goes through a real `await`: it refuses what is no awaitable, or is a coroutine
        # that somebody else awaits, in the interpreter's words.
        return run_sync(_awaiting(value))

    def iterate(source: Any) -> _BlockingIterator:
        """Stand for the iterable of ``async for``."""
        return _BlockingIterator(_async_iterator(source), wait_for)

    def manage(manager: Any) -> _BlockingManager:
        """Stand for the manager of ``async with``."""
        return _BlockingManager(manager, wait_for)

    return {AWAIT: wait_for, AITER: iterate, ACM: manage}


async def _awaiting(value: Any) -> Any:
    return await value


class _BlockingIterator:
    """The sync iterator over an async one."""

    __slots__ = ("_iterator", "_wait_for")

    def __init__(self, iterator: Any, wait_for: Callable[[Any], Any]) -> None:
        self._iterator = iterator
        self._wait_for = wait_for

    def __iter__(self) -> _BlockingIterator:
        return self

    def __next__(self) -> Any:
        try:
            step = anext(self._iterator)
            if not isawaitable(step):
                _refuse(_loop_over(_Bad(step)))
            return self._wait_for(step)
        except StopAsyncIteration:
            raise StopIteration from None
        except StopIteration as error:
            # Let out, it would end the loop; the async form is a coroutine, which says this.
            raise RuntimeError("coroutine raised StopIteration") from error


class _BlockingManager:
    """The sync context manager over an async one."""

    __slots__ = ("_enter", "_exit", "_wait_for")

    def __init__(self, manager: Any, wait_for: Callable[[Any], Any]) -> None:
        # Both are looked up on the type, and before either is called, as `async with` does.
        enter, leave = _special(manager, "__aenter__"), _special(manager, "__aexit__")
        if enter is _MISSING or leave is _MISSING:
            _refuse(_enter(manager))
        self._enter, self._exit = enter, leave
        self._wait_for = wait_for

    def __enter__(self) -> Any:
        entering = self._enter()
        if not isawaitable(entering):
            _refuse(_enter(_Bad(entering)))
        return self._wait_for(entering)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Any:
        leaving = self._exit(kind, error, traceback)
        if not isawaitable(leaving):
            _refuse(_enter(_BadExit(leaving)))
        return self._wait_for(leaving)


_MISSING = object()


def _special(owner: Any, name: str) -> Any:
    """Look *name* up as the interpreter does: on the type, past any ``__getattr__``."""
    kind = type(owner)
    for base in kind.__mro__:
        if name in base.__dict__:
            found = base.__dict__[name]
            bind = getattr(type(found), "__get__", None)
            return found if bind is None else bind(found, owner, kind)
    return _MISSING


def _async_iterator(source: Any) -> Any:
    """Give ``aiter(source)``, with the messages of ``async for`` instead of those of ``aiter``."""
    if _special(source, "__aiter__") in (_MISSING, None):
        _refuse(_loop_over(source))
    try:
        return aiter(source)
    except TypeError as error:
        _, said, kind = str(error).partition("aiter() returned not an async iterator of type ")
        if not said:
            raise
    wanted = "'async for' received an object from __aiter__ that does not implement __anext__"
    raise TypeError(f"{wanted}: {kind[1:-1]}")


# What follows makes the interpreter raise its own TypeError for an object that the protocol does
# not allow: a real `async for` or `async with` is given it, and takes one step. The wording differs
# between Python versions, and a type's name as C knows it cannot be had from Python.


def _refuse(probe: Coroutine[Any, Any, Any]) -> NoReturn:
    """Step *probe*, which raises."""
    probe.send(None)
    raise InternalError(f"{probe!r} was to raise a TypeError; please report this")


async def _loop_over(source: Any) -> None:
    async for _ in source:
        pass


async def _enter(manager: Any) -> None:
    async with manager:
        pass


class _Bad:
    """An async iterator and manager whose ``__anext__`` and ``__aenter__`` give a fixed object."""

    def __init__(self, given: object) -> None:
        self._given = given

    def __aiter__(self) -> _Bad:
        return self

    def __anext__(self) -> Any:
        return self._given

    def __aenter__(self) -> Any:
        return self._given

    async def __aexit__(self, *_: object) -> None:
        """Never reached: entering has failed."""


class _BadExit:
    """An async context manager whose ``__aexit__`` gives a fixed object."""

    def __init__(self, given: object) -> None:
        self._given = given

    async def __aenter__(self) -> None:
        """Enter, so that there is something to leave."""

    def __aexit__(self, *_: object) -> Any:
        return self._given
