"""What a session does to its process: what is put back for the next one, what makes it unfit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pools import rows, runs, use

from isthmus import WorkerPool
from support import cell

requirement = pytest.mark.requirement

# -- what is put back ------------------------------------------------------------------------------

TRACES: dict[str, tuple[str, str]] = {
    "a name": ("x = 1", "'x' in globals()"),
    "a name over a builtin": ("len = None", "len([1])"),
    "the last values": ("41", "'_' in globals()"),
    "a future statement": ("from __future__ import annotations", "(lambda: 1).__code__.co_flags"),
    "a builtin": (
        "import builtins; builtins.more = 1; builtins.sum = max; del builtins.abs",
        "import builtins; hasattr(builtins, 'more'), sum([1, 2]), abs(-1)",
    ),
    "a folder of modules": ("import sys; sys.path.insert(0, '/x')", "import sys; list(sys.path)"),
    "another list of them": ("import sys; sys.path = ['/x']", "import sys; list(sys.path)"),
    "arguments": ("import sys; sys.argv.append('x')", "import sys; list(sys.argv)"),
    "an attribute of sys": (
        "import sys; sys.more = 1; sys.dont_write_bytecode = True",
        "import sys; hasattr(sys, 'more'), sys.dont_write_bytecode",
    ),
    "the working directory": ("import os; os.chdir('/')", "import os; os.getcwd()"),
    "the environment": (
        "import os; os.environ['ISTHMUS_X'] = '1'; del os.environ['PATH']",
        "import os; dict(os.environ)",
    ),
    "another environment": ("import os; os.environ = {}", "import os; dict(os.environ)"),
    "the mask of new files": (
        "import os; os.umask(0o057)",
        "import os; mask = os.umask(0); os.umask(mask); mask",
    ),
    "a handler of a signal": (
        "import signal; signal.signal(signal.SIGUSR1, signal.SIG_IGN)",
        "import signal; signal.getsignal(signal.SIGUSR1)",
    ),
    "a handler of ours": (
        "import signal; signal.signal(signal.SIGURG, signal.SIG_IGN)",
        "import signal; callable(signal.getsignal(signal.SIGURG))",
    ),
    "a blocked signal": (
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})",
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, ())",
    ),
    "an alarm": (
        "import signal; signal.setitimer(signal.ITIMER_REAL, 3600)",
        "import signal; signal.getitimer(signal.ITIMER_REAL)",
    ),
    "a stream": (
        "import sys, io; sys.stdout = sys.__stdout__ = io.StringIO()",
        "import sys; type(sys.__stdout__).__name__, sys.stdout.fileno()",
    ),
    "hooks": (
        "import sys, threading; sys.excepthook = sys.displayhook = threading.excepthook = print",
        "import sys, threading; print in (sys.excepthook, sys.displayhook, threading.excepthook)",
    ),
    "limits of the interpreter": (
        "import sys; sys.setrecursionlimit(555); sys.setswitchinterval(0.1)",
        "import sys; sys.getrecursionlimit(), sys.getswitchinterval()",
    ),
    "the collector": (
        "import gc; gc.disable(); gc.set_threshold(1); gc.callbacks.append(print)",
        "import gc; gc.isenabled(), gc.get_threshold(), print in gc.callbacks",
    ),
    "tracing": (
        "import threading; threading.settrace(print); threading.setprofile(print)",
        "import threading; threading.gettrace(), threading.getprofile()",
    ),
    "filters of warnings": (
        "import warnings; warnings.simplefilter('error'); warnings.showwarning = print",
        "import warnings; list(warnings.filters), warnings.showwarning is print",
    ),
    "logging": (
        "import logging; logging.basicConfig(level=5); logging.disable(50)",
        "from logging import root; len(root.handlers), root.level, root.manager.disable",
    ),
    "a timeout of sockets": (
        "import socket; socket.setdefaulttimeout(3)",
        "import socket; socket.getdefaulttimeout()",
    ),
    "the locale": (
        "import locale; locale.setlocale(locale.LC_ALL, 'C')",
        "import locale; locale.setlocale(locale.LC_ALL)",
    ),
    "a context variable": (
        "import decimal; decimal.getcontext().prec = 3",
        "import decimal; decimal.getcontext().prec",
    ),
    "a context variable of a thread": (
        "await asyncio.to_thread(lambda: __import__('decimal').getcontext().prec)",
        "import threading; threading.active_count()",
    ),
    "a task": (
        "left = asyncio.create_task(asyncio.sleep(3600), name='left')",
        "'left' in [it.get_name() for it in asyncio.all_tasks()]",
    ),
    "a coroutine": ("left = asyncio.sleep(3600)", "len(asyncio.all_tasks())"),
    "timers": (
        cell("""
            import contextvars
            loop = asyncio.get_running_loop()
            loop.call_later(3600, lambda: None)
            loop.call_later(1, print, context=contextvars.Context())
        """),
        "len(asyncio.get_running_loop()._scheduled)",
    ),
    "settings of the loop": (
        cell("""
            loop = asyncio.get_running_loop()
            loop.set_debug(True)
            loop.set_exception_handler(print)
            loop.set_task_factory(None)
        """),
        cell("""
            loop = asyncio.get_running_loop()
            loop.get_debug(), loop.get_exception_handler() is print, loop.get_task_factory() is None
        """),
    ),
    "modules": (
        "import sys, json; del sys.modules['json']; sys.modules['os'] = json",
        "import sys; sys.modules['os'].getcwd(), 'json' in sys.modules",
    ),
    "the main module": (
        "import sys; sys.modules['__main__'] = asyncio",
        "import sys; vars(sys.modules['__main__']) is globals()",
    ),
    "a weak reference to an object": (
        "class Thing: pass\nimport weakref, enum; thing = Thing(); enum.ref = weakref.ref(thing)",
        "import enum; getattr(enum, 'ref', lambda: None)()",
    ),
}
"""What a session does, and what the next one looks at."""


@requirement("7.7-reset")
async def test_nothing_of_one_session_is_seen_by_the_next(one: WorkerPool) -> None:
    async with one as pool:
        before = {name: await use(pool, look) for name, (_, look) in TRACES.items()}
        for name, (act, look) in TRACES.items():
            await use(pool, act)
            assert (name, await use(pool, look)) == (name, before[name]), pool.stats().last_unfit
        stats = pool.stats()
        assert (stats.served, stats.reused) == (3 * len(TRACES), 3 * len(TRACES) - 1)
        assert (stats.started, stats.unfit, stats.died, stats.in_use) == (1, 0, 0, 0)


@requirement("7.7-reset")
async def test_modules_stay_imported_but_not_those_from_folders_of_one_session(
    one: WorkerPool, tmp_path: Path
) -> None:
    (tmp_path / "helpers.py").write_text("mine = True")
    look = "import sys; [it in sys.modules for it in ('plistlib', 'helpers', 'made_by_hand')]"
    async with one as pool:
        pid, (before, _, after) = await use(
            pool,
            look,
            f"sys.path.append({str(tmp_path)!r}); import plistlib, helpers, types; "
            "sys.modules['made_by_hand'] = types.ModuleType('made_by_hand')",
            look,
        )
        assert (before, after) == ([False] * 3, [True] * 3)
        assert await use(pool, look) == (pid, [[True, False, True]])
        await use(pool, "import sys; sys.modules['plistlib'] = None; sys.modules['wave'] = None")
        assert await use(pool, "import plistlib, wave; plistlib.__name__") == (pid, ["plistlib"])


@requirement("7.7-reset")
async def test_random_numbers_are_no_continuation_of_others(one: WorkerPool) -> None:
    ask = "import random; random.random()"
    async with one as pool:
        _, (_, foreseen) = await use(pool, "import random; random.seed(1)", ask)
        await use(pool, "import random; random.seed(1)")
        _, (found,) = await use(pool, ask)
        assert found != foreseen


# -- what cannot be put back -----------------------------------------------------------------------


UNFIT: dict[str, tuple[str, str]] = {
    "a thread": (
        "import threading, time; threading.Thread(target=time.sleep, args=(60,), name='t').start()",
        "thread 't'",
    ),
    "a thread of nobody": (
        cell("""
            import _thread, time
            runs = _thread.allocate_lock()
            runs.acquire()

            def run():
                runs.release()
                time.sleep(60)

            number = _thread.start_new_thread(run, ())
            with runs:  # it is counted from then on
                pass
        """),
        "a thread that threading does not know of",
    ),
    "a task": (
        cell("""
            async def stubborn():
                while True:
                    try:
                        await asyncio.sleep(3600)
                    except asyncio.CancelledError:
                        pass
            task = asyncio.create_task(stubborn(), name="stubborn")
            await asyncio.sleep(0)
        """),
        "task 'stubborn'",
    ),
    "a child": ("import subprocess; child = subprocess.Popen(['sleep', '60'])", "child processes"),
    "a grandchild": (
        "import subprocess; subprocess.run('sleep 60 >/dev/null 2>&1 &', shell=True)",
        "child processes",
    ),
    "a file": ("import os; os.open('/dev/null', os.O_RDONLY)", "descriptor"),
    "another stdout": ("import os; os.dup2(0, 1)", "descriptor 1"),
    "limits": ("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (50, 60))", "limits"),
    "a changed module": (
        "def mine(): pass\nimport enum; enum.changed = mine",
        "what the session has defined is held by .*module enum|function mine",
    ),
    "an object of a class": (
        "class Mine:\n    def f(self): pass\nimport enum; enum.changed = Mine()",
        "what the session has defined is held",
    ),
    "a function for the end": (
        "import atexit; atexit.register(lambda: None)",
        "what the session has defined is held",
    ),
    "an object of the host": (
        "import enum; enum.rows = rows(); await anext(enum.rows)",
        "objects of the host are in use",
    ),
    "a stream that is closed": ("import sys; sys.__stdout__.close()", "it cannot be what it was"),
}
"""What a session leaves, and why its worker is then fit for no other one."""


@requirement("7.7-reset")
async def test_a_worker_that_cannot_be_what_it_was_is_replaced(one: WorkerPool) -> None:
    async with one as pool:
        for name, (act, why) in UNFIT.items():
            session = await pool.acquire(capabilities=[rows])
            pid = session.pid
            await session.execute(act)
            await session.close(timeout=0.1)
            found = pool.stats().last_unfit
            assert re.search(why, found), (name, found)
            assert not runs(pid), name
        stats = pool.stats()
        assert (stats.unfit, stats.reused, stats.died) == (len(UNFIT), 0, 0)
