"""Every test of the contract runs on every flavour of event loop."""

from __future__ import annotations

import asyncio
import functools
import sys

import pytest

from support import make_runner

_FLAVOURS = [
    "asyncio",
    "debug",
    pytest.param(
        "eager",
        marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks: Python 3.12"),
    ),
    "uvloop",
]


@functools.cache
def _warm_up_uvloop() -> None:
    """Have uvloop open the pair of descriptors that it keeps for the life of the process."""
    with make_runner("uvloop") as runner:
        runner.run(asyncio.sleep(0))


@pytest.fixture(autouse=True, params=_FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    """The kind of event loop that the test runs in."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
        _warm_up_uvloop()
    return str(request.param)
