"""What belongs to a process and not to a module of it: written down, and put back. Owns the list.

Refuses to know: sessions; what can only be found (:mod:`isthmus.worker.remains`).

Threads: the main thread, which alone may set signal handlers.
"""

from __future__ import annotations

import asyncio
import builtins
import gc
import locale
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)

_Setting = tuple[Callable[[], Any], Callable[[Any], object]]
"""What reads it, and what sets it to what was read."""


class ProcessState:
    """What the process and its event loop are like when this is made.

    Arguments:
        loop: The event loop, which runs here.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = [(write, read()) for read, write in (*_SETTINGS, *_settings_of(loop))]
        self._dicts = [(it, dict(it)) for it in (vars(sys), vars(builtins))]
        lists: tuple[list[Any], ...] = (sys.path, sys.argv, logging.root.handlers)
        self._lists = [(it, list(it)) for it in lists]
        self._modules = dict(sys.modules)
        self._folders = tuple(os.path.join(os.path.abspath(it), "") for it in sys.path)
        self._warnings = _kept_warnings()

    def put_back(self) -> None:
        """Let all of it be what it was.

        Raises whatever stands in the way: code of anybody's may have changed anything.
        """
        for changed, kept in self._dicts:  # first: the functions below are found in there
            _put_back_dict(changed, kept)
        for each, items in self._lists:
            each[:] = items
        for write, value in self._settings:
            write(value)
        self._warnings.__exit__(None, None, None)
        self._warnings = _kept_warnings()
        self._put_back_modules()
        reseed()

    def _put_back_modules(self) -> None:
        """Let modules that were there be there, and forget those from folders that are gone.

        Others that were imported stay: they are what the next session would import as well.
        """
        for name, module in [*sys.modules.items()]:
            if name not in self._modules and not self._would_be_found(module):
                del sys.modules[name]
        for name, module in self._modules.items():
            if sys.modules.get(name) is not module:
                sys.modules[name] = module
        self._modules = dict(sys.modules)

    def _would_be_found(self, module: ModuleType | None) -> bool:
        """Whether it has come from where modules are looked for now, or from no file."""
        if module is None:  # there is to be none of this name
            return False
        spec = getattr(module, "__spec__", None)
        if spec is None or not spec.has_location:
            return True
        return os.path.abspath(str(spec.origin)).startswith(self._folders)


def set_environment(env: Mapping[bytes, bytes]) -> None:
    """Let the environment be *env*; what is the same is not touched."""
    for name in set(os.environb) - set(env):
        del os.environb[name]
    for name, value in env.items():
        if os.environb.get(name) != value:
            os.environb[name] = value
    time.tzset()


def reseed() -> None:
    """Give those who ask for random numbers others than anybody else has."""
    for name in ("random", "numpy.random"):
        module = sys.modules.get(name)
        if module is not None:
            module.seed()


def _put_back_dict(changed: dict[str, Any], kept: dict[str, Any]) -> None:
    for name in changed.keys() - kept.keys():
        del changed[name]
    for name, value in kept.items():
        if changed.get(name) is not value:
            changed[name] = value


def _kept_warnings() -> warnings.catch_warnings[None]:
    kept = warnings.catch_warnings()
    kept.__enter__()
    return kept


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _handlers() -> dict[int, Any]:
    """Of each signal; those that were not set from Python are left out."""
    found = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return {number: handler for number, handler in found.items() if handler is not None}


def _set_handlers(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if signal.getsignal(number) != handler:
            signal.signal(number, handler)


def _stop_timers(_: None) -> None:
    for timer in _TIMERS:
        signal.setitimer(timer, 0)


def _settings_of(loop: asyncio.AbstractEventLoop) -> tuple[_Setting, ...]:
    return (
        (loop.get_debug, loop.set_debug),
        (loop.get_exception_handler, loop.set_exception_handler),
        (loop.get_task_factory, loop.set_task_factory),
    )


_SETTINGS: tuple[_Setting, ...] = (
    (lambda: (os.environ, os.environb), lambda it: vars(os).update(environ=it[0], environb=it[1])),
    (lambda: dict(os.environb), set_environment),
    (os.getcwd, os.chdir),
    (_umask, os.umask),
    (lambda: None, _stop_timers),
    (_handlers, _set_handlers),
    (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        lambda mask: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
    ),
    (lambda: locale.setlocale(locale.LC_ALL), lambda it: locale.setlocale(locale.LC_ALL, it)),
    (socket.getdefaulttimeout, socket.setdefaulttimeout),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (sys.getswitchinterval, sys.setswitchinterval),
    (sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    (sys.get_coroutine_origin_tracking_depth, sys.set_coroutine_origin_tracking_depth),
    (sys.get_asyncgen_hooks, lambda hooks: sys.set_asyncgen_hooks(*hooks)),
    (sys.gettrace, sys.settrace),
    (sys.getprofile, sys.setprofile),
    (threading.gettrace, threading.settrace),
    (threading.getprofile, threading.setprofile),
    (lambda: threading.excepthook, lambda hook: setattr(threading, "excepthook", hook)),
    (gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    (gc.get_threshold, lambda counts: gc.set_threshold(*counts)),
    (gc.get_debug, gc.set_debug),
    (
        lambda: list(gc.callbacks),
        lambda callbacks: gc.callbacks.__setitem__(slice(None), callbacks),
    ),
    (lambda: logging.root.level, logging.root.setLevel),
    (lambda: logging.root.manager.disable, logging.disable),
)
"""In the order in which they are set."""
