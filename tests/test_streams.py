"""What ``sys.stdout`` is to whom, its comings and goings, and the ways around it."""

# ruff: noqa: E501 (a cell in one string reads better than one that is wrapped)

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import io
import logging
import sys
import types
from collections.abc import Iterator
from typing import Any
from unittest import mock

import cloudpickle
import pytest

from either_home import Flag, beside, error_name, message_of
from isthmus import AnySession
from isthmus.jobs import Job, current_job
from isthmus.output import CellOutput
from isthmus.streams import RoutedStream, StandardStream, StreamHooks
from support import cell, run_in_child

requirement = pytest.mark.requirement


@pytest.fixture
def hooks() -> Iterator[StreamHooks]:
    """Hooks of the test's own, taken out in any case."""
    hooks = StreamHooks()
    yield hooks
    while hooks._users:
        hooks.remove()


class Writing(Job):
    """A job that only has an output."""

    def __init__(self) -> None:
        super().__init__(1, "sync", awaits=False)
        self.output = CellOutput()


@contextlib.contextmanager
def in_job() -> Iterator[CellOutput]:
    """Have the test's own code be a cell's."""
    job = Writing()
    token = current_job.set(job)
    try:
        yield job.output  # type: ignore[misc]
    finally:
        current_job.reset(token)


# -- coming and going ------------------------------------------------------------------------------


@requirement("6.5-hooks")
def test_streams_go_in_with_the_first_and_out_with_the_last(hooks: StreamHooks) -> None:
    before, names, kind = (sys.stdout, sys.stderr), dict(vars(sys)), type(sys)
    hooks.install()
    hooks.install()
    assert isinstance(vars(sys)["stdout"], RoutedStream)
    hooks.remove()
    assert isinstance(vars(sys)["stdout"], RoutedStream)
    hooks.remove()
    assert (sys.stdout, sys.stderr) == before
    assert (vars(sys)["stdout"], vars(sys)["stderr"]) == (names["stdout"], names["stderr"])
    assert type(sys) is kind
    assert not hasattr(logging.StreamHandler, "stream")


@requirement("6.5-hooks")
def test_code_of_no_cell_sees_and_swaps_its_streams_as_ever(hooks: StreamHooks) -> None:
    found = sys.stdout
    hooks.install()
    assert sys.stdout is found
    with contextlib.redirect_stdout(io.StringIO()) as mine:
        assert sys.stdout is mine
        print("seen")
    assert (mine.getvalue(), sys.stdout) == ("seen\n", found)


@requirement("6.5-hooks")
def test_a_stream_that_the_host_has_put_there_since_stays(
    hooks: StreamHooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = io.StringIO()
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    hooks.install()
    sys.stdout = mine
    hooks.remove()
    assert sys.stdout is mine


@requirement("6.5-hooks")
def test_a_stream_that_somebody_put_past_the_hooks_stays(
    hooks: StreamHooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = io.StringIO()
    monkeypatch.setitem(vars(sys), "stdout", sys.stdout)
    hooks.install()
    vars(sys)["stdout"] = mine
    hooks.remove()
    assert sys.stdout is mine


@requirement("6.5-hooks")
def test_a_patch_that_finds_the_front_puts_back_what_was_below(hooks: StreamHooks) -> None:
    found = sys.stdout
    hooks.install()
    with mock.patch("sys.stdout", new_callable=io.StringIO) as mine:
        print("patched")
    assert (mine.getvalue(), sys.stdout) == ("patched\n", found)
    hooks.remove()
    assert sys.stdout is found


@requirement("6.5-hooks")
def test_a_class_of_sys_that_builds_on_ours_goes_on_to_work(hooks: StreamHooks) -> None:
    found, mine = sys.stdout, io.StringIO()
    hooks.install()

    class Later(type(sys)):  # type: ignore[misc]
        pass

    sys.__class__ = Later
    try:
        hooks.remove()
        assert type(sys) is Later
        assert sys.stdout is found
        sys.stdout = mine
        assert vars(sys)["stdout"] is mine
        sys.stdout = found
        hooks.install()
        assert sys.stdout is found
        hooks.remove()
        assert type(sys) is Later
    finally:
        sys.__class__ = types.ModuleType
    assert sys.stdout is found


@requirement("6.5-hooks")
def test_the_module_sys_is_pickled_by_name(hooks: StreamHooks) -> None:
    hooks.install()
    assert cloudpickle.loads(cloudpickle.dumps(lambda: sys.stdout))() is sys.stdout
    assert cloudpickle.loads(cloudpickle.dumps(sys)) is sys


@requirement("6.5-hooks")
def test_a_process_without_streams_is_survived(
    hooks: StreamHooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    hooks.install()
    print("nowhere")
    front = vars(sys)["stdout"]
    assert front.write("x") == 0
    front.flush()
    assert not front.isatty()
    assert front.encoding == "utf-8"
    assert front.errors is None
    with pytest.raises(io.UnsupportedOperation):
        front.fileno()
    hooks.remove()
    assert sys.stdout is None


@requirement("6.5-hooks")
def test_the_front_passes_on_what_the_original_says(hooks: StreamHooks) -> None:
    hooks.install()
    front, original = vars(sys)["stdout"], sys.stdout
    for name in ("encoding", "errors", "name", "mode", "line_buffering", "write_through", "buffer"):
        assert getattr(front, name) == getattr(original, name), name
    assert front.writable() and not front.closed
    with mock.patch("sys.stdout") as other:
        front.reconfigure(newline="\n")
        front.detach()
    other.reconfigure.assert_called_once_with(newline="\n")
    other.detach.assert_called_once_with()


@requirement("6.5-hooks")
async def test_sessions_share_the_hooks_whatever_the_order_of_their_ends(make_session: Any) -> None:
    before = sys.stdout
    one, two = make_session("one"), make_session("two")
    await one.execute("1")
    await two.execute("1")
    await one.close()
    assert (await two.run("print('two')")).stdout == "two\n"
    await two.close()
    assert sys.stdout is before


# -- streams swapped -------------------------------------------------------------------------------


@requirement("6.1-swapped-streams")
async def test_a_redirection_in_a_cell_holds_over_an_await_and_for_nobody_else(
    session: AnySession, make_session: Any, context: str, capsys: pytest.CaptureFixture[str]
) -> None:
    redirected = Flag(session, "redirected")
    await session.execute("import contextlib, io\ngo_on = asyncio.Event()")
    code = """
        with contextlib.redirect_stdout(io.StringIO()) as f:
            print('before')
            redirected()
            await go_on.wait()
            print('after')
        print('outside')
        f.getvalue()
        """
    running = asyncio.create_task(session.run(cell(code), context=context))
    await redirected.seen()
    other = make_session("other")
    assert (await other.run("print('other')", context=context)).stdout == "other\n"
    print("host")
    await beside(session, "go_on.set()")
    result = await running
    assert (result.value, result.stdout) == ("before\nafter\n", "outside\n")
    assert capsys.readouterr().out == "host\n"


@requirement("6.1-swapped-streams")
async def test_redirections_that_overlap_leave_nothing_behind(session: AnySession) -> None:
    code = """
        import contextlib, io
        async def redirected(name, enter, leave, proceed):
            await enter.wait()
            with contextlib.redirect_stdout(io.StringIO()) as f:
                print(name, 'in')
                proceed.set()
                await leave.wait()
                print(name, 'out')
            proceed.set()
            return f.getvalue()

        events = [asyncio.Event() for _ in range(4)]
        first = asyncio.create_task(redirected('a', events[0], events[2], events[1]))
        second = asyncio.create_task(redirected('b', events[1], events[3], events[2]))
        events[0].set()
        await events[2].wait()   # both are in; a leaves first, though it went in first
        await first
        events[3].set()
        print('mine')
        await first, await second
        """
    result = await session.run(cell(code) + "\n(await first, await second)")
    assert result.error is None
    assert result.value == ("a in\na out\n", "b in\nb out\n")
    assert result.stdout == "mine\n"
    assert (await session.run("print('next')")).stdout == "next\n"


@requirement("6.1-swapped-streams")
async def test_an_assigned_stream_holds_in_later_cells_until_it_is_put_back(
    session: AnySession, first: str, second: str
) -> None:
    await session.execute(
        "import io, sys\nsaved, sys.stdout = sys.stdout, io.StringIO()", context=first
    )
    result = await session.run("print('away', flush=True); sys.stdout.getvalue()", context=second)
    assert (result.value, result.stdout) == ("away\n", "")
    result = await session.run("sys.stdout = saved; print('back')", context=first)
    assert result.stdout == "back\n"
    assert (await session.run("print('here')", context=second)).stdout == "here\n"


@requirement("6.1-swapped-streams")
@pytest.mark.parametrize("original", ["sys.__stdout__", "vars(sys)['stdout']"])
async def test_assigning_the_processes_own_stream_ends_a_diversion(
    session: AnySession, original: str
) -> None:
    result = await session.run(
        f"import io, sys\nsys.stdout = io.StringIO()\nprint('away')\nsys.stdout = {original}\nprint('back')"
    )
    assert (result.error, result.stdout) == (None, "back\n")


@requirement("6.1-swapped-streams")
async def test_a_stream_may_be_taken_away_and_put_on_top_of(session: AnySession) -> None:
    code = """
        import sys
        saved = sys.stdout
        sys.stdout = None
        print('nowhere', flush=True)
        del sys.stdout
        class Tee:
            def __init__(self, *streams):
                self.streams = streams
            def write(self, text):
                for stream in self.streams:
                    stream.write(text)
            def flush(self):
                pass
        sys.stdout = Tee(saved, sys.stderr)
        print('twice')
        sys.stdout = sys.stderr
        print('once')
        sys.stdout = saved
        """
    result = await session.run(cell(code))
    assert (result.error, result.stdout, result.stderr) == (None, "twice\n", "twice\nonce\n")


@requirement("6.1-swapped-streams")
async def test_a_host_that_swaps_its_streams_takes_nothing_from_a_cell(
    make_session: Any, context: str
) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as outer:
        session = make_session("within")
        assert (await session.run("print('one')", context=context)).stdout == "one\n"
    # What was swapped in when the session was opened has been put back since.
    assert (await session.run("print('two')", context=context)).stdout == "two\n"
    with contextlib.redirect_stdout(io.StringIO()) as inner:
        assert (await session.run("print('three')", context=context)).stdout == "three\n"
        print("host")
        await session.close()
    assert (outer.getvalue(), inner.getvalue()) == ("", "host\n")


@requirement("6.1-swapped-streams")
async def test_a_stream_that_was_put_in_front_is_flushed_with_the_cell(
    session: AnySession, context: str
) -> None:
    code = "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')\nprint('é')"
    assert (await session.run(code, context=context)).stdout == "é\n"
    code = "print('left in the buffer')\nsys.stdout = sys.__stdout__\nprint('behind it')"
    result = await session.run(code, context=context)
    assert result.stdout == "left in the buffer\nbehind it\n"
    code = "sys.stdout = io.StringIO()\nsys.stdout.close()"
    assert (await session.run(code, context=context)).error is None


# -- ways to write ---------------------------------------------------------------------------------


@requirement("6.1-ways-to-write")
async def test_every_way_to_write_goes_to_the_cell(session: AnySession, context: str) -> None:
    code = r"""
        import sys
        print('a', 'b', sep='-', end='!\n', file=sys.stdout, flush=True)
        sys.stdout.writelines(['c\n', 'd\n'])
        sys.stdout.buffer.write('é\n'.encode())
        sys.stdout.buffer.write(memoryview(b'm\n'))
        sys.stdout.buffer.writelines([b'l\n'])
        sys.stdout.buffer.flush()
        sys.stdout.detach().write(b'detached\n')
        sys.stdout.reconfigure(encoding='ascii', errors='strict')
        print('é', end='\r')
        print('\ud800')
        with sys.stdout as stream:
            stream.close()
            stream.buffer.close()
        print('f', end='')
        sys.stderr.write('on stderr\n')
        sys.stderr.buffer.write(b'bytes too\n')
        """
    result = await session.run(cell(code), context=context)
    assert result.error is None
    written = "a-b!\nc\nd\né\nm\nl\ndetached\né\r\ud800\nf"
    assert result.stdout == written
    assert result.stderr == "on stderr\nbytes too\n"


@requirement("6.1-ways-to-write")
def test_warnings_and_uncaught_errors_are_written_by_the_cell_that_made_them() -> None:
    program = """
        import asyncio
        from isthmus import Session

        CELL = '''
        import sys, warnings
        warnings.simplefilter("always")
        warnings.warn("of the cell")
        class A:
            def __del__(self):
                1 / 0
        A()
        sys.excepthook(ValueError, ValueError("shown"), None)
        '''
        WORDS = ("UserWarning: of the cell", "ZeroDivision", "shown")

        async def main():
            async with Session() as session:
                for context in ("async", "thread", "sync"):
                    error = (await session.run(CELL, context=context)).stderr
                    print(*(it in error for it in WORDS))

        asyncio.run(main())
        """
    ended = run_in_child(program)
    assert (ended.stdout.splitlines(), ended.stderr) == (["True True True"] * 3, ""), ended


@requirement("6.1-ways-to-write")
async def test_what_cannot_be_written_raises_as_ever(session: AnySession, context: str) -> None:
    for code, words in (
        ("sys.stdout.write(5)", "must be str"),
        ("sys.stderr.write(b'x')", "must be str"),
        ("sys.stdout.buffer.write('x')", "bytes-like object"),
    ):
        result = await session.run(f"import sys; {code}", context=context)
        assert error_name(result.error) == "TypeError"
        assert words in message_of(result.error)


@requirement("6.1-ways-to-write")
async def test_a_cells_stream_says_what_it_is(session: AnySession) -> None:
    asked = """
        import sys
        stream, number = sys.stdout, vars(sys)["stdout"].fileno()
        said = stream.isatty(), stream.encoding, stream.errors, stream.writable(), stream.fileno()
        buffer = stream.buffer
        said, (buffer.isatty(), buffer.writable(), buffer.fileno()), number
        """
    stream, buffer, number = await session.execute(cell(asked))
    assert stream == (False, "utf-8", "backslashreplace", True, number)
    assert buffer == (False, True, number)


@requirement("6.1-ways-to-write")
async def test_a_cells_buffer_is_the_hosts_to_the_host(session: AnySession) -> None:
    buffer = await session.execute("import sys; sys.stdout.buffer")
    with mock.patch("sys.stdout") as host:
        host.buffer.write.return_value = 3
        assert buffer.write(b"abc") == 3
        buffer.flush()
    host.buffer.write.assert_called_once_with(b"abc")
    host.buffer.flush.assert_called_once_with()


@requirement("6.1-ways-to-write")
def test_a_job_that_writes_first_opens_its_output(hooks: StreamHooks) -> None:
    opened: list[CellOutput] = []

    class Opening(Writing):
        def __init__(self) -> None:
            super().__init__()
            self.output = None

        def open_output(self) -> CellOutput:
            opened.append(CellOutput())
            return opened[-1]

    def write() -> None:
        current_job.set(Opening())
        print("out")
        sys.stderr.write("err")
        sys.stdout.buffer.write(b"bytes")
        sys.stdout.flush()
        sys.stdout.buffer.flush()

    hooks.install()
    contextvars.copy_context().run(write)
    texts = [output.text("stdout") + output.text("stderr") for output in opened]
    assert texts == ["out", "\n", "err", "bytes", "", ""]


# -- logging ---------------------------------------------------------------------------------------


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger that hands nothing on."""
    logger = logging.Logger("of the test", logging.INFO)
    yield logger
    for handler in list(logger.handlers):
        handler.close()


@requirement("6.1-logging")
async def test_a_handler_made_before_the_session_writes_to_the_cell_that_logs(
    session: AnySession, logger: logging.Logger, context: str
) -> None:
    with contextlib.redirect_stderr(io.StringIO()) as host:
        handler = logging.StreamHandler()
        logger.addHandler(handler)
        session.update_namespace({"logger": logger})
        result = await session.run("logger.info('of the cell')", context=context)
        logger.info("of the host")
        assert handler.stream is host
    assert (result.stderr, host.getvalue()) == ("of the cell\n", "of the host\n")


@requirement("6.1-logging")
async def test_a_handler_made_in_a_cell_writes_to_the_cell_that_logs(
    session: AnySession, context: str
) -> None:
    await session.execute("import logging\nlogger = logging.Logger('of the test', logging.INFO)")
    code = "logger.addHandler(logging.StreamHandler())\nlogger.info('made here')"
    assert (await session.run(code, context=context)).stderr == "made here\n"
    assert (await session.run("logger.info('later')", context=context)).stderr == "later\n"


@requirement("6.1-logging")
async def test_a_handler_made_in_a_cell_writes_for_the_host_too(
    make_session: Any, logger: logging.Logger, context: str, capsys: pytest.CaptureFixture[str]
) -> None:
    session = make_session("logging")
    session.update_namespace({"logger": logger})
    code = "import logging\nlogger.addHandler(logging.StreamHandler())\nlogger.info('made here')"
    assert (await session.run(code, context=context)).stderr == "made here\n"
    logger.info("of the host")
    await session.close()
    logger.info("after the end")
    assert capsys.readouterr().err == "of the host\nafter the end\n"


@requirement("6.1-logging")
async def test_a_handler_on_a_stream_of_its_own_keeps_it(session: AnySession) -> None:
    code = """
        import io, logging, sys
        file, logger = io.StringIO(), logging.Logger("of the test", logging.INFO)
        logger.addHandler(logging.StreamHandler(file))
        logger.info("x")
        logger.handlers[0].setStream(sys.stderr)
        logger.info("y")
        del logger.handlers[0].stream
        file.getvalue(), hasattr(logger.handlers[0], "stream")
        """
    result = await session.run(cell(code))
    assert (result.error, result.value, result.stderr) == (None, ("x\n", False), "y\n")


@requirement("6.1-logging")
async def test_basic_config_in_a_cell_works(session: AnySession) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    code = "import logging\nlogging.basicConfig(force=True, level=logging.INFO, format='%(message)s')\nlogging.info('hello')"
    with mock.patch.object(root, "handlers", []):
        try:
            result = await session.run(code)
        finally:
            root.setLevel(level)
    assert root.handlers == handlers
    assert (result.error, result.stderr) == (None, "hello\n")


# -- after the end ---------------------------------------------------------------------------------


@requirement("6.1-output")
async def test_a_cells_stream_outlives_its_session_and_follows_the_host(make_session: Any) -> None:
    session = make_session("ended")
    stream = await session.execute("import sys; sys.stdout")
    await session.close()
    with contextlib.redirect_stdout(io.StringIO()) as file:
        print("kept", file=stream)
        stream.flush()
        assert file.getvalue() == "kept\n"
        file.close()
        with pytest.raises(ValueError, match="closed file"):
            print("as ever", file=stream)
        stream.flush()


@requirement("6.1-output")
def test_a_forked_child_prints_to_the_process() -> None:
    program = """
        import asyncio, os, sys
        from isthmus import Session

        CELL = '''
        import os, sys
        print("parent")
        child = os.fork()
        if not child:
            print("child", type(sys).__name__)
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)
        '''

        async def main():
            async with Session() as session:
                result = await session.run(CELL)
                print("result:", result.stdout.split(), result.error)

        asyncio.run(main())
        """
    ended = run_in_child(program)
    assert ended.stdout == "child module\nresult: ['parent'] None\n", ended


@requirement("6.1-output")
def test_a_stream_is_found_though_its_place_is_taken() -> None:
    standard = StandardStream("stdout")
    assert standard.original is sys.stdout
    assert standard.routed.write("") == 0
    with in_job() as output:
        print("x", file=standard.routed)
        assert output.text("stdout") == "x\n"
