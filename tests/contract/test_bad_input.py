"""Bad input: each gives a named, readable error or a documented outcome, and the session goes on."""

# ruff: noqa: E501 (a cell in one string reads better than one that is wrapped)

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from either_home import error_name
from isthmus import (
    AnySession,
    CellAborted,
    CellCancelled,
    CellExit,
    CellFinished,
    CellResult,
    MemoryTransport,
    RemoteError,
)
from support import CONTEXTS, on_one_loop, run_in_forks

requirement = pytest.mark.requirement


@pytest.fixture
def survivor(session: AnySession, context: str) -> Callable[..., Any]:
    """Runs code in a session, and checks that what was bound before is there and that it goes on."""

    async def run(code: str, **options: Any) -> CellResult:
        await session.execute("before = ['kept']\nasync def kept(): return before")
        mapping = await session.execute("id(globals())")
        result = await session.run(code, context=context, **options)
        assert await session.execute("id(globals())") == mapping
        for after in ("async", "thread", "sync"):
            assert await session.execute("await kept()", context=after) == ["kept"]
        return result

    return run


Survivor = Callable[..., Any]


# -- source --------------------------------------------------------------------------------------------

BAD_SOURCE = {
    "an open bracket": ("x = (1,\n", "'(' was never closed"),
    "an unknown operator": ("1 $ 2", "invalid syntax"),
    "wrong indentation": ("if True:\nx = 1", "expected an indented block"),
    "return outside": ("return 1", "outside function"),
    "yield outside": ("yield 1", "outside function"),
    "break outside": ("break", "outside loop"),
    "await in a def": ("def f():\n    await g()", "outside async function"),
    "nonlocal": ("nonlocal x", "nonlocal"),
    "a null byte": ("x = 1\0", "null"),
    "a null byte in a later line": ("x = 1\ny = '\0'", "null"),
    "a surrogate": ("x = '\udcff'", "surrogate"),
    "a surrogate as a name": ("\ud800 = 1", ""),
    "a future import too late": ("x = 1\nfrom __future__ import annotations", "__future__"),
    "an unknown future": ("from __future__ import soup", "soup"),
    "a form feed and junk": ("\f\f)(", ""),
}


@on_one_loop
@requirement("bad-syntax")
@pytest.mark.parametrize("what", BAD_SOURCE)
async def test_source_that_does_not_compile_is_a_syntax_error(
    survivor: Survivor, what: str
) -> None:
    code, message = BAD_SOURCE[what]
    result = await survivor(
        "before.append('ran')\nbefore.pop()\n" + code if "future" not in what else code
    )
    assert error_name(result.error) in ("SyntaxError", "IndentationError")
    assert result.status == "error"
    assert message in str(result.error).lower()
    assert result.value is None
    assert isinstance(result.error, RemoteError) or result.filename == result.error.filename


@requirement("bad-syntax")
async def test_a_cell_that_does_not_compile_has_its_events(
    make_session: Callable[..., AnySession], transport: MemoryTransport, context: str
) -> None:
    session = make_session(transport=transport)
    await session.run("1 +", context=context)
    assert [type(it).__name__ for it in transport] == ["CellStarted", "CellFinished"]
    (finished,) = transport.of_type(CellFinished)
    assert finished.error == "SyntaxError"


@on_one_loop
@requirement("bad-empty")
@pytest.mark.parametrize(
    "code", ["", "   ", "\n\n", "# only", "# a\n\n# b\n", "\f", "pass", "'doc'"]
)
async def test_an_empty_cell_is_fine(survivor: Survivor, code: str) -> None:
    result = await survivor(code)
    assert result.error is None
    assert result.value == ("doc" if code == "'doc'" else None)
    assert result.bound == ()


@on_one_loop
@requirement("bad-empty")
@pytest.mark.parametrize("code", [b"x = 1", None, 5])
async def test_something_that_is_no_text_is_refused(
    session: AnySession, context: str, code: Any
) -> None:
    with pytest.raises(TypeError, match="must be a str"):
        await session.run(code, context=context)
    assert await session.execute("1", context=context) == 1


@on_one_loop
@requirement("bad-large")
async def test_ten_megabytes_of_source_run(survivor: Survivor) -> None:
    line = f"x = '{'y' * 1_000_000}'\n"
    result = await survivor(line * 10 + "len(x)")
    assert (result.error, result.value) == (None, 1_000_000)


@on_one_loop
@requirement("bad-deep")
@pytest.mark.parametrize(
    "code",
    [
        "(" * 50_000 + ")" * 50_000,
        "-" * 100_000 + "1",
        "x" + ".y" * 100_000,
        "+".join(["1"] * 50_000),
    ],
    ids=["brackets", "signs", "attributes", "sum"],
)
async def test_a_deeply_nested_expression_is_an_error_or_works(
    survivor: Survivor, code: str
) -> None:
    result = await survivor(code)
    if result.error is not None:
        expected = ("SyntaxError", "RecursionError", "MemoryError", "NameError")
        assert error_name(result.error) in expected


@requirement("bad-surrogates")
async def test_surrogates_made_by_code_are_printed_and_returned(survivor: Survivor) -> None:
    result = await survivor("print('\\udcff')\n'\\ud800'")
    assert (result.stdout, result.value) == ("\udcff\n", "\ud800")


# -- names ---------------------------------------------------------------------------------------------


@on_one_loop
@requirement("bad-module-names")
@pytest.mark.parametrize(
    "code",
    [
        "del __builtins__",
        "__builtins__ = {}",
        "__builtins__ = None",
        "del __name__",
        "del __builtins__, __name__, __spec__, __loader__, __doc__, __package__",
        "globals().pop('__builtins__')\nNone",
        "del __file__",
    ],
)
async def test_module_names_that_a_cell_deletes_are_put_back(
    survivor: Survivor, session: AnySession, context: str, code: str
) -> None:
    result = await survivor(code)
    assert result.error is None
    assert await session.execute(
        "len([1])\nrun_sync\nclass C: pass\nC.__module__", context=context
    ) == (await session.get("__name__"))


@requirement("bad-module-names")
async def test_clearing_the_whole_namespace_leaves_a_working_session(
    session: AnySession, context: str
) -> None:
    await session.execute("x = 1")
    await session.run("globals().clear()", context=context)
    assert await session.execute("y = 2; y", context=context) == 2
    assert "x" not in await session.snapshot()


@requirement("bad-asyncio")
@pytest.mark.parametrize("code", ["asyncio = None", "del asyncio", "import math as asyncio"])
async def test_rebinding_asyncio_harms_only_the_cells_own_use_of_it(
    survivor: Survivor, session: AnySession, context: str, code: str
) -> None:
    await session.execute("async def f():\n    return 5\ncoroutine_function = f")
    assert (await survivor(code)).error is None
    assert await session.execute("c = f()\nawait f()", context=context) == 5
    assert dict(await session.await_pending_coroutines()) == {"c": 5}
    assert await session.execute("import asyncio\nawait asyncio.sleep(0, 6)", context=context) == 6


@requirement("bad-module-names")
async def test_shadowing_the_hidden_names_and_builtins_harms_nobody(
    survivor: Survivor, session: AnySession, context: str
) -> None:
    code = "print = len = getattr = isinstance = Exception = BaseException = None\nrun_sync = None\nrange = 3"
    assert (await survivor(code)).error is None
    assert (
        await session.execute(
            "import asyncio\nasync with asyncio.timeout(5): x = await asyncio.sleep(0, 4)\nx",
            context=context,
        )
        == 4
    )
    await session.execute(
        "del print, len, getattr, isinstance, Exception, BaseException, run_sync, range"
    )
    assert await session.execute("len([1])", context=context) == 1


# -- exceptions ------------------------------------------------------------------------------------------

ABORTS = {
    "sys.exit()": ("import sys; sys.exit()", SystemExit, CellExit),
    "sys.exit(3)": ("import sys; sys.exit(3)", SystemExit, CellExit),
    "exit in a coroutine": (
        "import sys\nasync def f():\n    await asyncio.sleep(0)\n    sys.exit(4)\nawait f()",
        SystemExit,
        CellExit,
    ),
    "SystemExit": ("raise SystemExit('text')", SystemExit, CellExit),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", KeyboardInterrupt, CellAborted),
    "KeyboardInterrupt in a coroutine": (
        "async def f():\n    await asyncio.sleep(0)\n    raise KeyboardInterrupt\nawait f()",
        KeyboardInterrupt,
        CellAborted,
    ),
    "GeneratorExit": ("raise GeneratorExit", GeneratorExit, CellAborted),
    "GeneratorExit after an await": (
        "await asyncio.sleep(0)\nraise GeneratorExit",
        GeneratorExit,
        CellAborted,
    ),
    "GeneratorExit in a coroutine": (
        "async def f():\n    await asyncio.sleep(0)\n    raise GeneratorExit\nawait f()",
        GeneratorExit,
        CellAborted,
    ),
    "CancelledError": ("raise asyncio.CancelledError", asyncio.CancelledError, CellCancelled),
    "CancelledError in a coroutine": (
        "async def f():\n    await asyncio.sleep(0)\n    raise asyncio.CancelledError('mine')\nawait f()",
        asyncio.CancelledError,
        CellCancelled,
    ),
    "a BaseException": (
        "class Own(BaseException): pass\nraise Own('x')",
        BaseException,
        CellAborted,
    ),
    "a base group": (
        "raise BaseExceptionGroup('g', [KeyboardInterrupt()])",
        BaseExceptionGroup,
        CellAborted,
    ),
}


@requirement("bad-exceptions")
@pytest.mark.parametrize("what", ABORTS)
async def test_what_would_harm_the_host_is_wrapped(survivor: Survivor, what: str) -> None:
    code, raised, wrapper = ABORTS[what]
    result = await survivor(code)
    if isinstance(result.error, RemoteError):  # which harms nobody
        assert wrapper is CellAborted
        wrapper = RemoteError
    else:
        assert isinstance(result.error, raised), result
    with pytest.raises(wrapper) as caught:
        result.unwrap()
    assert result.error in (caught.value, caught.value.__cause__)
    if "3" in what:
        assert caught.value.code == 3


@requirement("bad-exceptions")
@pytest.mark.parametrize("kind", ["StopIteration", "StopAsyncIteration"])
@pytest.mark.parametrize("form", ["top level", "function", "coroutine"])
async def test_stop_iteration_arrives_and_ends_nothing_else(
    survivor: Survivor, kind: str, form: str
) -> None:
    code = {
        "top level": f"raise {kind}(5)",
        "function": f"def f(): raise {kind}(5)\n[f() for _ in 'x']",
        "coroutine": f"async def f():\n    await asyncio.sleep(0)\n    raise {kind}(5)\nawait f()",
    }[form]
    result = await survivor(code)
    assert result.error is not None
    assert error_name(result.error) in (kind, "RuntimeError")


# At the limit the call of run_sync itself fails, and nothing has yet seen the coroutine.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@requirement("bad-recursion")
@pytest.mark.parametrize(
    "code",
    [
        "def f(): return f()\nf()",
        "async def f(): return await f()\nawait f()",
        "def f(): return run_sync(g())\nasync def g(): return f()\nf()",
        "class C:\n    @property\n    def p(self): return self.p\nC().p",
    ],
    ids=["sync", "async", "both", "property"],
)
async def test_recursion_without_end_is_a_recursion_error(survivor: Survivor, code: str) -> None:
    result = await survivor(code)
    assert error_name(result.error) == "RecursionError"


@on_one_loop
@requirement("bad-repr")
@pytest.mark.parametrize(
    "error", ["ValueError('no')", "KeyboardInterrupt()", "SystemExit(1)", "RecursionError()"]
)
async def test_a_value_whose_repr_raises_is_a_value(
    make_session: Callable[..., AnySession], transport: MemoryTransport, context: str, error: str
) -> None:
    session = make_session(transport=transport)
    code = f"class Bad:\n    def __repr__(self): raise {error}\nBad()"
    result = await session.run(code, context=context)
    status = result.status  # pytest would show the value itself
    (finished,) = transport.of_type(CellFinished)
    assert (status, await session.execute("type(_).__name__")) == ("ok", "Bad")
    assert finished.value is not None
    assert "Bad" in finished.value
    assert await session.execute("'on'", context=context) == "on"


@requirement("bad-repr")
async def test_an_error_whose_str_raises_is_reported(
    make_session: Callable[..., AnySession], transport: MemoryTransport, context: str
) -> None:
    session = make_session(transport=transport)
    code = (
        "class Bad(Exception):\n    def __str__(self): raise ValueError('no')\n"
        "    __repr__ = __str__\nraise Bad()"
    )
    result = await session.run(code, context=context)
    assert error_name(result.error) == "Bad"
    (finished,) = transport.of_type(CellFinished)
    assert finished.error == "Bad"
    assert finished.traceback
    assert await session.execute("'on'", context=context) == "on"


VILLAINS = {
    "__eq__": "def __eq__(self, other): raise ValueError('eq')\n    __hash__ = None",
    "__bool__": "def __bool__(self): raise ValueError('bool')",
    "__len__": "def __len__(self): raise ValueError('len')",
    "__getattr__": "def __getattr__(self, name): raise ValueError(name)",
    "__getattribute__": "def __getattribute__(self, name): raise ValueError(name)",
    "__class__": "__class__ = property(lambda self: 1 / 0)",
    "__iter__": "def __iter__(self): raise ValueError('iter')",
}


@on_one_loop
@requirement("bad-repr")
@pytest.mark.parametrize("what", VILLAINS)
async def test_values_with_wicked_methods_are_values(
    make_session: Callable[..., AnySession], transport: MemoryTransport, context: str, what: str
) -> None:
    session = make_session(transport=transport)
    code = f"class Bad:\n    {VILLAINS[what]}\nbad = Bad()\nmany = [bad, {{'k': bad}}]\nbad"
    result = await session.run(code, context=context)
    status = result.status  # pytest would show the value itself
    assert status == "ok"
    assert await session.execute("_ is bad", context=context) is True
    assert await session.execute("'on'", context=context) == "on"


@requirement("bad-del")
async def test_a_destructor_that_raises_does_not_change_the_outcome(
    session: AnySession, context: str
) -> None:
    await session.execute(
        "class Bad:\n    def __del__(self): session.snapshot(); log.append(1)\nlog = []"
    )
    session.update_namespace({"session": session})
    result = await session.run("b = Bad()\nb = None\n'value'", context=context)
    assert (result.status, result.value) == ("ok", "value")
    assert await session.get("log") == [1]


@requirement("bad-options")
@pytest.mark.parametrize("timeout", [0, 0.0])
async def test_a_timeout_of_nothing_returns_at_once(survivor: Survivor, timeout: float) -> None:
    result = await survivor("await asyncio.sleep(30)", timeout=timeout)
    assert result.status == "timeout"


# -- processes -------------------------------------------------------------------------------------------


FORGETFUL = """
    import asyncio
    from isthmus import Session
    async def main(code, context):
        session = Session()
        if context == "thread" and "ensure_future" in code:
            code += "\\nawait asyncio.sleep(0)"  # it is to have a running loop
        await session.run(code, context=context)
        print("leaving")
    asyncio.run(main(*sys.argv[1:]))
    """

FORGOTTEN = {
    "failed thread": "import ctypes, threading\nthreading.Thread(target=lambda: 1 / 0).start()",
    "thread": "import threading\nt = threading.Thread(target=print, args=('late',)); t.start()",
    "atexit": "import atexit; atexit.register(print, 'bye')",
    "generator": "def f(): yield 1\ng = f(); next(g)",
    "task": "async def f():\n    await asyncio.sleep(30)\nt = asyncio.ensure_future(f())",
    "parked task": (
        "async def f():\n    await asyncio.sleep(30)\ndef g(): run_sync(f())\n"
        "async def h(): g()\nt = asyncio.ensure_future(h())\nawait asyncio.sleep(0)"
    ),
}


@on_one_loop
@requirement("bad-exceptions")
def test_a_host_that_forgets_to_close_can_leave() -> None:
    cases = [(code, context) for code in FORGOTTEN.values() for context in CONTEXTS]
    for (code, context), ended in zip(cases, run_in_forks(FORGETFUL, cases), strict=True):
        assert ended.status == 0, (code, context, ended)
        assert "leaving" in ended.stdout, (code, context, ended)


@pytest.mark.parametrize("given", ["fiber", None, ["async"]])
async def test_a_context_that_is_none_is_refused_when_the_session_is_made(
    make_session: Callable[..., AnySession], given: Any
) -> None:
    with pytest.raises(ValueError, match="'async', 'thread', 'sync' or 'auto', not "):
        make_session(context=given)
